"""The page cache against a dict: never a page outside of its range, never another block's."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.page_cache import BASE, HIT, MISS, PageCache

PUT, GET, EXTEND, PIN, UNPIN = range(5)

steps = st.lists(
    st.tuples(st.integers(PUT, UNPIN), st.integers(0, 40), st.integers(0, 30), st.integers(0, 20)),
    max_size=120,
)


def page_of(cache, slot):
    out = bytearray(8192)
    cache.copy(slot, memoryview(out), 0)
    return bytes(out)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_serves_only_what_holds(items):
    cache = PageCache(1)  # the least capacity, so that pages are evicted
    newest = {}  # block -> [LSN from, LSN to, page], as last put or extended
    pinned = []  # (slot, block, page)
    for number, (action, block, lsn, span) in enumerate(items):
        chunk = block % 3
        if action == PUT:
            page = number.to_bytes(8, "little") * 1024
            is_pinned = any(block == other for _, other, _ in pinned)
            cache.put(chunk, block, lsn, lsn + span, memoryview(page), 0)
            if not is_pinned and (block not in newest or newest[block][1] < lsn + span):
                newest[block] = [lsn, lsn + span, page]
        elif action == UNPIN and pinned:
            cache.unpin(pinned.pop(lsn % len(pinned))[0])
        elif action in (GET, EXTEND, PIN):
            found = cache.look_up(chunk, block, lsn)
            slot = cache.found
            if found == MISS:
                assert slot == 0
                assert block not in newest or len(newest) > cache.capacity or lsn < newest[block][0]
                continue
            lsn_from, lsn_to, page = newest[block]
            assert page_of(cache, slot) == page
            assert found == (HIT if lsn_from <= lsn <= lsn_to else BASE)
            assert (cache.lsn_from[slot], cache.lsn_to[slot]) == (lsn_from, lsn_to)
            if action == EXTEND:
                cache.extend(slot, lsn)
                newest[block][1] = max(lsn, lsn_to)
            elif action == PIN:
                cache.pin(slot)
                pinned.append((slot, block, page))
        for slot, _, page in pinned:
            assert page_of(cache, slot) == page
    assert cache.count <= cache.capacity
    assert len({(cache.chunk[s], cache.block[s]) for s in range(1, cache.count + 1)}) == cache.count
    assert sum(cache.pins) == len(pinned)
