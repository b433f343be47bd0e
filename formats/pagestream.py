# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Page requests and replies (`pagestream_v3`), in batches.

Each message is the payload of one CopyData frame ('d', length u32). Integers are big-endian.

    request   tag u8, reqid u64, request_lsn u64, not_modified_since u64, body
    reply     the request with its tag exchanged, then the value

    tag      body of the request                          tag of the reply, value
    0   Exists          spc u32, db u32, rel u32, fork u8           100   u8 (0 or 1)
    1   Nblocks         the same 13 bytes                           101   u32
    2   GetPage         the same, block u32                         102   8192 bytes
    3   DbSize          db u32                                      104   i64, bytes
    4   GetSlruSegment  kind u8, segment u32                        105   blocks u32, blocks x 8192
                        Error: in place of body and value a         103
                        zero-terminated text

A PageBatch takes from a receive buffer either the longest run of complete GetPage requests, up to
its capacity, or one request of another kind (its columns then hold what the body has; an SLRU's
kind is in `fork`, its segment in `block`; DbSize has only `db`). A GetPage request and the head of
its reply are both 47 bytes and nearly the same bytes, so the replies are laid out beside each other
in one buffer, and the engine writes each page straight to where it leaves from.

No function that a page goes through needs the GIL: server/exchange.py calls them without it.
"""

import struct

from formats import coding

EXISTS = 0
NBLOCKS = 1
GET_PAGE = 2
DB_SIZE = 3
GET_SLRU_SEGMENT = 4

ERROR_REPLY = 103
REPLY_TAGS = {EXISTS: 100, NBLOCKS: 101, GET_PAGE: 102, DB_SIZE: 104, GET_SLRU_SEGMENT: 105}

PAGE_BYTES = 8192
# Of a GetPage request, its frame included, and of the head of its reply; of the whole reply.
HEAD_BYTES = 47
PAGE_REPLY_BYTES = HEAD_BYTES + PAGE_BYTES

ERROR_BYTES_MAX = 4096
LATEST_LSN = 0xFFFFFFFFFFFFFFFF

# Why PageBatch.parse stopped without a request.
NEED_MORE = 0
CONTROL = 1
MALFORMED = 2

# PageBatch.refusal: why a request does not get as far as the engine.
NOT_COMPLETE = 1
ZERO_LSN = 2
LSN_ORDER = 3
BELOW_HORIZON = 4
BAD_FORK = 5
TIMED_OUT = 6


class PageBatch:
    """Requests of one client in columns; `count` of them are valid.

    For the engine, which answers GetPage: spc, db, rel, fork, block and `lsn` say which page each
    request is for, out_pos where it goes in the reply buffer. A request that fails gets a nonzero
    `status` and a text in `errors`.
    """

    def __init__(self, capacity: int, requests: memoryview, replies: memoryview) -> None:
        """`requests` is the receive buffer; `replies` has room for `capacity` page replies."""
        if len(replies) < capacity * PAGE_REPLY_BYTES:
            raise ValueError("the reply buffer is too small for the batch")
        self.capacity = capacity
        self.requests = requests
        self.replies = replies
        self.tag = self.count = self.stop = self.refusal = self.start = self.end = 0
        self.spc = _column(capacity, 4, "I")
        self.db = _column(capacity, 4, "I")
        self.rel = _column(capacity, 4, "I")
        self.fork = _column(capacity, 1, "B")
        self.block = _column(capacity, 4, "I")
        self.request_lsn = _column(capacity, 8, "Q")
        self.not_modified_since = _column(capacity, 8, "Q")
        self.lsn = _column(capacity, 8, "Q")
        self.out_pos = _column(capacity, 8, "Q")
        self.status = _column(capacity, 1, "B")
        self.errors: dict[int, str] = {}

    def parse(self, pos: int, end: int) -> int:
        """Take what requests[pos:end] begins with; returns `self.end`, where the rest begins.

        With `count` 0, `stop` says why: NEED_MORE bytes, a CONTROL message that is not CopyData, or
        MALFORMED. A run ends before a frame that it cannot take, which is then parsed on its own.
        """
        requests = self.requests
        if self.failed():
            self._forget_errors()
        self.tag = 2
        self.count = 0
        self.stop = 0
        self.refusal = 0
        self.start = pos
        self.end = pos
        while (
            self.count < self.capacity
            and end - pos >= 47
            and requests[pos] == 100
            and coding.be32(requests, pos + 1) == 46
            and requests[pos + 5] == 2
        ):
            self._take(requests, pos, 2)
            pos += 47
            self.count += 1
        self.end = pos
        if self.count == 0:
            self._parse_other(requests, pos, end)
        return self.end

    def _forget_errors(self) -> int:
        self.errors.clear()
        return 0

    def _parse_other(self, requests: memoryview, pos: int, end: int) -> int:
        """The frame at `pos` is no complete GetPage request: take it, or set `stop`."""
        if end - pos < 5:
            return 0
        if requests[pos] != 100:
            self.stop = 1
            return 0
        length = coding.be32(requests, pos + 1)
        if length < 33 or length > 46:
            self.stop = 2
            return 0
        if end - pos < length + 1:
            return 0
        tag = requests[pos + 5]
        if tag > 4 or length != self._frame_length(tag):
            self.stop = 2
            return 0
        self._take(requests, pos, tag)
        self.tag = tag
        self.count = 1
        self.end = pos + length + 1
        return 0

    def _frame_length(self, tag: int) -> int:
        """What a request's CopyData gives as its length: 4 for itself, 25 of header, the body."""
        if tag == 2:
            return 46
        if tag == 3:
            return 33
        if tag == 4:
            return 34
        return 42

    def _take(self, requests: memoryview, pos: int, tag: int) -> int:
        """Put the request whose frame begins at `pos` into row `count` of the columns."""
        i = self.count
        self.request_lsn[i] = coding.be64(requests, pos + 14)
        self.not_modified_since[i] = coding.be64(requests, pos + 22)
        self.status[i] = 0
        if tag == 3:
            self.db[i] = coding.be32(requests, pos + 30)
            return 0
        if tag == 4:
            self.fork[i] = requests[pos + 30]
            self.block[i] = coding.be32(requests, pos + 31)
            return 0
        self.spc[i] = coding.be32(requests, pos + 30)
        self.db[i] = coding.be32(requests, pos + 34)
        self.rel[i] = coding.be32(requests, pos + 38)
        self.fork[i] = requests[pos + 42]
        if tag == 2:
            self.block[i] = coding.be32(requests, pos + 43)
        return 0

    def load(self, tag: int, spc: int, db: int, rel: int, fork: int, block: int, lsn: int) -> int:
        """Make this a batch of one request that did not come as bytes, at exactly `lsn`."""
        self.tag = tag
        self.count = 1
        self.refusal = 0
        self.spc[0] = spc
        self.db[0] = db
        self.rel[0] = rel
        self.fork[0] = fork
        self.block[0] = block
        self.request_lsn[0] = lsn
        self.not_modified_since[0] = lsn
        self.status[0] = 0
        self.out_pos[0] = 0
        self.errors.clear()
        return 0

    def resolve(self, ready_lsn: int, reached_lsn: int, horizon_lsn: int, retained_lsn: int) -> int:
        """The two-LSN rule: give each request the LSN at which it is answered.

        `ready_lsn` is what was ready when the requests came, `reached_lsn` what is ready now, after
        waiting; the same if nothing waited. `retained_lsn` is one below the horizon that can be
        read all the same, or 0: who reads there mostly asks for one such LSN. The batch is cut
        before the first request that must wait or is refused; a refused one is alone in its batch,
        with the reason in `refusal`, and the engine does not see it. Returns `count`; 0: the first
        must wait until its not_modified_since is ready.
        """
        count = self.count
        i = 0
        while i < count:
            request = self.request_lsn[i]
            since = self.not_modified_since[i]
            refusal = self._refusal(i, request, since, reached_lsn, horizon_lsn, retained_lsn)
            if refusal != 0 and i == 0:
                return self.refuse(refusal)
            if refusal != 0 or since > reached_lsn:
                break
            if since > ready_lsn:
                self.lsn[i] = since
            elif request < ready_lsn:
                self.lsn[i] = request
            else:
                self.lsn[i] = ready_lsn
            i += 1
        if i < count and i > 0:
            self.end = self.start + 47 * i
            self.count = i
        return i

    def _refusal(
        self,
        i: int,
        request: int,
        since: int,
        reached_lsn: int,
        horizon_lsn: int,
        retained_lsn: int,
    ) -> int:
        if reached_lsn < horizon_lsn:
            return 1
        if request == 0:
            return 2
        if request < since:
            return 3
        if request < horizon_lsn and request != retained_lsn:
            return 4
        if self.tag != 3 and self.fork[i] > 3:
            return 5
        return 0

    def refuse(self, refusal: int) -> int:
        """Refuse the first request; those behind it are parsed again."""
        self.refusal = refusal
        if self.count > 1:
            self.end = self.start + 47
            self.count = 1
        return 1

    def frame_pages(self) -> int:
        """Write the head of each page's reply and set `out_pos`; returns the length of it all."""
        requests = self.requests
        replies = self.replies
        pos = self.start
        out = 0
        for i in range(self.count):
            coding.copy(replies, out, requests, pos, 47)
            coding.put_be32(replies, out + 1, 8238)
            coding.put_u8(replies, out + 5, 102)
            self.out_pos[i] = out + 47
            pos += 47
            out += 8239
        return out

    def failed(self) -> int:
        """How many of the batch's requests the engine could not answer."""
        count = 0
        for i in range(self.count):
            if self.status[i] != 0:
                count += 1
        return count

    def page_parts(self) -> list[memoryview | bytes]:
        """What to send when some pages failed: their replies are errors, shorter than pages."""
        parts: list[memoryview | bytes] = []
        begin = 0
        for i in range(self.count):
            if self.status[i] != 0:
                if begin < i:
                    parts.append(self._page_replies(begin, i))
                parts.append(self.error_reply(i, self.error_text(i)))
                begin = i + 1
        if begin < self.count:
            parts.append(self._page_replies(begin, self.count))
        return parts

    def error_text(self, i: int) -> str:
        return self.errors.get(i, "the page cannot be read")

    def _page_replies(self, begin: int, end: int) -> memoryview:
        return self.replies[begin * PAGE_REPLY_BYTES : end * PAGE_REPLY_BYTES]

    def reply(self, value: bytes) -> bytes:
        """The framed reply to a request other than GetPage."""
        echo = bytes(self.requests[self.start + 6 : self.end])
        length = 5 + len(echo) + len(value)
        return struct.pack(">cIB", b"d", length, REPLY_TAGS[self.tag]) + echo + value

    def error_reply(self, i: int, text: str) -> bytes:
        """The framed Error for request `i`: the header is echoed, the body is not."""
        pos = self.start + i * HEAD_BYTES
        echo = bytes(self.requests[pos + 6 : pos + 30])
        message = text.encode(errors="replace")[:ERROR_BYTES_MAX].replace(b"\0", b"?") + b"\0"
        return struct.pack(">cIB", b"d", 29 + len(message), ERROR_REPLY) + echo + message


