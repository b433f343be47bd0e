"""What pins do to a page cache. That it serves what it should is tested by properties."""

import pytest

from engine.page_cache import BASE, HIT, MISS, PageCache


def page(mark: int) -> memoryview:
    return memoryview(bytes([mark]) * 8192)


def mark_of(cache: PageCache, slot: int) -> int:
    out = memoryview(bytearray(8192))
    cache.copy(slot, out, 0)
    return out[8191]


@pytest.fixture
def full() -> PageCache:
    """A full cache of one page for each block, at LSN 10."""
    cache = PageCache(1)
    for block in range(cache.capacity):
        cache.put(1, block, 10, 10, page(block), 0)
    return cache


def test_a_pinned_page_is_not_overwritten(full):
    assert full.look_up(1, 3, 10) == HIT
    slot = full.found
    full.pin(slot)
    full.pin(slot)
    full.unpin(slot)
    full.put(1, 3, 20, 20, page(99), 0)
    assert mark_of(full, slot) == 3 and full.look_up(1, 3, 20) == BASE
    full.unpin(slot)
    full.put(1, 3, 20, 20, page(99), 0)
    assert mark_of(full, slot) == 99 and full.look_up(1, 3, 20) == HIT


def test_a_pinned_page_is_not_evicted(full):
    assert full.look_up(1, 3, 10) == HIT
    slot = full.found
    full.pin(slot)
    for block in range(100, 100 + 5 * full.capacity):
        full.put(1, block, 10, 10, page(1), 0)
        assert full.look_up(1, block, 10) == HIT
    assert full.look_up(1, 3, 10) == HIT and full.found == slot
    assert mark_of(full, slot) == 3


def test_with_all_pages_pinned_nothing_more_is_remembered(full):
    for block in range(full.capacity):
        assert full.look_up(1, block, 10) == HIT
        full.pin(full.found)
    full.put(1, 500, 10, 10, page(1), 0)
    assert full.look_up(1, 500, 10) == MISS
    assert [mark_of(full, full.find(1, block)) for block in range(full.capacity)] == list(
        range(full.capacity)
    )
    full.unpin(full.find(1, 7))
    full.put(1, 500, 10, 10, page(1), 0)
    assert full.look_up(1, 500, 10) == HIT and full.look_up(1, 7, 10) == MISS


def test_what_is_not_pinned_cannot_be_unpinned(full):
    with pytest.raises(ValueError, match="not pinned"):
        full.unpin(1)


def test_pages_beyond_4_gib_have_places_of_their_own(full):
    assert full.position(524_288) == 1 << 32
    assert full.position(2**32 - 1) == (2**32 - 1) * 8192
