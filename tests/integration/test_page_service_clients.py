"""Clients of the page service that misbehave, leave, are too many or too slow."""

import socket
import time
from random import Random

import pytest

from formats import pagestream as ps
from formats import pgwire
from server.client import PageClient
from server.page_service import SPARE_CONNECTIONS
from tests.fixtures.fake_store import page_of
from tests.fixtures.raw_client import RawClient
from tests.fixtures.running_service import LSN, SETTINGS, TABLE, Running, frames, page_request


@pytest.mark.parametrize(
    "bad",
    [
        pgwire.copy_data(b"\x63" + bytes(24)),
        pgwire.copy_data(bytes(10)),
        b"d\xff\xff\xff\xff",
        b"Q\xff\xff\xff\xff",
        b"\0\0\0\0\0\0\0\0",
        pgwire.message(b"P", bytes(10)),
    ],
)
def test_a_malformed_frame_ends_the_connection(running: Running, bad: bytes) -> None:
    with running.stream() as client:
        client.send(frames(page_request(0), page_request(1)) + bad)
        assert client.value(page_request(0))[1] == ""
        assert client.value(page_request(1))[1] == ""
        error = client.error()
        assert (error["C"], error["S"]) == (pgwire.PROTOCOL_VIOLATION, "FATAL")
        assert client.message() == (b"", b"")
    running.wait_until(lambda: running.clients() == 0)


@pytest.mark.parametrize(
    "packet",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\0", b"\0\0\0\x08\0\x02\0\0", b"\x7f\xff\xff\xff\0\0\0\0"],
)
def test_no_startup_packet(running: Running, packet: bytes) -> None:
    with running.raw() as client:
        client.send(packet)
        assert client.error()["S"] == "FATAL"
        assert client.message() == (b"", b"")


def test_startup_takes_too_long(running: Running) -> None:
    with running.raw() as client:
        begin = time.monotonic()
        for byte in pgwire.startup_packet({"user": "me" * 100})[:40]:
            client.send(bytes([byte]))
            time.sleep(0.02)
            if not running.clients() and time.monotonic() - begin > 0.1:
                break
        assert client.read(1) == b""
    assert time.monotonic() - begin < 5


def test_encryption_is_declined(running: Running) -> None:
    with running.raw() as client:
        client.send(bytes.fromhex("00000008 04d2162f"))
        assert client.read(1) == b"N"
        client.send(bytes.fromhex("00000008 04d21630"))
        assert client.read(1) == b"N"
        names = [body.split(b"\0")[0] for tag, body in client.startup() if tag == b"S"]
        assert b"server_version" in names and b"standard_conforming_strings" in names


def test_a_later_minor_version_is_negotiated(running: Running) -> None:
    body = b"\x00\x03\x00\x02user\0me\0_pq_.new\0on\0\0"
    with running.raw() as client:
        client.send((len(body) + 4).to_bytes(4, "big") + body)
        tag, answer = client.message()
        assert (tag, answer) == (b"v", bytes(7) + b"\x01_pq_.new\0")
        assert client.until_ready()[0][0] == b"R"


def test_the_extended_protocol_is_refused_once(running: Running) -> None:
    with running.raw() as client:
        client.startup()
        parse = pgwire.message(b"P", b"\0select 1\0\0\0")
        bind = pgwire.message(b"B", bytes(8))
        client.send(parse, bind, pgwire.message(b"E", bytes(5)), pgwire.message(b"S"))
        messages = client.until_ready()
        assert [tag for tag, _ in messages] == [b"E"]
        assert b"extended query protocol is not supported" in messages[0][1]
        client.send(pgwire.query("show files"))
        assert len(client.until_ready()) == 4


@pytest.mark.parametrize("seed", range(8))
def test_noise(running: Running, seed: int) -> None:
    """Whatever comes, the connection is answered or ends, and others are served."""
    random = Random(seed)
    valid = [frames(page_request(1)), pgwire.query("show files"), pgwire.copy_done()]
    for _ in range(25):
        noise = [random.choice([*valid, random.randbytes(random.randrange(60))]) for _ in range(9)]
        with running.stream() if random.random() < 0.7 else running.raw() as client:
            client.send(*noise)
            client.sock.shutdown(socket.SHUT_WR)
            while client.message()[0]:
                continue
        running.wait_until(lambda: running.clients() == 0)
    with PageClient(running.name) as well_behaved:
        assert well_behaved.get_page(*TABLE, 1, LSN) == page_of(TABLE, 1, LSN)


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_leaves(running: Running, half: bool) -> None:
    idle, asking, waiting = running.stream(), running.stream(), running.stream()
    asking.send(frames(*(page_request(block) for block in range(90))))
    waiting.send(frames(page_request(0, ps.LATEST_LSN, 0x5000)))
    for client in (idle, asking, waiting):
        if half:
            client.sock.shutdown(socket.SHUT_WR)
        else:
            client.sock.close()
    if half:
        for block in range(90):
            assert asking.value(page_request(block))[1] == ""
        assert asking.message() == (b"", b"")
    running.wait_until(lambda: running.clients() == 0)
    for client in (idle, asking, waiting):
        client.sock.close()


def send_many(client: RawClient, data: bytes, times: int) -> None:
    for _ in range(times):
        client.send(data)


def test_a_client_that_does_not_read(running: Running) -> None:
    client = running.stream(receive_bytes=4096)
    try:
        client.sock.settimeout(5)
        requests = frames(*(page_request(block) for block in range(90)))
        with pytest.raises(ConnectionError):  # our buffers fill, then the server closes
            send_many(client, requests, 2000)
        running.wait_until(lambda: running.clients() == 0)
    finally:
        client.sock.close()


def test_too_many_clients(running: Running) -> None:
    clients = [running.raw() for _ in range(SETTINGS.connections_max)]
    for client in clients:
        client.startup()
    with running.raw() as refused:
        refused.send(pgwire.startup_packet({"user": "me"}))
        error = refused.error()
        assert error["C"] == pgwire.TOO_MANY_CONNECTIONS
        assert "connections_max is 4" in error["M"]
    clients.pop().sock.close()
    running.wait_until(lambda: running.clients() == SETTINGS.connections_max - 1)
    with running.raw() as admitted:
        admitted.startup()
    silent = [running.raw() for _ in range(SPARE_CONNECTIONS + 5)]
    running.wait_until(lambda: running.clients() >= SETTINGS.connections_max)
    assert running.clients() <= SETTINGS.connections_max + SPARE_CONNECTIONS
    for client in clients + silent:
        client.sock.close()
    running.wait_until(lambda: running.clients() == 0)


def test_a_cancel_request_needs_the_secret(running: Running) -> None:
    with running.raw() as client:
        key = next(body for tag, body in client.startup() if tag == b"K")
        process_id, secret = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
        client.send(pgwire.query("get_page 1663 5 16384 main 0 0/2000"))
        with running.raw() as other:
            other.send(pgwire.cancel_packet(process_id, secret ^ 1))
            assert other.message() == (b"", b"")
        assert "was not ready" in client.error()["M"]


def test_stopping_tells_the_clients(running: Running) -> None:
    asking, idle = running.stream(), running.raw()
    idle.startup()
    waiting = running.stream()
    waiting.send(frames(page_request(0, ps.LATEST_LSN, 0x5000)))
    begin = time.monotonic()
    running.service.stop()
    assert time.monotonic() - begin < 4
    for client in (asking, idle, waiting):
        assert client.error()["C"] == pgwire.ADMIN_SHUTDOWN
        assert client.message() == (b"", b"")
        client.sock.close()
    with pytest.raises(ConnectionError):
        running.raw()