def _column(count: int, size: int, code: str) -> memoryview:
    room = memoryview(bytearray(count * size))
    column: memoryview = room.cast(code)  # type: ignore[call-overload]
    return column


# Values of replies other than GetPage's -------------------------------------------------------


def exists_value(exists: bool) -> bytes:
    return bytes([exists])


def nblocks_value(blocks: int) -> bytes:
    return struct.pack(">I", blocks)


def db_size_value(size_bytes: int) -> bytes:
    return struct.pack(">q", size_bytes)


def slru_value(segment: bytes) -> bytes:
    return struct.pack(">I", len(segment) // PAGE_BYTES) + segment


# The client's side: requests to bytes, replies to values --------------------------------------


def request(tag: int, reqid: int, request_lsn: int, not_modified_since: int, body: bytes) -> bytes:
    """The payload of a request, without its CopyData frame."""
    return struct.pack(">BQQQ", tag, reqid, request_lsn, not_modified_since) + body


def relation_body(spc: int, db: int, rel: int, fork: int) -> bytes:
    return struct.pack(">IIIB", spc, db, rel, fork)


def page_body(spc: int, db: int, rel: int, fork: int, block: int) -> bytes:
    return struct.pack(">IIIBI", spc, db, rel, fork, block)


def database_body(db: int) -> bytes:
    return struct.pack(">I", db)


def slru_body(kind: int, segment: int) -> bytes:
    return struct.pack(">BI", kind, segment)


def parse_reply(request: bytes, payload: bytes) -> tuple[bytes, str]:
    """(value, "") or (b"", error) of the reply to `request`.

    Raises ValueError if it is not the reply to it: mismatched replies once corrupted databases, so
    every echoed byte is compared.
    """
    if payload[:1] == bytes([ERROR_REPLY]):
        if payload[1:25] != request[1:25] or not payload.endswith(b"\0"):
            raise ValueError("an Error reply that does not belong to its request")
        return b"", payload[25 : len(payload) - 1].decode(errors="replace")
    if payload[:1] != bytes([REPLY_TAGS[request[0]]]) or payload[1 : len(request)] != request[1:]:
        raise ValueError("a reply that does not echo its request")
    return payload[len(request) :], ""
