"""A full disk at every call of compaction, garbage and retention: the step fails, reads go on, and
the steps that come when there is room finish the work. Their threads do so of themselves."""

import contextlib
import errno
from functools import partial
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.bundle_factory import BundleFactory
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.compactor import REWRITING
from engine.disk_room import DiskFullError, is_full
from engine.retention import Bounds
from formats import chunk
from formats.file_name import FileKind
from server import background
from server.background import Background, Worker
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.rebuilt_index import check_index
from tests.fixtures.small_store import REL, SmallStore, create, drop, image
from tests.unit.test_background import wait_until
from tests.unit.test_full_disk import OTHER, FullStorage

POLICY = Policy(l0_bundles_merged_min=2, debt_bytes_min=1, debt_per_image_byte=0.01)
BOUNDS = Bounds(0, 1)
STEPS_MAX = 300


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def fill(directory: Path, storage: FullStorage | FaultyStorage) -> tuple[SmallStore, int]:
    """A store with layers to merge, and some that go with the horizon; the last LSN."""
    directory.mkdir()
    small = SmallStore(directory, storage=storage)
    assert small.store.compactor is not None
    small.store.compactor.policy = POLICY
    small.put(create(), create(OTHER))
    for number in range(3):
        small.put(image(0, number, OTHER), image(0, 10 + number), image(1, 20 + number))
        small.flush()
    small.put(drop(OTHER), image(0, 30))
    return small, small.flush()


def finish(small: SmallStore) -> int:
    """Retention and compaction until there is nothing to do; how often the disk was full."""
    store, failures, idle = small.store, 0, 0
    for _ in range(STEPS_MAX):
        try:
            did = store.retention.step(0.0, BOUNDS, lambda time: None)
            did = store.compact_step() or did
        except OSError as error:
            if not is_full(error):
                raise
            failures += 1
            continue
        idle = 0 if did else idle + 1
        if idle == 2:
            return failures
    raise AssertionError("it comes to no end")


def check(small: SmallStore, lsn: int) -> None:
    assert [small.mark(block, lsn) for block in (0, 1)] == [30, 22]


@pytest.mark.parametrize("times", [1, 3])
def test_compaction_and_retention_go_on_when_there_is_room(
    fast_directory: Path, times: int
) -> None:
    call = 0
    while True:
        storage = FullStorage()
        small, lsn = fill(fast_directory / str(call), storage)
        storage.fail_at, storage.times = storage.calls + call, times
        failures = finish(small)
        storage.fail_at = -1
        check(small, lsn)
        store = small.store
        assert store.horizon_lsn > store.versions.backup_end_lsn
        assert any(name.kind == FileKind.IMAGE for name in store.manifest.state.files)
        named = {name.text for name in store.manifest.state.files}
        assert {path.name for path in store.paths.layers.iterdir()} == named
        work = fast_directory / f"{call}.rebuilt"
        work.mkdir()
        check_index(store, work)
        small.let_go()
        small.open()
        check(small, lsn)
        small.let_go()
        if not failures:
            break
        call += 1
    assert call > 15


def test_their_threads_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(background, "RETENTION_PACE_SECONDS", 0.01)
    storage = FaultyStorage()
    small, lsn = fill(tmp_path / "store", storage)
    storage.room = 0
    threads = Background(small.store, 3600, BOUNDS)
    workers = (threads.retention, threads.compaction)

    def are_full(*found: Worker) -> bool:
        return all(worker.waits_for is not None for worker in found)

    for worker in workers:
        worker.start()
    wait_until(lambda: are_full(*workers))
    check(small, lsn)
    storage.room = None
    wait_until(lambda: not any(worker.waits_for or worker.error for worker in workers))
    wait_until(lambda: small.store.layers.map.l0_count < POLICY.l0_bundles_merged_min)
    wait_until(lambda: small.store.horizon_lsn > small.store.versions.backup_end_lsn)
    threads.stop()
    check(small, lsn)
    assert (threads.retention.error, threads.compaction.error) == (None, None)
    small.let_go()


def test_a_disk_that_fails_ends_retention(tmp_path: Path) -> None:
    storage = FaultyStorage()
    small, _ = fill(tmp_path / "store", storage)
    threads = Background(small.store, 3600, BOUNDS)
    storage.fail("sync", errno.EIO, name="manifest")
    threads.retention.start()
    wait_until(lambda: threads.retention.error is not None)
    threads.stop()
    small.let_go()


def refuse_bundles(monkeypatch: pytest.MonkeyPatch, small: SmallStore, kind: FileKind) -> list[int]:
    """No room for bundles of a kind, as long as the list that is returned is empty."""
    room, create_bundle = list[int](), BundleFactory.create

    def create_if_there_is_room(factory: BundleFactory, of: FileKind) -> BundleWriter:
        if of == kind and not room:
            raise DiskFullError(errno.ENOSPC, "full", "here")
        return create_bundle(factory, of)

    compactor = small.store.compactor
    assert compactor is not None
    factory = partial(create_if_there_is_room, small.store._bundles)
    for part in (compactor, compactor._images, compactor._collection):
        monkeypatch.setattr(part, "_create_bundle", factory)
    return room


