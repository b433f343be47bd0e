"""The times of commits, against PostgreSQL's rule for recovery_target_time over the same WAL."""

import random
import struct
import threading

import pytest

from engine import index_rebuild
from engine.commit_times import StateAt
from formats import timestamp, version
from formats.chunk import COMMIT_TIMES
from formats.version import TIME_STEP
from tests.fixtures.control_file import with_checkpoint_time
from tests.fixtures.small_store import SmallStore, control_file, drop, image, insert
from tests.fixtures.wal_builder import Record

SECOND = 1_000_000
DAY = timestamp.from_unix_seconds(1_800_000_000)  # the first commit of most tests
COMMIT, PREPARE, ABORT, COMMIT_PREPARED, ABORT_PREPARED = 0x00, 0x10, 0x20, 0x30, 0x40


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def ended(time: int, operation: int = COMMIT, xid: int = 700) -> Record:
    if operation in (COMMIT_PREPARED, ABORT_PREPARED):
        return Record(1, operation | 0x80, 0, struct.pack("<qII", time, 16, xid))
    return Record(1, operation, xid, struct.pack("<q", time))


def dropped(time: int) -> Record:
    """A commit that is Python's to take."""
    record = drop((1663, 5, 16999))
    return Record(1, record.info, record.xid, struct.pack("<q", time) + record.main[8:])


class Ends:
    """Where transactions ended, as WAL has it: what PostgreSQL would stop at."""

    def __init__(self, small: SmallStore) -> None:
        self.small = small
        self.placed: list[tuple[int, int, int]] = []  # start, end, time

    def add(self, time: int, operation: int = COMMIT) -> int:
        self.small.add(dropped(time) if operation == -1 else ended(time, operation))
        start, end, _ = self.small.wal.placed[-1]
        self.placed.append((start, end, time))
        return end

    def stop(self, time: int) -> int:
        """How many ends of transactions PostgreSQL replays up to a time (recoveryStopsBefore)."""
        above = (i for i, (_, _, when) in enumerate(self.placed) if when > time)
        return next(above, len(self.placed))

    def newest(self, count: int) -> int | None:
        return max((time for _, _, time in self.placed[:count]), default=None)

    def check(self, time: int) -> None:
        """The answer for one time is right for one that is less than a step before it."""
        store = self.small.store
        state = store.commit_times.state_at(time)
        if state is None:
            oldest = self.newest(self.count_at(store.horizon_lsn))
            assert oldest is None or time < oldest + TIME_STEP, time
            return
        count = self.count_at(state.lsn)
        assert self.stop(time - TIME_STEP) <= count <= self.stop(time), time
        assert store.horizon_lsn <= state.lsn <= store.ready_lsn
        assert state.is_final or (state.lsn == store.ready_lsn and count == len(self.placed))
        assert store.commit_times.lsn_at(time) == state.lsn

    def count_at(self, lsn: int) -> int:
        return sum(end <= lsn for _, end, _ in self.placed)

    def check_lsn(self, lsn: int) -> None:
        found, newest = self.small.store.commit_times.time_at(lsn), self.newest(self.count_at(lsn))
        assert (found is None) == (newest is None), lsn
        assert newest is None or newest - TIME_STEP < found <= newest, lsn


MOVES = (0, 1, 999, TIME_STEP - 1, TIME_STEP, 3 * TIME_STEP, SECOND, -SECOND, -3 * TIME_STEP)
OPERATIONS = (COMMIT, ABORT, COMMIT_PREPARED, ABORT_PREPARED, -1)


