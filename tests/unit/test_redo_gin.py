"""Redo of GIN records: entry tree, inner posting tree pages, meta page, pending list."""

import struct

import pytest

from engine.redo import gin
from formats import page
from tests.fixtures.gin_parts import (
    CREATE_PTREE,
    DATA,
    DATA_LEAF,
    DELETE_LIST,
    DELETE_MAIN,
    DELETE_PAGE,
    DELETED,
    FULL_ROW,
    INCOMPLETE,
    INSERT,
    INSERT_LIST,
    IS_DATA,
    IS_LEAF,
    LEAF,
    LIST,
    META,
    META_DATA,
    NO_BLOCK,
    SPLIT,
    UPDATE_META,
    VACUUM_DATA,
    VACUUM_PAGE,
    actions,
    data_page,
    downlink,
    entry,
    entry_data,
    entry_page,
    inner_page,
    insert_main,
    leaf,
    meta_main,
    segment,
    special,
    split_main,
)
from tests.fixtures.redo_parts import make_part


def tuples(view: memoryview) -> list[bytes]:
    places = [
        (page.item_offset(view, n), page.item_length(view, n))
        for n in range(1, page.max_offset(view) + 1)
    ]
    return [bytes(view[offset : offset + length]) for offset, length in places]


def full_of_ff() -> memoryview:
    return memoryview(bytearray(b"\xff" * 8192))


def test_entry_more_on_a_leaf() -> None:
    view = entry_page(entry(1), entry(3), right=4)
    data = entry_data(2, entry(2))
    assert gin.redo(make_part(view, INSERT, insert_main(IS_LEAF), data)) == 1
    assert tuples(view) == [entry(1), entry(2), entry(3)]
    assert page.item_offset(view, 2) == 8184 - 48
    assert special(view) == (4, 0, LEAF)


def test_entry_in_place_of_one() -> None:
    """The old one goes first, so the new one may be longer than what is free."""
    view = entry_page(*[entry(n, length=2000) for n in range(4)])
    new = entry(1, (5, 9), 2100)
    main = insert_main(IS_LEAF)
    assert gin.redo(make_part(view, INSERT, main, entry_data(2, new, True))) == 1
    old = [entry(n, length=2000) for n in range(4)]
    assert tuples(view) == [old[0], new, old[2], old[3]]
    with pytest.raises(ValueError, match="does not fit"):
        gin.redo(make_part(view, INSERT, main, entry_data(2, new)))


def test_a_tuple_may_have_an_odd_length() -> None:
    view = entry_page(entry(1))
    gin.redo(make_part(view, INSERT, insert_main(IS_LEAF), entry_data(1, entry(0, length=19))))
    assert tuples(view) == [entry(0, length=19), entry(1)]
    assert page.item_offset(view, 1) == 8184 - 16 - 24


def test_inner_entry_leads_to_the_right_half() -> None:
    view = entry_page(entry(5, (8, 0)), entry(9, (0x20003, 0)), flags=0)
    data = entry_data(2, entry(7, (0x20003, 0)))
    blocks = {0: 5, 1: 0x20003}
    assert gin.redo(make_part(view, INSERT, insert_main(0), data, blocks)) == 1
    assert tuples(view) == [entry(5, (8, 0)), entry(7, (0x20003, 0)), entry(9, (0x50006, 0))]


def test_inner_entry_loses_the_number_of_its_tid() -> None:
    """As GinSetDownlink has it; servers write 0 there anyway."""
    view = entry_page(entry(9, (3, 7)), flags=0)
    gin.redo(make_part(view, INSERT, insert_main(0), entry_data(1, entry(7))))
    assert tuples(view) == [entry(7), entry(9, (0x50006, 0))]


@pytest.mark.parametrize("flags", [0, IS_DATA])
def test_insert_above_completes_the_split_below(flags: int) -> None:
    below = entry_page(entry(1), flags=LEAF | INCOMPLETE, right=6, count=3)
    part = make_part(below, INSERT, insert_main(flags), b"", {0: 5, 1: 3}, block_id=1)
    assert gin.redo(part) == 1
    assert bytes(below) == bytes(entry_page(entry(1), right=6, count=3))


@pytest.mark.parametrize("flags", [IS_LEAF, IS_LEAF | IS_DATA])
def test_a_leaf_insertion_has_no_block_below(flags: int) -> None:
    part = make_part(leaf(), INSERT, insert_main(flags), b"", {0: 5, 1: 3}, block_id=1)
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        gin.redo(part)


