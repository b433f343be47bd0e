"""The page service: a listener, a thread for each client, and the LSN at which each is answered.

The number of clients is bounded; a few more are let in so far that they hear why they are turned
away, and can cancel what another connection waits for. `stop` lets each finish the batch it is
sending, and tells it that the server stops.
"""

import itertools
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping

from engine.errors import below_horizon
from formats import lsn as lsn_text
from formats import pagestream, pgwire
from formats.pagestream import DB_SIZE, LATEST_LSN, PageBatch
from server.config import Settings
from server.connection import ClientGone, Connection, StatementError
from server.restore_commands import Restore
from server.session import Session
from server.store import Store

log = logging.getLogger("pageserver.service")

# Connections beyond `connections_max` that are answered with an error; any more are just closed.
SPARE_CONNECTIONS = 16
# A wait for an LSN looks this often whether the client gave up.
WAIT_SLICE_SECONDS = 0.25
STOP_SECONDS = 2.0


def open_listener(host: str, port: int) -> socket.socket:
    """OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


class PageService:
    """Serves `store`; `status` is what `show status` answers, the store's own unless given."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        status: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.status = status or store.status
        self.restore_chunks: Restore | None = None  # with a bucket
        self.last_lsn: Callable[[], int | None] = lambda: None
        """The LSN above which none will ever be ready; None: any may."""
        self.stop_flag = memoryview(bytearray(1))  # kernels look at it
        self._lock = threading.Lock()
        self._threads: dict[Connection, threading.Thread] = {}
        self._admitted: set[Connection] = set()
        self._process_ids = itertools.count(1)
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None

    @property
    def stopping(self) -> bool:
        return bool(self.stop_flag[0])

    # Listening -----------------------------------------------------------------------------------

    def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the address, with the port that was found if `port` is 0."""
        self._listener = listener = open_listener(host, port)
        self._accepting = threading.Thread(
            target=self._accept, args=(listener,), name="page-service", daemon=True
        )
        self._accepting.start()
        address = listener.getsockname()
        return address[0], address[1]

    def _accept(self, listener: socket.socket) -> None:
        while not self.stopping:
            try:
                sock, _ = listener.accept()
            except OSError as error:
                if not self.stopping:  # most likely no file descriptor is left; one may come back
                    log.error("cannot accept a connection: %s", error)
                    time.sleep(0.1)
                continue
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        with self._lock:
            full = len(self._threads) >= self.settings.connections_max + SPARE_CONNECTIONS
        if full or self.stopping:
            sock.close()
            return
        process_id = next(self._process_ids) & 0x7FFFFFFF
        try:
            connection = Connection(sock, process_id, secrets.randbits(32), self.settings)
        except OSError:
            sock.close()  # it was gone before its options could be set
            return
        thread = threading.Thread(
            target=self._serve, args=(connection,), name=f"client-{process_id}", daemon=True
        )
        with self._lock:
            self._threads[connection] = thread
        try:
            thread.start()
        except RuntimeError as error:
            log.error("cannot serve a connection: %s", error)
            self._forget(connection)

    def _serve(self, connection: Connection) -> None:
        try:
            Session(connection, self).run()
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._threads.pop(connection, None)
            self._admitted.discard(connection)

    def stop(self) -> None:
        """End every connection and wait for its thread."""
        if self.stopping:
            return
        self.stop_flag[0] = 1
        if self._listener is not None and self._accepting is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._accepting.join()
            self._listener.close()
        with self._lock:
            threads = dict(self._threads)
        for connection in threads:
            connection.stop_receiving()
        deadline = time.monotonic() + STOP_SECONDS
        for connection, thread in threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                connection.abort()
                thread.join(STOP_SECONDS)

    # What sessions ask ---------------------------------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more client."""
        with self._lock:
            if len(self._admitted) >= self.settings.connections_max:
                return False
            self._admitted.add(connection)
            return True

    def cancel(self, process_id: int, secret: int) -> None:
        """End the wait of the connection with this key; says nothing if there is none."""
        with self._lock:
            connections = list(self._threads)
        for connection in connections:
            if connection.process_id == process_id and connection.secret == secret:
                connection.cancelled.set()

    def deadline(self) -> float:
        """When a request that came now has waited long enough for its LSN."""
        return time.monotonic() + self.settings.wait_lsn_timeout

    def resolve(self, batch: PageBatch) -> bool:
        """Give requests their LSNs; False: the first must wait.

        The batch is then answerable, or its only request refused: it is cut before a request that
        is refused or must wait.
        """
        ready_lsn = self.store.ready_lsn
        return bool(batch.resolve(ready_lsn, ready_lsn, *self._readable_from(batch)))

    def _readable_from(self, batch: PageBatch) -> tuple[int, int]:
        """The horizon, and the LSN of the first request if it is a retained one below it, or 0."""
        # Without a horizon the base backup has not ended, and its end is the horizon.
        horizon_lsn = self.store.horizon_lsn or LATEST_LSN
        lsn = batch.request_lsn[0]
        return horizon_lsn, lsn if lsn < horizon_lsn and self.store.is_retained(lsn) else 0

    def wait(self, batch: PageBatch, connection: Connection, deadline: float) -> None:
        """Let the first request of a batch wait for its LSN, if that may come; then like
        `resolve`."""
        ready_lsn = self.store.ready_lsn
        self._wait_for(batch.not_modified_since[0], connection, deadline)
        if not batch.resolve(ready_lsn, self.store.ready_lsn, *self._readable_from(batch)):
            batch.refuse(pagestream.TIMED_OUT)

    def resolve_lsn(self, lsn: int, connection: Connection) -> int:
        """The same rule for a statement at exactly `lsn`."""
        none = memoryview(bytearray(pagestream.PAGE_REPLY_BYTES))
        batch = PageBatch(1, none, none)
        batch.load(DB_SIZE, 0, 0, 0, 0, 0, lsn)
        self.resolve_statement(batch, connection)
        return int(batch.lsn[0])

    def resolve_statement(self, batch: PageBatch, connection: Connection) -> None:
        """Resolve a batch of one; a refusal is the statement's error."""
        if not self.resolve(batch):
            self.wait(batch, connection, self.deadline())
        if batch.refusal:
            raise StatementError(self.explain(batch), pgwire.DATA_UNAVAILABLE)

    def _wait_for(self, lsn: int, connection: Connection, deadline: float) -> None:
        connection.cancelled.clear()
        while True:
            left = max(0.0, deadline - time.monotonic())
            last = self.last_lsn()
            if last is not None and lsn > last:
                return
            if self.store.wait_for(lsn, min(left, WAIT_SLICE_SECONDS)):
                return
            if connection.cancelled.is_set():
                raise StatementError("canceled at the client's request", pgwire.QUERY_CANCELED)
            if self.stopping or connection.hung_up():
                raise ClientGone("gave up while it waited for an LSN")
            if left <= WAIT_SLICE_SECONDS:
                return

    def explain(self, batch: PageBatch) -> str:
        """Why the batch's request is refused."""
        if batch.refusal == pagestream.TIMED_OUT:
            return self._explain_time_out(lsn_text.show(batch.not_modified_since[0]))
        request = lsn_text.show(batch.request_lsn[0])
        since = lsn_text.show(batch.not_modified_since[0])
        ready = lsn_text.show(self.store.ready_lsn)
        horizon = lsn_text.show(self.store.horizon_lsn)
        return {
            pagestream.ZERO_LSN: "request_lsn is 0/0",
            pagestream.LSN_ORDER: f"request_lsn {request} is below not_modified_since {since}",
            pagestream.NOT_COMPLETE: "base backup not complete"
            + (f": ready at {horizon}, now {ready}" if self.store.horizon_lsn else ""),
            pagestream.BELOW_HORIZON: "request_lsn "
            + below_horizon(batch.request_lsn[0], self.store.horizon_lsn),
            pagestream.BAD_FORK: f"fork or SLRU kind {batch.fork[0]}: expected 0 to 3",
        }[batch.refusal]

    def _explain_time_out(self, wanted: str) -> str:
        """Names the lag, and what stands between the ready LSN and one that does not come."""
        status, last = self.status(), self.last_lsn()
        if last is not None and lsn_text.parse(wanted) > last:
            text = f"{wanted} is above {lsn_text.show(last)}, where what is here ends; no WAL comes"
            text += f", as there is no --wal-source; state: {status.get('state')}"
            return text + (f" ({status['error']})" if status.get("error") else "")
        text = f"{wanted} was not ready within {self.settings.wait_lsn_timeout:g} s: "
        text += f"ready is {lsn_text.show(self.store.ready_lsn)}"
        if status.get("received_lsn") is not None:
            text += f", received {status['received_lsn']}"
        if status.get("lag_bytes"):
            text += f", {status['lag_bytes']} bytes of it wait for ingest"
        if "state" in status:
            text += f"; state: {status['state']}"
        if status.get("error"):
            text += f" ({status['error']})"
        return text
