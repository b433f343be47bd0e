"""When the receiver pauses between reads, and what ends a pause."""

import threading
from pathlib import Path

from engine.waiting_readers import WaitingReaders
from server.read_pace import (
    BYTES_PER_SECOND_MAX,
    MESSAGES_PER_SECOND_MIN,
    PAUSE_SECONDS,
    ReadPace,
)
from tests.fixtures.small_store import SmallStore

ENOUGH = round(MESSAGES_PER_SECOND_MIN * PAUSE_SECONDS)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _is_due(messages: int, length: int, seconds: float) -> bool:
    clock = Clock()
    pace = ReadPace(clock)
    for _ in range(messages):
        pace.note(length)
    clock.now += seconds
    return pace.is_pause_due()


def test_pauses_where_messages_are_many_and_small() -> None:
    assert _is_due(ENOUGH + 1, 500, PAUSE_SECONDS)
    assert not _is_due(ENOUGH - 1, 500, PAUSE_SECONDS)
    assert not _is_due(ENOUGH + 1, 500, 2 * PAUSE_SECONDS)
    assert not _is_due(1000, 128 << 10, PAUSE_SECONDS)
    assert BYTES_PER_SECOND_MAX * PAUSE_SECONDS > ENOUGH * 8192  # an image in each is small


def test_knows_nothing_before_a_pause_is_over_and_forgets_what_was_before() -> None:
    clock = Clock()
    pace = ReadPace(clock)
    for _ in range(100):
        pace.note(500)
    assert not pace.is_pause_due()
    clock.now += PAUSE_SECONDS
    assert pace.is_pause_due()
    clock.now += PAUSE_SECONDS
    assert not pace.is_pause_due()


class _Ready:
    """An LSN that a test makes ready."""

    def __init__(self) -> None:
        self.ready_lsn = 10
        self.is_waiting = threading.Event()
        self.made_ready = threading.Event()

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        self.is_waiting.set()
        return self.made_ready.wait(timeout_seconds)


def test_a_reader_that_waits_ends_a_pause() -> None:
    ready = _Ready()
    readers = WaitingReaders(ready)
    assert readers.wait_for(10, 60)
    assert not ready.is_waiting.is_set()
    assert not readers.wait_for_reader(0.0)
    ended: list[bool] = []
    pausing = threading.Thread(target=lambda: ended.append(readers.wait_for_reader(60)))
    pausing.start()
    reading = threading.Thread(target=lambda: readers.wait_for(11, 60))
    reading.start()
    pausing.join(10)
    assert ended == [True]
    assert readers.wait_for_reader(0.0)  # as long as it waits
    ready.made_ready.set()
    reading.join(10)
    assert not readers.wait_for_reader(0.0)


def test_a_reader_whose_time_is_over_counts_no_more() -> None:
    readers = WaitingReaders(_Ready())
    assert not readers.wait_for(11, 0.001)
    assert not readers.wait_for_reader(0.0)


def test_the_store_knows_who_waits_for_wal(tmp_path: Path) -> None:
    small = SmallStore(tmp_path)
    ready = small.ingest()
    assert small.store.wait_for(ready, 60)
    assert not small.store.wait_for_reader(0.0)
    reading = threading.Thread(target=lambda: small.store.wait_for(ready + 1, 60))
    reading.start()
    assert small.store.wait_for_reader(10)
    with small.store.versions.lock:
        small.store.versions.advance_ready(ready + 1)
    reading.join(10)
    assert not small.store.wait_for_reader(0.0)
