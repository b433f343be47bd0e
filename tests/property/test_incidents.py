"""What happened to others, as far as it concerns files of one machine: by name, so that it stays
known why a rule is there. `Neon 12043` is neondatabase/neon #12043.
"""

import errno
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb
import pytest

from engine import directory_check, index_rebuild
from engine.directory_check import check_directory
from engine.page_store import PageStore
from engine.storage import DirectoryInUseError, File, Storage
from formats import manifest as layout
from formats.chunk import relation as relation_key
from formats.errors import CorruptionError
from formats.manifest_record import FileRemoved
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.small_store import (
    MEMORY_BYTES,
    REL,
    SmallStore,
    create,
    heap_page,
    image,
    insert,
)
from tests.fixtures.wal_builder import Record

Fill = Callable[[FaultyStorage], tuple[SmallStore, list[int]]]


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (index_rebuild, directory_check):  # a process each time, and LMDB is sound here
        monkeypatch.setattr(module, "check_in_child", lambda path: True)


@pytest.fixture
def fill(fast_directory: Path) -> Fill:
    """A store with one flush behind it, and a memtable to flush; the LSNs of the two."""

    def make(storage: FaultyStorage) -> tuple[SmallStore, list[int]]:
        pages = [(relation_key(*REL, 0), [heap_page(1), heap_page(2)])]
        small = SmallStore(fast_directory, pages, storage=storage)
        lsns = [small.put(image(0, 10), image(3, 13))]
        small.flush()
        lsns.append(small.put(image(0, 20), image(4, 24)))
        return small, lsns

    return make


def check(small: SmallStore, lsns: list[int]) -> None:
    first, second = lsns
    assert [small.mark(block, first) for block in (0, 1, 3)] == [10, 2, 13]
    assert [small.mark(block, second) for block in (0, 1, 3, 4)] == [20, 2, 13, 24]


def die(small: SmallStore) -> None:
    """The machine's end, before the storage's `crash`: nothing more is written."""
    small.store.layers.index.close()


