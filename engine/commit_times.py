"""When transactions ended: the time at an LSN, and the LSN at a time.

Ingest keeps the times of commits and aborts as versions of one block of the chunk COMMIT_TIMES
(formats/version.py, TIME): they rise with the LSN, and one that is less than TIME_STEP above the
last one is left out. So what the versions say of the WAL, and between two of them:

    LSN     ----- t1 ------------ t2 ---------------- t3 ----->  ready
    times         t1 .. < t1+step t2 .. < t2+step      t3 ...

*The state as of a time T* is what PostgreSQL's recovery_target_time gives: everything before the
first record of a transaction's end whose time is above T. With t2 <= T < t3 that is where the
record of t3 begins, if T is at least t2 + step; if it is less, it may lie anywhere behind t2, and
the answer is the record of t2 itself. So the answer is exactly what it would be for some time in
T - step < time <= T; it never has in it a transaction that ended above T (as PostgreSQL, we go by
the record that comes first: with a clock set back, later ones may have earlier times).

Everything is read from versions, by methods that any thread may call while memtables are flushed
and layers merged.
"""

from collections.abc import Callable
from typing import NamedTuple

from engine.store_state import StoreState
from engine.version_set import VersionSet
from formats import version
from formats.chunk import COMMIT_TIMES
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn

Collect = Callable[[int, int, int, int, VersionSet], None]


class StateAt(NamedTuple):
    """An LSN whose state is that as of a time."""

    lsn: int
    commit_time: int  # of the newest transaction in it that has a version
    is_final: bool  # False: no later transaction is known, and WAL that comes may belong to it


class _Ended(NamedTuple):
    """A TIME version."""

    lsn: int
    record_bytes: int  # 0: no record, but the base backup's checkpoint
    time: int

    @property
    def doubtful_before(self) -> int:
        """Transactions behind it, up to the next version, may have ended at times below this."""
        if self.record_bytes:
            return self.time + version.TIME_STEP
        return self.time + version.TIME_STEP_OF_CHECKPOINT

    def is_above(self, time: int) -> bool:
        return self.time > time


class CommitTimes:
    """Times are microseconds since 2000; CorruptionError from any method: a layer is damaged."""

    def __init__(self, state: StoreState, collect: Collect) -> None:
        """`collect(chunk, block, lsn_floor, lsn_max, versions)` gathers a block's versions."""
        self._state = state
        self._collect = collect

    def time_at(self, lsn: int) -> int | None:
        """When the newest transaction that ends at or below `lsn` ended, at most a step too early.

        None: no time is known that far back, in a directory older than this.
        """
        newest = self._newest(lsn)
        return None if newest is None else newest.time

    def lsn_at(self, time: int) -> int | None:
        """The LSN whose state is that as of a time; see `state_at`."""
        state = self.state_at(time)
        return None if state is None else state.lsn

    def state_at(self, time: int) -> StateAt | None:
        """The state as of a time, between the horizon and the ready LSN.

        After the last transaction, in the future as well, it is the ready LSN. None: a state that
        old cannot be read any more, or never could.
        """
        horizon, ready = self._state.horizon_lsn, self._state.ready_lsn
        if horizon > ready:
            return None
        last = self._newest(ready)
        if last is None:
            return None
        before, after = last, None
        if last.is_above(time):
            found = self._around(time, horizon, last)
            if found is None:
                return None
            before, after = found
        if time < before.doubtful_before:
            state = StateAt(before.lsn, before.time, True)
        elif after is not None:
            begin = after.lsn - after.record_bytes
            state = StateAt(max(begin, horizon), before.time, True)
        else:
            state = StateAt(ready, before.time, False)
        # The horizon may have moved meanwhile, and what lies below it has been cut.
        return state if state.lsn >= self._state.horizon_lsn else None

    def _around(self, time: int, horizon: int, above: _Ended) -> tuple[_Ended, _Ended] | None:
        """The last version at or below a time, and the next one; `above` is above it.

        None if the last one that is at or below the horizon is above it, too.
        """
        below = self._newest(horizon)
        if below is not None and below.is_above(time):
            return None
        low = horizon  # what lies up to here is not above; `above` is the first behind `high`
        while above.lsn - low > 1:
            middle = (low + above.lsn) // 2
            found = self._newest(middle)
            if found is not None and found.is_above(time):
                above = found
            else:
                low, below = middle, found
        return None if below is None else (below, above)

    def _newest(self, lsn: int) -> _Ended | None:
        """The newest version at or below an LSN."""
        with self._state.lock:
            chunk = self._state.table.intern(*COMMIT_TIMES)
        versions = VersionSet(64, 4)
        self._collect(chunk, 0, 0, lsn, versions)
        if not versions.count:
            return None
        try:
            record_bytes, time = version.parse_commit_time(versions.payload(1))
        except ValueError as error:
            where = f"{COMMIT_TIMES.name} at {show_lsn(versions.lsn[1])}"
            raise CorruptionError("commit time", where, "a TIME version", error) from error
        return _Ended(versions.lsn[1], record_bytes, time)
