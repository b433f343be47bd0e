"""One connection that speaks PostgreSQL's replication protocol.

libpq does the work, through `psycopg.pq`. Its blocking calls keep Python's interpreter lock while
they wait (`get_copy_data(0)` on an idle stream stops every other thread), so only asynchronous
ones are used here, and the waiting is done in `poll`, where a `StopSignal` ends it too. Commands go
by the simple query protocol, the only one a WAL sender takes.

Messages of a running stream (after START_REPLICATION or BASE_BACKUP) come from `next_message`; the
first byte says what they are. The three that matter for WAL:

    'w'  u64 LSN of the first byte, u64 end of WAL at the source, u64 clock; then WAL bytes
    'k'  u64 end of WAL at the source, u64 clock, u8 1 if an answer is wanted at once
    'r'  ours: u64 received, u64 flushed, u64 applied, u64 clock, u8 1 if an answer is wanted
"""

import contextlib
import os
import re
import select
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from formats import lsn
from server.source_errors import SourceError, is_not_offered, slot_is_missing, source_error

WAL_DATA = ord("w")
KEEPALIVE = ord("k")
WAL_DATA_HEADER = struct.Struct(">BQQQ")
KEEPALIVE_MESSAGE = struct.Struct(">BQQB")
_STATUS = struct.Struct(">BQQQQB")

CONNECT_SECONDS_MAX = 10.0
COMMAND_SECONDS_MAX = 60.0
STREAM_END_SECONDS_MAX = 3600.0  # a base backup's end may wait for the source
_EPOCH_2000_SECONDS = 946684800

_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")
_OBJECT_EXISTS = "42710"


class Stopped(Exception):
    """The stop signal was set while we waited for the source."""


