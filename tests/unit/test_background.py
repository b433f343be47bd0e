"""The workers' ends: a flush that failed and a stop must not leave ingest waiting for ever."""

import threading
import time

import pytest

from engine import index_rebuild
from engine.retention import KEEP_ALL
from server.background import Background
from tests.fixtures.small_store import SmallStore, create, image
from tests.fixtures.wal_builder import Record, Reference

MEMTABLES = 5


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def fill(small: SmallStore) -> int:
    """WAL for several memtables."""
    small.add(create())
    wide = bytes(60_000)
    for block in range(MEMTABLES * small.store.versions.memtable_bytes // len(wide)):
        record = Record(13, 0, main=bytes(64), references=[Reference(0, (1663, 5, 1), block)])
        small.add(record, Record(10, 0x60, 7, wide, [Reference(0, (1663, 5, 16384), block)]))
    return small.add(image(0, 9))


def stop_within(seconds: float, background: Background) -> None:
    thread = threading.Thread(target=background.stop, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the stop hangs"


def wait_until(condition, seconds: float = 20) -> None:
    event = threading.Event()
    for _ in range(int(seconds * 100)):
        if condition():
            return
        event.wait(0.01)
    raise AssertionError("it did not happen")


def test_a_flush_that_fails_ends_ingest_too(tmp_path, monkeypatch):
    """Ingest goes on until memory is full, then says why it ends; the stop does not hang."""
    small = SmallStore(tmp_path)
    monkeypatch.setattr(small.store._flusher, "_create_bundle", lambda kind: 1 / 0)
    background = Background(small.store, 3600, KEEP_ALL)
    background.start()
    fill(small)
    small.receive()
    wait_until(lambda: background.ingest.error is not None)
    wait_until(lambda: background.flush.error or background.second_flush.error)
    failed = background.flush.error or background.second_flush.error
    assert isinstance(failed, ZeroDivisionError)
    assert "flush" in str(background.ingest.error)
    stop_within(5, background)
    assert len(small.store.versions.frozen) == 2


def test_whether_all_that_came_is_ingested(tmp_path):
    """What is damaged is its end, too: no more becomes ready."""
    small = SmallStore(tmp_path)
    end = small.add(create(), image(0, 1))
    small.receive()
    background = Background(small.store, 3600, KEEP_ALL)
    assert not background.has_ingested_all
    background.start()
    wait_until(lambda: background.has_ingested_all)
    assert small.store.ready_lsn == end
    stop_within(5, background)
    another = Background(small.store, 3600, KEEP_ALL)
    small.store.journal.append(small.fed, b"\xff" * 64)
    small.store.journal.sync()
    another.start()
    wait_until(lambda: another.ingest.error is not None)
    assert another.has_ingested_all
    assert small.store.ready_lsn == end
    stop_within(5, another)
    small.store.close()


def test_a_stop_while_the_journal_is_not_flushed(tmp_path):
    """What is not on disk cannot be flushed, so a full memory does not empty."""
    small = SmallStore(tmp_path)
    fill(small)
    journal = small.store.journal
    journal.append(small.fed, bytes(small.wal.data))
    synced, journal.flushed_lsn = journal.flushed_lsn, small.wal.start
    background = Background(small.store, 3600, KEEP_ALL)
    background.start()
    wait_until(lambda: len(small.store.versions.frozen) == 2)
    stop_within(5, background)
    assert background.ingest.error is None
    journal.flushed_lsn = synced
    small.store.close()


def test_a_frozen_memtable_is_flushed_at_once(tmp_path, monkeypatch):
    """Nobody waits for a look at the clock."""
    monkeypatch.setattr("server.background.IDLE_SECONDS", 5.0)
    small = SmallStore(tmp_path)
    background = Background(small.store, 3600, KEEP_ALL)
    background.start()
    began = time.monotonic()
    for number in range(3):
        end = small.add(create(), image(0, number))
        small.receive()
        small.store.notify_wal()
        wait_until(lambda end=end: small.store.ready_lsn >= end)
        small.store.freeze()
        wait_until(lambda end=end: small.store.durable_lsn >= end)
    assert time.monotonic() - began < 4
    stop_within(20, background)
    assert background.flush.error is None