@pytest.mark.parametrize("seed", range(5))
def test_any_load(tmp_path, seed):
    """Times that stand still, run, jump and go back; flushes and deaths at any time."""
    chance = random.Random(seed)
    small = SmallStore(tmp_path, memory_bytes=4 << 20)
    ends, now = Ends(small), DAY
    for _ in range(80):
        now += chance.choice((*MOVES, chance.randrange(-20_000, 20_000)))
        if chance.random() < 0.6:
            ends.add(now, chance.choice(OPERATIONS))
        else:
            small.add(image(chance.randrange(5), chance.randrange(99)))
        small.ingest()
        happens = chance.random()
        if happens < 0.05:
            small.flush()
        elif happens < 0.1:
            small.reopen()
        ends.check(now + chance.randrange(-2 * SECOND, SECOND))
        ends.check_lsn(chance.randrange(small.store.horizon_lsn, small.store.ready_lsn + 1))
    for start, end, time in ends.placed:
        for nearby in (0, 1, TIME_STEP - 1, TIME_STEP):
            ends.check(time - nearby)
            ends.check(time + nearby)
        for lsn in (start, end - 1, end, end + 1):
            ends.check_lsn(lsn)
    small.store.close()


def times(small: SmallStore) -> list[int]:
    """What is stored, oldest first."""
    found, lsn = [], small.store.ready_lsn
    commit_times = small.store.commit_times
    while (newest := commit_times._newest(lsn)) is not None:
        found.append(newest.time)
        lsn = newest.lsn - 1
    return found[::-1]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_end_counts(tmp_path, operation):
    small = SmallStore(tmp_path)
    before = small.put(insert(0, 1, init=True))
    ends = Ends(small)
    end = ends.add(DAY, operation)
    small.ingest()
    assert [small.store.commit_times.time_at(lsn) for lsn in (before, end - 1, end)] == [
        None, None, DAY,
    ]  # fmt: skip
    assert small.store.commit_times.state_at(DAY) == StateAt(end, DAY, True)


def test_prepare_is_no_end(tmp_path):
    small = SmallStore(tmp_path)
    small.put(
        Record(1, PREPARE, 700, struct.pack("<IIIIq", 0x57F94534, 0, 700, 5, DAY) + bytes(60))
    )
    assert times(small) == []


def test_times_rise_though_the_clock_does_not(tmp_path):
    """A restart or a flush between two commits changes nothing in what is stored."""
    given = [
        DAY,
        DAY + 9_999,
        DAY + 10_000,
        DAY - SECOND,
        DAY + 10_001,
        DAY + 19_999,
        -5,
        2**63 - 1,
    ]
    for pause in (lambda small: None, SmallStore.flush, SmallStore.reopen):
        (tmp_path / pause.__name__).mkdir()
        small = SmallStore(tmp_path / pause.__name__)
        for time in given:
            small.put(ended(time))
            pause(small)
        assert times(small) == [DAY, DAY + 10_000, 2**63 - 1]
        small.flush()
        small.reopen()
        assert times(small) == [DAY, DAY + 10_000, 2**63 - 1]
        small.store.close()


def test_between_commits_and_after_the_last(tmp_path):
    small = SmallStore(tmp_path)
    commit_times = small.store.commit_times
    assert commit_times.state_at(DAY) is None
    first = small.put(ended(DAY))
    small.put(ended(DAY + 5_000))  # not stored, and not to be forgotten
    start = small.put(insert(0, 1, init=True))
    last = small.put(ended(DAY + 60 * SECOND))
    ready = small.put(insert(0, 2))
    assert commit_times.state_at(DAY - 1) is None
    assert commit_times.state_at(DAY) == StateAt(first, DAY, True)
    assert commit_times.state_at(DAY + 9_999) == StateAt(first, DAY, True)
    assert commit_times.state_at(DAY + 10_000) == StateAt(start, DAY, True)
    assert commit_times.state_at(DAY + 60 * SECOND - 1) == StateAt(start, DAY, True)
    newest = DAY + 60 * SECOND
    assert commit_times.state_at(newest) == StateAt(last, newest, True)
    assert commit_times.state_at(newest + 10_000) == StateAt(ready, newest, False)
    assert commit_times.state_at(2**63 - 1) == StateAt(ready, newest, False)
    assert commit_times.state_at(-1) is None


