"""A page stream over a real store: what memory can answer is answered without Python."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from formats import pagestream as ps
from formats import pgwire
from server.config import Settings
from server.page_service import PageService
from tests.fixtures.raw_client import RawClient
from tests.fixtures.small_store import REL, SmallStore, create, image, insert, mark_of

PAGES = 40
SETTINGS = Settings(wait_lsn_timeout=10.0, send_timeout=5.0)


class Served:
    """A small store of PAGES pages, page n marked 100 + n at LSN `end`, and its page service."""

    def __init__(self, directory: Path) -> None:
        self.small = SmallStore(directory)
        self.end = self.small.put(create(), *(image(n, 100 + n) for n in range(PAGES)))
        self.versions = self.small.store.versions
        self.cache = self.versions.cache
        self.service = PageService(self.small.store, SETTINGS)
        self.address = self.service.start("127.0.0.1", 0)
        self.python_reads = 0
        get_pages = self.small.store.get_pages

        def counting(*args) -> None:
            self.python_reads += 1
            get_pages(*args)

        self.small.store.get_pages = counting  # type: ignore[method-assign]

    def stream(self, receive_bytes: int | None = None) -> RawClient:
        client = RawClient(self.address, receive_bytes)
        ids = self.small.store.known_ids
        client.enter_page_stream(ids.tenant, ids.timeline)
        return client

    def ask(self, client: RawClient, *blocks: int, lsn: int = ps.LATEST_LSN, since: int = 0):
        """Ask for all at once; each one's mark, or the error."""
        requests = [request(block, lsn, since or self.end) for block in blocks]
        client.send(*map(pgwire.copy_data, requests))
        replies = [client.value(each) for each in requests]
        return [error or mark_of(page) for page, error in replies]


def request(block: int, lsn: int, since: int) -> bytes:
    return ps.request(ps.GET_PAGE, 7000 + block, lsn, since, ps.page_body(*REL, 0, block))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    served = Served(tmp_path)
    yield served
    served.service.stop()
    assert not any(served.cache.pins)
    served.small.let_go()


def test_pages_in_memory_are_served_without_python(served):
    with served.stream() as client:
        for _ in range(3):
            assert served.ask(client, *range(PAGES)) == [100 + n for n in range(PAGES)]
        assert served.ask(client, 7, 7, 3) == [107, 107, 103]
    assert served.python_reads == 0
    assert served.cache.misses == PAGES and served.cache.hits == 2 * PAGES + 3
    assert served.versions.counters["pages"] == 3 * PAGES + 3


def test_a_page_holds_on_while_the_ready_lsn_moves(served):
    with served.stream() as client:
        assert served.ask(client, 5, 6) == [105, 106]
        slot = served.cache.find(served.versions.table.find(1, *REL, 0, 0), 5)
        for number in range(3):
            ready = served.small.put(image(9, 200 + number))
            before = served.cache.bases, served.cache.hits
            assert served.ask(client, 5, 6, since=ready) == [105, 106]
            assert (served.cache.bases, served.cache.hits) == (before[0] + 2, before[1])
            assert served.cache.lsn_to[slot] == ready
            assert served.ask(client, 5, 6, 9) == [105, 106, 200 + number]
            assert served.cache.hits == before[1] + 2
        served.small.put(image(5, 300))
        assert served.ask(client, 5, 6) == [300, 106]
        assert served.ask(client, 5, lsn=ready) == [105]
    assert served.python_reads == 0


def test_layers_are_pythons_and_memory_is_not_once_they_have_been_asked(served):
    with served.stream() as client:
        served.small.flush()
        assert served.ask(client, 1, 2) == [101, 102]
        assert served.python_reads == 1
        assert served.ask(client, 1, 2) == [101, 102]
        ready = served.small.put(image(9, 200))
        assert served.ask(client, 1, 9, since=ready) == [101, 200]
        assert served.python_reads == 1


def test_what_is_refused_or_fails_comes_between_the_pages(served):
    """An insert into a page that was never written cannot be applied."""
    bad = served.small.put(insert(PAGES, 1))
    with served.stream() as client:
        for _ in range(2):
            got = served.ask(client, 3, PAGES, 4, 999)
            assert (got[0], got[2]) == (103, 104)
            assert "never written" in got[1] and "past its end" in got[3]
            assert not any(served.cache.pins)
        zero = request(1, 0, 0)
        client.send(pgwire.copy_data(zero))
        assert "request_lsn is 0/0" in client.value(zero)[1]
        assert served.ask(client, 3, lsn=bad) == [103]


def test_a_request_waits_for_its_lsn_behind_pages_that_do_not(served):
    with served.stream() as client:
        wanted = served.small.add(image(5, 300))
        now = request(3, ps.LATEST_LSN, served.end)
        later = request(5, ps.LATEST_LSN, wanted)
        client.send(pgwire.copy_data(now), pgwire.copy_data(later), pgwire.copy_data(now))
        assert mark_of(client.value(now)[0]) == 103
        served.small.ingest()
        assert mark_of(client.value(later)[0]) == 300
        assert mark_of(client.value(now)[0]) == 103


def test_a_slow_reader_keeps_no_page_in_the_cache(served):
    """It does not read; what is asked for others goes on, and then it gets what it asked for."""
    with served.stream(receive_bytes=4096) as slow, served.stream() as other:
        assert served.ask(other, *range(PAGES)) == [100 + n for n in range(PAGES)]
        requests = [request(n % PAGES, served.end, served.end) for n in range(32 * PAGES)]
        before = served.versions.counters["pages"]
        slow.send(*map(pgwire.copy_data, requests))
        last = -1
        while (count := served.versions.counters["pages"] - before) != last:
            last = count
            time.sleep(0.1)
        assert last < len(requests), "the server waits for the client"
        assert not any(served.cache.pins)
        served.small.put(*(image(n, 500 + n) for n in range(PAGES)))
        assert served.ask(other, *range(PAGES)) == [500 + n for n in range(PAGES)]
        for n, each in enumerate(requests):
            assert mark_of(slow.value(each)[0]) == 100 + n % PAGES


def test_requests_in_pieces(served):
    """Of any size, with a message of another kind between."""
    blocks = range(PAGES)
    data = b"".join(pgwire.copy_data(request(n, ps.LATEST_LSN, served.end)) for n in blocks)
    size = ps.request(ps.NBLOCKS, 1, ps.LATEST_LSN, served.end, ps.relation_body(*REL, 0))
    data += pgwire.copy_data(size) + data
    with served.stream() as client:
        for begin in range(0, len(data), 61):
            client.send(data[begin : begin + 61])
            time.sleep(0.0005)
        for again in range(2):
            for n in blocks:
                page, _ = client.value(request(n, ps.LATEST_LSN, served.end))
                assert mark_of(page) == 100 + n
            if again == 0:
                assert int.from_bytes(client.value(size)[0], "big") == PAGES


def test_a_busy_client_does_not_hold_up_the_stop(served):
    """Its requests never run out, so that the end of its input is never seen."""
    client = served.stream()
    data = b"".join(pgwire.copy_data(request(n, ps.LATEST_LSN, served.end)) for n in range(PAGES))
    ended = threading.Event()

    def send() -> None:
        try:
            while not ended.is_set():
                client.sock.sendall(data)
        except OSError:
            pass

    def read() -> None:
        try:
            while client.sock.recv(1 << 20):
                pass
        except OSError:
            pass
        ended.set()

    threads = [threading.Thread(target=target, daemon=True) for target in (send, read)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    begin = time.monotonic()
    served.service.stop()
    assert time.monotonic() - begin < 1.5
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    client.sock.close()