@pytest.mark.parametrize("number", [0, 3, 0xFFFF])
@pytest.mark.parametrize("flags", [0, IS_LEAF])
def test_insert_at_a_number_beyond_is_refused(number: int, flags: int) -> None:
    view = entry_page(entry(1), flags=flags)
    for replaces in (False, True):
        data = entry_data(number, entry(2), replaces)
        with pytest.raises((ValueError, IndexError), match="tuple|line pointer|replaces"):
            gin.redo(make_part(view, INSERT, insert_main(flags), data))


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("without a tuple", b""),
        ("without a tuple", entry_data(1, entry(2, length=16)[:7])),
        ("cut off", entry_data(1, entry(2)[:-1])),
        ("more than a tuple", entry_data(1, entry(2) + b"\0")),
        ("too short", entry_data(1, entry(2, length=7)[:8])),
    ],
)
def test_insert_of_a_broken_tuple_is_refused(reason: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=reason):
        gin.redo(make_part(entry_page(entry(1)), INSERT, insert_main(IS_LEAF), data))


def test_the_shortest_tuple() -> None:
    view = entry_page(entry(1))
    tuple_ = entry(0, length=8)[:8]
    gin.redo(make_part(view, INSERT, insert_main(IS_LEAF), entry_data(1, tuple_)))
    assert tuples(view) == [tuple_, entry(1)]


def test_an_inner_entry_cannot_be_replaced() -> None:
    view = entry_page(entry(1), flags=0)
    with pytest.raises(ValueError, match="replaces a downlink"):
        gin.redo(make_part(view, INSERT, insert_main(0), entry_data(1, entry(2), True)))


OLD = [downlink(0x30002, (10, 1)), downlink(0x20003, (0x10000, 3)), downlink(9, (0x10020, 4))]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_downlink_comes_before_the_right_half(number: int) -> None:
    new = downlink(0x20003, (11, 0x123))
    view = inner_page(*OLD, rest=0xEE)
    data = struct.pack("<H", number) + new
    assert gin.redo(make_part(view, INSERT, insert_main(IS_DATA), data, {0: 5, 1: 3})) == 1
    right = struct.pack("<HH", 5, 6) + OLD[number - 1][4:]
    expected = inner_page(*OLD[: number - 1], new, right, *OLD[number:], rest=0xEE)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize("number", [0, 4, 0xFFFF])
def test_downlink_at_a_number_beyond_is_refused(number: int) -> None:
    data = struct.pack("<H", number) + OLD[0]
    with pytest.raises(ValueError, match="downlink that the page does not have"):
        gin.redo(make_part(inner_page(*OLD), INSERT, insert_main(IS_DATA), data))


def test_downlinks_fill_a_page_to_the_brim_and_no_further() -> None:
    view = inner_page(*[OLD[0]] * 814)
    main, data = insert_main(IS_DATA), struct.pack("<H", 814) + OLD[1]
    gin.redo(make_part(view, INSERT, main, data))
    right = struct.pack("<HH", 5, 6) + OLD[0][4:]
    assert bytes(view) == bytes(inner_page(*[OLD[0]] * 813, OLD[1], right))
    with pytest.raises(ValueError, match="does not fit"):
        gin.redo(make_part(view, INSERT, main, data))
    with pytest.raises(ValueError, match="not a downlink"):
        gin.redo(make_part(view, INSERT, main, data[:-1]))


def test_split_completes_the_split_below() -> None:
    below = data_page(segment((1, 1)), flags=DATA_LEAF | INCOMPLETE)
    blocks = {0: 5, 1: 6, 3: 3}
    part = make_part(below, SPLIT, split_main(IS_DATA), b"", blocks, block_id=3)
    assert gin.redo(part) == 1
    assert bytes(below) == bytes(data_page(segment((1, 1))))
    part = make_part(below, SPLIT, split_main(IS_DATA | IS_LEAF), b"", blocks, block_id=3)
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        gin.redo(part)


@pytest.mark.parametrize(
    ("info", "block_id"), [(SPLIT, 0), (SPLIT, 1), (SPLIT, 2), (VACUUM_PAGE, 0)]
)
def test_pages_that_come_as_images_alone(info: int, block_id: int) -> None:
    with pytest.raises(ValueError, match="page image that it must have"):
        gin.redo(make_part(entry_page(), info, split_main(0), b"", {block_id: 5}, block_id))


