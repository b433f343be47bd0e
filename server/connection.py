"""One client's socket: bytes in, messages out, within bounds of time and memory.

A connection is served by one thread, which blocks in `recv` and `send`; the kernel's own socket
timeouts bound both, so that neither a client that does not read nor one that does not finish its
startup packet keeps the thread. There is one receive buffer, and whoever is in charge (startup,
queries, a page stream) takes what it needs from buffer[pos:end].
"""

import errno
import os
import select
import socket
import struct
import threading
import time

from formats import pgwire
from formats.pgwire import ProtocolError, Startup
from server.config import Settings

# Twice the longest message, so that the start of the next never hinders the end of this one. Holds
# 1,394 page requests.
RECEIVE_BYTES = 2 * pgwire.MESSAGE_BYTES_MAX


class ClientGone(Exception):
    """The connection ended, or takes too long: nothing can be said to the client any more."""


class StatementError(Exception):
    """A statement that cannot be executed. The client hears it, the connection goes on."""

    def __init__(self, message: str, sqlstate: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.hint = hint


class Connection:
    """The socket of one client, its receive buffer and its key for cancel requests."""

    def __init__(self, sock: socket.socket, process_id: int, secret: int, settings: Settings):
        self.sock = sock
        self.process_id = process_id
        self.secret = secret
        self.cancelled = threading.Event()
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.pos = 0
        self.end = 0
        self._send_timeout = settings.send_timeout
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(settings.send_timeout))

    # Receiving -----------------------------------------------------------------------------------

    def receive(self) -> None:
        """Add what has arrived to buffer[pos:end]; waits until there is something."""
        if self.pos == self.end:
            self.pos = self.end = 0
        elif self.end == RECEIVE_BYTES:
            self.buffer[: self.end - self.pos] = self.buffer[self.pos : self.end]
            self.end -= self.pos
            self.pos = 0
        try:
            count = self.sock.recv_into(self.buffer[self.end :])
        except OSError as error:
            raise ClientGone(describe_error(error.errno or 0)) from None
        if count == 0:
            raise ClientGone(describe_error(0))
        self.end += count

    def _take(self, length: int) -> bytes:
        while self.end - self.pos < length:
            self.receive()
        data = bytes(self.buffer[self.pos : self.pos + length])
        self.pos += length
        return data

    def read_message(self) -> tuple[bytes, bytes]:
        """(tag, body) of the next message."""
        tag, length = pgwire.parse_header(self._take(5))
        return tag, self._take(length - 5)

    def read_startup(self, timeout_seconds: float) -> Startup:
        """The startup packet, after refusing encryption; all of it within the time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            length = pgwire.parse_startup_length(self._take_before(deadline, 4))
            packet = struct.pack(">I", length) + self._take_before(deadline, length - 4)
            startup = pgwire.parse_startup(packet)
            if startup.code not in (pgwire.SSL_REQUEST, pgwire.GSS_REQUEST):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(0))
                return startup
            self.send(b"N")

    def _take_before(self, deadline: float, length: int) -> bytes:
        while self.end - self.pos < length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClientGone("no startup packet in time")
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(left))
            self.receive()
        return self._take(length)

    def hung_up(self) -> bool:
        """Whether the client has closed its side, seen without reading."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))

    # Sending -------------------------------------------------------------------------------------

    def send(self, *parts: bytes | memoryview) -> None:
        """Send all parts, gathered; within `send_timeout`."""
        views = [memoryview(part) for part in parts]
        deadline = time.monotonic() + self._send_timeout
        try:
            sent = self.sock.sendmsg(views)
            while True:
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if not views:
                    return
                views[0] = views[0][sent:]
                if time.monotonic() > deadline:
                    raise ClientGone(describe_error(errno.EAGAIN))
                sent = self.sock.sendmsg(views)
        except OSError as error:
            raise ClientGone(describe_error(error.errno or 0)) from None

    def send_error(self, error: StatementError | ProtocolError, severity: str = "ERROR") -> None:
        hint = error.hint if isinstance(error, StatementError) else ""
        self.send(pgwire.error_response(error.message, error.sqlstate, severity, hint))

    # Ending --------------------------------------------------------------------------------------

    def stop_receiving(self) -> None:
        """Called by another thread: the next `receive` finds the end, a `send` under way ends."""
        self._shut_down(socket.SHUT_RD)

    def abort(self) -> None:
        """Called by another thread: receiving and sending end at once."""
        self._shut_down(socket.SHUT_RDWR)

    def _shut_down(self, how: int) -> None:
        try:
            self.sock.shutdown(how)
        except OSError:
            return  # the client was faster

    def close(self) -> None:
        self.sock.close()


def describe_error(number: int) -> str:
    """Why a socket call ended the connection; 0: the client closed its side."""
    if number == 0:
        return "closed by the client"
    if number == errno.EAGAIN:
        return "the client was too slow"
    return os.strerror(number)


def _timeval(seconds: float) -> bytes:
    """What SO_RCVTIMEO takes; zero means no limit, so a limit is never rounded down to it."""
    microseconds = int(seconds * 1_000_000)
    if seconds > 0:
        microseconds = max(microseconds, 1)
    return struct.pack("ll", microseconds // 1_000_000, microseconds % 1_000_000)
