"""The LMDB index: commits, lookups, rebuilding byte for byte, and damage of every kind."""

import random
import shutil
import sys
from pathlib import Path

import lmdb
import pytest

from engine.bundle_reader import BundleReader
from engine.index import Index, check_in_child
from engine.index_check import problems
from engine.index_rebuild import catch_up, removal_of
from engine.manifest_log import ManifestLog
from formats import chunk, index_value
from formats.chunk import ChunkKey
from formats.errors import CorruptionError
from formats.index_value import Cut, RelationState
from tests.fixtures import bundles
from tests.fixtures.stopped_directory import (
    GONE,
    REL,
    STRIPE,
    StoppedDirectory,
    base_backup,
    fill,
    flushes,
)


@pytest.fixture
def directory(tmp_path: Path) -> StoppedDirectory:
    return StoppedDirectory(tmp_path)


def test_what_was_committed_is_found(directory: StoppedDirectory) -> None:
    fill(directory)
    index = directory.index
    assert index.state.durable_lsn == 140
    assert [name for name, _ in index.l0()] == [bundles.l0(3), bundles.l0(2)]
    (layer,) = index.stripe(REL.pack(), 0)
    assert (layer.lsn_start, layer.lsn_end, layer.file) == (100, 101, bundles.image_bundle(1))
    assert (layer.block_start, layer.block_end) == (0, 2)
    assert index.stripe(REL.pack(), 7)[0].block_start == 131071
    assert index.stripe(REL.pack(), 3) == ()
    assert index.stripe(GONE.pack(), 0) == ()
    assert set(index.files()) == {bundles.image_bundle(1), bundles.l0(2), bundles.l0(3)}
    assert index.file(bundles.l0(2)).lsn_end == 121


def test_relations_as_of_the_durable_lsn(directory: StoppedDirectory) -> None:
    fill(directory)
    relations = dict(directory.index.relations())
    assert relations == {
        REL: RelationState(131, 7, True, (Cut(131, 7, True),)),
        GONE: RelationState(140, 0, False, (Cut(111, 0, True), Cut(140, 0, False))),
    }
    assert directory.index.relation(REL.pack()) == relations[REL]
    assert directory.index.relation(chunk.relation(1, 2, 3, 0).pack()) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_rebuilt_index_equals_the_lost_one(directory: StoppedDirectory, seed: int) -> None:
    """Random histories; some bundles come in an order that is not that of their LSNs."""
    rng = random.Random(seed)
    written = []
    for number in range(12):
        name = bundles.image_bundle(number) if rng.random() < 0.4 else bundles.l0(number)
        versions = []
        for _ in range(rng.randrange(1, 40)):
            key = ChunkKey(1, 1663, 5, rng.randrange(16384, 16389), rng.randrange(3), 0)
            lsn = 100 * rng.randrange(1, 20) + number  # no two bundles share an LSN
            state = bundles.history(rng.random() < 0.8, rng.randrange(100))
            versions.append((key.history().pack(), rng.randrange(2), lsn, state))
            block = rng.randrange(8) * STRIPE + rng.randrange(3)
            versions.append((key.pack(), block, lsn, bundles.record(rng.randbytes(9))))
        directory.flush(name, versions)
        written.append(name)
    for name in rng.sample(written, 3):
        directory.remove(name)
    catch_up(directory.index, directory.storage, directory.manifest.state, directory.layers)
    lost = directory.index.dump()
    rebuilt = directory.open_index("rebuilt").dump()
    del lost["relations"], rebuilt["relations"]  # history of removed files is gone with them
    for found in (lost, rebuilt):
        del found["meta"][index_value.sum_key(index_value.RELATIONS)]
    assert rebuilt == lost
    assert list(problems(directory.root / "rebuilt")) == []


def test_a_rebuilt_index_equals_the_lost_one_with_relations(directory: StoppedDirectory) -> None:
    fill(directory)
    assert directory.open_index("rebuilt").dump() == directory.index.dump()


def test_an_index_that_is_behind_catches_up(directory: StoppedDirectory) -> None:
    directory.flush(bundles.image_bundle(1), base_backup())
    for number, versions in enumerate(flushes()):
        directory.write(bundles.l0(number + 2), versions)  # crashed before the index's commit
    assert directory.index.state.durable_lsn == 100
    directory.index.close()
    index = directory.open_index("index")
    assert index.dump() == directory.open_index("rebuilt").dump()
    assert index.state.durable_lsn == 140


def test_an_index_ahead_of_the_manifest_is_an_error(directory: StoppedDirectory) -> None:
    whole = (directory.root / "manifest").read_bytes()
    fill(directory)
    directory.index.close()
    (directory.root / "manifest").write_bytes(whole)
    directory.manifest = ManifestLog.open(directory.storage, directory.root / "manifest")
    with pytest.raises(CorruptionError, match="the manifest has lost entries"):
        directory.open_index("index")


