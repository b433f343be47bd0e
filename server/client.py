"""A blocking client of a page server: for the command line, the comparer and the tests.

Statements and page requests each have a connection of their own, opened when first used. Every byte
that a reply must echo is compared. Two errors: ConnectError, when there is nobody there, and
PageServerError, when the server refuses or answers nonsense. Not to be shared between threads.
"""

import contextlib
import socket
import struct
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Self

from formats import lsn as lsn_text
from formats import pagestream, pgwire, timestamp
from formats.chunk import FORK_NAMES, SLRU_NAMES
from server.config import parse_address

CONNECT_SECONDS = 10.0
# Requests are sent this many at a time, and two such groups are under way.
GROUP_PAGES = 32

_FORKS = {name: int(fork) for fork, name in FORK_NAMES.items()}
_SLRUS = {name: int(slru) for slru, name in SLRU_NAMES.items()}
# What `pageserver status --json` has, in this order.
STATUS_KEYS = (
    "tenant",
    "timeline",
    "received_lsn",
    "flushed_lsn",
    "ready_lsn",
    "durable_lsn",
    "remote_lsn",
    "horizon_lsn",
    "horizon_time",
    "commit_time",
    "slot",
    "source",
    "state",
    "error",
    "lag_bytes",
    "layer_count",
    "layer_bytes",
    "journal_bytes",
    "backup",
    "backup_lag_bytes",
    "backup_pending_bytes",
    "epoch",
    "compaction",
    "l0_count",
    "l0_slowed_count",
    "l0_wait_count",
    "l0_bytes",
    "debt_bytes",
    "debt_version_count",
    "image_wanted_count",
    "damaged_count",
    "damaged",
    "flush_bytes",
    "compaction_bytes",
    "write_amplification",
    "layers_read_mean",
    "layers_read_p99",
    "layers_read_max",
    "horizon_held_by",
    "retained_lsn",
    "point_count",
    "lease_count",
    "held_bytes",
    "cache_bytes",
    "cache_hit_count",
    "cache_miss_count",
    "evicted_count",
    "remote_read_requests",
    "remote_read_bytes",
)
_NUMBERS: dict[str, type[int] | type[float]] = {
    name: int
    for name in STATUS_KEYS
    if name.endswith(
        ("_bytes", "_count", "_requests", "epoch", "layers_read_p99", "layers_read_max")
    )
} | {"write_amplification": float, "layers_read_mean": float}
# Longer than a relation list of a million rows, short of what a wrong length field could ask for.
_MESSAGE_BYTES_MAX = 1 << 26


class ConnectError(Exception):
    """No connection to the server, or it ended."""


