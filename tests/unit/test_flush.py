"""A flush that fails at any call: nothing is reported durable, reads go on, a start is sound."""

import errno
import threading
from pathlib import Path

import lmdb
import pytest

from engine import index_rebuild, page_store
from engine.memtable import Memtable
from engine.memtable_pool import FROZEN_MAX, MemtablePool
from engine.page_store import PageStore
from engine.storage import Storage
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.small_store import (
    OTHER,
    REL,
    SmallStore,
    create,
    flushed_and_not,
    image,
    mark_of,
)
from tests.fixtures.wal_builder import Record, Reference


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def check(small: SmallStore, lsns: list[int]) -> None:
    first, second, third = lsns
    assert [small.mark(0, lsn) for lsn in lsns] == [10, 10, 30]
    assert [small.store.nblocks(*REL, 0, lsn) for lsn in lsns] == [2, 6, 6]
    assert small.mark(5, third) == 15
    assert small.page(1, second) == bytes(8192)
    assert [small.mark(3, lsn, OTHER) for lsn in (first, second)] == [13, 13]
    assert not small.store.exists(*OTHER, 0, third)


def fails_at(directory: Path, call: int, error: int) -> bool:
    """Whether the flush has so many calls; what must hold if it fails there."""
    directory.mkdir()
    storage = FaultyStorage()
    small, lsns = flushed_and_not(directory, storage)
    storage.fail("", error, call=call)
    journal_start = small.store.journal.start_lsn
    try:
        small.flush()
    except (OSError, lmdb.Error):
        pass
    else:
        assert storage.has_fault
        storage.mend()
        small.let_go()
        return False
    assert small.store.durable_lsn == lsns[0], call
    assert small.store.journal.start_lsn == journal_start
    check(small, lsns)
    small.reopen()
    check(small, lsns)
    assert small.flush() == lsns[2]
    small.reopen()
    check(small, lsns)
    assert len(list((directory / "layers").iterdir())) == len(small.store.manifest.state.files)
    small.let_go()
    return True


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_every_call(fast_directory, error):
    calls = 1
    while fails_at(fast_directory / str(calls), calls, error):
        calls += 1
    # create, append, sync, directory; append and sync of the manifest; commit of the index
    assert calls > 7