@pytest.mark.parametrize("change", ["bytes", "name", "gone"])
def test_a_file_that_is_not_the_manifests_is_refused(
    directory: StoppedDirectory, change: str
) -> None:
    info = directory.write(bundles.l0(1), flushes()[0])
    path = directory.layers / info.name.text
    if change == "bytes":
        path.write_bytes(path.read_bytes()[:-1])
    elif change == "name":
        other = bundles.write(directory.layers, bundles.l0(2), flushes()[1])
        shutil.copy(directory.layers / other.name.text, path)
    else:
        path.unlink()
    with pytest.raises((CorruptionError, FileNotFoundError), match=info.name.text):
        directory.open_index("rebuilt")


def values_of(directory: StoppedDirectory) -> Path:
    fill(directory)
    directory.index.close()
    return directory.root / "index"


def change_value(path: Path, database: str, change: str) -> None:
    with lmdb.open(str(path), max_dbs=6) as environment:
        handle = environment.open_db(database.encode())
        with environment.begin(write=True, db=handle) as transaction:
            key, value = next(iter(transaction.cursor()))
            if change == "lost":
                transaction.delete(key)
            elif change == "flipped":
                transaction.put(key, value[:-1] + bytes([value[-1] ^ 1]))
            elif change == "cut":
                transaction.put(key, value[:-1])
            else:
                transaction.put(bytes([key[0] ^ 1]) + key[1:], value)


@pytest.mark.parametrize("change", ["lost", "flipped", "cut", "moved"])
@pytest.mark.parametrize("database", ["l0", "layers", "files", "chunks", "relations", "meta"])
def test_a_changed_value_is_noticed_at_open(
    directory: StoppedDirectory, database: str, change: str
) -> None:
    path = values_of(directory)
    assert list(problems(path)) == []
    change_value(path, database, change)
    assert list(problems(path)) != []
    with pytest.raises(CorruptionError, match="layertool reindex"):
        directory.open_index("index")


def test_a_value_that_changes_while_open_is_noticed(directory: StoppedDirectory) -> None:
    """As when LMDB's file rots under a running server: no lookup takes it for an answer."""
    fill(directory)
    index = directory.index
    with index._environment.begin(write=True) as transaction:
        for database, handle in index._databases.items():
            if database != index_value.META:
                for key, _ in list(transaction.cursor(db=handle)):
                    transaction.delete(key, db=handle)
    for lookup in (
        lambda: index.stripe(REL.pack(), 0),
        lambda: index.file(bundles.l0(2)),
        lambda: index.relation(REL.pack()),
        lambda: list(index.relations()),
    ):
        with pytest.raises(CorruptionError):
            lookup()


def test_a_damaged_lmdb_file_is_noticed_or_harmless(directory: StoppedDirectory) -> None:
    """Flipped bytes, and a file cut short: an error that says what to do, or the same answers."""
    path = values_of(directory)
    whole = (path / "data.mdb").read_bytes()
    before = directory.open_index("index").dump()
    rng = random.Random(1)
    outcomes = {"noticed": 0, "harmless": 0}
    for number in range(30):
        if number < 24:
            broken = bytearray(whole)
            for _ in range(8):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        else:
            broken = bytearray(whole[: 4096 * rng.randrange(1, len(whole) // 4096)])
        (path / "data.mdb").write_bytes(broken)
        (path / "lock.mdb").unlink(missing_ok=True)
        try:
            check_in_child(path)
        except CorruptionError:
            outcomes["noticed"] += 1
            continue
        index = Index(path)
        assert index.dump() == before
        index.close()
        outcomes["harmless"] += 1
    assert outcomes["noticed"] > 5


def test_an_index_that_kills_its_reader_is_an_error(
    directory: StoppedDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB trusts its pages: damaged ones may end the process that reads them."""
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -SEGV $$\n")
    killed.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(CorruptionError, match=r"layertool reindex.*status -11 \(SIGSEGV: "):
        directory.open_index("index")


def test_nothing_half_done_by_a_commit_that_fails(directory: StoppedDirectory) -> None:
    fill(directory)
    before = directory.index.dump()
    with pytest.raises(ValueError, match="not in"):
        directory.index.commit(99, 999, removed=_broken(directory))
    assert directory.index.dump() == before
    assert directory.index.state.durable_lsn == 140
    assert directory.index.stripe(REL.pack(), 0)


def _broken(directory: StoppedDirectory):  # type: ignore[no-untyped-def]
    name = bundles.image_bundle(1)
    reader = BundleReader(directory.storage, directory.layers / name.text)
    yield removal_of(reader, None, is_l0=False)
    raise ValueError("a name that is not in the manifest")


def test_a_check_says_what_it_does_and_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start waits for it: who looks must see for what, and no longer than the index is large."""
    Index(tmp_path).close()
    size = (tmp_path / "data.mdb").stat().st_size / (1 << 20)
    with caplog.at_level("INFO", "pageserver.index"):
        assert check_in_child(tmp_path)
    assert caplog.messages == [
        f"checking the index, {size:.1f} MiB, for at most 60 s",
        "the index is sound",
    ]
    monkeypatch.setattr("engine.index.CHECK_SECONDS_MIN", 0.01)
    with pytest.raises(CorruptionError, match="none after 0.01 s"):
        check_in_child(tmp_path)
