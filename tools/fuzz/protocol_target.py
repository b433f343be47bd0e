# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What clients send: page requests in batches, and the messages around them.

    input    u8 kind | u64 ready LSN | u64 reached LSN | u64 horizon | bytes

    kind     0 a page stream  1 a startup packet  2 messages of a session, and of its server

A page stream goes through a batch as server/exchange.py and server/page_stream.py do it, up to the
engine, whose part is left out: each reply must then be the one to its request. ProtocolError is the
error that formats/pgwire.py documents; it is counted as the ValueError that it is not.
"""

from formats import coding, pagestream, pgwire
from formats.pagestream import PageBatch
from server.exchange import Exchange
from tools.fuzz.target import Target, room

HEAD = 25
CAPACITY = 16
ROOM = 1 << 16
NEEDS_MORE = 0
CONTROL = 1
MALFORMED = 2
WAITS = 3
REFUSED = 4
SESSION = 8
OUTCOMES = {
    NEEDS_MORE: "answered, to the last byte or message",
    CONTROL: "answered up to a control message",
    MALFORMED: "fault: malformed request",
    WAITS: "answered up to one that waits",
    REFUSED: "answered, some refused",
    SESSION: "messages of a session",
}


class ProtocolTarget(Target):
    def __init__(self, mutator, place):
        Target.__init__(self, mutator, place)
        self.requests = room(ROOM)
        self.replies = memoryview(bytearray(CAPACITY * pagestream.PAGE_REPLY_BYTES))
        self.batch = PageBatch(CAPACITY, self.requests, self.replies)
        stop = memoryview(bytes(1))
        # No descriptor: what is left when its requests are answered cannot be waited for.
        self.exchange = Exchange(-1, self.requests, self.batch, None, stop)

    # Making an input ------------------------------------------------------------------------------

    def make(self, m):
        m.load(m.below(m.count))
        if coding.u8(m.data, 0) == 0 and m.below(4) == 0:
            at = m.length
            length = 47 * m.below(40)
            m.resize(at, 0, length)
            m.length = at + m.borrow(at, length, m.below(m.count), HEAD)
        i = m.below(5)
        while i > 0:
            self._change(m)
            i -= 1
        return 0

    def _change(self, m):
        kind = m.below(12)
        message = HEAD + 47 * m.below((m.length - HEAD) // 47 + 1)
        if kind == 0:
            return m.change(1, HEAD)
        if kind == 1:
            coding.put_u8(m.data, 8 * m.below(3) + 8, m.below(4))
            return 0
        if kind == 2:
            at = HEAD + m.below(m.length - HEAD + 1)
            m.resize(at, min(m.below(48), m.length - at), m.below(48))
            return 0
        if kind == 3:
            m.length -= m.below(m.length - HEAD + 1)
            return 0
        if kind == 4:  # a message of one kind where one of another was
            m.borrow(message, 47, m.below(m.count), HEAD + 47 * m.below(4))
            return 0
        if kind < 9 and message < m.length:
            return m.change(message, min(message + 47, m.length))
        return m.change(HEAD, m.length)

    # Running it -----------------------------------------------------------------------------------

    def execute(self, m):
        if m.length < HEAD or m.length - HEAD > ROOM:
            raise ValueError("fuzz: not an input of this target")
        if coding.u8(m.data, 0) == 0:
            return self._stream(m)
        self._session(m)
        return SESSION

    def _stream(self, m):
        ready = coding.u64(m.data, 1)
        reached = max(ready, coding.u64(m.data, 9))
        horizon = coding.u64(m.data, 17)
        length = m.length - HEAD
        pos = ROOM - length  # at the buffer's end, where a sanitizer sees overruns
        coding.copy(self.requests, pos, m.data, HEAD, length)
        refused = False
        in_python = m.below(16) == 0
        if in_python:
            self._exchange(pos)
        while True:
            self.batch.parse(pos, ROOM)
            if self.batch.count == 0:
                return REFUSED if refused and self.batch.stop == 0 else self.batch.stop
            if self.batch.resolve(ready, reached, horizon, 0) == 0:
                return WAITS
            if self.batch.refusal:
                refused = True
            elif self.batch.tag == 2:
                self.batch.frame_pages()
                self.batch.status[m.below(self.batch.count)] = m.below(2)
            if in_python:
                self._reply()
            if self.batch.end <= pos:
                raise RuntimeError("a batch of requests that does not get on")
            pos = self.batch.end

    def _exchange(self, pos):
        self.exchange.run(pos, ROOM)
        if not 0 <= self.exchange.pos <= self.exchange.end <= ROOM:
            raise RuntimeError("what is left of the requests lies outside of their buffer")
        return 0

    def _reply(self):
        """The replies of a batch, given to the client's side."""
        batch = self.batch
        start = batch.start + 5
        if batch.refusal:
            parts = [batch.error_reply(0, "refused")]
        elif batch.tag == 2:
            parts = batch.page_parts()
        else:
            parts = [batch.reply(b"value")]
        replies = b"".join(parts)
        pos = 0
        i = 0
        while pos < len(replies):
            tag, size = replies[pos : pos + 1], int.from_bytes(replies[pos + 1 : pos + 5], "big")
            end = batch.end if batch.tag != 2 else start + 42
            request = bytes(batch.requests[start:end])
            pagestream.parse_reply(request, replies[pos + 5 : pos + 1 + size])
            if tag != b"d":
                raise RuntimeError("a reply that is no CopyData")
            pos += 1 + size
            start += 47
            i += 1
        if pos != len(replies) or i != batch.count:
            raise RuntimeError("replies that are not those to their requests")
        return 0

    def _session(self, m):
        content = bytes(m.data[HEAD : m.length])
        try:
            if coding.u8(m.data, 0) == 1:
                pgwire.parse_startup_length(content[:4].ljust(4, b"\0"))
                pgwire.parse_startup(content.ljust(8, b"\0"))
            else:
                self._messages(content)
        except pgwire.ProtocolError as error:
            raise ValueError(f"ProtocolError: {error}") from None
        return 0

    def _messages(self, content):
        pos = 0
        while pos + 5 <= len(content):
            tag, length = pgwire.parse_header(content[pos : pos + 5])
            body = content[pos + 5 : pos + length]
            parse = PARSERS.get(tag)
            if parse is not None:
                parse(body)
            pos += length


PARSERS = {
    b"Q": pgwire.parse_query,
    b"f": pgwire.parse_copy_fail,
    b"T": pgwire.parse_row_description,
    b"D": pgwire.parse_data_row,
    b"E": pgwire.parse_error,
    b"B": pgwire.parse_bytea,
}