def test_deleted_page_keeps_its_content() -> None:
    blocks = {0: 7, 1: 5, 2: 6}
    view = data_page(b"", right=8)
    assert gin.redo(make_part(view, DELETE_PAGE, DELETE_MAIN, b"", blocks)) == 1
    expected = data_page(b"", right=8, flags=DATA_LEAF | DELETED)
    expected[20:24] = b"\4\3\2\1"
    assert bytes(view) == bytes(expected)


def test_an_inner_page_may_be_deleted() -> None:
    view = inner_page()
    gin.redo(make_part(view, DELETE_PAGE, DELETE_MAIN, b"", {0: 7, 1: 5, 2: 6}))
    assert special(view) == (9, 0, DATA | DELETED)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_parent_of_a_deleted_page_loses_its_downlink(number: int) -> None:
    blocks = {0: 7, 1: 5, 2: 6}
    view = inner_page(*OLD)
    main = struct.pack("<H", number) + DELETE_MAIN[2:]
    assert gin.redo(make_part(view, DELETE_PAGE, main, b"", blocks, block_id=1)) == 1
    expected = inner_page(*OLD[: number - 1], *OLD[number:])
    expected[52:62] = OLD[2]  # where the last one stood nothing is changed
    assert bytes(view) == bytes(expected)


def test_left_sibling_of_a_deleted_page() -> None:
    blocks = {0: 7, 1: 5, 2: 6}
    view = data_page(segment((1, 1)), right=7)
    assert gin.redo(make_part(view, DELETE_PAGE, DELETE_MAIN, b"", blocks, block_id=2)) == 1
    assert bytes(view) == bytes(data_page(segment((1, 1)), right=0x10008))


@pytest.mark.parametrize("number", [0, 4, 0xFFFF])
def test_a_downlink_that_is_not_there_cannot_go(number: int) -> None:
    main = struct.pack("<H", number) + DELETE_MAIN[2:]
    with pytest.raises(ValueError, match="downlink that the page does not have"):
        gin.redo(make_part(inner_page(*OLD), DELETE_PAGE, main, b"", {1: 5}, block_id=1))


def meta_page() -> bytes:
    head = bytes(12) + struct.pack("<HHHHI", 80, 8184, 8184, 8192 | 4, 0) + META_DATA
    return head.ljust(8184, b"\0") + struct.pack("<IHH", NO_BLOCK, 0, META)


@pytest.mark.parametrize(
    ("info", "main"),
    [(UPDATE_META, meta_main(0)), (DELETE_LIST, META_DATA + struct.pack("<ixxxx", 1))],
)
def test_meta_page_is_made_anew(info: int, main: bytes) -> None:
    view = full_of_ff()
    assert gin.redo(make_part(view, info, main, b"", {0: 0, 1: 8})) == 1
    assert bytes(view) == meta_page()


def test_pending_list_gets_tuples() -> None:
    view = entry_page(entry(1), flags=LIST | FULL_ROW, count=4)
    data = entry(3) + entry(2, length=18) + entry(2)
    part = make_part(view, UPDATE_META, meta_main(3), data, {0: 0, 1: 8}, block_id=1)
    assert gin.redo(part) == 1
    assert tuples(view) == [entry(1), entry(3), entry(2, length=18), entry(2)]
    assert special(view) == (NO_BLOCK, 5, LIST | FULL_ROW)


def test_pending_list_gets_pages() -> None:
    view = entry_page(entry(1), flags=LIST | FULL_ROW, count=4)
    part = make_part(view, UPDATE_META, meta_main(0), b"", {0: 0, 1: 6}, block_id=1)
    assert gin.redo(part) == 1
    expected = entry_page(entry(1), flags=LIST | FULL_ROW, count=4, right=0x10007)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize(
    ("right", "count", "flags"),
    [(NO_BLOCK, 1, LIST | FULL_ROW), (0x1FFFF, 0, LIST), (0xFFFF0001, 0, LIST)],
)
def test_page_of_the_pending_list(right: int, count: int, flags: int) -> None:
    view = full_of_ff()
    held = [entry(4), entry(2, length=20), entry(3)]
    main = struct.pack("<Ii", right, 3)
    assert gin.redo(make_part(view, INSERT_LIST, main, b"".join(held))) == 1
    expected = entry_page(*held, flags=flags, right=right, count=count)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (1, entry(1) + entry(2)),
        (2, entry(1)),
        (0, entry(1)),
        (-1, entry(1)),
        (1, entry(1)[:-1]),
        (511, entry(1) * 511),
        (0x10000, b""),
    ],
)
def test_tuples_that_do_not_fill_the_data_are_refused(count: int, data: bytes) -> None:
    with pytest.raises(ValueError, match="tuple"):
        gin.redo(make_part(full_of_ff(), INSERT_LIST, struct.pack("<Ii", 1, count), data))