def test_a_rewriting_that_found_no_room_is_tried_again(
    fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the horizon's help, or a restart's."""
    small = SmallStore(fast_directory)
    small.put(create(), create(OTHER), image(0, 1), *(image(n, n, OTHER) for n in range(1000)))
    small.flush()
    small.put(image(0, 2))
    small.flush()
    policy = Policy(l0_bundles_merged_min=2)
    small.compact(policy)
    (merged,) = (name for name in small.store.layers.state.files if name.kind == FileKind.L1)
    small.put(drop(OTHER))
    small.flush()
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    compactor = small.store.compactor
    assert compactor is not None
    for _ in range(STEPS_MAX):
        small.store.compact_step()
        if compactor.space is not None and compactor._survey is None:
            break
    room = refuse_bundles(monkeypatch, small, FileKind.L1)
    for _ in range(3):
        with pytest.raises(DiskFullError):
            small.compact(policy)
    assert compactor.state == REWRITING
    assert merged in small.store.layers.state.files
    room.append(1)
    small.compact(policy)
    assert merged not in small.store.layers.state.files
    assert small.mark(0, small.store.ready_lsn) == 2
    small.let_go()


def test_a_survey_that_found_no_room_is_tried_again(
    fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was due because much was written, not because of the horizon."""
    small = SmallStore(fast_directory)
    small.put(create(), *(image(n, n) for n in range(100)))
    small.flush()
    small.put(image(0, 1))
    small.flush()
    policy = Policy(l0_bundles_merged_min=1)
    small.compact(policy)
    compactor, index = small.store.compactor, small.store.layers.index
    assert compactor is not None
    history = chunk.relation(*REL, 0).history().pack()
    before = sum(layer.versions for layer in index.stripe(history, 0))
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    asked = small.store.retention.retained()
    compactor._surveyed = asked.horizon_lsn, tuple(asked.lsns)  # as if nothing had been found then
    compactor._survey_at_bytes = -1
    room = refuse_bundles(monkeypatch, small, FileKind.L1)
    for _ in range(3):
        with pytest.raises(DiskFullError):
            small.compact(policy)
    room.append(1)
    small.compact(policy)
    assert sum(layer.versions for layer in index.stripe(history, 0)) < before / 4
    small.let_go()


def test_garbage_goes_while_there_is_no_room_for_a_merge(
    fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what makes room."""
    small = SmallStore(fast_directory)
    small.put(create(), create(OTHER), *(image(n, n, OTHER) for n in range(50)))
    small.flush()
    small.compact(Policy(l0_bundles_merged_min=1, own_file_bytes_min=1))
    (layer,) = small.store.layers.index.stripe(chunk.relation(*OTHER, 0).pack(), 0)
    small.put(drop(OTHER))
    small.flush()
    small.put(image(0, 3))
    small.flush()
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    refuse_bundles(monkeypatch, small, FileKind.L1)
    assert small.store.compactor is not None
    small.store.compactor.policy = POLICY
    for _ in range(20):
        with contextlib.suppress(DiskFullError):
            small.store.compact_step()
    assert small.store.layers.map.l0_count == POLICY.l0_bundles_merged_min
    assert not (small.store.paths.layers / layer.file.text).exists()
    small.let_go()


def test_a_point_that_was_dropped_when_the_index_was_full_is_not_read(
    fast_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers may go: the manifest has it no more."""
    small = SmallStore(fast_directory)
    lsn = small.put(create(), image(0, 1))
    small.put(image(0, 2))
    small.flush()
    retention, index = small.store.retention, small.store.layers.index
    retention.create_point("kept", lsn)
    retention.step(0.0, Bounds(0, 0), lambda time: None)
    assert small.mark(0, lsn) == 1

    def refuse(*what: object) -> None:
        raise OSError(errno.ENOSPC, "full", "index")

    with monkeypatch.context() as patch:
        patch.setattr(index, "commit", refuse)
        with pytest.raises(OSError, match="full"):
            retention.drop_point("kept")
    assert retention.retained().lsns == []
    assert not small.store.is_retained(lsn)
    small.compact(POLICY)
    assert index.state.serial == small.store.layers.state.serial
    small.let_go()


def test_a_flush_that_is_tried_again_after_its_bundle_was_merged(tmp_path: Path) -> None:
    """The manifest had it, the index had no room. Compaction caught the index up, merged the bundle
    and removed its file; then the flush added it anew, and the manifest named a file that was gone:
    reads of its stripes were refused for good."""
    storage = FaultyStorage()
    small = SmallStore(tmp_path, storage=storage)
    small.put(create(), image(0, 1))
    small.flush()
    lsn = small.put(image(0, 2), image(1, 3))
    small.store.freeze()
    storage.fail("commit", errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        small.store.flush_step()
    small.compact(Policy(l0_bundles_merged_min=1, debt_bytes_min=1 << 40))
    assert small.store.layers.map.l0_count == 0
    while small.store.flush_step():
        pass
    assert small.store.durable_lsn == lsn
    for _ in range(2):
        there = {path.name for path in (tmp_path / "layers").iterdir()}
        assert {name.text for name in small.store.layers.state.files} == there
        assert [small.mark(block, lsn) for block in (0, 1)] == [2, 3]
        small.reopen(storage)
    rebuilt = tmp_path / "rebuilt"
    rebuilt.mkdir()
    check_index(small.store, rebuilt)
    small.let_go()