class StopSignal:
    """An event that `poll` can wait for; set once, from any thread or a signal handler."""

    def __init__(self) -> None:
        self._file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._set = False

    def set(self) -> None:
        self._set = True
        os.eventfd_write(self._file, 1)

    def is_set(self) -> bool:
        return self._set

    def fileno(self) -> int:
        return self._file

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it is set; waits at most so long for it."""
        if not self._set:
            select.select([self._file], [], [], timeout_seconds)
        return self._set

    def __del__(self) -> None:
        os.close(self._file)


@dataclass(frozen=True)
class SourceIdentity:
    """What IDENTIFY_SYSTEM says."""

    system_identifier: int
    timeline: int
    flushed_lsn: int


@dataclass(frozen=True)
class NextTimeline:
    """The stream of a timeline ended: it goes on with this one, from this LSN."""

    timeline: int
    start_lsn: int


class StreamEnded(Exception):
    """The source ended the stream; `results` are what it sent behind it."""

    def __init__(self, results: Sequence[pq.abc.PGresult]) -> None:
        super().__init__("the source ended the stream")
        self.results = results

    @property
    def next_timeline(self) -> NextTimeline | None:
        """For a stream of WAL: how it goes on; None when the source just shuts down."""
        return _next_timeline(self.results)


def rows(result: pq.abc.PGresult) -> list[list[str]]:
    """The rows of a result in text, "" for null."""
    return [
        [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
        for row in range(result.ntuples)
    ]


def describe_source(conninfo: str) -> str:
    """A connection string for people: no password in it."""
    try:
        parts = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        return "an unreadable connection string"
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    return f"{host}:{parts.get('port') or 5432}"


class ReplicationConnection:
    """A replication connection; `open` makes one."""

    def __init__(self, connection: pq.abc.PGconn, source: str, stop: StopSignal) -> None:
        self._connection = connection
        self._stop = stop
        self.source = source

    @classmethod
    def open(
        cls, conninfo: str, application_name: str, stop: StopSignal
    ) -> "ReplicationConnection":
        """Connect; SourceError when that fails, Stopped when the signal came first."""
        try:
            # The name of the database only chooses the line of a password file, as for
            # PostgreSQL's own tools.
            full = make_conninfo(
                conninfo,
                replication="true",
                dbname="replication",
                application_name=application_name,
                client_encoding="UTF8",
            )
        except psycopg.ProgrammingError as error:
            raise SourceError(
                f"cannot read the connection string: {error}", permanent=True
            ) from None
        self = cls(pq.PGconn.connect_start(full.encode()), describe_source(conninfo), stop)
        try:
            self._finish_connecting()
        except BaseException:
            self.close()
            raise
        return self

    def _finish_connecting(self) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS_MAX
        status = int(pq.PollingStatus.WRITING)
        while status != pq.PollingStatus.OK:
            if status == pq.PollingStatus.FAILED:
                raise self._error()
            events = select.POLLIN if status == pq.PollingStatus.READING else select.POLLOUT
            if not self.wait(deadline - time.monotonic(), events):
                raise SourceError(
                    f"no answer from {self.source} within {CONNECT_SECONDS_MAX:.0f} s"
                )
            status = self._connection.connect_poll()
        self._connection.nonblocking = 1

    def close(self) -> None:
        self._connection.finish()

    def wait(self, timeout_seconds: float, events: int = select.POLLIN) -> bool:
        """Wait until the socket is ready: False when the time was up. Stopped if we are told to."""
        poll = select.poll()
        try:
            poll.register(self._connection.socket, events)
        except psycopg.OperationalError:
            raise self._error() from None
        poll.register(self._stop.fileno(), select.POLLIN)
        ready = poll.poll(max(0.0, timeout_seconds) * 1000)
        if self._stop.is_set():
            raise Stopped
        return bool(ready)

    # Commands

    def execute(
        self, command: str, timeout_seconds: float = COMMAND_SECONDS_MAX
    ) -> Sequence[pq.abc.PGresult]:
        """All results of one command; one that starts a stream ends the list."""
        self.send(command)
        deadline = time.monotonic() + timeout_seconds
        results = []
        while (result := self.next_result(deadline)) is not None:
            results.append(result)
            if result.status in (pq.ExecStatus.COPY_BOTH, pq.ExecStatus.COPY_OUT):
                break
        return results

    def send(self, command: str) -> None:
        try:
            self._connection.send_query(command.encode())
        except psycopg.OperationalError:
            raise self._error() from None
        self._flush()

    def next_result(self, deadline: float) -> pq.abc.PGresult | None:
        """The next result of a command that was sent, None behind the last one."""
        result = self._next_result(deadline)
        if result is None or result.status != pq.ExecStatus.FATAL_ERROR:
            return result
        # Only the end of the command follows an error, or the end of the connection.
        with contextlib.suppress(SourceError):
            while self._next_result(deadline) is not None:
                pass
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        raise source_error(result.get_error_message(), sqlstate)

    def _next_result(self, deadline: float) -> pq.abc.PGresult | None:
        while self._connection.is_busy():
            if not self.wait(deadline - time.monotonic()):
                raise SourceError(f"no answer from {self.source} to a command in time")
            self._consume()
        return self._connection.get_result()

    def _row(self, command: str) -> list[str]:
        results = self.execute(command)
        if not results or results[0].ntuples != 1:
            raise SourceError(f"{self.source} answered {command} with no row", permanent=True)
        return rows(results[0])[0]

    def identify_system(self) -> SourceIdentity:
        identifier, timeline, position = self._row("IDENTIFY_SYSTEM")[:3]
        return SourceIdentity(int(identifier), int(timeline), lsn.parse(position))

    def show(self, setting: str) -> str:
        """The value of a setting there, in the text form of SHOW."""
        return self._row(f"SHOW {setting}")[0]

    def server_version_number(self) -> int:
        return self._connection.server_version

    def timeline_history(self, timeline: int) -> bytes:
        """The history file of a timeline above 1."""
        results = self.execute(f"TIMELINE_HISTORY {timeline}")
        content = results[0].get_value(0, 1) if results and results[0].ntuples == 1 else None
        if content is None:
            raise SourceError(f"{self.source} has no history of timeline {timeline}")
        return content

    # Slots

    def create_slot(self, slot: str) -> bool:
        """Make a physical slot that holds WAL from now on; False if it exists already.

        SourceError that `is_not_offered` when the source has no slots.
        """
        try:
            self.execute(f'CREATE_REPLICATION_SLOT "{checked_slot(slot)}" PHYSICAL RESERVE_WAL')
        except SourceError as error:
            if error.sqlstate == _OBJECT_EXISTS:
                return False
            raise
        return True

    def drop_slot(self, slot: str) -> bool:
        """Drop a slot; False if there is none of this name."""
        try:
            self.execute(f'DROP_REPLICATION_SLOT "{checked_slot(slot)}"')
        except SourceError as error:
            if slot_is_missing(error):
                return False
            raise
        return True

    # Streams

    def start_replication(self, slot: str | None, start: int, timeline: int) -> NextTimeline | None:
        """Start streaming WAL; what it returns says that there is none left on this timeline."""
        with_slot = f'SLOT "{checked_slot(slot)}" ' if slot is not None else ""
        command = f"START_REPLICATION {with_slot}PHYSICAL {lsn.show(start)} TIMELINE {timeline}"
        results = self.execute(command)
        if results and results[-1].status == pq.ExecStatus.COPY_BOTH:
            return None
        following = _next_timeline(results)
        if following is None:
            raise SourceError(f"{self.source} did not start to stream")
        return following

    def next_message(self) -> memoryview | None:
        """The next message of the stream, or None when none is here yet: `receive`, then ask again.

        Raises StreamEnded at the stream's end.
        """
        try:
            length, data = self._connection.get_copy_data(1)
        except psycopg.OperationalError:
            raise self._error() from None
        if length > 0:
            return data
        if length == 0:
            return None
        raise StreamEnded(self._finish_stream())

    def receive(self, timeout_seconds: float) -> bool:
        """Wait for bytes and take them from the socket; False when the time was up."""
        if not self.wait(timeout_seconds):
            return False
        self._consume()
        return True

    def send_status(self, received: int, flushed: int, applied: int, *, reply: bool) -> None:
        """Report to the source; with `reply` it answers with a keepalive."""
        clock = int((time.time() - _EPOCH_2000_SECONDS) * 1_000_000)
        message = _STATUS.pack(ord("r"), received, flushed, applied, clock, reply)
        try:
            self._connection.put_copy_data(message)
        except psycopg.OperationalError:
            raise self._error() from None
        self._flush()

    def end_stream(self) -> None:
        """Tell the source that we are done; it stops sending."""
        try:
            self._connection.put_copy_end()
        except psycopg.OperationalError:
            raise self._error() from None
        self._flush()

    def _finish_stream(self) -> Sequence[pq.abc.PGresult]:
        """Collect what follows the end of a stream."""
        deadline = time.monotonic() + STREAM_END_SECONDS_MAX
        results: list[pq.abc.PGresult] = []
        try:
            while (result := self.next_result(deadline)) is not None:
                if result.status != pq.ExecStatus.COPY_IN:
                    results.append(result)
                else:
                    self.end_stream()  # the source closed its half; now ours
                if result.status == pq.ExecStatus.COPY_OUT:
                    break  # another stream begins
        except SourceError as error:
            # A server that shuts down says so and closes the connection.
            if error.sqlstate or not results:
                raise
        return results

    def _consume(self) -> None:
        try:
            self._connection.consume_input()
        except psycopg.OperationalError:
            raise self._error() from None

    def _flush(self) -> None:
        try:
            while self._connection.flush():
                self.wait(COMMAND_SECONDS_MAX, select.POLLIN | select.POLLOUT)
                self._connection.consume_input()
        except psycopg.OperationalError:
            raise self._error() from None

    def _error(self) -> SourceError:
        return source_error(f"{self._connection.get_error_message()}")


def _next_timeline(results: Sequence[pq.abc.PGresult]) -> NextTimeline | None:
    for result in results:
        if result.status == pq.ExecStatus.TUPLES_OK and result.ntuples == 1 and result.nfields == 2:
            timeline, start = rows(result)[0]
            return NextTimeline(int(timeline), lsn.parse(start))
    return None


def checked_slot(slot: str) -> str:
    """The name of a slot, refused unless PostgreSQL takes it too."""
    if not _SLOT_NAME.fullmatch(slot):
        raise SourceError(
            f"{slot!r} cannot be the name of a replication slot",
            "Use up to 63 lower-case letters, digits and underscores",
            permanent=True,
        )
    return slot


def drop_slot(conninfo: str, slot: str, stop: StopSignal) -> bool:
    """Connect, drop a slot, disconnect; False if there is none of this name."""
    with contextlib.closing(ReplicationConnection.open(conninfo, slot, stop)) as connection:
        try:
            return connection.drop_slot(slot)
        except SourceError as error:
            if is_not_offered(error):
                return False
            raise
