"""Batches of pages of a store whose bundles are in a bucket are what they are on a local disk.

Any batch, on a cache of any size, while the bucket loses an object, stops to answer at any request,
or answers with flipped bytes. Who asks for one thing after the other is the model of what fails.
"""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.remote_blocks import QUIET_SECONDS
from tests.fixtures.lazy_store import AwayStore, away, forget, forget_pages
from tools.bench.page_batches import Page, read_together

CACHE_BLOCKS = (1, 2, 3, 6, 64)
BATCHES = 12  # for each size of the cache
PAGES_MAX = 40
FAULTS = ("none", "none", "gone", "down", "flip")


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@contextmanager
def opened(directory: Path, cache_blocks: int) -> Iterator[AwayStore]:
    store = away(directory, cache_blocks)
    try:
        yield store
    finally:
        store.small.let_go()


def chosen(store: AwayStore, numbers: random.Random) -> list[Page]:
    places = numbers.sample(sorted(store.expected), numbers.randint(1, PAGES_MAX))
    return [(spc, db, rel, block, lsn) for spc, db, rel, block, lsn in places]


def expected(store: AwayStore, asked: Sequence[Page]) -> list[bytes | str]:
    return [store.expected[place] for place in asked]


def chill(store: AwayStore, *, closing: bool) -> None:
    """Nothing that was read is here any more; with `closing` no bundle is open either."""
    forget(store.small, store.storage)
    if closing:
        layers = store.small.store.layers.map
        layers._readers.clear()
        layers.reload(store.small.store.layers.state.removed)


@pytest.mark.parametrize("cache_blocks", CACHE_BLOCKS)
def test_any_batch_is_what_a_local_store_gives(tmp_path: Path, cache_blocks: int) -> None:
    numbers = random.Random(cache_blocks)
    with opened(tmp_path, cache_blocks) as store:
        now = 0.0
        store.storage.blocks._clock = lambda: now
        for number in range(BATCHES):
            now += QUIET_SECONDS
            asked, closing = chosen(store, numbers), numbers.random() < 0.5
            chill(store, closing=closing)
            FAULT_CHECKS[FAULTS[number % len(FAULTS)]](store, asked, numbers)
            store.files.is_down = False
            now += QUIET_SECONDS
            forget_pages(store.small)
            assert read_together(store.small.store, asked) == expected(store, asked)


def check_none(store: AwayStore, asked: list[Page], numbers: random.Random) -> None:
    assert read_together(store.small.store, asked) == expected(store, asked)


def check_gone(store: AwayStore, asked: list[Page], numbers: random.Random) -> None:
    """The same pages fail as where each thing is asked for when it is needed, and no others."""
    name = numbers.choice(sorted(store.files.objects))
    data = store.files.objects.pop(name)
    found = []
    for is_lazy in (True, False):
        chill(store, closing=True)
        store.storage.is_lazy = is_lazy
        found.append(read_together(store.small.store, asked))
    store.storage.is_lazy = True
    assert found[0] == found[1]
    for page, right in zip(found[0], expected(store, asked), strict=True):
        assert page == right or name in str(page)
    store.files.objects[name] = data


def check_down(store: AwayStore, asked: list[Page], numbers: random.Random) -> None:
    """From some request on: each page is right, or says why there is none."""
    left = numbers.randint(0, 6)
    real = store.files.read

    def read(name: str, start: int, length: int) -> bytes:
        nonlocal left
        left -= 1
        store.files.is_down = left < 0
        return real(name, start, length)

    store.files.read = read  # type: ignore[method-assign]
    found = read_together(store.small.store, asked)
    store.files.read = real  # type: ignore[method-assign]
    for page, right in zip(found, expected(store, asked), strict=True):
        assert page == right or "connection refused" in str(page)


def check_flip(store: AwayStore, asked: list[Page], numbers: random.Random) -> None:
    """One byte of one answer: it is asked for again."""
    left = numbers.randint(0, 4)

    def spoil(name: str, start: int, data: bytes) -> bytes:
        nonlocal left
        left -= 1
        at = numbers.randrange(len(data))
        return data if left != -1 else data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]

    store.files.spoil = spoil
    assert read_together(store.small.store, asked) == expected(store, asked)
    store.files.spoil = lambda name, start, data: data


FAULT_CHECKS = {
    "none": check_none,
    "gone": check_gone,
    "down": check_down,
    "flip": check_flip,
}


@pytest.mark.parametrize("cache_blocks", [3, 64])
def test_many_at_the_same_time(tmp_path: Path, cache_blocks: int) -> None:
    """Who waits for whose blocks and whose bundles: nobody for ever."""
    with opened(tmp_path, cache_blocks) as store, ThreadPoolExecutor(4) as threads:
        for seed in range(6):
            chill(store, closing=True)
            batches = [chosen(store, random.Random(4 * seed + i)) for i in range(4)]
            reads = [threads.submit(read_together, store.small.store, asked) for asked in batches]
            for asked, read in zip(batches, reads, strict=True):
                assert read.result(30) == expected(store, asked)
