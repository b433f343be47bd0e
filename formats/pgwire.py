"""The PostgreSQL v3 wire protocol, as much of it as a page server and its clients speak.

    connection:  startup packet (length, code, body), then messages (tag, length, body)
    length:      u32, big-endian like every integer here; counts itself, but not the tag

Pure functions between bytes and values, for both sides: `server/connection.py` answers with them,
`server/client.py` asks. Simple queries and COPY BOTH only; pages travel inside CopyData in a format
of their own (formats/pagestream.py).
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PROTOCOL_3_0 = 3 << 16
CANCEL_REQUEST = 1234 << 16 | 5678
SSL_REQUEST = 1234 << 16 | 5679
GSS_REQUEST = 1234 << 16 | 5680

# The longest startup packet (PostgreSQL's own limit), and the longest message after it.
STARTUP_BYTES_MAX = 10_000
MESSAGE_BYTES_MAX = 32_768

TEXT_OID = 25
BYTEA_OID = 17
BOOL_OID = 16
TIMESTAMPTZ_OID = 1184

# SQLSTATEs that are used here (PostgreSQL's appendix A).
PROTOCOL_VIOLATION = "08P01"
FEATURE_NOT_SUPPORTED = "0A000"
INVALID_PARAMETER = "22023"
SYNTAX_ERROR = "42601"
TOO_MANY_CONNECTIONS = "53300"
UNDEFINED_OBJECT = "42704"
QUERY_CANCELED = "57014"
ADMIN_SHUTDOWN = "57P01"
UNDEFINED_FILE = "58P01"
DATA_UNAVAILABLE = "58000"
IO_ERROR = "58030"
INTERNAL_ERROR = "XX000"
DATA_CORRUPTED = "XX001"


class ProtocolError(Exception):
    """Bytes that are no message of this protocol, or none that may come here."""

    def __init__(self, message: str, sqlstate: str = PROTOCOL_VIOLATION) -> None:
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate


@dataclass(frozen=True)
class Startup:
    """The first packet of a connection; `code` is a protocol version or one of the requests."""

    code: int
    parameters: dict[str, str]
    process_id: int = 0
    secret: int = 0


def message(tag: bytes, body: bytes = b"") -> bytes:
    return tag + struct.pack(">I", len(body) + 4) + body


def parse_header(data: bytes | memoryview) -> tuple[bytes, int]:
    """(tag, length of the whole message) from its first five bytes; refuses absurd lengths."""
    tag, length = struct.unpack(">cI", data[:5])
    if not 4 <= length <= MESSAGE_BYTES_MAX:
        raise ProtocolError(f"message {tag!r}: length {length}, expected 4 to {MESSAGE_BYTES_MAX}")
    return tag, length + 1


def _text(body: bytes, what: str) -> str:
    """The one zero-terminated string that is the whole body."""
    if not body or body.find(b"\0") != len(body) - 1:
        raise ProtocolError(f"{what}: expected one zero-terminated string")
    return _decode(body[:-1], what)


def _decode(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{what}: not UTF-8 at byte {error.start}") from None


def _number(body: bytes, pos: int, length: int, what: str) -> int:
    """The unsigned integer of so many bytes at `pos`."""
    if pos + length > len(body):
        raise ProtocolError(f"{what}: cut off at byte {pos}")
    return int.from_bytes(body[pos : pos + length], "big")


# Startup ------------------------------------------------------------------------------------------


def startup_packet(parameters: dict[str, str]) -> bytes:
    body = struct.pack(">I", PROTOCOL_3_0)
    for name, value in parameters.items():
        body += name.encode() + b"\0" + value.encode() + b"\0"
    body += b"\0"
    return struct.pack(">I", len(body) + 4) + body


def cancel_packet(process_id: int, secret: int) -> bytes:
    return struct.pack(">IIII", 16, CANCEL_REQUEST, process_id, secret)


def parse_startup_length(data: bytes | memoryview) -> int:
    """Length of the startup packet, from its first four bytes."""
    (length,) = struct.unpack(">I", data[:4])
    if not 8 <= length <= STARTUP_BYTES_MAX:
        raise ProtocolError(f"startup packet: length {length}, expected 8 to {STARTUP_BYTES_MAX}")
    return int(length)


def parse_startup(packet: bytes) -> Startup:
    (code,) = struct.unpack(">I", packet[4:8])
    if code == CANCEL_REQUEST:
        if len(packet) != 16:
            raise ProtocolError(f"cancel request: length {len(packet)}, expected 16")
        process_id, secret = struct.unpack(">II", packet[8:])
        return Startup(code, {}, process_id, secret)
    if code in (SSL_REQUEST, GSS_REQUEST):
        return Startup(code, {})
    if code >> 16 != 3:
        raise ProtocolError(
            f"protocol version {code >> 16}.{code & 0xFFFF}: expected 3.0", FEATURE_NOT_SUPPORTED
        )
    if len(packet) == 8 or not packet.endswith(b"\0"):
        raise ProtocolError("startup packet: does not end with a zero byte")
    fields = packet[8:-1].split(b"\0")
    if len(fields) % 2 == 0 or fields[-1] != b"":
        raise ProtocolError("startup packet: parameters are not pairs of zero-terminated strings")
    texts = [_decode(field, "startup packet") for field in fields[:-1]]
    return Startup(code, dict(zip(texts[::2], texts[1::2], strict=True)))


def negotiate_protocol_version(unknown_options: Sequence[str]) -> bytes:
    """Tells a client of a later 3.x that this is 3.0, and which `_pq_.` options mean nothing."""
    body = struct.pack(">II", 0, len(unknown_options))
    body += b"".join(name.encode() + b"\0" for name in unknown_options)
    return message(b"v", body)


def authentication_ok() -> bytes:
    return message(b"R", struct.pack(">I", 0))


def parameter_status(name: str, value: str) -> bytes:
    return message(b"S", name.encode() + b"\0" + value.encode() + b"\0")


def backend_key_data(process_id: int, secret: int) -> bytes:
    return message(b"K", struct.pack(">II", process_id, secret))


def ready_for_query() -> bytes:
    return message(b"Z", b"I")


# Simple queries -----------------------------------------------------------------------------------


def query(text: str) -> bytes:
    return message(b"Q", text.encode() + b"\0")


def parse_query(body: bytes) -> str:
    return _text(body, "query")


def row_description(columns: Iterable[tuple[str, int]]) -> bytes:
    """Columns are (name, type OID); every value goes in text format."""
    described = [
        name.encode() + b"\0" + struct.pack(">IHIhiH", 0, 0, oid, -1, -1, 0)
        for name, oid in columns
    ]
    return message(b"T", struct.pack(">H", len(described)) + b"".join(described))


def parse_row_description(body: bytes) -> list[tuple[str, int]]:
    count = _number(body, 0, 2, "row description")
    columns = []
    pos = 2
    for _ in range(count):
        end = body.find(b"\0", pos)
        oid = _number(body, end + 7, 4, "row description") if end >= 0 else -1
        if oid < 0:
            raise ProtocolError("row description: a column's name does not end")
        columns.append((_decode(body[pos:end], "column name"), oid))
        pos = end + 19
    if pos != len(body):
        raise ProtocolError("row description: its columns do not fill it")
    return columns


def data_row(values: Iterable[bytes | None]) -> bytes:
    fields = [
        struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
        for value in values
    ]
    return message(b"D", struct.pack(">H", len(fields)) + b"".join(fields))


def parse_data_row(body: bytes) -> list[bytes | None]:
    count = _number(body, 0, 2, "data row")
    values: list[bytes | None] = []
    pos = 2
    for _ in range(count):
        length = _number(body, pos, 4, "data row")
        pos += 4
        is_null = length >= 1 << 31
        values.append(None if is_null else body[pos : pos + length])
        pos += 0 if is_null else length
    if pos != len(body):
        raise ProtocolError("data row: its values do not fill it")
    return values


def bytea(data: bytes) -> bytes:
    """PostgreSQL's text form of a bytea, `\\x` and hex digits."""
    return b"\\x" + data.hex().encode()


