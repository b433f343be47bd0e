# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The page stream of one client as far as it goes without Python, and so without the GIL.

    receive ─> parse ─> two-LSN rule ─> pages from memory ─> send ─> receive ...

`run` goes on as long as every message is a request for a page that memory can answer now, and
returns to server/page_stream.py for anything else, saying what. Getting the GIL back costs a fight
when many clients are busy, so Python has no part in what happens for each batch.

Pages leave from where they lie in the page cache, whose slots stay pinned for one send that never
waits. What it does not take, because the client is slow, is copied to the reply buffer first.
"""

import cython

from formats.pagestream import PAGE_REPLY_BYTES  # noqa: F401  (8239 in the code)
from server import socket_calls

# Why `run` returned.
MESSAGE = 0  # `batch` is parsed, and is Python's to answer; or has no request, and `stop` says why
UNSENT = 1  # of replies[:length] only `sent` bytes have left, or a negated errno
LOST = 2  # nothing can be received: `received` is 0, if the client closed its side, or as above
STOPPED = 3


class Exchange:
    """A client's descriptor, its batch with both buffers, and a reader of pages.

    The descriptor must stay open as long as `run` may be called.
    """

    def __init__(self, descriptor, requests, batch, reader, stop):
        """`requests`: the batch's receive buffer; `reader`: a PageReader, or None, and Python
        answers all; `run` ends when stop[0] is set."""
        self.descriptor = descriptor
        self.requests = requests
        self.batch = batch
        self.reader = reader
        self.stop = stop
        self.pos = 0
        self.end = 0
        self.length = 0
        self.sent = 0
        self.received = 0

    def run(self, pos, end):
        """Serve requests[pos:end] and what comes after them; `pos` and `end` say what is left."""
        self.pos = pos
        self.end = end
        self.received = 0
        try:
            with cython.nogil:
                reason = self._serve()
        except OverflowError:
            return 0  # nothing is pinned: Python reads the pages one by one
        except (ValueError, IndexError):
            if self.reader is None or self.reader.rebuilding < 0:
                raise
            self.reader.release()
            return 0  # a page cannot be rebuilt: Python reads it again and says why
        return reason

    def _serve(self):
        while self.stop[0] == 0:
            self.batch.parse(self.pos, self.end)
            if self.batch.count == 0:
                if self.batch.stop != 0 or self.end == len(self.requests) and self.pos > 0:
                    return 0
                if not self._receive():
                    return 2
            else:
                if self.reader is None or self.batch.tag != 2 or not self._answer():
                    return 0
                self.pos = self.batch.end
                if not self._send(self.batch.replies, self.length):
                    return 1
        return 3

    def _receive(self):
        """Wait for more requests behind those that are there; whether any came."""
        if self.pos == self.end:
            self.pos = 0
            self.end = 0
        self.received = socket_calls.receive(self.descriptor, self.requests, self.end)
        if self.received > 0:
            self.end += self.received
        return self.received > 0

    def _answer(self):
        """Read the pages of the batch, or of what is left of it before one that must wait."""
        ready_lsn = self.reader.store.ready_lsn
        horizon_lsn = self.reader.store.horizon_lsn
        retained_lsn = self.batch.request_lsn[0]
        if retained_lsn >= horizon_lsn or not self.reader.store.retains(retained_lsn):
            retained_lsn = 0
        if horizon_lsn == 0:
            return False
        if self.batch.resolve(ready_lsn, ready_lsn, horizon_lsn, retained_lsn) == 0:
            return False
        if self.batch.refusal != 0:
            return False
        self.length = self.batch.frame_pages()
        return self.reader.answer(self.batch, self.batch.count, self.batch.replies, True)

    def _send(self, replies, length):
        """Send the batch's replies; whether all of them have left."""
        self.sent = 0
        if self.reader.pinned:
            self.sent = socket_calls.send_pages(
                self.descriptor, replies, length, self.reader.store.cache.data, self.reader.slot
            )
            if 0 <= self.sent < length:
                self.reader.fetch(self.sent // 8239, replies)
            self.reader.release()
        if 0 <= self.sent < length:
            count = socket_calls.send(self.descriptor, replies, self.sent, length)
            self.sent = count if count < 0 else self.sent + count
        return self.sent == length
