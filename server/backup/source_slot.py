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

from server.replication import ReplicationConnection, Stopped, StopSignal, StreamEnded
from server.source_errors import SourceError

MOVE_BYTES, MOVE_SECONDS = 16 << 20, 30.0  # moved when one of them has passed
END_SECONDS_MAX = 10.0
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
        """`slot`: of the WAL receiver; `bytes_max`: of WAL that the source is to keep for us."""
        self.name = name_beside(slot)
        self.lsn = 0  # where it was moved last
        self.error = ""
        self._sources = list(wal_sources)
        self._bytes_max = bytes_max
        self._stop = stop
        self._clock = clock
        self._moved_at = -MOVE_SECONDS

    def step(self, remote_lsn: int, received_lsn: int) -> bool:
        """Move the slot if it is time to; whether it was moved."""
        target = max(remote_lsn, received_lsn - self._bytes_max)
        is_due = self._clock() - self._moved_at >= MOVE_SECONDS
        if not remote_lsn or target <= self.lsn or not (
            is_due or target - self.lsn >= MOVE_BYTES
        ):  # fmt: skip
            return False
        self._moved_at = self._clock()
        for conninfo in self._sources:
            try:
                self._move(conninfo, target)
            except SourceError as error:
                self._note(str(error))
            except Stopped:
                return False
            else:
                self._note("")
                self.lsn = target
                return True
        return False

    def _move(self, conninfo: str, target: int) -> None:
        with contextlib.closing(
            ReplicationConnection.open(conninfo, self.name, self._stop)
        ) as connection:
            if self.lsn == 0:
                connection.create_slot(self.name)
            source = connection.identify_system()
            if connection.start_replication(self.name, source.flushed_lsn, source.timeline):
                return  # this timeline has ended; the next time it is another
            connection.send_status(target, target, target, reply=False)
            connection.end_stream()
            deadline = time.monotonic() + END_SECONDS_MAX
            with contextlib.suppress(StreamEnded):
                while time.monotonic() < deadline:
                    while connection.next_message() is not None:
                        continue
                    connection.receive(deadline - time.monotonic())
                raise SourceError(f"{connection.source} did not end the stream of {self.name}")

    def _note(self, error: str) -> None:
        if error and not self.error:
            _log.warning("WAL back to the remote LSN may go at the source: %s", error)
        elif self.error and not error:
            _log.info("the source keeps WAL back to the remote LSN again")
        self.error = error