def parse_bytea(text: bytes) -> bytes:
    if not text.startswith(b"\\x"):
        raise ProtocolError("bytea: expected \\x and hex digits")
    try:
        return bytes.fromhex(text[2:].decode("ascii"))
    except ValueError:
        raise ProtocolError("bytea: expected \\x and hex digits") from None


def command_complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def empty_query_response() -> bytes:
    return message(b"I")


def terminate() -> bytes:
    return message(b"X")


# Errors -------------------------------------------------------------------------------------------


def error_response(text: str, sqlstate: str, severity: str = "ERROR", hint: str = "") -> bytes:
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", text)]
    if hint:
        fields.append(("H", hint))
    body = b"".join(code.encode() + _clean(value) + b"\0" for code, value in fields)
    return message(b"E", body + b"\0")


def _clean(text: str) -> bytes:
    """A message may quote what a client sent: a zero byte in it would end the field."""
    return text.encode(errors="replace").replace(b"\0", b"?")


def parse_error(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse by their one-letter code (`C` SQLSTATE, `M` message...)."""
    fields = body.rstrip(b"\0").split(b"\0")
    texts = [field.decode(errors="replace") for field in fields if field]
    return {text[:1]: text[1:] for text in texts}


# COPY BOTH ----------------------------------------------------------------------------------------


def copy_both_response() -> bytes:
    """No columns: what is inside CopyData is not the business of this protocol."""
    return message(b"W", struct.pack(">BH", 0, 0))


def copy_data(payload: bytes) -> bytes:
    return message(b"d", payload)


def copy_done() -> bytes:
    return message(b"c")


def parse_copy_fail(body: bytes) -> str:
    return _text(body, "copy failure")
