"""Heap and Heap2 records at the edges: bits that mean nothing, bytes next to what changes."""

import struct

import pytest

from engine.redo import heap, heap2, visibility
from formats import page
from tests.fixtures.redo_parts import Row, flags, heap_page, make_part, row

INVALID_XVAC, FREEZE_XVAC = 4, 2
ALL_BYTES = Row(xmin=0x01020304, xmax=0x05060708, cid=0x090A0B0C, content=b"\0row")


def test_flags_of_prune_that_are_not_for_redo() -> None:
    view = heap_page(ALL_BYTES)
    before = bytes(view)
    part = make_part(view, 0x10, bytes([0, 1 | 2 | 8]) + b"\xee" * 4)
    assert heap2.redo(part) == 1
    assert bytes(view) == before


@pytest.mark.parametrize(
    ("frozen_flags", "cid"), [(0, 0x090A0B0C), (1, 0x090A0B0C), (FREEZE_XVAC, 2), (INVALID_XVAC, 0)]
)
@pytest.mark.parametrize("version", [15, 16, 18])
def test_freezing_changes_its_fields_and_no_byte_beside_them(
    frozen_flags: int, cid: int, version: int
) -> None:
    view = heap_page(ALL_BYTES, ALL_BYTES)
    if version == 15:
        main = struct.pack("<IH", 9, 1)
        data = struct.pack("<IHHHBB", 0xA1A2A3A4, 2, 0xB1B2, 0xC1C2, frozen_flags, 0xEE)
        info = 0x30
    else:
        plan = struct.pack("<IHHBBH", 0xA1A2A3A4, 0xB1B2, 0xC1C2, frozen_flags, 0xEE, 1)
        main = struct.pack("<IHB", 9, 1, 0) if version == 16 else bytes([0, 16])
        data = (b"" if version == 16 else b"\1\0\xee\xee") + plan + struct.pack("<H", 2)
        info = 0x30 if version == 16 else 0x10
    assert heap2.redo(make_part(view, info, main, data, version=version)) == 1
    assert row(view, 1) == row(heap_page(ALL_BYTES), 1)
    changed = ALL_BYTES._replace(xmax=0xA1A2A3A4, cid=cid, infomask2=0xB1B2, infomask=0xC1C2)
    assert row(view, 2) == changed


def test_lengths_in_multi_insert_that_lead_behind_the_record() -> None:
    header = struct.pack("<HHB", 2, 0x802, 24)
    data = struct.pack("<H", 4) + header + b"\0ab"  # one byte less than it says
    view = memoryview(bytearray(8192))
    with pytest.raises(ValueError, match="cut off"):
        heap2.redo(make_part(view, 0xD0, struct.pack("<BxH", 0, 1), data))
    assert page.max_offset(view) == 0, "it is refused before the page has it"


@pytest.mark.parametrize("count", [1, 2])
def test_bytes_behind_the_tuples_of_a_multi_insert_are_refused(count: int) -> None:
    data = struct.pack("<HHHB", 1, 2, 0x802, 24) + b"\0"
    data += b"\0" * count
    with pytest.raises(ValueError, match="add up|cut off"):
        heap2.redo(make_part(memoryview(bytearray(8192)), 0xD0, struct.pack("<BxH", 0, 1), data))


def test_redirections_alone_that_are_cut_off_in_15() -> None:
    view = heap_page(ALL_BYTES, ALL_BYTES)
    main = struct.pack("<IHH", 9, 1, 0)
    assert heap2.redo(make_part(view, 0x10, main, struct.pack("<HH", 1, 2), version=15)) == 1
    for data in (b"", b"\1\0", b"\1\0\2"):
        part = make_part(view, 0x10, main, data, version=15, behind=struct.pack("<HH", 1, 2))
        with pytest.raises(ValueError, match="cut off"):
            heap2.redo(part)


def update_main(flag: int) -> bytes:
    return struct.pack("<IHBBIH", 701, 1, 0, flag, 0, 1)


