"""Redo of Heap records, written by hand, on pages made by hand."""

import struct

import pytest

from engine.redo import heap
from formats import page
from tests.fixtures.redo_parts import Row, flags, heap_page, make_part, row

INSERT, DELETE, UPDATE, HOT_UPDATE, CONFIRM, LOCK, INPLACE = (
    0x00,
    0x10,
    0x20,
    0x40,
    0x50,
    0x60,
    0x70,
)
INIT = 0x80
HINTS = 0x0500  # xmin and xmax committed
ALL_XMAX_BITS = 0xDCD0


def all_visible(view: memoryview) -> memoryview:
    view[10] |= 4
    return view


def prune_xid(view: memoryview) -> int:
    return int.from_bytes(view[20:24], "little")


def test_insert_writes_every_field_of_the_tuple() -> None:
    view = heap_page(Row())
    data = struct.pack("<HHB", 0x8003, 0x0822, 24) + b"\0hello"
    part = make_part(view, INSERT, struct.pack("<HB", 2, 0), data, {0: 0x12345}, xid=0xFFFFFFFE)
    assert heap.redo(part) == 1
    assert row(view, 2) == Row(0xFFFFFFFE, 0, 0, (0x12345, 2), 0x8003, 0x0802, 24, b"\0hello"), (
        "t_infomask without COMBOCID"
    )
    assert page.item_length(view, 2) == 29


def test_insert_initialises_the_page() -> None:
    view = memoryview(bytearray(8192))
    data = struct.pack("<HHB", 1, 2, 24) + b"\0x"
    assert heap.redo(make_part(view, INSERT | INIT, struct.pack("<HB", 1, 0), data)) == 1
    assert bytes(view) == bytes(heap_page(Row(700, infomask2=1, infomask=2, content=b"\0x")))


def test_insert_takes_a_freed_line_pointer() -> None:
    view = heap_page(Row(), Row())
    page.set_item(view, 1, 0, 0, 0)
    data = struct.pack("<HHB", 1, 2, 24) + b"\0x"
    heap.redo(make_part(view, INSERT, struct.pack("<HB", 1, 0), data))
    assert row(view, 1).content == b"\0x"
    assert page.max_offset(view) == 2


@pytest.mark.parametrize(("flag", "left"), [(0, 4), (1, 0), (2, 4), (4, 4)])
def test_insert_clears_all_visible_when_flagged(flag: int, left: int) -> None:
    view = all_visible(heap_page(Row()))
    data = struct.pack("<HHB", 1, 2, 24) + b"\0x"
    heap.redo(make_part(view, INSERT, struct.pack("<HB", 2, flag), data))
    assert flags(view) == left


@pytest.mark.parametrize(
    ("number", "length"), [(1, 4), (3, 4), (2, 8200)], ids=["used", "beyond", "too long"]
)
def test_insert_that_does_not_fit_is_refused(number: int, length: int) -> None:
    data = struct.pack("<HHB", 1, 2, 24) + bytes(length)
    with pytest.raises((ValueError, IndexError)):
        heap.redo(make_part(heap_page(Row()), INSERT, struct.pack("<HB", number, 0), data))


def test_a_heap_page_has_at_most_291_line_pointers() -> None:
    view = heap_page(*[Row(hoff=23)] * 291)
    data = struct.pack("<HHB", 1, 2, 23)
    with pytest.raises(ValueError, match="no room"):
        heap.redo(make_part(view, INSERT, struct.pack("<HB", 292, 0), data))


def test_delete() -> None:
    old = Row(100, 650, 7, (5, 2), 0xE003, 0x2FFF, content=b"abc")
    view = heap_page(old)
    main = struct.pack("<IHBB", 0xFEDCBA98, 1, 0, 0)
    assert heap.redo(make_part(view, DELETE, main, blocks={0: 0x10005})) == 1
    assert row(view, 1) == Row(
        100, 0xFEDCBA98, 0, (0x10005, 1), 0x8003, 0x2FFF & ~ALL_XMAX_BITS & ~0x20, content=b"abc"
    )
    assert prune_xid(view) == 700