@pytest.mark.parametrize("call", ["create", "append", "sync", "sync_directory", "commit"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_neon_12043_a_flush_that_failed_moved_the_durable_lsn(
    fill: Fill, call: str, error: int
) -> None:
    """Its WAL was trimmed, and data lost. Here: nothing is reported, no journal goes."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    storage.fail(call, error)
    start = small.store.journal.start_lsn
    with pytest.raises((OSError, lmdb.Error)):
        small.flush()
    assert not storage.has_fault
    assert small.store.durable_lsn == lsns[0]
    assert small.store.status()["durable_lsn"] == f"{lsns[0] >> 32:X}/{lsns[0] & 0xFFFFFFFF:X}"
    assert small.store.journal.start_lsn == start
    check(small, lsns)
    die(small)
    storage.crash(Random(error))
    small.open(storage)
    assert small.ingest() == lsns[1]
    check(small, lsns)
    small.let_go()


def test_neon_12217_another_stripe_size_was_taken_for_the_same(
    fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads went astray without a word. Here the layout is in the manifest, and is compared."""
    small, _ = fill(FaultyStorage())
    small.let_go()
    monkeypatch.setattr(layout, "STRIPE_BLOCKS", 8192)
    with pytest.raises(CorruptionError, match=r"stripe_blocks.*expected 8192, found 16384"):
        small.open()


def test_neon_5635_the_index_names_a_layer_that_is_gone(fill: Fill) -> None:
    """A crash between the removal of a file and the index: the manifest says which is right."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    small.flush()
    newest = max(small.store.manifest.state.files)
    small.let_go()
    small.open(storage)
    small.store.manifest.append(FileRemoved(newest.text))
    storage.remove(small.directory / "layers" / newest.text)
    small.let_go()
    small.open(storage)
    assert newest not in small.store.layers.index.files()
    assert small.mark(0, lsns[0]) == 10
    small.let_go()


@pytest.mark.parametrize("seed", range(8))
def test_neon_4326_a_removal_was_lost_by_a_crash(fill: Fill, seed: int) -> None:
    """The file is there again, and nobody names it: the next start removes it, for good."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    layers = small.directory / "layers"
    newest = max(small.store.manifest.state.files)
    small.store.manifest.append(FileRemoved(newest.text))
    storage.remove(layers / newest.text)
    die(small)
    storage.crash(Random(seed))
    small.open(storage)
    assert not (layers / newest.text).exists()
    small.ingest()
    small.flush()
    assert small.mark(4, lsns[1]) == 24
    named = {name.text for name in small.store.manifest.state.files}
    assert {path.name for path in layers.iterdir()} == named
    small.let_go()


class NamesKept(FaultyStorage):
    """Remembers which bundles were created, over all crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.created: list[str] = []

    def create(self, path: Path) -> File:
        file = super().create(path)
        if path.parent.name == "layers":
            self.created.append(path.name)
        return file


@pytest.mark.parametrize("seed", range(6))
def test_neon_5890_a_late_removal_met_a_new_file_of_the_same_name(
    fast_directory: Path, seed: int
) -> None:
    """No name comes twice, whatever crashes: so no removal can meet another file."""
    random, storage = Random(seed), NamesKept()
    small = SmallStore(fast_directory, storage=storage)
    small.put(create())
    for number in range(15):
        storage.crash_at = storage.calls + random.randrange(25)
        try:
            small.put(image(number % 5, number + 1))
            small.flush()
        except CrashError:
            die(small)
            storage.crash(random)
            small.open(storage)
            small.fed = small.store.journal.received_lsn
            small.ingest()
        storage.crash_at = -1
    assert len(storage.created) > 8
    assert len(set(storage.created)) == len(storage.created)
    small.let_go()


@pytest.mark.parametrize("room", [0, 1, 100, 700])
def test_neon_3268_layers_were_missing_after_a_full_disk(fill: Fill, room: int) -> None:
    """Wherever it gets full: no layer is named that is not whole, reads go on, room is enough."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    storage.room = room
    with pytest.raises((OSError, lmdb.Error), match="No space left"):
        small.flush()
    assert small.store.durable_lsn == lsns[0]
    check(small, lsns)
    storage.room = None
    small.let_go()
    small.open(storage)
    assert small.ingest() == lsns[1]
    assert small.flush() == lsns[1]
    check(small, lsns)
    named = {name.text for name in small.store.manifest.state.files}
    assert {path.name for path in (small.directory / "layers").iterdir()} == named
    small.let_go()


def test_neon_7790_a_layer_was_there_twice(fill: Fill) -> None:
    """A flush whose index commit failed comes again, as another file: the same answers."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    end = small.put(insert(0, 1, b"one"), insert(0, 2, b"two"))
    once = small.page(0, end)
    storage.fail("commit", errno.EIO)
    with pytest.raises(lmdb.Error):
        small.flush()
    assert small.flush() == end
    assert len({file.lsn_end for file in small.store.manifest.state.files.values()}) < len(
        small.store.manifest.state.files
    )
    for _ in range(2):
        check(small, lsns)
        assert small.page(0, end) == once
        small.reopen(storage)
    small.let_go()


@pytest.mark.parametrize("seed", range(60))
def test_neon_10304_what_a_crash_leaves_was_reported_as_damage(
    fill: Fill, tmp_path: Path, seed: int
) -> None:
    """A directory as a crash left it, never started since, has no faults for `verify`."""
    random, storage = Random(seed), FaultyStorage()
    small, _ = fill(storage)
    storage.crash_at = storage.calls + random.randrange(14)
    try:
        small.flush()
        small.put(image(7, 70))
        small.store.manifest.compact()
    except CrashError:
        pass
    die(small)
    storage.crash(random)
    findings = check_directory(Storage(), small.directory, tmp_path)
    assert [str(found) for found in findings if found.is_fault] == []


def test_slatedb_1622_a_stale_process_removed_what_another_needs(fill: Fill) -> None:
    """Here nobody is stale while it lives: the second process is refused, having changed nothing;
    and a journal goes only below what the manifest on disk says."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    before = {path: path.read_bytes() for path in small.directory.rglob("*") if path.is_file()}
    with pytest.raises(DirectoryInUseError):
        PageStore(small.directory, MEMORY_BYTES)
    assert {path: path.read_bytes() for path in before} == before
    storage.fail("sync", errno.EIO, name="manifest")
    with pytest.raises(OSError, match="Input/output error"):
        small.flush()
    assert small.store.journal.trim(small.store.durable_lsn) == 0
    assert small.store.durable_lsn == lsns[0]
    check(small, lsns)
    small.let_go()


@pytest.mark.parametrize("seed", range(4))
def test_neon_layers_from_the_future(fill: Fill, seed: int) -> None:
    """Images of a copied database are in the manifest before the durable LSN is there: after a
    crash the copy's record comes again, over its own images."""
    storage = FaultyStorage()
    small, lsns = fill(storage)
    copied = (1663, 9, REL[2])
    end = small.put(Record(4, 0x00, main=struct.pack("<4I", copied[1], 1663, REL[1], 1663)))
    assert max(file.lsn_end for file in small.store.manifest.state.files.values()) > lsns[1]
    assert small.store.durable_lsn == lsns[0]
    assert small.mark(0, end, copied) == 20
    die(small)
    storage.crash(Random(seed))
    small.open(storage)
    assert small.store.durable_lsn == lsns[0]
    assert small.ingest() == end
    for _ in range(2):
        check(small, lsns)
        assert small.mark(0, end, copied) == 20
        with pytest.raises(LookupError):
            small.mark(0, lsns[1], copied)
        small.flush()
        small.reopen(storage)
    small.let_go()
