"""Readers beside ingest, freezes, flushes and images of hot pages: no wrong page, ever."""

import bisect
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from engine import index_rebuild, version_store
from engine.retention import Bounds
from formats import page as pages
from formats import pagestream as ps
from formats import pgwire
from server.background import Background
from server.config import Settings
from server.page_service import PageService
from tests.fixtures.raw_client import RawClient
from tests.fixtures.small_store import (
    REL,
    SmallStore,
    create,
    drop,
    image,
    insert,
    mark_of,
    truncate,
)

SECONDS = 3.0
READS_MIN = 100  # of each reader, however busy the machine is
BLOCKS = 24
READERS = 3
OTHER = (1663, 5, 16385)


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    monkeypatch.setattr(version_store, "HOT_RECORDS", 6)


PageOf = Callable[[int, int, tuple[int, int, int]], bytes]


class History:
    """What is right at each LSN, as the writer made it: (lsn, sizes, pages)."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, dict, dict]] = []

    def note(self, lsn: int, sizes: dict, content: dict) -> None:
        self.entries.append((lsn, dict(sizes), dict(content)))


def write(small: SmallStore, history: History, until: float) -> None:
    random_ = random.Random(5)
    sizes: dict = {}
    content: dict = {}  # (relation, block) -> (mark, tuples)
    number = 0
    while time.monotonic() < until:
        for _ in range(20):
            number += 1
            relation, block = random_.choice([REL, OTHER]), random_.randrange(BLOCKS)
            action = random_.random()
            known = content.get((relation, block))
            if action < 0.01 and relation in sizes:
                small.add(drop(relation))
                del sizes[relation]
                content = {key: page for key, page in content.items() if key[0] != relation}
            elif action < 0.03 and relation in sizes:
                small.add(truncate(block, relation))
                sizes[relation] = min(sizes[relation], block)
                content = {
                    key: page
                    for key, page in content.items()
                    if key[0] != relation or key[1] < block
                }
            elif action < 0.1 or known is None or known[1] >= 20:
                small.add(create(relation), image(block, number, relation))
                content[relation, block] = (number, 0)
                sizes[relation] = max(sizes.get(relation, 0), block + 1)
            else:
                text = number.to_bytes(8, "little")
                small.add(insert(block, known[1] + 1, text, relation))
                content[relation, block] = (number, known[1] + 1)
            history.note(small.wal.placed[-1][1], sizes, content)
        small.receive()
        small.store.notify_wal()
        time.sleep(0.001)


def check(page_of: PageOf, entry: tuple[int, dict, dict], relation, block: int) -> None:
    lsn, sizes, content = entry
    if block >= sizes.get(relation, 0):
        with pytest.raises(LookupError, match="no main fork|past its end"):
            page_of(block, lsn, relation)
        return
    page = page_of(block, lsn, relation)
    if (relation, block) not in content:
        assert page == bytes(8192)
        return
    mark, tuples = content[relation, block]
    view = memoryview(bytearray(page))
    assert pages.max_offset(view) == tuples
    if tuples:
        at = pages.item_offset(view, tuples) + 24
        assert int.from_bytes(page[at : at + 8], "little") == mark
    else:
        assert mark_of(page) == mark


def read(
    small: SmallStore, page_of: PageOf, history: History, stop: threading.Event, seed: int
) -> int:
    random_ = random.Random(seed)
    count = 0
    while count < READS_MIN or not stop.is_set():
        ready = small.store.ready_lsn
        newest = bisect.bisect_right(history.entries, ready, key=lambda entry: entry[0]) - 1
        if newest < 0:
            continue
        oldest = max(0, newest - 2000)
        place = newest if random_.random() < 0.6 else random_.randrange(oldest, newest + 1)
        relation = random_.choice([REL, OTHER])
        check(page_of, history.entries[place], relation, random_.randrange(BLOCKS))
        count += 1
    return count


class Streamed:
    """Pages as a client of a page stream gets them, with another page between twice the same."""

    def __init__(self, client: RawClient) -> None:
        self.client = client

    def page(self, block: int, lsn: int, relation: tuple[int, int, int]) -> bytes:
        requests = [
            ps.request(ps.GET_PAGE, number, lsn, lsn, ps.page_body(*relation, 0, asked))
            for number, asked in enumerate((block, (block + 1) % BLOCKS, block))
        ]
        self.client.send(*map(pgwire.copy_data, requests))
        (page, error), _, again = (self.client.value(request) for request in requests)
        assert again == (page, error)
        if error:
            raise LookupError(error)
        return page


def read_beside_everything_else(small: SmallStore, readers: list[PageOf]) -> History:
    """Write for SECONDS while all `readers` read; what was written."""
    history = History()
    background = Background(small.store, 0.02, Bounds(0, 1 << 62))
    background.start()
    stop = threading.Event()
    failures: list[BaseException] = []
    counts: list[int] = []

    def reader(page_of: PageOf, seed: int) -> None:
        try:
            counts.append(read(small, page_of, history, stop, seed))
        except BaseException as error:  # raised again below
            failures.append(error)
            stop.set()

    threads = [
        threading.Thread(target=reader, args=(page_of, seed))
        for seed, page_of in enumerate(readers)
    ]
    for thread in threads:
        thread.start()
    write(small, history, time.monotonic() + SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert len(counts) == len(readers)
    end = history.entries[-1][0]
    assert small.store.wait_for(end, 30)
    background.stop()
    assert background.ingest.error is None and background.flush.error is None
    assert small.store.manifest.state.durable_lsn > small.wal.start
    return history


def test_readers_beside_everything_else(tmp_path):
    small = SmallStore(tmp_path, memory_bytes=3 << 20)
    history = read_beside_everything_else(small, [small.page] * READERS)
    small.reopen()
    for entry in random.Random(3).sample(history.entries, 100):
        for relation in (REL, OTHER):
            for block in range(BLOCKS):
                check(small.page, entry, relation, block)
    small.let_go()


def test_page_streams_beside_everything_else(tmp_path):
    """They read without the GIL, from a cache too small for all pages, in which they pin some."""
    small = SmallStore(tmp_path, memory_bytes=1 << 20)
    cache, ids = small.store.versions.cache, small.store.known_ids
    assert cache.capacity < 2 * BLOCKS
    service = PageService(small.store, Settings())
    address = service.start("127.0.0.1", 0)
    try:
        with ExitStack() as stack:
            clients = [stack.enter_context(RawClient(address)) for _ in range(READERS)]
            for client in clients:
                client.enter_page_stream(ids.tenant, ids.timeline)
            read_beside_everything_else(small, [Streamed(client).page for client in clients])
    finally:
        service.stop()
    assert cache.hits and cache.bases
    assert not any(cache.pins)
    small.let_go()