@pytest.mark.parametrize(
    ("infobits", "infomask", "infomask2"),
    [
        (1, 0x1000, 0),
        (2, 0x80, 0),
        (4, 0x40, 0),
        (8, 0x10, 0),
        (16, 0, 0x2000),
        (31, 0x10D0, 0x2000),
    ],
)
def test_delete_sets_what_infobits_say(infobits: int, infomask: int, infomask2: int) -> None:
    view = heap_page(Row(infomask=0x0802, infomask2=0x4002))
    heap.redo(make_part(view, DELETE, struct.pack("<IHBB", 9, 1, infobits, 0)))
    assert row(view, 1).infomask == infomask | 2
    assert row(view, 1).infomask2 == infomask2 | 2


def test_delete_of_a_speculative_insertion_takes_xmin_away() -> None:
    view = heap_page(Row(xmin=700, xmax=3))
    heap.redo(make_part(view, DELETE, struct.pack("<IHBB", 9, 1, 0, 8)))
    assert (row(view, 1).xmin, row(view, 1).xmax) == (0, 3)


def test_delete_by_a_move_to_another_partition_marks_ctid() -> None:
    view = all_visible(heap_page(Row()))
    heap.redo(make_part(view, DELETE, struct.pack("<IHBB", 9, 1, 0, 16)))
    assert row(view, 1).ctid == (0xFFFFFFFF, 0xFFFD)
    assert flags(view) == 4


def test_delete_clears_all_visible_when_flagged() -> None:
    view = all_visible(heap_page(Row()))
    heap.redo(make_part(view, DELETE, struct.pack("<IHBB", 9, 1, 0, 1)))
    assert flags(view) == 0
    assert (row(view, 1).xmin, row(view, 1).ctid) == (100, (5, 1))


@pytest.mark.parametrize(
    ("present", "xid", "expected"),
    [
        (0, 700, 700),
        (900, 700, 700),
        (600, 700, 600),
        (0xFFFFFF00, 700, 0xFFFFFF00),  # older, across the wrap
        (700, 0xFFFFFF00, 0xFFFFFF00),
        (700, 700, 700),
        (2, 700, 2),  # permanent ids compare as they are
        (700, 2, 2),
        (3, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 3, 0xFFFFFFFF),
    ],
)
def test_the_oldest_deletion_makes_the_page_prunable(present: int, xid: int, expected: int) -> None:
    view = heap_page(Row())
    view[20:24] = present.to_bytes(4, "little")
    heap.redo(make_part(view, DELETE, struct.pack("<IHBB", 9, 1, 0, 0), xid=xid))
    assert prune_xid(view) == expected


def update_main(old: int, new: int, flag: int = 0, infobits: int = 0, new_xmax: int = 0) -> bytes:
    return struct.pack("<IHBBIH", 701, old, infobits, flag, new_xmax, new)


NEW_HEADER = struct.pack("<HHB", 0x8002, 0x2822, 24)


def test_hot_update_links_both_versions_in_one_page() -> None:
    view = heap_page(Row(cid=9, infomask=HINTS | 0x22, content=b"\0old"))
    main = update_main(1, 2, infobits=16, new_xmax=650)
    assert heap.redo(make_part(view, HOT_UPDATE, main, NEW_HEADER + b"\0new")) == 1
    assert row(view, 1) == Row(100, 701, 0, (5, 2), 0x6002, 0x0102, content=b"\0old")
    assert row(view, 2) == Row(700, 650, 0, (5, 2), 0x8002, 0x2802, content=b"\0new")
    assert prune_xid(view) == 700


def test_update_in_one_page_takes_hot_updated_away() -> None:
    view = heap_page(Row(infomask2=0x4002))
    heap.redo(make_part(view, UPDATE, update_main(1, 2), NEW_HEADER + b"\0"))
    assert row(view, 1).infomask2 == 2


@pytest.mark.parametrize(
    ("flag", "lengths", "middle", "expected"),
    [
        (32, (3,), b"XY", b"\0oldXY"),
        (64, (4,), b"XY", b"\0XYdata"),
        (96, (2, 1), b"-", b"\0ol-a"),
        (96, (0, 3), b"-", b"\0-ata"),
        (96, (7, 0), b"", b"\0olddata"),
    ],
)
def test_update_takes_what_is_the_same_from_the_old_version(
    flag: int, lengths: tuple[int, ...], middle: bytes, expected: bytes
) -> None:
    view = heap_page(Row(content=b"\0olddata"))
    data = b"".join(length.to_bytes(2, "little") for length in lengths)
    data += NEW_HEADER + b"\0" + middle
    heap.redo(make_part(view, HOT_UPDATE, update_main(1, 2, flag), data))
    assert row(view, 2).content == expected
    assert row(view, 1).content == b"\0olddata"


