"""A second replication slot at the source, which keeps WAL until the bucket has it.

The WAL receiver's slot follows the flushed LSN: what our journal has, the source may forget. Should
this machine be lost with its journal, a server restored from the bucket needs WAL from the remote
LSN on. This slot stands there, so that it can always catch up.

    source's WAL   ──────────┬──────────────────┬──────────>
                             remote LSN         flushed LSN
                             this slot          the receiver's

It is moved by a replication connection that lasts for a moment: started where the WAL ends, so that
nothing comes, it reports the remote LSN as flushed and ends. The source keeps a bounded amount for
it: a bucket that cannot be reached must not fill the source's disk.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from engine.page_store import PageStore
from server.background import Worker
from server.replication import (
    ReplicationConnection,
    Stopped,
    StopSignal,
    StreamEnded,
    drop_slot,
)
from server.source_errors import SourceError, slot_is_given_up, slot_is_missing

MOVE_BYTES, MOVE_SECONDS = 16 << 20, 30.0  # moved when one of them has passed
END_SECONDS_MAX = 10.0
LOOK_SECONDS = 1.0  # between two steps
SUFFIX = "_bucket"
_log = logging.getLogger("pageserver.backup")


def name_beside(slot: str) -> str:
    """Of the second slot, where the receiver has `slot`."""
    return slot[: 63 - len(SUFFIX)] + SUFFIX


class SourceSlot:
    """One thread calls `step` now and then."""

    def __init__(
        self,
        wal_sources: Sequence[str],
        slot: str,
        bytes_max: int,
        stop: StopSignal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slot`: of the WAL receiver; `bytes_max`: of WAL that the source is to keep for us; 0:
        none, and the slot goes if there is one."""
        self.name = name_beside(slot)
        self.lsn = 0  # where it was moved last
        self.error = ""
        self._sources = list(wal_sources)
        self._bytes_max = bytes_max
        self._stop = stop
        self._clock = clock
        self._tried_at = -MOVE_SECONDS
        self._is_gone = False

    def step(self, remote_lsn: int, received_lsn: int) -> bool:
        """Do what is due; whether anything was done. A remote LSN of 0 is none yet."""
        is_due = self._clock() - self._tried_at >= MOVE_SECONDS
        if not self._bytes_max:
            if is_due and not self._is_gone:
                self._is_gone = self._try(self._drop)
                return self._is_gone
            return False
        target = max(remote_lsn, received_lsn - self._bytes_max)
        is_wanted = is_due or (not self.error and target - self.lsn >= MOVE_BYTES)
        if not remote_lsn or target <= self.lsn or not is_wanted:
            return False
        if self._try(lambda conninfo: self._move(conninfo, target)):
            self.lsn = target
        return self.lsn == target

    def _try(self, act: Callable[[str], bool]) -> bool:
        """At the first source that answers; whether it was done there."""
        self._tried_at = self._clock()
        for conninfo in self._sources:
            try:
                is_done = act(conninfo)
            except SourceError as error:
                self._note(str(error))
            except Stopped:
                return False
            else:
                self._note("")
                return is_done
        return False

    def _drop(self, conninfo: str) -> bool:
        drop_slot(conninfo, self.name, self._stop)
        return True

    def _move(self, conninfo: str, target: int) -> bool:
        with contextlib.closing(
            ReplicationConnection.open(conninfo, self.name, self._stop)
        ) as connection:
            if self.lsn == 0:
                connection.create_slot(self.name)
            source = connection.identify_system()
            try:
                following = connection.start_replication(
                    self.name, source.flushed_lsn, source.timeline
                )
            except SourceError as error:
                self._make_again(connection, error)
                self.lsn = source.flushed_lsn  # what is older was not kept
                return False
            if following is not None:
                return False  # this timeline has ended; the next time it is another
            connection.send_status(target, target, target, reply=False)
            connection.end_stream()
            deadline = time.monotonic() + END_SECONDS_MAX
            try:
                while time.monotonic() < deadline:
                    while connection.next_message() is not None:
                        continue
                    connection.receive(deadline - time.monotonic())
            except StreamEnded:
                return True
            raise SourceError(f"{connection.source} did not end the stream of {self.name}")

    def _make_again(self, connection: ReplicationConnection, error: SourceError) -> None:
        """In the place of one that somebody dropped, or that the source gave up as it held too much
        WAL; the error, if it is neither."""
        if slot_is_given_up(error):
            connection.drop_slot(self.name)
        elif not slot_is_missing(error):
            raise error
        connection.create_slot(self.name)
        _log.warning("the slot that keeps WAL for the bucket is made again: %s. The source may "
                     "have lost WAL that the bucket lacks yet", error.message)  # fmt: skip

    def _note(self, error: str) -> None:
        if error and not self.error:
            _log.warning("the slot that keeps WAL for the bucket: %s", error)
        elif self.error and not error:
            _log.info("the slot that keeps WAL for the bucket is as it should be again")
        self.error = error


def slot_worker(
    store: PageStore, wal_sources: Sequence[str], slot: str, bytes_max: int, stop: StopSignal
) -> Worker:
    """Moves the second slot, `slot` being the WAL receiver's; with 0 bytes, lets it go: nobody else
    would, and the source's disk would fill."""
    source, remote = SourceSlot(wal_sources, slot, bytes_max, stop), store.remote

    def step() -> bool:
        received = store.journal.received_lsn if remote.lsn else 0
        return not remote.is_fenced and source.step(remote.lsn, received)

    def wait() -> None:
        stop.wait(LOOK_SECONDS)

    return Worker("source-slot", step, wait)
