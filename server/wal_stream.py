"""WAL from one connection into the journal, and reports back.

The loop takes what the socket has, writes it to the journal in pieces of up to 1 MiB, and fsyncs
when the source has nothing more to send, when it asks for an answer, or when 16 MiB or 0.1 s of WAL
are waiting: so a committing primary waits for one fsync here, and a busy one shares it among many
commits. Where no commit waits for us, 20 ms of WAL share an fsync: one for each transaction was
measured to cost the primary a fifth of its rate, as both use one disk. There, WAL that comes in
many small messages is also let pile up for some milliseconds (server/read_pace.py), unless a reader
waits for it. Ingest follows the journal by itself; nothing here waits for it, so keepalives are
answered however far it lags, and what it has not read yet is in files, not in memory. Where the
journal must not grow, because it is at its bound or the disk is full, nothing more is read, so that
the source keeps its WAL, and reports go out as before.

Where to begin. The source is asked for WAL from a little before the end of what is here, and what
comes is compared with it: a source whose WAL differs is not the one that it came from. Never from
before the segment in which the WAL here ends: the source was told that all of this is flushed here
and may have given up the segments before.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from engine.journal import Journal
from engine.remote_wal import RemoteWal
from engine.wal_intake import Hold
from formats import lsn
from server.read_pace import PAUSE_SECONDS, ReadPace
from server.replication import (
    KEEPALIVE,
    KEEPALIVE_MESSAGE,
    WAL_DATA,
    WAL_DATA_HEADER,
    NextTimeline,
    ReplicationConnection,
    Stopped,
    StreamEnded,
)
from server.source_errors import (
    SourceError,
    is_not_offered,
    other_system_identifier,
    slot_is_missing,
)
from server.wal_timelines import WalTimelines

PIECE_BYTES = 1 << 20
OVERLAP_BYTES = 128 << 10
UNSYNCED_BYTES_MAX = 16 << 20
UNSYNCED_SECONDS_MAX = 0.1
GROUP_SECONDS = 0.02
STATUS_SECONDS = 10.0
IDLE_SECONDS = 1.0  # how soon a new durable LSN is reported when nothing else is going on
HOLD_SECONDS = 0.25  # how soon it is noticed that the journal may grow again
HELD_STATUS_SECONDS = 1.0  # what the source asks for is not read then, so it is told before it asks
HELD_SECONDS_MAX = 30.0
"""A WAL sender that has to end, because its server stops or gives our slot up, cannot while nobody
reads what it sends, and a checkpoint there waits for it: so the connection is made anew by then."""
SILENCE_ASK_SECONDS = 30.0
SILENCE_SECONDS_MAX = 60.0

_log = logging.getLogger(__name__)


class HeldTooLong(Exception):
    """Nothing could be taken for so long that the connection had better be a new one."""


class WalStore(Protocol):
    """What receiving WAL needs of the engine; none of it may block for longer than it is told."""

    @property
    def journal(self) -> Journal: ...

    @property
    def durable_lsn(self) -> int: ...

    @property
    def remote(self) -> RemoteWal: ...

    def notify_wal(self) -> None:
        """The journal has more bytes."""

    def wal_hold(self, length: int) -> Hold | None:
        """Why the journal must not take `length` more bytes now, None if it may."""

    def hold_of(self, error: OSError) -> Hold | None:
        """The same for a write that failed; None if it is a fault."""

    def wait_for_reader(self, timeout_seconds: float) -> bool:
        """Until a reader waits for WAL that is not here; False if the time is over before."""


class WalStream:
    """One connection's life after it is made; `run` returns when the source shuts down."""

    def __init__(
        self,
        connection: ReplicationConnection,
        store: WalStore,
        system_identifier: int,
        slot: str | None,
        on_hold: Callable[[Hold | None], None] = lambda hold: None,
    ) -> None:
        """`on_hold` is called when nothing more may be taken, and with None when it may again."""
        self._connection = connection
        self._on_hold = on_hold
        self._store = store
        self._journal = store.journal
        self._timelines = WalTimelines(connection, store.journal)
        self._system_identifier = system_identifier
        self._slot = slot
        self._pending: list[memoryview] = []
        self._pending_bytes = 0
        self._expected_lsn = 0
        self._reported = (0, 0, 0)
        self._report_time = 0.0
        self._heard_time = 0.0
        self._unsynced_since = 0.0
        self._group_seconds = 0.0
        self._pace = ReadPace(time.monotonic)
        self._held: Hold | None = None
        self._held_since = 0.0

    def run(self, on_streaming: Callable[[], None]) -> None:
        identity = self._connection.identify_system()
        if identity.system_identifier != self._system_identifier:
            raise other_system_identifier(
                self._system_identifier, identity.system_identifier, self._connection.source
            )
        self._group_seconds = self._ask_group_seconds()
        if self._journal.is_empty and self._journal.timeline == 0:
            self._timelines.begin_journal(identity, self._store.durable_lsn)
        limit = self._timelines.limit(identity)
        while True:
            start = min(self._start_lsn(), limit)
            following = self._start(start)
            if following is None:
                on_streaming()
                following = self._stream(start)
            if following is None:
                return
            self._follow(following)
            limit = lsn.LSN_MAX

    # From where

    def _start_lsn(self) -> int:
        received, segment_bytes = self._journal.received_lsn, self._journal.segment_bytes
        return max(received - OVERLAP_BYTES, received - received % segment_bytes)

    def _start(self, start: int) -> NextTimeline | None:
        timeline = self._journal.timeline
        try:
            return self._connection.start_replication(self._slot, start, timeline)
        except SourceError as error:
            if self._slot is not None and is_not_offered(error):
                _log.warning(
                    "%s has no replication slots: it must keep its WAL by itself until the page "
                    "server has it",
                    self._connection.source,
                )
                self._slot = None
            elif self._slot is not None and slot_is_missing(error):
                _log.warning("slot %s is missing at the source: made again", self._slot)
                self._connection.create_slot(self._slot)
            else:
                raise
        return self._connection.start_replication(self._slot, start, timeline)

    def _follow(self, following: NextTimeline) -> None:
        self._timelines.refuse_beyond(following.start_lsn, following.timeline)
        if self._journal.received_lsn < following.start_lsn:
            raise SourceError(
                f"{self._connection.source} ended timeline {self._journal.timeline} at "
                f"{lsn.show(following.start_lsn)} but sent only WAL up to "
                f"{lsn.show(self._journal.received_lsn)}"
            )
        switch, content = following.start_lsn, self._connection.timeline_history(following.timeline)
        self._store.remote.leave(switch, following.timeline)
        self._journal.follow(following.timeline, switch, content)
        self._store.notify_wal()
        _log.info("following timeline %d from %s", following.timeline, lsn.show(switch))

    # The stream

    def _stream(self, start: int) -> NextTimeline | None:
        """Receive until the source ends the stream; None if it just shuts down."""
        self._expected_lsn = start
        self._heard_time = time.monotonic()
        self._report(reply=False)
        try:
            while True:
                self._take_messages()
                if self._pending_bytes < PIECE_BYTES and self._receive_more():
                    continue
                self._write()
                self._pause()
                # More is here, or came while we wrote: the fsync can wait for it, if not for long.
                if self._fsync_can_wait() and self._receive_more(self._group_left()):
                    continue
                self._sync()
                self._report_if_due()
                self._wait()
        except StreamEnded as ended:
            return ended.next_timeline
        except Stopped:
            self._write_what_can_be()
            self._report(reply=False)
            raise
        finally:
            # What came is worth keeping however the stream ends.
            self._write_what_can_be()

    def _pause(self) -> None:
        """Let small messages pile up, where neither a commit nor a reader waits for them."""
        if self._group_seconds and self._pace.is_pause_due():
            self._store.wait_for_reader(PAUSE_SECONDS)

    def _receive_more(self, seconds: float = 0.0) -> bool:
        """Take what the socket has, or gets within so many seconds; whether that was anything."""
        if not self._connection.receive(seconds):
            return False
        self._heard_time = time.monotonic()
        return True

    def _group_left(self) -> float:
        """How long an fsync may still wait for WAL to share it with."""
        if self._journal.received_lsn == self._journal.flushed_lsn:
            return 0.0
        waited = time.monotonic() - self._unsynced_since
        return max(0.0, self._group_seconds - waited)

    def _ask_group_seconds(self) -> float:
        """0 where commits may wait for us, that is, where any standby is synchronous.

        Asked once a connection: who makes us a synchronous standby while it lasts has commits that
        wait up to GROUP_SECONDS longer, until we connect anew.
        """
        try:
            standbys = self._connection.show("synchronous_standby_names")
        except SourceError:
            return 0.0
        return 0.0 if standbys else GROUP_SECONDS

    def _fsync_can_wait(self) -> bool:
        if self._heard_time - self._report_time > STATUS_SECONDS:
            return False
        unsynced_bytes = self._journal.received_lsn - self._journal.flushed_lsn
        unsynced_seconds = self._heard_time - self._unsynced_since
        return unsynced_bytes < UNSYNCED_BYTES_MAX and unsynced_seconds < UNSYNCED_SECONDS_MAX

    def _take_messages(self) -> None:
        """Take the messages that are here, up to one piece of WAL."""
        connection = self._connection
        while self._pending_bytes < PIECE_BYTES:
            message = connection.next_message()
            if message is None:
                return
            if message[0] == WAL_DATA:
                self._take_wal(message)
            elif message[0] == KEEPALIVE and KEEPALIVE_MESSAGE.unpack(message)[3]:
                self._write()
                self._sync()
                self._report(reply=False)

    def _take_wal(self, message: memoryview) -> None:
        _, start, _, _ = WAL_DATA_HEADER.unpack_from(message)
        data = message[WAL_DATA_HEADER.size :]
        if start != self._expected_lsn:
            raise SourceError(
                f"{self._connection.source} sent WAL from {lsn.show(start)} where "
                f"{lsn.show(self._expected_lsn)} was due"
            )
        self._pace.note(len(data))
        self._expected_lsn += len(data)
        known = self._journal.received_lsn - start
        if known > 0:
            self._compare(start, data[:known])
            data = data[known:]
        if len(data) > 0:
            self._pending.append(data)
            self._pending_bytes += len(data)

    def _compare(self, start: int, data: memoryview) -> None:
        if self._journal.has(start, data):
            return
        raise SourceError(
            f"the WAL of {self._connection.source} differs, between {lsn.show(start)} and "
            f"{lsn.show(start + len(data))}, from what was received before",
            "It is not the server that the WAL came from, or it was set back to an older state. "
            "Name the right one, or start with an empty data directory",
            permanent=True,
        )

    def _write(self) -> None:
        """Write what is pending, as soon as it may be written."""
        while self._pending:
            hold = self._store.wal_hold(self._pending_bytes)
            if hold is None:
                hold = self._unless_full(self._append)
            if hold is not None:
                self._hold(hold)
        self._end_hold()

    def _append(self) -> None:
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        if self._journal.received_lsn == self._journal.flushed_lsn:
            self._unsynced_since = time.monotonic()
        start = self._journal.received_lsn
        try:
            self._journal.append(start, data)
        finally:
            rest = memoryview(data)[self._journal.received_lsn - start :]
            self._pending, self._pending_bytes = [rest] if rest else [], len(rest)
            self._store.notify_wal()

    def _sync(self) -> None:
        """Make what was written durable, as soon as there is room for the sums of it."""
        while (hold := self._unless_full(self._journal.sync)) is not None:
            self._hold(hold)
        self._end_hold()

    def _write_what_can_be(self) -> None:
        """The same at the end of a stream, where nobody waits: the rest will be sent again."""
        if self._pending and self._store.wal_hold(self._pending_bytes) is None:
            self._unless_full(self._append)
        self._pending, self._pending_bytes = [], 0
        self._unless_full(self._journal.sync)

    # Where nothing more may be written

    def _unless_full(self, action: Callable[[], object]) -> Hold | None:
        """Do it; why that cannot be now, if the disk is full."""
        try:
            action()
        except OSError as error:
            hold = None if self._journal.has_failed else self._store.hold_of(error)
            if hold is None:
                raise
            return hold
        return None

    def _hold(self, hold: Hold) -> None:
        """Read nothing for a moment, but let the source know that we are there."""
        if self._held is None or self._held.state != hold.state:
            _log.warning("no more WAL is taken: %s", hold.reason)
        if self._held is None:
            self._held_since = time.monotonic()
        self._held = hold
        self._on_hold(hold)
        if self._journal.received_lsn != self._journal.flushed_lsn:
            self._unless_full(self._journal.sync)  # what is here may be what a flush waits for
        if time.monotonic() - self._report_time >= HELD_STATUS_SECONDS:
            self._report(reply=False)
        if time.monotonic() - self._held_since > HELD_SECONDS_MAX:
            raise HeldTooLong
        if self._connection.wait(HOLD_SECONDS, events=0):
            raise SourceError(f"{self._connection.source} closed the connection")

    def _end_hold(self) -> None:
        if self._held is not None:
            _log.info("WAL is taken again")
            self._held, self._heard_time = None, time.monotonic()
            self._on_hold(None)

    def _wait(self) -> None:
        """Wait for the source; complain when it is silent for too long."""
        silence = time.monotonic() - self._heard_time
        if self._connection.receive(IDLE_SECONDS):
            self._heard_time = time.monotonic()
        elif silence > SILENCE_SECONDS_MAX:
            raise SourceError(f"nothing heard from {self._connection.source} for {silence:.0f} s")
        elif silence > SILENCE_ASK_SECONDS:
            self._report(reply=True)

    # Reports

    def _report_if_due(self) -> None:
        """Report when there is something new that is durable, and every 10 s."""
        if (
            self._positions()[1:] != self._reported[1:]
            or time.monotonic() - self._report_time >= STATUS_SECONDS
        ):
            self._report(reply=False)

    def _report(self, *, reply: bool) -> None:
        """Say where we are; nothing once the bucket is another's."""
        if self._store.remote.is_fenced:
            raise Stopped
        self._reported = self._positions()
        self._report_time = time.monotonic()
        self._connection.send_status(*self._reported, reply=reply)

    def _positions(self) -> tuple[int, int, int]:
        """Received, flushed, applied."""
        flushed = self._journal.flushed_lsn
        applied = self._store.remote.applied(self._store.durable_lsn)
        return self._journal.received_lsn, flushed, min(applied, flushed)