def test_update_puts_the_bitmap_of_nulls_before_the_prefix() -> None:
    view = heap_page(Row(content=b"\0olddata"))
    header = struct.pack("<HHB", 2, 3, 32)
    data = b"\3\0" + header + b"BITMAP_PA" + b"tail"
    heap.redo(make_part(view, HOT_UPDATE, update_main(1, 2, 32), data))
    assert row(view, 2).content == b"BITMAP_PAoldtail"


@pytest.mark.parametrize(
    ("flag", "data"),
    [
        (32, b"\x08\0" + NEW_HEADER + b"\0"),  # the old version has 7 bytes
        (64, b"\x08\0" + NEW_HEADER + b"\0"),
        (32, b"\x01\0" + NEW_HEADER),  # bitmap cut off
        (32, b"\x01\0" + struct.pack("<HHB", 2, 2, 22) + b"\0"),
        (96, b"\x01\0" + NEW_HEADER[:4]),
        (0, NEW_HEADER[:4]),
    ],
)
def test_update_with_impossible_lengths_is_refused(flag: int, data: bytes) -> None:
    view = heap_page(Row(content=b"\0olddata"))
    with pytest.raises(ValueError, match="heap update that|heap update whose"):
        heap.redo(make_part(view, HOT_UPDATE, update_main(1, 2, flag), data))


def test_update_across_pages_changes_one_tuple_in_each() -> None:
    old, new = heap_page(Row(), Row(content=b"\0old")), heap_page(Row())
    blocks = {0: 0x20007, 1: 5}
    main = update_main(2, 2, new_xmax=9)
    data = NEW_HEADER + b"\0new"
    assert heap.redo(make_part(old, UPDATE, main, b"", blocks, block_id=1)) == 1
    assert heap.redo(make_part(new, UPDATE, main, data, blocks, block_id=0)) == 1
    assert row(old, 2).ctid == row(new, 2).ctid == (0x20007, 2)
    assert (row(old, 2).xmax, row(new, 2).xmin, row(new, 2).xmax) == (701, 700, 9)
    assert page.max_offset(old) == 2
    assert (prune_xid(old), prune_xid(new)) == (700, 0)


def test_update_across_pages_initialises_only_the_new_one() -> None:
    old, new = heap_page(Row()), memoryview(bytearray(8192))
    blocks = {0: 6, 1: 5}
    main = update_main(1, 1)
    heap.redo(make_part(old, UPDATE | INIT, main, b"", blocks, block_id=1))
    heap.redo(make_part(new, UPDATE | INIT, main, NEW_HEADER + b"\0", blocks))
    assert row(old, 1).xmin == 100
    assert row(new, 1).xmin == 700


def test_update_across_pages_cannot_take_from_the_old_version() -> None:
    data = b"\1\0" + NEW_HEADER + b"\0"
    with pytest.raises(ValueError, match="another page"):
        heap.redo(make_part(heap_page(), UPDATE, update_main(1, 1, 32), data, {0: 6, 1: 5}))


@pytest.mark.parametrize(("flag", "old_left", "new_left"), [(0, 4, 4), (1, 0, 4), (2, 4, 0)])
def test_update_clears_all_visible_page_by_page(flag: int, old_left: int, new_left: int) -> None:
    blocks = {0: 6, 1: 5}
    old, new = all_visible(heap_page(Row())), all_visible(heap_page())
    main = update_main(1, 1, flag)
    heap.redo(make_part(old, UPDATE, main, b"", blocks, block_id=1))
    heap.redo(make_part(new, UPDATE, main, NEW_HEADER + b"\0", blocks))
    assert (flags(old), flags(new)) == (old_left, new_left)


def test_confirm_sets_ctid() -> None:
    view = heap_page(Row(), Row(ctid=(99, 0xFFFE)))
    assert heap.redo(make_part(view, CONFIRM, b"\2\0", blocks={0: 0x30001})) == 1
    assert row(view, 2) == Row(ctid=(0x30001, 2))


