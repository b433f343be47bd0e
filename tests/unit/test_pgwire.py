"""PostgreSQL protocol framing, against bytes from its documentation and against itself."""

import pytest

from formats import pgwire
from formats.pgwire import ProtocolError, Startup


def test_startup_packet() -> None:
    packet = pgwire.startup_packet({"user": "me", "database": "d"})
    assert packet == b"\x00\x00\x00\x1c\x00\x03\x00\x00user\0me\0database\0d\0\0"
    assert pgwire.parse_startup_length(packet) == len(packet)
    wanted = Startup(pgwire.PROTOCOL_3_0, {"user": "me", "database": "d"})
    assert pgwire.parse_startup(packet) == wanted
    assert pgwire.parse_startup(b"\0\0\0\x09\x00\x03\x00\x02\0").code == 3 << 16 | 2


def test_requests_in_place_of_a_startup() -> None:
    ssl = bytes.fromhex("00000008 04d2162f")
    assert pgwire.parse_startup(ssl).code == pgwire.SSL_REQUEST
    gss = bytes.fromhex("00000008 04d21630")
    assert pgwire.parse_startup(gss).code == pgwire.GSS_REQUEST
    cancel = bytes.fromhex("00000010 04d2162e 00000007 89abcdef")
    assert pgwire.cancel_packet(7, 0x89ABCDEF) == cancel
    assert pgwire.parse_startup(cancel) == Startup(pgwire.CANCEL_REQUEST, {}, 7, 0x89ABCDEF)


@pytest.mark.parametrize(
    "packet",
    [
        bytes.fromhex("00000008 00020000"),  # protocol 2.0
        bytes.fromhex("00000008 00040000"),
        bytes.fromhex("0000000c 04d2162e 00000007"),  # a cancel request without its secret
        b"\x00\x00\x00\x08\x00\x03\x00\x00",
        b"\x00\x00\x00\x0e\x00\x03\x00\x00user\0\0",  # a name without a value
        b"\x00\x00\x00\x0d\x00\x03\x00\x00user\0",
        b"\x00\x00\x00\x0d\x00\x03\x00\x00\xff\0x\0\0",
    ],
)
def test_startup_packets_that_are_none(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        pgwire.parse_startup(packet)


@pytest.mark.parametrize("length", [0, 7, 10_001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_startup_lengths_that_are_refused(length: int) -> None:
    with pytest.raises(ProtocolError):
        pgwire.parse_startup_length(length.to_bytes(4, "big"))


@pytest.mark.parametrize("length", [0, 3, pgwire.MESSAGE_BYTES_MAX + 1, 0xFFFFFFFF])
def test_message_lengths_that_are_refused(length: int) -> None:
    with pytest.raises(ProtocolError, match="Q"):
        pgwire.parse_header(b"Q" + length.to_bytes(4, "big"))


def test_messages_as_bytes() -> None:
    assert pgwire.authentication_ok() == bytes.fromhex("52 00000008 00000000")
    assert pgwire.ready_for_query() == b"Z\0\0\0\x05I"
    assert pgwire.copy_both_response() == bytes.fromhex("57 00000007 00 0000")
    assert pgwire.copy_data(b"ab") == b"d\0\0\0\x06ab"
    assert pgwire.copy_done() == b"c\0\0\0\x04"
    assert pgwire.terminate() == b"X\0\0\0\x04"
    assert pgwire.empty_query_response() == b"I\0\0\0\x04"
    assert pgwire.command_complete("SET") == b"C\0\0\0\x08SET\0"
    assert pgwire.parameter_status("a", "b") == b"S\0\0\0\x08a\0b\0"
    assert pgwire.backend_key_data(1, 2) == bytes.fromhex("4b 0000000c 00000001 00000002")
    assert pgwire.negotiate_protocol_version(["_pq_.x"]) == (
        bytes.fromhex("76 00000013 00000000 00000001") + b"_pq_.x\0"
    )


def test_query() -> None:
    framed = pgwire.query("show status")
    assert framed == b"Q\0\0\0\x10show status\0"
    assert pgwire.parse_header(framed) == (b"Q", len(framed))
    assert pgwire.parse_query(framed[5:]) == "show status"
    for body in (b"", b"no end", b"two\0ends\0", b"\xff\0"):
        with pytest.raises(ProtocolError):
            pgwire.parse_query(body)


def test_rows() -> None:
    columns = [("name", pgwire.TEXT_OID), ("page", pgwire.BYTEA_OID)]
    described = pgwire.row_description(columns)
    assert described[7:12] == b"name\0"
    assert described[12:30] == bytes.fromhex("00000000 0000 00000019 ffff ffffffff 0000")
    assert pgwire.parse_row_description(described[5:]) == columns
    row = pgwire.data_row([b"x", None, b""])
    assert row == bytes.fromhex("44 00000013 0003 00000001 78 ffffffff 00000000")
    assert pgwire.parse_data_row(row[5:]) == [b"x", None, b""]
    with pytest.raises(ProtocolError):
        pgwire.parse_data_row(row[5:] + b"?")
    with pytest.raises(ProtocolError):
        pgwire.parse_data_row(bytes.fromhex("0001 00000009 78"))


def test_bytea() -> None:
    data = bytes(range(256))
    assert pgwire.bytea(b"\x00\xff") == b"\\x00ff"
    assert pgwire.parse_bytea(pgwire.bytea(data)) == data
    with pytest.raises(ProtocolError):
        pgwire.parse_bytea(b"00ff")


def test_errors() -> None:
    framed = pgwire.error_response("what\0happened", "08P01", "FATAL", "do this")
    wanted = {"S": "FATAL", "V": "FATAL", "C": "08P01", "M": "what?happened", "H": "do this"}
    assert pgwire.parse_error(framed[5:]) == wanted
    assert framed.endswith(b"\0\0")


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\1", b"\0\1name", b"\0\1name\0\0\0", b"\0\1\0\0"])
def test_rows_that_are_cut_off(body: bytes) -> None:
    for parse in (pgwire.parse_row_description, pgwire.parse_data_row):
        with pytest.raises(ProtocolError):
            parse(body)


def test_bytes_that_are_no_hex_digits() -> None:
    for text in (b"\\x0", b"\\xzz", b"\\x\xff\xff"):
        with pytest.raises(ProtocolError, match="bytea"):
            pgwire.parse_bytea(text)
    assert pgwire.parse_error(b"M\xff\0\xfft\0\0") == {"M": "\ufffd", "\ufffd": "t"}
