"""Which LSNs below the horizon are answered, by the kernel that readers ask."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from engine.chunk_table import ChunkTable
from engine.ingest import Ingest
from engine.store_state import StoreState

EXPIRED = 8
LSNS = st.integers(0, 30)


def state_of(retained: set[int], horizon: int) -> StoreState:
    table = ChunkTable()
    state = StoreState(table, Ingest(table, bytes), 1 << 20)
    state.retained = memoryview(array("Q", sorted(retained)))
    state.horizon_lsn = horizon
    return state


@given(st.sets(LSNS), LSNS, st.lists(st.tuples(LSNS, st.booleans(), st.integers(0, 7))))
def test_what_expires(
    retained: set[int], horizon: int, requests: list[tuple[int, bool, int]]
) -> None:
    state = state_of(retained, horizon)
    lsns = memoryview(array("Q", [lsn for lsn, _, _ in requests]))
    status = memoryview(array("B", [failed for _, failed, _ in requests]))
    states = memoryview(array("B", [before for _, _, before in requests]))
    expected = [
        EXPIRED if lsn < horizon and lsn not in retained and not failed else before
        for lsn, failed, before in requests
    ]
    refused = state.expire(lsns, status, states, EXPIRED, len(requests))
    assert list(states) == expected
    assert refused == expected.count(EXPIRED)


@given(st.sets(st.one_of(LSNS, st.integers(0, (1 << 64) - 1))), st.integers(0, (1 << 64) - 1))
def test_what_is_retained(retained: set[int], other: int) -> None:
    state = state_of(retained, 0)
    for lsn in {*range(31), *retained, other}:
        assert state.is_retained(lsn) is (lsn in retained)
