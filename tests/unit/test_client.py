"""The client against a server that lies: nothing but the right reply is taken for one."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from formats import pagestream as ps
from formats import pgwire
from server.client import ConnectError, PageClient, PageServerError

STARTED = pgwire.authentication_ok() + pgwire.ready_for_query()
PAGE = bytes(range(256)) * 32


class Liar:
    """Answers startup and the entry into a page stream properly, then every request with
    `answer(request)`."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.answers: list[bytes] = []
        self.echo = True
        self.reply = b""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock, sock.makefile("rb") as file:
                length = int.from_bytes(file.read(4), "big")
                file.read(length - 4)
                sock.sendall(STARTED)
                while head := file.read(5):
                    tag, length = struct.unpack(">cI", head)
                    body = file.read(length - 4)
                    if tag == b"Q":
                        sock.sendall(pgwire.copy_both_response())
                    elif tag == b"d":
                        sock.sendall(self.answer(body))
                        if not self.echo:
                            break

    def answer(self, request: bytes) -> bytes:
        if not self.echo:
            return self.reply
        return pgwire.copy_data(bytes([102]) + request[1:] + PAGE)


@pytest.fixture
def liar() -> Iterator[Liar]:
    liar = Liar()
    yield liar
    liar.listener.shutdown(socket.SHUT_RDWR)
    liar.listener.close()
    liar.thread.join(10)


def client_of(liar: Liar) -> PageClient:
    return PageClient(liar.address, "t" * 32, "l" * 32)


def test_the_right_reply(liar: Liar) -> None:
    with client_of(liar) as client:
        assert client.get_pages(1663, 5, 7, 0, 0, 70, 500) == PAGE * 70


@pytest.mark.parametrize("pos", [0, 1, 8, 9, 16, 17, 24, 25, 37, 38, 41])
def test_a_reply_to_another_request(liar: Liar, pos: int) -> None:
    request = bytearray(ps.request(ps.GET_PAGE, 1, 500, 500, ps.page_body(1663, 5, 7, 0, 3)))
    request[0] = 102
    request[pos] ^= 1
    liar.echo = False
    liar.reply = pgwire.copy_data(bytes(request) + PAGE)
    with client_of(liar) as client, pytest.raises(PageServerError, match="does not (echo|belong)"):
        client.get_page(1663, 5, 7, 0, 3, 500)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (pgwire.copy_data(b"\x67" + bytes(24) + b"gone\0"), "does not belong"),
        (pgwire.copy_data(b""), "does not echo"),
        (pgwire.copy_data(b"\x66"), "does not echo"),
        (pgwire.copy_done(), "in place of a reply"),
        (pgwire.error_response("no more", "57P01", "FATAL"), "no more"),
    ],
)
def test_replies_that_are_none(liar: Liar, reply: bytes, said: str) -> None:
    liar.echo = False
    liar.reply = reply
    with client_of(liar) as client, pytest.raises(PageServerError, match=said):
        client.get_page(1663, 5, 7, 0, 3, 500)


@pytest.mark.parametrize("reply", [b"", b"d", b"d\0\0\0\x10ab", b"d\xff\xff\xff\xff", b"d\0\0\0\0"])
def test_a_connection_that_breaks(liar: Liar, reply: bytes) -> None:
    liar.echo = False
    liar.reply = reply
    with client_of(liar) as client, pytest.raises(ConnectError):
        client.get_page(1663, 5, 7, 0, 3, 500)


@pytest.mark.parametrize("cut", [0, 1])
def test_a_page_of_the_wrong_length(liar: Liar, cut: int) -> None:
    request = ps.request(ps.GET_PAGE, 1, 500, 500, ps.page_body(1663, 5, 7, 0, 3))
    page = PAGE[:-1] if cut else PAGE + b"x"
    liar.echo = False
    liar.reply = pgwire.copy_data(b"\x66" + request[1:] + page)
    with client_of(liar) as client, pytest.raises(PageServerError, match="not 8192 bytes"):
        client.get_page(1663, 5, 7, 0, 3, 500)


def test_after_an_error_the_next_request_is_answered(liar: Liar) -> None:
    with client_of(liar) as client:
        liar.echo = False
        liar.reply = pgwire.copy_data(b"\x67" + bytes(24) + b"\0")
        with pytest.raises(PageServerError):
            client.get_pages(1663, 5, 7, 0, 0, 10, 500)
        liar.echo = True
        assert client.get_page(1663, 5, 7, 0, 3, 500) == PAGE


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectError, match="cannot connect"):
        PageClient(address).status()