@pytest.mark.parametrize("again", [False, True])
def test_an_index_that_cannot_commit(tmp_path, monkeypatch, again):
    """The manifest has the bundle by then; a start catches the index up."""
    small, lsns = flushed_and_not(tmp_path, Storage())
    with monkeypatch.context() as patch:
        patch.setattr(small.store.layers.index, "commit", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small.flush()
    assert small.store.durable_lsn == lsns[0]
    check(small, lsns)
    if again:  # as the close of a server does
        assert small.flush() == lsns[2]
        check(small, lsns)
    small.reopen()
    assert small.store.durable_lsn == lsns[2]
    check(small, lsns)
    small.let_go()


class TwoFlushes:
    """Two frozen memtables, the older of which is written only when it may be."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.small = SmallStore(directory)
        self.lsns = [self.small.put(create(), image(0, 10), image(1, 11))]
        self.freeze()
        self.lsns.append(self.small.put(image(0, 20), create(OTHER)))
        self.freeze()
        self.older, self.younger = reversed(self.small.store.versions.frozen)
        self.begun, self.may_write = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        self.results: dict[str, bool] = {}
        flusher = self.small.store._flusher
        real = flusher._write

        def write(memtable: Memtable):
            if memtable is self.older and not self.may_write.is_set():
                self.begun.set()
                assert self.may_write.wait(20)
                if self.failure is not None:
                    raise self.failure
            return real(memtable)

        monkeypatch.setattr(flusher, "_write", write)
        self.threads = [self.start("older")]
        assert self.begun.wait(20)
        self.threads.append(self.start("younger"))

    def freeze(self) -> None:
        with self.small.store.versions.lock:
            self.small.store.versions.freeze()

    def start(self, name: str) -> threading.Thread:
        thread = threading.Thread(target=self.step, args=(name,), daemon=True)
        thread.start()
        return thread

    def step(self, name: str) -> None:
        try:
            self.results[name] = self.small.store.flush_step()
        except OSError:
            self.results[name] = False

    def end(self) -> None:
        self.may_write.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


def wait_for_bundles(directory: Path, count: int) -> None:
    layers = directory / "layers"
    for _ in range(1000):
        if sum(path.name.startswith("l0") for path in layers.iterdir()) >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError("no such bundle")


def test_a_younger_memtable_waits_for_the_older(tmp_path, monkeypatch):
    """Its bundle is written meanwhile; it is not durable before what lies below it."""
    two = TwoFlushes(tmp_path, monkeypatch)
    store = two.small.store
    wait_for_bundles(tmp_path, 2)  # the base backup's and its own
    two.threads[1].join(0.2)
    assert two.threads[1].is_alive()
    assert store.durable_lsn < two.lsns[0]
    assert len(store.versions.frozen) == 2
    two.end()
    assert two.results == {"older": True, "younger": True}
    assert store.durable_lsn == two.lsns[1]
    two.small.reopen()
    assert [two.small.mark(0, lsn) for lsn in two.lsns] == [10, 20]
    two.small.let_go()


def test_a_younger_memtable_whose_older_one_fails(tmp_path, monkeypatch):
    """Nothing is durable; what was written in vain is written again, or removed by a start."""
    two = TwoFlushes(tmp_path, monkeypatch)
    wait_for_bundles(tmp_path, 2)
    two.failure = OSError(errno.ENOSPC, "full")
    two.end()
    assert two.results == {"older": False, "younger": False}
    small = two.small
    assert small.store.durable_lsn < two.lsns[0]
    assert [small.mark(0, lsn) for lsn in two.lsns] == [10, 20]
    assert small.flush() == two.lsns[1]
    small.reopen()
    assert [small.mark(0, lsn) for lsn in two.lsns] == [10, 20]
    assert len(list((tmp_path / "layers").iterdir())) == len(small.store.manifest.state.files)
    small.let_go()


def test_a_close_whose_flush_fails_lets_go_of_the_directory(tmp_path):
    storage = FaultyStorage()
    small, lsns = flushed_and_not(tmp_path, storage)
    storage.fail("", errno.ENOSPC, call=2)
    with pytest.raises(OSError, match="No space"):
        small.store.close()
    small.open()
    assert small.ingest() == lsns[2]
    check(small, lsns)
    small.let_go()


def test_an_opening_that_fails_lets_go_of_the_directory(tmp_path, monkeypatch):
    """Though the error still holds the frames in which it was raised."""
    small, lsns = flushed_and_not(tmp_path, Storage())
    small.let_go()
    with monkeypatch.context() as patch:
        patch.setattr(PageStore, "_start", lambda store: 1 / 0)
        with pytest.raises(ZeroDivisionError) as caught:
            small.open()
    small.open()
    assert small.ingest() == lsns[2]
    check(small, lsns)
    small.let_go()
    assert caught.value is not None


def test_never_more_memtables_than_the_memory_is_for():
    """One that is flushed, and not yet emptied, is still one."""
    pool = MemtablePool(1 << 16, 64, 1 << 16)
    taken = [pool.take() for _ in range(FROZEN_MAX + 1)]
    assert not pool.has_one
    with pytest.raises(RuntimeError, match="exist already"):
        pool.take()
    pool.give_back(taken[0])
    assert pool.has_one
    assert pool.take() is taken[0]


def test_no_freeze_while_no_memtable_is_empty(tmp_path, monkeypatch):
    """Between a memtable's last use and its emptying there may be no other to go on with."""
    small = SmallStore(tmp_path)
    versions = small.store.versions
    small.put(create(), image(0, 10))
    held = [versions.memtables.take() for _ in range(FROZEN_MAX)]
    small.store.freeze()
    assert not versions.frozen
    versions.memtables.give_back(held[0])
    small.store.freeze()
    assert len(versions.frozen) == 1


def test_much_wal_to_catch_up_with_is_flushed_before_a_memtable_is_full(tmp_path):
    small = SmallStore(tmp_path)
    versions = small.store.versions
    wide = bytes(60_000)
    records = versions.memtable_bytes * 3 // 4 // len(wide)
    small.add(
        create(), *(Record(10, 0x60, 7, wide, [Reference(0, REL, 9)]) for _ in range(records))
    )
    end = small.add(image(9, 19))
    small.receive()
    while not versions.frozen:
        assert small.store.ingest_step()
    assert versions.frozen[0].used < versions.memtable_bytes // 2
    small.ingest()
    assert small.flush() < end  # the first part
    assert small.flush() == end
    assert small.mark(9, end) == 19
    few = small.put(image(0, 1), image(1, 2))
    assert not versions.frozen
    assert small.mark(0, few) == 1


def test_the_padding_behind_a_wal_switch_stays_until_it_is_read(tmp_path, monkeypatch):
    """The durable LSN is then in the next segment, but ingest is not there yet."""
    monkeypatch.setattr(page_store, "READ_BYTES", 256 << 10)
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 1))
    small.wal.switch()
    end = small.add(image(1, 2))
    small.receive()
    small.let_go()
    small.open()  # what was received is read from files
    steps = 0
    while small.store.ingest_step():
        small.flush()
        steps += 1
    assert steps > 2 and small.flush() == small.store.ready_lsn >= end
    assert mark_of(small.page(1, end)) == 2
    small.let_go()
