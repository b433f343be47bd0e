"""Redo of Heap2 records and of visibility map pages, written by hand, on pages made by hand."""

import struct

import pytest

from engine.redo import heap2
from engine.redo.part import Part
from formats import page
from tests.fixtures.redo_parts import Row, flags, heap_page, items, make_part, row

PRUNE_ON_ACCESS, VACUUM_SCAN, VACUUM_CLEANUP = 0x10, 0x20, 0x30
PRUNE, VACUUM, FREEZE_PAGE = 0x10, 0x20, 0x30
VISIBLE, MULTI_INSERT, LOCK_UPDATED, INIT = 0x40, 0x50, 0x60, 0x80
CATALOG, CLEANUP_LOCK, HORIZON, PLANS, REDIRECTIONS, DEAD, UNUSED = 2, 4, 8, 16, 32, 64, 128


def offsets(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def seven_rows() -> memoryview:
    return heap_page(*(Row(content=b"\0" + bytes([64 + n]) * 8 * n) for n in range(1, 8)))


def prune_part(view: memoryview, info: int, prune_flags: int, data: bytes) -> Part:
    main = bytes([0, prune_flags]) + (b"\xee" * 4 if prune_flags & HORIZON else b"")
    return make_part(view, info, main, data)


def check_pruned(view: memoryview) -> None:
    """1 leads to 4 and 5 to 6, 2 is dead, 3 and 7 are unused; the others have closed ranks."""
    assert items(view) == [(2, 4), (3, 0), (0, 0), (1, 8136), (2, 6), (1, 8064)]
    assert [row(view, n).content[1:2] for n in (4, 6)] == [b"D", b"F"]
    assert flags(view) == 1, "an unused line pointer is left"


@pytest.mark.parametrize("info", [PRUNE_ON_ACCESS, VACUUM_SCAN, VACUUM_CLEANUP])
@pytest.mark.parametrize("others", [0, HORIZON, CATALOG | 1])
def test_prune_of_18(info: int, others: int) -> None:
    view = seven_rows()
    data = offsets(2, 1, 4, 5, 6) + offsets(1, 2) + offsets(2, 3, 7)
    prune_flags = CLEANUP_LOCK | REDIRECTIONS | DEAD | UNUSED | others
    assert heap2.redo(prune_part(view, info, prune_flags, data)) == 1
    check_pruned(view)


def test_prune_of_15() -> None:
    view = seven_rows()
    main = struct.pack("<IHH", 99, 2, 1)
    data = offsets(1, 4, 5, 6) + offsets(2) + offsets(3, 7)
    assert heap2.redo(make_part(view, PRUNE, main, data, version=15)) == 1
    check_pruned(view)


def dead_rows() -> memoryview:
    view = seven_rows()
    for n in (2, 6, 7):
        page.set_item(view, n, 0, 3, 0)
    return view


def check_vacuumed(view: memoryview, before: memoryview) -> None:
    """2 is unused, 6 and 7 are gone, no tuple has moved."""
    assert [state for state, _ in items(view)] == [1, 0, 1, 1, 1]
    assert bytes(view[52:]) == bytes(before[52:])
    assert flags(view) == 1


def test_second_pass_of_vacuum_in_18_moves_no_tuple() -> None:
    view = dead_rows()
    data = offsets(3, 2, 6, 7)
    assert heap2.redo(prune_part(view, VACUUM_CLEANUP, UNUSED, data)) == 1
    check_vacuumed(view, dead_rows())


def test_second_pass_of_vacuum_in_15_moves_no_tuple() -> None:
    view = dead_rows()
    part = make_part(view, VACUUM, offsets(3), offsets(2, 6, 7), version=15)
    assert heap2.redo(part) == 1
    check_vacuumed(view, dead_rows())


@pytest.mark.parametrize("lists", [b"", offsets(1, 4)])
def test_freeze_plans_of_18(lists: bytes) -> None:
    view = seven_rows()
    plans = struct.pack("<IHHBxH", 0xFFFFFFF0, 0x1111, 0x2222, 1, 2)
    plans += struct.pack("<IHHBxH", 7, 0x3333, 0x4444, 2, 1)
    plans += struct.pack("<IHHBxH", 8, 0x5555, 0x6666, 4, 1)
    data = offsets(3, 0xEEEE) + plans + lists + offsets(3, 1, 2, 5)
    prune_flags = PLANS | (UNUSED | CLEANUP_LOCK if lists else 0)
    for n in (1, 2, 3, 5):
        view[page.item_offset(view, n) + 8] = 77
    assert heap2.redo(prune_part(view, VACUUM_SCAN, prune_flags, data)) == 1
    for n in (1, 3):
        assert row(view, n)[:6] == (100, 0xFFFFFFF0, 77, (5, 1), 0x1111, 0x2222)
    assert row(view, 2)[:6] == (100, 7, 2, (5, 1), 0x3333, 0x4444), "xvac is frozen"
    assert row(view, 5)[:6] == (100, 8, 0, (5, 1), 0x5555, 0x6666), "xvac is invalid"
    assert row(view, 6).infomask == 0x0802
    assert [state for state, _ in items(view)] == [1, 1, 1, 0 if lists else 1, 1, 1, 1]


def test_freezing_alone_leaves_the_layout_and_the_hint() -> None:
    view = seven_rows()
    page.set_item(view, 7, 0, 0, 0)
    data = offsets(1, 0) + struct.pack("<IHHBxH", 7, 1, 2, 0, 1) + offsets(4)
    heap2.redo(prune_part(view, VACUUM_SCAN, PLANS, data))
    assert page.max_offset(view) == 7
    assert flags(view) == 0


def test_freeze_page_of_15() -> None:
    view = seven_rows()
    data = struct.pack("<IHHHBx", 0xFFFFFFF0, 3, 0x1111, 0x2222, 2)
    data += struct.pack("<IHHHBx", 7, 1, 0x3333, 0x4444, 0)
    part = make_part(view, FREEZE_PAGE, struct.pack("<IH", 99, 2), data, version=15)
    assert heap2.redo(part) == 1
    assert row(view, 3)[:6] == (100, 0xFFFFFFF0, 2, (5, 1), 0x1111, 0x2222)
    assert row(view, 1)[:6] == (100, 7, 0, (5, 1), 0x3333, 0x4444)
    assert row(view, 2).xmax == 0


@pytest.mark.parametrize("cut_bytes", [0, 2])
def test_freeze_page_of_16(cut_bytes: int) -> None:
    view = seven_rows()
    data = struct.pack("<IHHBxH", 0xFFFFFFF0, 0x1111, 0x2222, 2, 2)
    data += struct.pack("<IHHBxH", 7, 0x3333, 0x4444, 0, 1) + offsets(3, 5, 1)
    data = data[: len(data) - cut_bytes]
    part = make_part(view, FREEZE_PAGE, struct.pack("<IHB", 99, 2, 1), data, version=16)
    if cut_bytes:
        with pytest.raises(ValueError, match="list of frozen tuples is cut off"):
            heap2.redo(part)
        return
    assert heap2.redo(part) == 1
    for n in (3, 5):
        assert row(view, n)[:6] == (100, 0xFFFFFFF0, 2, (5, 1), 0x1111, 0x2222)
    assert row(view, 1)[:6] == (100, 7, 0, (5, 1), 0x3333, 0x4444)
    assert row(view, 2).xmax == 0


@pytest.mark.parametrize(("version", "count"), [(14, 7), (15, 5)])
def test_pruning_drops_line_pointers_at_the_end_from_15_on(version: int, count: int) -> None:
    view = seven_rows()
    main = struct.pack("<IHH", 99, 0, 0)
    assert heap2.redo(make_part(view, PRUNE, main, offsets(2, 6, 7), version=version)) == 1
    assert [state for state, _ in items(view)] == [1, 0, 1, 1, 1, 0, 0][:count]
    assert flags(view) == 1


@pytest.mark.parametrize(
    ("prune_flags", "data"),
    [
        (CLEANUP_LOCK | REDIRECTIONS, offsets(2, 1, 4)),
        (CLEANUP_LOCK | DEAD, offsets(2, 1)),
        (UNUSED, offsets(1, 2, 3)),  # more than announced
        (UNUSED, offsets(1, 8)),  # no such line pointer
        (UNUSED, offsets(1, 0)),
        (PLANS, offsets(1, 0) + struct.pack("<IHHBxH", 7, 1, 2, 0, 2) + offsets(4)),
        (PLANS, offsets(1, 0) + struct.pack("<IHHBxH", 7, 1, 2, 0, 1) + offsets(9)),
        (PLANS, offsets(60, 0)),
    ],
)
def test_lists_that_do_not_fit_are_refused(prune_flags: int, data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        heap2.redo(prune_part(seven_rows(), VACUUM_SCAN, prune_flags, data))


@pytest.mark.parametrize(
    ("info", "main", "data"),
    [
        (PRUNE, struct.pack("<IHH", 9, 2, 0), offsets(1, 2, 3)),
        (PRUNE, struct.pack("<IHH", 9, 0, 2), offsets(1)),
        (PRUNE, bytes(7), b""),
        (VACUUM, offsets(2), offsets(1)),
        (VACUUM, b"\0", b""),
        (FREEZE_PAGE, struct.pack("<IH", 9, 2), bytes(23)),
        (FREEZE_PAGE, bytes(5), b""),
    ],
)
def test_records_of_15_that_are_cut_off_are_refused(info: int, main: bytes, data: bytes) -> None:
    with pytest.raises(ValueError, match="cut off|shorter than its kind"):
        heap2.redo(make_part(seven_rows(), info, main, data, version=15))


@pytest.mark.parametrize(
    ("info", "main"),
    [
        (PRUNE_ON_ACCESS, b"\0"),
        (VISIBLE, bytes(4)),
        (MULTI_INSERT | INIT, bytes(3)),
        (LOCK_UPDATED, bytes(7)),
    ],
)
def test_main_data_that_is_cut_off_is_refused(info: int, main: bytes) -> None:
    with pytest.raises(ValueError, match="shorter than its kind"):
        heap2.redo(make_part(seven_rows(), info, main, bytes(8)))


def test_the_layout_of_18_serves_17() -> None:
    view = dead_rows()
    part = make_part(view, VACUUM_CLEANUP, bytes([0, UNUSED]), offsets(3, 2, 6, 7), version=17)
    assert heap2.redo(part) == 1
    check_vacuumed(view, dead_rows())


def visible_main(map_flags: int) -> bytes:
    return struct.pack("<IB", 99, map_flags)


@pytest.mark.parametrize("logged", [True, False])
def test_visible_marks_the_heap_page(logged: bool) -> None:
    view = heap_page(Row())
    part = make_part(view, VISIBLE, visible_main(1), blocks={0: 0, 1: 5}, block_id=1)
    part.hint_bits_logged = logged
    assert heap2.redo(part) == logged, "pd_lsn only where its image would be logged"
    assert flags(view) == 4


def test_visible_refuses_a_heap_page_of_zeros() -> None:
    view = memoryview(bytearray(8192))
    with pytest.raises(ValueError, match="never initialised"):
        heap2.redo(make_part(view, VISIBLE, visible_main(1), blocks={0: 0, 1: 5}, block_id=1))


def many(*contents: bytes) -> bytes:
    """Tuples as a multi insert has them: each on an even offset."""
    data = b""
    for content in contents:
        data += b"\xee" * (len(data) % 2)
        data += struct.pack("<HHHB", len(content), 0x4003, 0x0822, 24) + content
    return data


def test_multi_insert_at_given_line_pointers() -> None:
    view = heap_page(Row(), Row())
    page.set_item(view, 1, 0, 0, 0)
    main = struct.pack("<BxHHHH", 2, 3, 3, 1, 4)
    part = make_part(view, MULTI_INSERT, main, many(b"\0odd", b"\0even", b"\0"), {0: 0x10002})
    assert heap2.redo(part) == 1
    for number, content in ((3, b"\0odd"), (1, b"\0even"), (4, b"\0")):
        assert row(view, number) == Row(700, 0, 0, (0x10002, number), 0x4003, 0x0802, 24, content)
    assert row(view, 2) == Row()


def test_multi_insert_into_a_new_page_numbers_from_one() -> None:
    view = memoryview(bytearray(8192))
    main = struct.pack("<BxH", 32, 2)
    part = make_part(view, MULTI_INSERT | INIT, main, many(b"\0a", b"\0bcd"))
    assert heap2.redo(part) == 1
    assert [row(view, n).content for n in (1, 2)] == [b"\0a", b"\0bcd"]
    assert flags(view) == 4, "all frozen means all visible"


@pytest.mark.parametrize(("flag", "left"), [(0, 4), (1, 0), (2, 4), (32, 4)])
def test_multi_insert_and_all_visible(flag: int, left: int) -> None:
    view = heap_page()
    view[10] |= 4
    heap2.redo(make_part(view, MULTI_INSERT, struct.pack("<BxHH", flag, 1, 1), many(b"\0")))
    assert flags(view) == left


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (1, many(b"\0abc")[:-1]),
        (1, many(b"\0abc") + b"\0"),
        (2, many(b"\0abc")),
        (1, many(b"\0a", b"\0b")),
        (1, struct.pack("<HHHB", 9000, 1, 2, 24) + bytes(9000)),
        (0, b"\0"),
    ],
)
def test_multi_insert_whose_tuples_do_not_fit_is_refused(count: int, data: bytes) -> None:
    view = memoryview(bytearray(8192))
    main = struct.pack("<BxH", 0, count)
    with pytest.raises((ValueError, IndexError)):
        heap2.redo(make_part(view, MULTI_INSERT | INIT, main, data))


