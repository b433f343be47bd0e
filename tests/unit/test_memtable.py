"""The memtable's limits, and the pages that it reports as hot."""

import pytest

from engine.memtable import Memtable


def payload(kind, length=8):
    return memoryview(bytes([kind]) + bytes(length - 1))


def test_full_arena_is_refused_and_changes_nothing():
    memtable = Memtable(64, 10, 10, 256, 65536)
    memtable.put(1, 1, 10, payload(8, 60), False)
    with pytest.raises(MemoryError):
        memtable.put(1, 2, 20, payload(8, 60), False)
    assert memtable.find(1, 2) == 0
    assert not memtable.has_room(1, 60)
    assert memtable.has_room(1, 4)


def test_full_columns_are_refused():
    memtable = Memtable(1 << 12, 2, 1, 256, 65536)
    memtable.put(1, 1, 10, payload(8), False)
    with pytest.raises(MemoryError):
        memtable.put(1, 2, 20, payload(8), False)
    memtable.put(1, 1, 20, payload(8), False)
    with pytest.raises(MemoryError):
        memtable.put(1, 1, 30, payload(8), False)


def test_lsn_of_a_page_never_goes_down():
    memtable = Memtable(1 << 12, 10, 10, 256, 65536)
    memtable.put(1, 1, 20, payload(8), False)
    with pytest.raises(ValueError, match="went down"):
        memtable.put(1, 1, 10, payload(8), False)


@pytest.mark.parametrize(("records", "size"), [(5, 8), (2, 40)])
def test_long_chains_are_reported_once_per_run(records, size):
    """Either the count of records or their bytes makes a page hot; an image starts anew."""
    memtable = Memtable(1 << 12, 100, 10, 5, 80)
    for lsn in range(records - 1):
        memtable.put(3, 7, lsn + 1, payload(8, size), False)
    assert memtable.hot_count == 0
    memtable.put(3, 7, 50, payload(8, size), False)
    assert memtable.hot_count == 1
    page = memtable.hot[0]
    assert (memtable.page_chunk[page], memtable.page_block[page]) == (3, 7)
    memtable.put(3, 7, 60, payload(2, 8), True)
    memtable.put(3, 7, 70, payload(8, size), False)
    assert memtable.hot_count == 1