@pytest.mark.parametrize(
    ("infobits", "infomask"), [(2, 0x80), (6, 0xC0), (4, 0x40), (3, 0x1080), (10, 0x90)]
)
def test_lock_alone_cuts_the_chain_to_later_versions(infobits: int, infomask: int) -> None:
    view = heap_page(Row(infomask=0xFFFF, infomask2=0xE002, ctid=(8, 8), cid=3))
    main = struct.pack("<IHBB", 0xABCD, 1, infobits, 0)
    assert heap.redo(make_part(view, LOCK, main)) == 1
    kept = 0xFFFF & ~ALL_XMAX_BITS & ~0x20
    assert row(view, 1) == Row(100, 0xABCD, 0, (5, 1), 0x8002, kept | infomask)


@pytest.mark.parametrize(
    ("infobits", "infomask"), [(0, 0), (1, 0x1000), (5, 0x1040), (8, 0x10), (12, 0x50)]
)
def test_lock_of_an_updated_tuple_keeps_the_chain(infobits: int, infomask: int) -> None:
    view = heap_page(Row(infomask=2, infomask2=0x4002, ctid=(8, 8), cid=3))
    heap.redo(make_part(view, LOCK, struct.pack("<IHBB", 9, 1, infobits, 0)))
    assert row(view, 1) == Row(100, 9, 0, (8, 8), 0x4002, 2 | infomask)


def test_lock_leaves_prunability_and_visibility_alone() -> None:
    view = all_visible(heap_page(Row()))
    heap.redo(make_part(view, LOCK, struct.pack("<IHBB", 9, 1, 2, 1)))
    assert (prune_xid(view), flags(view)) == (0, 4)


@pytest.mark.parametrize("main_length", [2, 24])
def test_inplace_replaces_data_of_the_same_length(main_length: int) -> None:
    view = heap_page(Row(hoff=32, content=b"BITMAPPADabcdef"), Row())
    before = row(view, 1)
    main = b"\1\0" + b"\xcc" * (main_length - 2)
    assert heap.redo(make_part(view, INPLACE, main, b"ABCDEF")) == 1
    assert row(view, 1) == before._replace(content=b"BITMAPPADABCDEF")
    for data in (b"ABCDE", b"ABCDEFG"):
        with pytest.raises(ValueError, match="another length"):
            heap.redo(make_part(view, INPLACE, main, data))


@pytest.mark.parametrize("opcode", [DELETE, LOCK, CONFIRM, INPLACE, UPDATE])
def test_a_line_pointer_without_a_tuple_is_refused(opcode: int) -> None:
    for number in (0, 1, 2, 3, 0xFFFF):
        view = heap_page(Row(), Row())
        page.set_item(view, 1, 2, 2, 0)
        page.set_item(view, 2, 0, 3, 0)
        if opcode == UPDATE:
            main = update_main(number, 1)
        elif opcode in (CONFIRM, INPLACE):
            main = number.to_bytes(2, "little")
        else:
            main = struct.pack("<IHBB", 9, number, 0, 0)
        with pytest.raises((ValueError, IndexError)):
            heap.redo(make_part(view, opcode, main, b"data"))


@pytest.mark.parametrize(
    ("opcode", "length"),
    [(INSERT, 2), (DELETE, 7), (UPDATE, 13), (HOT_UPDATE, 13), (CONFIRM, 1), (LOCK, 7)]
    + [(INPLACE, 1)],
)
def test_main_data_that_is_cut_off_is_refused(opcode: int, length: int) -> None:
    main = bytes(14)[:length]
    with pytest.raises(ValueError, match="shorter than its kind"):
        heap.redo(make_part(heap_page(Row(content=b"12345")), opcode, main, b"1234"))


@pytest.mark.parametrize(
    ("opcode", "block_id"),
    [(0x30, 0), (0x30, 1), (CONFIRM, 1), (INPLACE, 1), (INSERT, 2), (DELETE, 2), (UPDATE, 4)],
)
def test_a_block_that_the_kind_does_not_change_is_refused(opcode: int, block_id: int) -> None:
    blocks = {0: 5, block_id: 0}
    with pytest.raises(ValueError, match="does not change this block|cannot have"):
        heap.redo(make_part(heap_page(Row()), opcode, bytes(14), b"", blocks, block_id))


@pytest.mark.parametrize(("opcode", "block_id"), [(DELETE, 0), (CONFIRM, 0), (INSERT, 1)])
def test_a_record_without_the_reference_it_needs_is_refused(opcode: int, block_id: int) -> None:
    main = struct.pack("<HBBHBB", 1, 1, 0, 1, 1, 1)
    with pytest.raises(ValueError, match="without a block"):
        heap.redo(make_part(heap_page(Row()), opcode, main, b"", {1: 0}, block_id))