def test_multi_insert_whose_line_pointers_are_cut_off_is_refused() -> None:
    main = struct.pack("<BxHH", 0, 2, 1)
    with pytest.raises(ValueError, match="shorter than its kind"):
        heap2.redo(make_part(heap_page(), MULTI_INSERT, main, many(b"\0", b"\0")))


def test_lock_updated_changes_xmax_and_its_bits_only() -> None:
    view = heap_page(Row(infomask=0xFFFF, infomask2=0xE002, ctid=(8, 8), cid=3))
    view[10] |= 4
    main = struct.pack("<IHBB", 0xABCD, 1, 3, 1)
    assert heap2.redo(make_part(view, LOCK_UPDATED, main)) == 1
    assert row(view, 1) == Row(100, 0xABCD, 3, (8, 8), 0xC002, 0xFFFF & ~0xDCD0 | 0x1080), (
        "unlike a lock: command, chain and HOT_UPDATED stay"
    )
    assert (flags(view), bytes(view[20:24])) == (4, bytes(4))


@pytest.mark.parametrize(
    ("opcode", "block_id"),
    [(0x00, 0), (0x70, 0), (PRUNE, 1), (VISIBLE, 2), (MULTI_INSERT, 2), (LOCK_UPDATED, 2)],
)
def test_a_block_that_the_kind_does_not_change_is_refused(opcode: int, block_id: int) -> None:
    with pytest.raises(ValueError, match="does not change this block|cannot have"):
        heap2.redo(make_part(seven_rows(), opcode, bytes(14), b"", {0: 5, block_id: 0}, block_id))