class PageServerError(Exception):
    """What the server answered instead; `sqlstate` is empty for errors of a page stream."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class PageClient:
    """A client of the server at "HOST:PORT"; the ids are asked of the server unless given."""

    def __init__(
        self, address: str, tenant: str | None = None, timeline: str | None = None
    ) -> None:
        self._address = address
        self._ids = (tenant, timeline)
        self._queries: _Wire | None = None
        self._pages: _Wire | None = None
        self._reqid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for wire in (self._queries, self._pages):
            if wire is not None:
                wire.close()
        self._queries = self._pages = None

    # Statements ----------------------------------------------------------------------------------

    def query(self, text: str) -> list[list[bytes | None]]:
        """The rows that answer a statement, values in text form."""
        if self._queries is None:
            self._queries = _Wire(self._address)
        return self._queries.query(text)

    def status(self) -> dict[str, object]:
        """The values of `show status`, and `counters`, a dict of whole numbers."""
        status: dict[str, object] = {}
        counters: dict[str, int] = {}
        for row in self.query("show status"):
            name, value = _decode(row[0]), None if row[1] is None else _decode(row[1])
            if name.startswith("counter ") and value is not None:
                counters[name.removeprefix("counter ")] = int(value)
            else:
                number = _NUMBERS.get(name)
                status[name] = value if number is None or value is None else number(value)
        return status | {"counters": counters}

    def relations(self, lsn: int | None = None) -> list[tuple[int, int, int, int, int]]:
        """(spc, db, rel, fork, blocks) of all that exist at the LSN, the newest if None."""
        rows = [[_decode(value) for value in row] for row in self.query(_at("show relations", lsn))]
        return [
            (int(spc), int(db), int(rel), _FORKS[fork], int(blocks))
            for spc, db, rel, fork, blocks in rows
        ]

    def slru_segments(self, lsn: int | None = None) -> list[tuple[int, int]]:
        """(kind, segment) of all that exist."""
        rows = self.query(_at("show slru", lsn))
        return [(_SLRUS[_decode(row[0])], int(_decode(row[1]), 16)) for row in rows]

    def lsn_at(self, time: int) -> tuple[int, str, bool]:
        """The LSN whose state is that as of a time in microseconds since 2000, the time of the
        newest commit in it, and whether no WAL to come can belong to that state."""
        lsn, commit_time, is_final = self.query(f"lsn at '{timestamp.show(time)}'")[0]
        return lsn_text.parse(_decode(lsn)), _decode(commit_time), is_final == b"t"

    def time_at(self, lsn: int) -> str:
        """The time of the newest commit at or below an LSN."""
        return _decode(self.query(f"time at {lsn_text.show(lsn)}")[0][0])

    def files(self, lsn: int | None = None) -> list[str]:
        return [_decode(row[0]) for row in self.query(_at("show files", lsn))]

    def file(self, name: str, lsn: int | None = None) -> bytes | None:
        """A small file's bytes, None if there is none of that name."""
        try:
            rows = self.query(_at(f"show file {name}", lsn))
        except PageServerError as error:
            if error.sqlstate == pgwire.UNDEFINED_FILE:
                return None
            raise
        return pgwire.parse_bytea(rows[0][0] or b"")

    # Page requests -------------------------------------------------------------------------------

    def get_page(self, spc: int, db: int, rel: int, fork: int, block: int, lsn: int) -> bytes:
        return self.get_pages(spc, db, rel, fork, block, 1, lsn)

    def get_pages(
        self, spc: int, db: int, rel: int, fork: int, first_block: int, count: int, lsn: int
    ) -> bytes:
        """`count` successive pages at exactly `lsn`, pipelined; any that fails is an error."""
        bodies = (
            pagestream.page_body(spc, db, rel, fork, block)
            for block in range(first_block, first_block + count)
        )
        pages = self._ask(pagestream.GET_PAGE, bodies, lsn)
        if any(len(page) != pagestream.PAGE_BYTES for page in pages):
            raise PageServerError("the server sent a page that is not 8192 bytes long")
        return b"".join(pages)

    def exists(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> bool:
        body = pagestream.relation_body(spc, db, rel, fork)
        return bool(self._number(pagestream.EXISTS, body, lsn, ">B"))

    def nblocks(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> int:
        body = pagestream.relation_body(spc, db, rel, fork)
        return self._number(pagestream.NBLOCKS, body, lsn, ">I")

    def db_size(self, db: int, lsn: int) -> int:
        """Bytes of all relations of a database."""
        return self._number(pagestream.DB_SIZE, pagestream.database_body(db), lsn, ">q")

    def slru_segment(self, kind: int, segno: int, lsn: int) -> bytes:
        """The pages of an SLRU segment."""
        body = pagestream.slru_body(kind, segno)
        value = self._ask(pagestream.GET_SLRU_SEGMENT, iter([body]), lsn)[0]
        blocks = int.from_bytes(value[:4], "big")
        if len(value) != 4 + blocks * pagestream.PAGE_BYTES:
            raise PageServerError(f"a segment of {blocks} pages came as {len(value)} bytes")
        return value[4:]

    def _number(self, tag: int, body: bytes, lsn: int, form: str) -> int:
        value = self._ask(tag, iter([body]), lsn)[0]
        if len(value) != struct.calcsize(form):
            raise PageServerError(f"a reply to request {tag} has {len(value)} bytes of value")
        return int(struct.unpack(form, value)[0])

    def _ask(self, tag: int, bodies: Iterator[bytes], lsn: int) -> list[bytes]:
        """The values of the replies; the next group of requests is sent before one is read.

        After any error the connection is given up: what else comes on it belongs to no request.
        """
        wire = self._page_wire()
        values: list[bytes] = []
        under_way: deque[bytes] = deque()
        try:
            while True:
                room = 2 * GROUP_PAGES - len(under_way)
                if room >= GROUP_PAGES:
                    group = [self._request(tag, body, lsn) for body in islice(bodies, room)]
                    wire.send(b"".join(pgwire.copy_data(request) for request in group))
                    under_way += group
                if not under_way:
                    return values
                values.append(wire.reply(under_way.popleft()))
        except BaseException:
            wire.close()
            self._pages = None
            raise

    def _request(self, tag: int, body: bytes, lsn: int) -> bytes:
        self._reqid += 1
        return pagestream.request(tag, self._reqid, lsn, lsn, body)

    def _page_wire(self) -> "_Wire":
        if self._pages is None:
            if None in self._ids:
                status = self.status()
                tenant, timeline = self._ids
                self._ids = (
                    tenant or str(status["tenant"]),
                    timeline or str(status["timeline"]),
                )
            self._pages = _Wire(self._address)
            self._pages.enter_copy(f"pagestream_v3 {self._ids[0]} {self._ids[1]}")
        return self._pages


class _Wire:
    """One connection: startup, then statements or a page stream."""

    def __init__(self, address: str) -> None:
        try:
            self._sock = socket.create_connection(parse_address(address), CONNECT_SECONDS)
        except OSError as error:
            raise ConnectError(f"cannot connect to {address}: {error}") from None
        self._address = address
        self._sock.settimeout(None)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._file = self._sock.makefile("rb", 1 << 18)
        self.send(pgwire.startup_packet({"user": "pageserver", "database": "pageserver"}))
        self._rows()

    def close(self) -> None:
        with contextlib.suppress(ConnectError):
            self.send(pgwire.terminate())
        self._file.close()
        self._sock.close()

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise ConnectError(f"lost {self._address}: {error}") from None

    def query(self, text: str) -> list[list[bytes | None]]:
        self.send(pgwire.query(text))
        return self._rows()

    def _rows(self) -> list[list[bytes | None]]:
        """The rows up to ReadyForQuery; what else the server says about itself is skipped."""
        rows: list[list[bytes | None]] = []
        error = None
        while True:
            tag, body = self._message()
            if tag == b"Z":
                if error is not None:
                    raise error
                return rows
            if tag == b"D":
                rows.append(pgwire.parse_data_row(body))
            elif tag == b"E":
                error = self._error(body)

    def enter_copy(self, text: str) -> None:
        self.send(pgwire.query(text))
        tag, body = self._message()
        if tag == b"E":
            raise self._error(body)
        if tag != b"W":
            raise PageServerError(f"message {tag!r} in place of a CopyBothResponse")

    def reply(self, request: bytes) -> bytes:
        """The value of the reply to a page request, which is the next message."""
        tag, body = self._message()
        if tag == b"E":
            raise self._error(body)
        if tag != b"d":
            raise PageServerError(f"message {tag!r} in place of a reply")
        try:
            value, error = pagestream.parse_reply(request, body)
        except ValueError as mismatch:
            raise PageServerError(str(mismatch)) from None
        if error:
            raise PageServerError(error)
        return value

    def _message(self) -> tuple[bytes, bytes]:
        tag, length = struct.unpack(">cI", self._read(5))
        if not 4 <= length <= _MESSAGE_BYTES_MAX:
            raise ConnectError(f"{self._address} sent a message {tag!r} of length {length}")
        return tag, self._read(length - 4)

    def _read(self, length: int) -> bytes:
        try:
            data: bytes = self._file.read(length)
        except OSError as error:
            raise ConnectError(f"lost {self._address}: {error}") from None
        if len(data) < length:
            raise ConnectError(f"{self._address} closed the connection")
        return data

    def _error(self, body: bytes) -> PageServerError:
        fields = pgwire.parse_error(body)
        hint = f" ({fields['H']})" if "H" in fields else ""
        return PageServerError(fields.get("M", "no message") + hint, fields.get("C", ""))


def _at(statement: str, lsn: int | None) -> str:
    return statement if lsn is None else f"{statement} {lsn_text.show(lsn)}"


def _decode(value: bytes | None) -> str:
    return (value or b"").decode()
