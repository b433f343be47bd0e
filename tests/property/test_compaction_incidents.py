"""What happened to others when layers were merged and removed: by name, so that it is known why a
rule is there. `Neon 4580` is neondatabase/neon #4580. See also test_incidents.py.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from engine import index_rebuild
from engine.compaction_policy import Policy
from engine.page_store import PageStore
from engine.storage import File, PoisonedFileError
from formats.chunk import relation as relation_key
from formats.file_name import FileKind, FileName
from formats.layer_file import LayerKind
from formats.manifest_record import Progress
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.rebuilt_index import check_index
from tests.fixtures.small_store import SmallStore, create, image
from tests.fixtures.wal_builder import MIB, Record

RELATIONS = [(1663, 5, 16384 + number) for number in range(4)]
MERGES = Policy(l0_bundles_merged_min=2, own_file_bytes_min=1, debt_bytes_min=1 << 40,
                debt_versions_per_block=1 << 40)  # fmt: skip
IMAGES = replace(MERGES, debt_bytes_min=1, debt_per_image_byte=0.01)
STEPS_MAX = 200


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


class Watched(FaultyStorage):
    """Remembers the calls that change the disk, and holds one where it is told to."""

    def __init__(self) -> None:
        super().__init__(keep_index=True)
        self.log: list[tuple[str, str]] = []
        self.before_remove: Callable[[Path], None] = lambda path: None

    def create(self, path: Path) -> File:
        self.log.append(("create", path.name))
        return super().create(path)

    def remove(self, path: Path) -> None:
        self.before_remove(path)
        super().remove(path)
        self.log.append(("remove", path.name))

    def _flush(self, file: File) -> None:
        super()._flush(file)
        self.log.append(("sync", file.path.name))

    def committing(self, path: Path):
        self.log.append(("commit", path.name))
        return super().committing(path)

    def created(self, kind: FileKind) -> list[str]:
        start = FileName(kind, 0, 0, 0).text.split("-")[0]
        return [name for call, name in self.log if call == "create" and name.startswith(start)]


def write(small: SmallStore, number: int) -> int:
    """Two pages of each relation, flushed; the LSN at which they are there."""
    for relation in RELATIONS:
        for block in (0, 1):
            small.add(image(block, 100 * number + relation[2] % 16 + block, relation))
    small.ingest()
    return small.flush()


def check(small: SmallStore, lsns: dict[int, int]) -> None:
    for number, lsn in lsns.items():
        for relation in RELATIONS:
            for block in (0, 1):
                want = 100 * number + relation[2] % 16 + block
                assert small.mark(block, lsn, relation) == want


def steps(store: PageStore, policy: Policy) -> Iterator[None]:
    """Compaction to its end."""
    assert store.compactor is not None
    store.compactor.policy = policy
    for _ in range(STEPS_MAX):
        if not store.compact_step():
            return
        yield
    raise AssertionError("compaction comes to no end")


def compact(small: SmallStore, policy: Policy) -> None:
    for _ in steps(small.store, policy):
        pass


def die(small: SmallStore, random: Random) -> None:
    """The machine, and what the disk has then is opened."""
    storage = small.store.storage
    assert isinstance(storage, FaultyStorage)
    small.store.layers.index.close()
    storage.crash(random)
    small.open(storage)


def names(store: PageStore, kind: FileKind) -> set[str]:
    return {name.text for name in store.manifest.state.files if name.kind == kind}


def check_disk(small: SmallStore) -> None:
    """No file but those named, and the index is what a rebuilt one is."""
    layers = small.store.storage.list(small.store.paths.layers)
    assert set(layers) == {name.text for name in small.store.manifest.state.files}
    work = small.directory.with_name(small.directory.name + ".rebuilt")
    work.mkdir()
    check_index(small.store, work)


def merging(directory: Path) -> tuple[SmallStore, Watched, dict[int, int]]:
    """A store with two L0 bundles to merge, and what they have."""
    directory.mkdir()
    storage = Watched()
    small = SmallStore(directory, storage=storage)
    small.add(*(create(relation) for relation in RELATIONS))
    return small, storage, {number: write(small, number) for number in (1, 2)}


def test_neon_4580_a_compaction_that_was_cut_off_began_anew(fast_directory: Path) -> None:
    """And was cut off again, for ever. Here an output counts from when it is there, wherever the
    machine dies, and is not made again."""
    small, storage, _ = merging(fast_directory / "whole")
    before = storage.calls
    compact(small, MERGES)
    outputs = len(names(small.store, FileKind.L1))
    calls = storage.calls - before
    assert outputs > len(RELATIONS)
    assert small.store.layers.map.l0_count == 0
    small.let_go()
    seen = set()
    for call in range(0, calls, 3):
        small, storage, lsns = merging(fast_directory / str(call))
        storage.crash_at = storage.calls + call
        with pytest.raises(CrashError):
            compact(small, MERGES)
        die(small, Random(call))
        done = names(small.store, FileKind.L1)
        seen.add(len(done))
        check(small, lsns)
        storage.log.clear()
        compact(small, replace(MERGES, l0_bundles_merged_min=1))  # one of the two may be gone
        assert done <= names(small.store, FileKind.L1)
        assert len(names(small.store, FileKind.L1)) == outputs
        begun = len(storage.created(FileKind.L1))  # the last may have been given up, as empty
        assert begun <= outputs - len(done) + (len(done) < outputs)
        check(small, lsns)
        check_disk(small)
        small.let_go()
    assert seen == set(range(outputs + 1))


def aged(directory: Path) -> tuple[SmallStore, Watched, dict[int, int], set[str]]:
    """A store whose oldest layers nobody needs from now on: images are above them, and the
    horizon as well; what can still be asked for, and the files."""
    small, storage, lsns = merging(directory)
    compact(small, MERGES)
    lsns[3] = write(small, 3)
    lsns[4] = write(small, 4)
    compact(small, IMAGES)
    old = names(small.store, FileKind.L1)
    store = small.store
    store.layers.commit(records=[Progress(horizon_lsn=lsns[4])])
    with store.versions.lock:
        store.retention.publish()
    return small, storage, {4: lsns[4]}, old


def test_neon_5635_a_layer_went_before_its_readers(fast_directory: Path) -> None:
    """A file goes after the manifest says so and the index knows, and after those who may have
    seen it have left."""
    small, storage, lsns, old = aged(fast_directory / "aged")
    layers = small.store.layers
    early = layers.map._enter()  # someone reads, and may have seen all that is there
    compact(small, IMAGES)
    assert old <= names(small.store, FileKind.L1)
    layers.map._leave(early)
    late = -1
    for _ in steps(small.store, IMAGES):
        if late < 0 and not old <= names(small.store, FileKind.L1):
            late = layers.map._enter()
            layers.map.advance()
            gone = old - names(small.store, FileKind.L1)
    assert late >= 0
    check(small, lsns)
    layers.map._leave(late)
    compact(small, IMAGES)
    assert gone
    for name in gone:
        at = storage.log.index(("remove", name))
        calls = [call for call in storage.log[:at] if call[0] != "remove"]
        assert ("commit", "index") in calls[-3:]
        assert ("sync", "manifest") in calls[-3:]
    check_disk(small)
    small.let_go()


def test_neon_5635_cut_off_between_any_two_steps(fast_directory: Path) -> None:
    small, storage, _, _ = aged(fast_directory / "whole")
    before = storage.calls
    compact(small, IMAGES)
    calls = storage.calls - before
    small.let_go()
    assert calls > 6
    for call in range(calls):
        small, storage, lsns, _ = aged(fast_directory / str(call))
        storage.crash_at = storage.calls + call
        with pytest.raises(CrashError):
            compact(small, IMAGES)
        die(small, Random(call))
        check(small, lsns)
        check_disk(small)
        compact(small, IMAGES)
        check(small, lsns)
        small.let_go()


def test_circuit_breaker_one_damaged_layer_stopped_all_compaction(fast_directory: Path) -> None:
    """Of a tenant, for as long as it was there. Here its stripe gets no images, and the others do.

    tests/unit/test_compactor.py has the same for merges.
    """
    small, storage, lsns = merging(fast_directory / "damaged")
    compact(small, MERGES)
    bad = RELATIONS[1]
    stripe = (relation_key(*bad, 0).pack(), 0)
    (layer,) = small.store.layers.index.stripe(*stripe)
    table = small.store.layers.map.reader(layer.file).table
    at = table.offset(layer.frame_start) + table.stored_length(layer.frame_start) - 1
    small.let_go()
    path = small.directory / "layers" / layer.file.text
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    small.open(storage)
    for number in (3, 4):  # other blocks: an image takes the old ones from the old layer
        small.put(*(image(2, number, relation) for relation in RELATIONS))
        small.flush()
    compact(small, IMAGES)
    assert small.store.compactor is not None
    assert set(small.store.compactor.damaged) == {stripe}
    for relation in RELATIONS:
        key = relation_key(*relation, 0).pack()
        kinds = {found.kind for found in small.store.layers.index.stripe(key, 0)}
        assert (LayerKind.IMAGE in kinds) == (relation != bad)
    assert small.mark(0, lsns[2], RELATIONS[0]) == 200
    assert small.mark(2, small.store.durable_lsn, bad) == 4
    small.let_go()


def test_slatedb_1622_a_slow_trim_removed_what_a_failed_flush_needs(fast_directory: Path) -> None:
    """A trim read the durable LSN, and while it waits a flush fails: what the manifest does not
    say is in layers stays in the journal."""
    storage = Watched()
    small = SmallStore(fast_directory, storage=storage)
    small.put(create(), *(Record(main=bytes(MIB // 4)) for _ in range(12)), image(0, 7))
    store, removed = small.store, []

    def fail_a_flush(path: Path) -> None:
        removed.append(path)
        if len(removed) == 1:
            small.add(*(Record(main=bytes(MIB // 4)) for _ in range(12)), image(0, 8))
            small.ingest()
            storage.fail("sync", errno.EIO, name="manifest")
            store.freeze()
            with pytest.raises(OSError, match="Input/output error"):
                store.flush_step()
            assert not storage.has_fault

    storage.before_remove = fail_a_flush
    store.freeze()
    with pytest.raises(PoisonedFileError):  # no commit goes on over a manifest that failed
        store.flush_step()
    first = store.durable_lsn
    assert removed
    end = small.wal.placed[-1][1]
    assert store.durable_lsn == first < end
    assert store.journal.start_lsn <= first
    storage.before_remove = lambda path: None
    die(small, Random(1))
    assert small.store.durable_lsn >= first
    assert small.ingest() == end
    assert small.mark(0, end) == 8
    small.let_go()
