"""The page cache against a dict: never a page outside of its range, never another block's."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.page_cache import BASE, HIT, MISS, PageCache

steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 30), st.integers(0, 20)),
    max_size=120,
)


@given(steps)
@settings(max_examples=100, deadline=None)
def test_serves_only_what_holds(items):
    cache = PageCache(1)  # the least capacity, so that pages are evicted
    newest = {}
    for number, (is_put, block, lsn, span) in enumerate(items):
        chunk = block % 3
        if is_put:
            page = number.to_bytes(8, "little") * 1024
            cache.put(chunk, block, lsn, lsn + span, memoryview(page), 0)
            if block not in newest or newest[block][1] < lsn + span:
                newest[block] = (lsn, lsn + span, page)
            continue
        out = bytearray(8192)
        found = cache.get(chunk, block, lsn, memoryview(out), 0)
        if found == MISS:
            assert block not in newest or len(newest) > cache.capacity or lsn < newest[block][0]
            continue
        lsn_from, lsn_to, page = newest[block]
        assert bytes(out) == page
        assert found == (HIT if lsn_from <= lsn <= lsn_to else BASE)
        assert (cache.found_from, cache.found_to) == (lsn_from, lsn_to)
    assert cache.count <= cache.capacity
    assert len({(cache.chunk[s], cache.block[s]) for s in range(1, cache.count + 1)}) == cache.count
