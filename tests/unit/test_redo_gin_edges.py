"""GIN records at the edges: all bytes of block numbers, flags that mean nothing, full pages."""

import struct

import pytest

from engine.redo import gin
from formats import page
from tests.fixtures import gin_parts as parts
from tests.fixtures.gin_parts import (
    block_id,
    downlink,
    entry,
    entry_page,
    inner_page,
    leaf,
    segment,
    segments,
    special,
)
from tests.fixtures.redo_parts import make_part

INSERT, DELETE_PAGE, LIST_PAGE = 0x20, 0x50, 0x70
LEFT, RIGHT = 0x01020304, 0x05060708
ZEROS = bytes(8192)


def test_the_old_downlink_leads_to_the_right_half() -> None:
    view = entry_page(entry(1, (7, 7)), entry(2, (8, 8)), flags=0)
    data = parts.entry_data(1, entry(9, (LEFT, 0)))
    gin.redo(make_part(view, INSERT, parts.insert_main(0, LEFT, RIGHT), data))
    held = [bytes(view[page.item_offset(view, n) :][:16]) for n in (1, 2, 3)]
    assert held[0] == entry(9, (LEFT, 0))
    assert held[1] == block_id(RIGHT) + bytes(2) + entry(1)[6:]
    assert held[2] == entry(2, (8, 8))


def test_a_downlink_of_a_posting_tree_leads_to_the_right_half() -> None:
    view = inner_page(downlink(7, (1, 1)), downlink(8, (2, 2)))
    data = struct.pack("<H", 1) + downlink(LEFT, (0x0A0B0C0D, 0x0E0F))
    gin.redo(make_part(view, INSERT, parts.insert_main(parts.IS_DATA, LEFT, RIGHT), data))
    expected = downlink(LEFT, (0x0A0B0C0D, 0x0E0F)) + downlink(RIGHT, (1, 1)) + downlink(8, (2, 2))
    assert segments(view) == expected


def test_other_flags_of_an_insertion_mean_nothing() -> None:
    data = parts.entry_data(1, entry(9), replaces=True)
    view = entry_page(entry(1))
    gin.redo(make_part(view, INSERT, struct.pack("<H", parts.IS_LEAF | 0xFFFC), data))
    assert bytes(view[page.item_offset(view, 1) :][:16]) == entry(9)
    view = entry_page(entry(1), flags=0)
    main = struct.pack("<H", 0xFFFC) + parts.insert_main(0)[2:]
    gin.redo(make_part(view, INSERT, main, parts.entry_data(1, entry(9))))
    assert page.max_offset(view) == 2
    assert bytes(view[page.item_offset(view, 2) :][:6]) == main[6:10] + bytes(2)
    data = parts.entry_data(1, entry(9), replaces=True)
    with pytest.raises(ValueError, match="replaces a downlink"):
        gin.redo(make_part(view, INSERT, main, data))


def test_the_left_sibling_of_a_deleted_page_takes_its_right_link() -> None:
    view = leaf(segment((1, 1)))
    main = struct.pack("<HxxII", 2, RIGHT, 9)
    gin.redo(make_part(view, DELETE_PAGE, main, b"", {0: 3, 1: 4, 2: 5}, block_id=2))
    assert special(view) == (RIGHT, 0, parts.DATA_LEAF)


@pytest.mark.parametrize("right", [0xFFFFFFFF, 0x00FFFFFF, 0xFFFFFF00, 0xFFFF0000, 0x0000FFFF])
def test_a_list_page_is_the_last_if_all_of_its_right_link_says_so(right: int) -> None:
    view = memoryview(bytearray(ZEROS))
    gin.redo(make_part(view, LIST_PAGE, struct.pack("<II", right, 1), entry(1)))
    is_last = right == 0xFFFFFFFF
    flags = parts.LIST | (parts.FULL_ROW if is_last else 0)
    assert special(view) == (right, is_last, flags)


def test_more_tuples_than_a_heap_page_has() -> None:
    view = memoryview(bytearray(ZEROS))
    data = entry(1)[:6] + struct.pack("<H", 8)
    gin.redo(make_part(view, LIST_PAGE, struct.pack("<II", 5, 400), data * 400))
    assert page.max_offset(view) == 400


@pytest.mark.parametrize("count", [2, 0x80000001, 0xFFFFFFFF])
def test_more_tuples_than_the_record_has(count: int) -> None:
    view = memoryview(bytearray(ZEROS))
    with pytest.raises(ValueError, match="do not fill"):
        gin.redo(make_part(view, LIST_PAGE, struct.pack("<II", 5, count), entry(1)))


@pytest.mark.parametrize("missing", range(1, 9))
def test_of_a_tuple_that_is_cut_off_nothing_is_read(missing: int) -> None:
    """Not even its length: there may be nothing behind the record."""
    data = entry(1) + (entry(2)[:6] + struct.pack("<H", 8))[: 8 - missing or None]
    data = data if missing < 8 else entry(1) + b"\0"
    view = memoryview(bytearray(ZEROS))
    part = make_part(view, LIST_PAGE, struct.pack("<II", 5, 2), data, behind=b"")
    with pytest.raises(ValueError, match="cut off"):
        gin.redo(part)


def full_leaf(n_bytes: int) -> memoryview:
    """Two segments; the first one takes so many bytes, the second one 8."""
    return leaf(segment((1, 1), *[1] * (n_bytes - 8)), segment((0x30000, 1)))


def grow(view: memoryview, *added: tuple[int, int]) -> None:
    """A segment of 8 bytes at the start, TIDs to the second one that was there."""
    data = parts.actions(
        parts.action(0, parts.SEGMENT_INSERT, segment((0, 5))),
        parts.action(1, parts.SEGMENT_ADD, parts.items(*added)),
    )
    gin.redo(make_part(view, INSERT, parts.insert_main(parts.IS_DATA | parts.IS_LEAF), data))


@pytest.mark.parametrize(
    ("first", "added", "fits"),
    [
        (8134, (0x30000, 2), True),  # 8 + 8134 + 8 + 1, made even: all 8,152 bytes
        (8136, (0x30000, 2), False),  # no room for the distance
        (8134, (0x30001, 1), True),  # a distance of two bytes
        (8136, (0x30001, 1), False),
        (8138, (0x30000, 2), False),  # no room for the segment's head
    ],
)
def test_segments_fill_a_page_and_no_more(first: int, added: tuple[int, int], fits: bool) -> None:
    view = full_leaf(first)
    if fits:
        grow(view, added)
        assert int.from_bytes(view[12:14], "little") == 8184
        assert special(view) == (9, 0, parts.DATA_LEAF)
    else:
        with pytest.raises(ValueError, match="do not fit"):
            grow(view, added)


def test_all_bytes_of_a_tid_that_starts_a_segment() -> None:
    view = leaf(segment((0x01020304, 0x0506)))
    data = parts.actions(parts.action(0, parts.SEGMENT_ADD, parts.items((0x01020304, 0x0507))))
    gin.redo(make_part(view, INSERT, parts.insert_main(parts.IS_DATA | parts.IS_LEAF), data))
    assert segments(view) == segment((0x01020304, 0x0506), 1)
