"""The threads that keep the store going: ingest follows the journal, flush follows ingest, and
retention lets leases end and the horizon advance.

Each does one step after the other and sleeps when there is nothing to do. A step for which the disk
has no room, or that meets a bucket that does not answer, is done again. Any other error that a
step raises stops that thread, a flush's stops all of them, and is kept for `status`: what was read
before stays readable, and the reason is shown instead of a lag that grows without a word.

Where compaction is behind (engine/backpressure.py), ingest rests after each step, and in the end
nothing is flushed until some bundles have been merged. Where it is not, compaction rests after each
step, so that it writes no faster than it is to (server/write_pace.py).
"""

import logging
import threading
import time
from collections.abc import Callable

from engine.disk_room import is_full, will_pass
from engine.errors import IngestStopped
from engine.page_store import PageStore
from engine.retention import Bounds
from engine.wal_intake import Hold
from server.write_pace import WritePace

IDLE_SECONDS = 0.05
RETENTION_PACE_SECONDS = 1.0  # from one look at leases and the horizon to the next
RETRY_SECONDS = 0.5
SLOWED = "slowed: compaction is behind"
WAITING = "waiting for compaction"
_log = logging.getLogger("pageserver.background")


class Worker:
    """One thread that repeats `step` until it is stopped; `step` says whether it did anything."""

    def __init__(
        self,
        name: str,
        step: Callable[[], bool],
        wait: Callable[[], None],
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_error` is called once when a step has failed."""
        self.name = name
        self.error: BaseException | None = None
        self._step = step
        self._wait = wait
        self._on_error = on_error
        self.waits_for: OSError | None = None  # to pass, when this was last tried
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin_stop(self) -> None:
        """Let the step at hand be the last."""
        self._stopping.set()

    def stop(self) -> None:
        """Let the step at hand finish; returns when the thread has ended."""
        self.begin_stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if not self._step_if_it_can():
                    self._wait()
        except Exception as error:
            if self._stopping.is_set() and isinstance(error, IngestStopped):
                return
            _log.exception("%s stopped", self.name)
            self.error = error
            self._on_error()

    def rest(self, seconds: float) -> bool:
        """Do nothing for so long, or until it is to end; whether it is."""
        return self._stopping.wait(seconds)

    def _step_if_it_can(self) -> bool:
        try:
            did_anything = self._step()
        except OSError as error:
            if not will_pass(error):
                raise
            if self.waits_for is None:
                what = "room on the disk" if is_full(error) else "the bucket"
                _log.warning("%s waits for %s: %s", self.name, what, error)
            self.waits_for = error
            self.rest(RETRY_SECONDS)
            return True
        if self.waits_for is not None:
            _log.info("%s goes on", self.name)
            self.waits_for = None
        return did_anything


class Background:
    """Ingest, flush, compaction and retention of one store."""

    def __init__(
        self,
        store: PageStore,
        flush_seconds_max: float,
        retention: Bounds,
        compaction_bytes_per_second: int = 0,
    ) -> None:
        """A version waits for its flush no longer than about `flush_seconds_max`; 0 bytes a second
        set no bound."""
        self._store = store
        self.evict: Callable[[], bool] = lambda: False  # called between steps of compaction
        self._retention_bounds = retention
        self._stopping = threading.Event()
        self._has_met_end = False
        self._flush_seconds_max = flush_seconds_max
        self._flushed_at = time.monotonic()
        self.ingest = Worker("ingest", self._ingest_step, self._wait_for_wal)
        self.flush = Worker("flush", self._first_flush_step, self._wait_for_frozen, self._on_fault)
        # When ingest waits for the flush, or has nothing to do, its processor flushes as well.
        self.second_flush = Worker(
            "second-flush", self._flush_step, self._wait_for_frozen, self._on_fault
        )
        self.compaction = Worker("compaction", self._compaction_step, self._wait_for_layers)
        self.write_pace = WritePace(
            compaction_bytes_per_second,
            lambda: store.backpressure.is_behind,
            self.compaction.rest,
        )
        self.retention = Worker("retention", self._retention_step, self._wait_for_retention)
        self.workers = (
            self.ingest, self.flush, self.second_flush, self.compaction, self.retention,
        )  # fmt: skip

    def start(self) -> None:
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """What is in memory and not flushed by now is ingested again after the next start."""
        for worker in self.workers:
            worker.begin_stop()
        self._stopping.set()
        self._store.end_flush()
        self._store.notify_wal()
        for worker in self.workers:
            worker.stop()

    def find_hold(self) -> Hold | None:
        """What holds ingest or flush up, if anything does."""
        intake, pressure = self._store.intake, self._store.backpressure
        if intake.room.problem is not None:
            return intake.hold_of(intake.room.problem)
        for worker in self.workers:
            hold = None if worker.waits_for is None else intake.hold_of(worker.waits_for)
            if hold is not None:
                return hold._replace(reason=f"{worker.name}: {hold.reason}")
        if pressure.must_wait:
            return Hold(WAITING, pressure.describe())
        return Hold(SLOWED, pressure.describe()) if pressure.is_behind else None

    def _on_fault(self) -> None:
        """A flush failed for good: what the disk has is not known, so the other does not go on."""
        for worker in (self.flush, self.second_flush):
            worker.begin_stop()
        self._store.end_flush()

    @property
    def has_ingested_all(self) -> bool:
        """Whether ingest has been at the end of the journal, or will never come there: if nothing
        is received, no other LSN becomes ready."""
        return self._has_met_end or self.ingest.error is not None

    def _wait_for_wal(self) -> None:
        self._has_met_end = True
        self._store.wal_arrived.wait(IDLE_SECONDS)
        self._store.wal_arrived.clear()

    def _wait_for_frozen(self) -> None:
        self._store.memtable_frozen.wait(IDLE_SECONDS)
        self._store.memtable_frozen.clear()

    def _wait_for_layers(self) -> None:
        self.compaction.rest(IDLE_SECONDS)

    def _compaction_step(self) -> bool:
        compactor = self._store.compactor
        if compactor is None:
            return False
        begin, before = self.write_pace.now(), compactor.bytes_written
        did_anything = self.evict() or compactor.step()
        self.write_pace.follow(begin, compactor.bytes_written - before)
        return did_anything

    def _wait_for_retention(self) -> None:
        self._stopping.wait(RETENTION_PACE_SECONDS)

    def _retention_step(self) -> bool:
        store = self._store
        bounds = self._retention_bounds
        store.retention.step(time.time(), bounds, store.versions.commit_times.lsn_at)
        return False  # at its pace, however much there was to do

    def _ingest_step(self) -> bool:
        begin = time.monotonic()
        did_anything = self._store.ingest_step()
        pause = self._store.backpressure.pause_seconds(time.monotonic() - begin)
        if did_anything and pause:
            self.ingest.rest(pause)
        return did_anything

    def _first_flush_step(self) -> bool:
        now = time.monotonic()
        if now - self._flushed_at >= self._flush_seconds_max or self._store.intake.is_journal_full:
            self._flushed_at = now
            self._store.freeze()
        return self._flush_step()

    def _flush_step(self) -> bool:
        if self._store.backpressure.must_wait:
            return False
        return self._store.flush_step()