def test_from_the_base_backup_on(tmp_path):
    """The checkpoint's time is known to a second; below the backup's end nothing can be read."""
    control = with_checkpoint_time(control_file(), 1_800_000_000)
    small = SmallStore(tmp_path, control=control, backup_bytes=1000)
    commit_times = small.store.commit_times
    assert commit_times.state_at(DAY + 5 * SECOND) is None  # not ready
    while small.wal.lsn < small.wal.start + 1000:
        small.put(insert(0, 1, init=True))
    horizon, ready = small.store.horizon_lsn, small.store.ready_lsn
    assert ready >= horizon == small.wal.start + 1000
    assert commit_times.time_at(horizon) == DAY
    assert commit_times.state_at(DAY - 1) is None
    assert commit_times.state_at(DAY + SECOND - 1) is None
    assert commit_times.state_at(DAY + SECOND) == StateAt(ready, DAY, False)
    end = small.put(ended(DAY + 3 * SECOND))
    assert commit_times.state_at(DAY + 2 * SECOND) == StateAt(ready, DAY, True)
    assert commit_times.state_at(DAY + 3 * SECOND) == StateAt(end, DAY + 3 * SECOND, True)


def test_the_horizon_moves(tmp_path):
    small = SmallStore(tmp_path)
    placed = [small.put(ended(DAY + i * SECOND)) for i in range(5)]
    small.store.versions.horizon_lsn = placed[2]
    commit_times = small.store.commit_times
    assert commit_times.lsn_at(DAY + 2 * SECOND - 1) is None
    assert commit_times.lsn_at(DAY + 2 * SECOND) == placed[2]
    small.store.versions.horizon_lsn = placed[2] + 8
    assert commit_times.lsn_at(DAY + 2 * SECOND) is None  # its very state is gone
    assert commit_times.lsn_at(DAY + 2 * SECOND + TIME_STEP) == placed[2] + 8


def test_while_others_write(tmp_path):
    """What was answered stays so, whatever is put, frozen and flushed meanwhile."""
    small = SmallStore(tmp_path)
    commit_times = small.store.commit_times
    known: list[tuple[int, StateAt]] = []
    wrong: list[StateAt | None] = []
    finished = threading.Event()

    def read() -> None:
        chance = random.Random(1)
        while not finished.is_set():
            for time, expected in chance.sample(known, min(len(known), 5)):
                found = commit_times.state_at(time)
                if found != expected or commit_times.time_at(expected.lsn) != expected.commit_time:
                    wrong.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    before = DAY
    small.put(ended(before))
    for number in range(1, 80):
        now = DAY + number * SECOND
        small.add(insert(0, 1, init=True))
        small.put(ended(now))
        start = small.wal.placed[-1][0]
        known.append((now - 1, StateAt(start, before, True)))
        before = now
        if number % 10 == 0:
            small.flush()
    finished.set()
    reader.join()
    assert wrong == []


def test_a_record_taken_again_is_stored_again(tmp_path):
    """A memtable without room for what Python does of a commit gets its time, the next one too."""
    small = SmallStore(tmp_path)
    ingest = small.store.ingest
    small.add(insert(0, 1, init=True), dropped(DAY))
    end = small.wal.placed[-1][1]
    room = small.store._cluster.room
    full = iter((True, False))
    small.store._cluster.room = lambda *record: (1 << 40, 0) if next(full) else room(*record)
    small.ingest()
    assert ingest.target.memtable.newest_lsn(small.store.table.find(*COMMIT_TIMES), 0) == end
    assert times(small) == [DAY]


def test_a_record_that_is_cut_off(tmp_path):
    small = SmallStore(tmp_path)
    small.add(Record(1, COMMIT_PREPARED, 700, bytes(7)))
    small.receive()
    with pytest.raises(Exception, match="its time is cut off"):
        small.store.ingest_step()


def test_bytes() -> None:
    payload = version.commit_time(0x28, 0x0123_4567_89AB_CDEF)
    assert payload.hex(" ") == "41 00 00 00 28 00 00 00 ef cd ab 89 67 45 23 01"
    assert version.parse_commit_time(payload) == (0x28, 0x0123_4567_89AB_CDEF)
    for wrong in (payload[:-1], payload + b"\0", b"\x40" + payload[1:], b"\x41\1" + payload[2:]):
        with pytest.raises(ValueError, match="not a TIME version"):
            version.parse_commit_time(wrong)
