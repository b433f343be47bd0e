"""The memtable against a dict of lists: what is collected, and the order in which it is flushed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memtable import Memtable
from engine.version_set import VersionSet

IMAGE, RECORD = 2, 8

versions = st.lists(
    st.tuples(
        st.integers(0, 3),  # chunk
        st.sampled_from([0, 1, 255, 256, 131071]),  # block
        st.integers(0, 2),  # LSN step
        st.sampled_from([IMAGE, RECORD, RECORD, RECORD]),
        st.binary(max_size=20),
    ),
    max_size=60,
)


def fill(items):
    """A memtable and its model: (chunk, block) -> [(LSN, payload)], oldest first."""
    memtable = Memtable(1 << 16, 100, 100, 256, 65536)
    model = {}
    lsn = 100
    for chunk, block, step, kind, tail in items:
        lsn += step
        payload = bytes([kind, 0, 0, 0, 0, 0]) + tail
        memtable.put(chunk, block, lsn, memoryview(payload), kind == IMAGE)
        chain = model.setdefault((chunk, block), [])
        if chain and chain[-1][0] == lsn:
            chain.pop()
        chain.append((lsn, payload))
    return memtable, model


def expected(chain, floor, lsn_max):
    """What a reader must get, newest first, and whether it needs nothing older."""
    found = []
    for lsn, payload in reversed(chain):
        if lsn <= floor:
            return found, 0
        if lsn <= lsn_max:
            found.append(payload)
            if payload[0] == IMAGE:
                return found, 1
    return found, 0


@given(versions, st.integers(95, 170), st.integers(95, 230))
@settings(max_examples=150, deadline=None)
def test_collects_what_the_model_has(items, floor, lsn_max):
    memtable, model = fill(items)
    for (chunk, block), chain in model.items():
        into = VersionSet(16, 2)
        complete = memtable.collect(chunk, block, floor, lsn_max, into)
        found = [into.payload(number + 1) for number in range(into.count)]
        assert (found, complete) == expected(chain, floor, lsn_max)
        assert memtable.newest_lsn(chunk, block) == chain[-1][0]
    assert memtable.collect(9, 9, 0, 1 << 60, VersionSet(16, 2)) == 0


@given(versions, st.permutations(range(4)))
@settings(max_examples=150, deadline=None)
def test_sort_gives_the_order_of_layers(items, ranks):
    memtable, model = fill(items)
    order = memoryview(bytearray(4 * (memtable.entry_count + 1))).cast("I")
    scratch = memoryview(bytearray(8 * (memtable.page_count + 1))).cast("I")
    rank_column = memoryview(bytearray(16)).cast("I")
    for chunk, rank in enumerate(ranks):
        rank_column[chunk] = rank
    count = memtable.sort(rank_column, order, scratch)
    found = [
        (
            memtable.entry_chunk[e],
            memtable.entry_block[e],
            memtable.entry_lsn[e],
            bytes(memtable.data[memtable.entry_pos[e] :][: memtable.entry_length[e]]),
        )
        for e in order[:count]
    ]
    wanted = [
        (chunk, block, lsn, payload)
        for (chunk, block), chain in model.items()
        for lsn, payload in chain
    ]
    assert found == sorted(wanted, key=lambda v: (ranks[v[0]], v[1], v[2]))


@given(versions)
@settings(max_examples=30, deadline=None)
def test_cleared_memtable_is_as_new(items):
    memtable, model = fill(items)
    memtable.clear()
    for chunk, block in model:
        assert memtable.find(chunk, block) == 0
    assert memtable.has_room(100, 1 << 16)
