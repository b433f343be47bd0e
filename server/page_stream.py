"""The page stream of one client: requests in, pages out, a batch at a time.

    recv ─> receive buffer ─> parse ─> two-LSN rule ─> engine ─> reply buffer ─> send
            as many as are there, up to `batch_pages_max` of them together

What memory can answer goes round in server/exchange.py without Python. What comes here is the rest:
requests of other kinds, those that must wait for an LSN or are refused, pages that need layers or
history, errors, and a client's end. There is no timer: whatever has arrived by the time the
previous batch is sent is the next batch. Replies leave in the order of their requests.
"""

from mmap import mmap
from typing import TYPE_CHECKING

from engine.errors import RequestError
from formats import pagestream, pgwire
from formats.errors import CorruptionError
from formats.pagestream import PageBatch
from formats.pgwire import ProtocolError
from server.connection import ClientGone, Connection, StatementError, describe_error
from server.exchange import LOST, STOPPED, UNSENT, Exchange

if TYPE_CHECKING:
    from server.page_service import PageService


class PageStream:
    def __init__(self, service: "PageService", connection: Connection) -> None:
        capacity = service.settings.batch_pages_max
        self._service = service
        self._store = service.store
        self._connection = connection
        # From the kernel, so that a client with few requests under way touches little of it.
        self._replies = memoryview(mmap(-1, capacity * pagestream.PAGE_REPLY_BYTES))
        self._batch = PageBatch(capacity, connection.buffer, self._replies)
        self._exchange = Exchange(
            connection.sock.fileno(),
            connection.buffer,
            self._batch,
            self._store.page_reader(),
            service.stop_flag,
        )
        self._deadline: float | None = None

    def run(self) -> None:
        """Until the client ends the copy; a client that goes away raises ClientGone."""
        connection, batch, exchange = self._connection, self._batch, self._exchange
        connection.send(pgwire.copy_both_response())
        while True:
            reason = exchange.run(connection.pos, connection.end)
            connection.pos, connection.end = exchange.pos, exchange.end
            if exchange.received > 0:
                self._deadline = None
            if reason == STOPPED:
                raise ClientGone("the page server stops")
            if reason == LOST:
                raise ClientGone(describe_error(-exchange.received))
            if reason == UNSENT:
                self._send_rest()
            elif batch.count:
                self._answer()
                connection.pos = batch.end
            elif batch.stop == pagestream.NEED_MORE:
                connection.receive()  # it makes room first
                self._deadline = None
            elif batch.stop == pagestream.MALFORMED:
                raise ProtocolError(self._describe_malformed())
            elif self._ends():
                return

    def _send_rest(self) -> None:
        exchange = self._exchange
        if exchange.sent < 0:
            raise ClientGone(describe_error(-exchange.sent))
        self._connection.send(self._replies[exchange.sent : exchange.length])

    def _answer(self) -> None:
        """Answer the batch, or what is left of it before a request that must wait."""
        batch, connection = self._batch, self._connection
        if not self._service.resolve(batch):
            if self._deadline is None:  # what came together waits for its LSN together
                self._deadline = self._service.deadline()
            self._service.wait(batch, connection, self._deadline)
        if batch.refusal:
            connection.send(batch.error_reply(0, self._service.explain(batch)))
        elif batch.tag != pagestream.GET_PAGE:
            connection.send(self._answer_other())
        else:
            length = batch.frame_pages()
            self._store.get_pages(batch, batch.count, self._replies)
            if batch.failed():
                connection.send(*batch.page_parts())
            else:
                connection.send(self._replies[:length])

    def _answer_other(self) -> bytes:
        batch, store = self._batch, self._store
        lsn, fork, block = batch.lsn[0], batch.fork[0], batch.block[0]
        relation = batch.spc[0], batch.db[0], batch.rel[0], fork, lsn
        try:
            if batch.tag == pagestream.EXISTS:
                value = pagestream.exists_value(store.exists(*relation))
            elif batch.tag == pagestream.NBLOCKS:
                value = pagestream.nblocks_value(store.nblocks(*relation))
            elif batch.tag == pagestream.DB_SIZE:
                value = pagestream.db_size_value(store.db_size(batch.db[0], lsn))
            else:
                value = pagestream.slru_value(store.slru_segment(fork, block, lsn))
        except (RequestError, CorruptionError, OSError) as error:
            return batch.error_reply(0, str(error))
        return batch.reply(value)

    def _ends(self) -> bool:
        """Handle a message that is not CopyData; whether the copy is over."""
        tag, body = self._connection.read_message()
        if tag == b"c":
            self._connection.send(pgwire.copy_done() + pgwire.command_complete("COPY"))
            return True
        if tag == b"f":
            message = f"the client gave up: {pgwire.parse_copy_fail(body)}"
            raise StatementError(message, pgwire.QUERY_CANCELED)
        if tag in (b"H", b"S"):
            return False
        if tag == b"X":
            raise ClientGone("closed by the client")
        raise ProtocolError(f"message {tag!r}: not one that a page stream knows")

    def _describe_malformed(self) -> str:
        connection = self._connection
        frame = bytes(connection.buffer[connection.pos : min(connection.end, connection.pos + 48)])
        length = int.from_bytes(frame[1:5], "big")
        tag = str(frame[5]) if len(frame) > 5 else "unknown"
        return f"page request with tag {tag}, CopyData length {length}: not a pagestream_v3 request"