@pytest.mark.parametrize("block_id", [1, 2])
def test_pages_that_leave_the_pending_list(block_id: int) -> None:
    view = full_of_ff()
    main = META_DATA + struct.pack("<ixxxx", 2)
    blocks = {0: 0, 1: 7, 2: 8}
    assert gin.redo(make_part(view, DELETE_LIST, main, b"", blocks, block_id)) == 1
    assert bytes(view) == bytes(entry_page(flags=DELETED))
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        gin.redo(make_part(view, DELETE_LIST, main, b"", {3: 9}, 3))


MAINS = {
    CREATE_PTREE: struct.pack("<I", 0),
    INSERT: insert_main(0),
    SPLIT: split_main(0)[:26],
    DELETE_PAGE: DELETE_MAIN,
    UPDATE_META: meta_main(1)[:84],
    INSERT_LIST: struct.pack("<Ii", 1, 0),
    DELETE_LIST: META_DATA + struct.pack("<i", 1),
    VACUUM_DATA: b"",
}


@pytest.mark.parametrize("info", [info for info in MAINS if MAINS[info]])
def test_short_main_data_is_refused(info: int) -> None:
    block_id = 3 if info == SPLIT else 0
    with pytest.raises(ValueError, match="main data is too short"):
        gin.redo(make_part(entry_page(), info, MAINS[info][:-1], b"", {block_id: 1}, block_id))


@pytest.mark.parametrize(
    ("info", "block_id"), [*((info, 9) for info in MAINS), (DELETE_PAGE, 3), (UPDATE_META, 2)]
)
def test_unexpected_block_is_refused(info: int, block_id: int) -> None:
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        gin.redo(make_part(entry_page(), info, MAINS[info], b"", {block_id: 1}, block_id))


@pytest.mark.parametrize("info", [0x00, 0xA0, 0xF0])
def test_unknown_opcode_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="unknown opcode"):
        gin.redo(make_part(entry_page(), info, bytes(90)))


@pytest.mark.parametrize(
    ("info", "main", "data", "block_id"),
    [
        (INSERT, insert_main(IS_LEAF), entry_data(1, entry(1)), 0),
        (INSERT, insert_main(IS_DATA), b"\1\0" + OLD[0], 0),
        (INSERT, insert_main(IS_DATA | IS_LEAF), actions(), 0),
        (INSERT, insert_main(0), b"", 1),
        (SPLIT, split_main(0), b"", 3),
        (VACUUM_DATA, b"", actions(), 0),
        (DELETE_PAGE, DELETE_MAIN, b"", 0),
        (DELETE_PAGE, DELETE_MAIN, b"", 1),
        (DELETE_PAGE, DELETE_MAIN, b"", 2),
        (UPDATE_META, meta_main(0), b"", 1),
    ],
)
def test_page_of_something_else_is_refused(
    info: int, main: bytes, data: bytes, block_id: int
) -> None:
    view = memoryview(bytearray(8192))
    page.init(view, 16)
    with pytest.raises(ValueError, match="not one of a gin index"):
        gin.redo(make_part(view, info, main, data, {block_id: 1}, block_id))


@pytest.mark.parametrize(
    ("info", "flags", "block_id", "wrong"),
    [
        (INSERT, IS_LEAF, 0, 0),
        (INSERT, IS_LEAF, 0, LEAF | DATA),
        (INSERT, 0, 0, LEAF),
        (INSERT, IS_DATA, 0, DATA | LEAF),
        (INSERT, IS_DATA | IS_LEAF, 0, DATA),
        (INSERT, IS_DATA | IS_LEAF, 0, LEAF),
        (VACUUM_DATA, IS_DATA | IS_LEAF, 0, LEAF),
        (DELETE_PAGE, 0, 0, LEAF),
        (DELETE_PAGE, 0, 1, DATA | LEAF),
        (DELETE_PAGE, 0, 2, LEAF),
    ],
)
def test_another_kind_of_page_is_refused(info: int, flags: int, block_id: int, wrong: int) -> None:
    main = DELETE_MAIN if info == DELETE_PAGE else insert_main(flags)
    view = entry_page(entry(1), flags=wrong)
    with pytest.raises(ValueError, match="another kind of page|not one of a posting tree"):
        gin.redo(make_part(view, info, main, bytes(12), {block_id: 1}, block_id))