@pytest.mark.parametrize(
    ("flag", "old_left", "new_left", "changed"),
    [(0, 3, 3, 0), (1, 0, 0, 1), (2, 3, 0, 1), (3, 0, 0, 1)],
)
def test_map_page_of_an_update_on_two_pages(
    flag: int, old_left: int, new_left: int, changed: int
) -> None:
    """Either flag clears the bits of the new page, as heap_xlog_update of 18 does."""
    view = memoryview(bytearray(8192))
    for block in (10, 20, 30):
        visibility.set_bits(view, block, 3)
    part = make_part(view, 0x20, update_main(flag), b"", {0: 20, 1: 10, 2: 0}, block_id=2)
    assert heap.redo(part) == changed
    left = [view[24 + block // 4] >> block % 4 * 2 & 3 for block in (10, 20, 30)]
    assert left == [old_left, new_left, 3]


def test_clearing_the_old_pages_bits_alone_is_a_change_too() -> None:
    view = memoryview(bytearray(8192))
    visibility.set_bits(view, 10, 3)
    part = make_part(view, 0x20, update_main(3), b"", {0: 20, 1: 10, 2: 0}, block_id=2)
    assert heap.redo(part) == 1
    assert heap.redo(part) == 0


def test_an_update_that_needs_the_old_version_from_another_page_is_refused() -> None:
    for flag in (32, 64, 96):
        lengths = b"\1\0" * bin(flag).count("1")
        data = lengths + struct.pack("<HHB", 2, 0x802, 24) + b"\0"
        part = make_part(heap_page(), 0x20, update_main(flag), data, {0: 20, 1: 10})
        with pytest.raises(ValueError, match="from another page"):
            heap.redo(part)


def test_bits_of_a_map_that_are_not_the_blocks() -> None:
    view = memoryview(bytearray(8192))
    visibility.set_bits(view, 5, 0xFF)
    assert view[25] == sum(view[24:]) == 0b1100
    visibility.set_bits(view, 6, 3)
    assert visibility.set_bits(view, 5, 3) == 0, "it has these bits, whatever its neighbour has"
    assert visibility.clear_bits(view, 5, 0xFD) == 1
    assert view[25] == 0b111000


def test_prune_hint_of_the_neighbour() -> None:
    view = heap_page(ALL_BYTES)
    view[10] = 0xFF
    assert heap2.redo(make_part(view, 0x40, struct.pack("<IB", 9, 1), b"", {0: 0, 1: 5}, 1)) == 1
    assert flags(view) == 0xFF


@pytest.mark.parametrize("flag", [4, 8, 16, 32, 64, 0xFC])
def test_other_flags_of_an_update_do_not_clear_bits_of_the_map(flag: int) -> None:
    view = memoryview(bytearray(8192))
    visibility.set_bits(view, 20, 3)
    part = make_part(view, 0x20, update_main(flag), b"", {0: 20, 1: 10, 2: 0}, block_id=2)
    assert heap.redo(part) == 0
    assert view[24 + 5] == 3


def test_all_of_a_new_tuples_header_is_written() -> None:
    """Free space is not zeros: what was deleted there still stands in it."""
    view = heap_page()
    view[24:] = b"\xee" * 8168
    data = struct.pack("<HHB", 2, 0x802, 24) + b"\0new"
    heap.redo(make_part(view, 0x00, struct.pack("<HB", 1, 0), data, {0: 0x01020304}))
    expected = Row(700, 0, 0, (0x01020304, 1), 2, 0x802, 24, b"\0new")
    assert row(view, 1) == expected
    assert bytes(view[24 + 4 : 8160]) == b"\xee" * (8160 - 28)


@pytest.mark.parametrize("xid", [1, 2, 3, 4, 700, 0x40000000, 0x80000002, 0xC0000000, 0xFFFFFFFF])
@pytest.mark.parametrize("present", [0, 1, 2, 3, 4, 700, 0x40000005, 0x80000005, 0xFFFFFFFE])
def test_the_older_of_two_transactions_is_the_hint_for_pruning(present: int, xid: int) -> None:
    """TransactionIdPrecedes: modulo 2^32, but for the three special ones."""
    view = heap_page(ALL_BYTES)
    view[20:24] = struct.pack("<I", present)
    heap.redo(make_part(view, 0x10, struct.pack("<IHBB", 9, 1, 0, 0), xid=xid))
    is_older = xid < present if xid < 3 or present < 3 else (xid - present) % (1 << 32) >= 1 << 31
    expected = xid if present == 0 or is_older else present
    assert struct.unpack("<I", view[20:24]) == (expected,)


@pytest.mark.parametrize(("number", "fits"), [(291, True), (292, False)])
def test_a_heap_page_has_291_line_pointers(number: int, fits: bool) -> None:
    view = heap_page()
    view[12:14] = struct.pack("<H", 24 + 4 * (number - 1))
    data = struct.pack("<HHB", 2, 0x802, 24) + b"\0"
    part = make_part(view, 0x00, struct.pack("<HB", number, 0), data)
    if fits:
        assert heap.redo(part) == 1
    else:
        with pytest.raises(ValueError, match="no room"):
            heap.redo(part)


def test_a_tuple_is_where_its_line_pointer_says() -> None:
    """Even if that is odd, which only damage makes it."""
    view = heap_page(ALL_BYTES)
    offset = page.item_offset(view, 1)
    view[offset - 1 : offset + 27] = view[offset : offset + 28]
    page.set_item(view, 1, offset - 1, 1, 27)
    heap.redo(make_part(view, 0x60, struct.pack("<IHBB", 9, 1, 0, 0)))
    assert row(view, 1).xmax == 9
    assert row(view, 1).xmin == ALL_BYTES.xmin
    main = struct.pack("<IHBBIH", 9, 1, 0, 32, 0, 2)
    data = b"\3\0" + struct.pack("<HHB", 2, 0x802, 24) + b"\0"
    heap.redo(make_part(view, 0x20, main, data))
    assert row(view, 2).content == b"\0row"


def test_an_update_whose_header_leaves_no_byte_before_the_data() -> None:
    view = heap_page(Row(content=b"\0row"))
    main = struct.pack("<IHBBIH", 9, 1, 0, 32, 0, 2)
    for hoff, content in ((23, b"ro!"), (24, b"!ro")):
        data = b"\2\0" + struct.pack("<HHB", 2, 0x802, hoff) + b"!"
        copy = memoryview(bytearray(view))
        heap.redo(make_part(copy, 0x20, main, data))
        assert row(copy, 2).content == content
    data = b"\2\0" + struct.pack("<HHB", 2, 0x802, 22) + b"!"
    with pytest.raises(ValueError, match="longer than the tuple"):
        heap.redo(make_part(view, 0x20, main, data))


def test_without_the_lock_for_cleanup_no_tuple_moves() -> None:
    view = heap_page(ALL_BYTES, ALL_BYTES, ALL_BYTES)
    page.set_item(view, 1, 0, 3, 0)
    before = bytes(view[12:16]) + bytes(view[28:])
    heap2.redo(make_part(view, 0x20, bytes([0, 128 | 1 | 2 | 8]) + bytes(4), b"\1\0\1\0"))
    assert bytes(view[12:16]) + bytes(view[28:]) == before
    assert page.item_flags(view, 1) == 0
