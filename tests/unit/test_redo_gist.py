"""Redo of Gist records: every opcode and block, what follows from a version, wrong records."""

import struct
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.redo import gist
from formats import page
from tests.fixtures.gist_parts import (
    ASSIGN_LSN,
    DELETE,
    DELETED,
    FOLLOW_RIGHT,
    HAS_GARBAGE,
    LEAF,
    NONE,
    NSN,
    PAGE_DELETE,
    PAGE_REUSE,
    PAGE_SPLIT,
    PAGE_UPDATE,
    TUPLES_DELETED,
    deletion,
    gist_page,
    index_tuple,
    offsets,
    special,
    split_data,
    split_main,
    tuples,
    update,
)
from tests.fixtures.redo_parts import LSN, make_part
from tests.fixtures.small_store import REL, SmallStore
from tests.fixtures.wal_builder import APPLY, HAS_HOLE, Image, Record, Reference

A, B, C, D = (index_tuple(n) for n in (1, 2, 3, 0x40005))
WIDE = index_tuple(9, 40)


def test_insertion_appends() -> None:
    view = gist_page(A, flags=LEAF | HAS_GARBAGE)
    main, data = update([], [B, WIDE])
    assert gist.redo(make_part(view, PAGE_UPDATE, main, data)) == 1
    assert tuples(view) == [A, B, WIDE]
    assert offsets(view) == [8160, 8144, 8104]
    assert special(view) == (NSN, NONE, LEAF | HAS_GARBAGE, 0xFF81)


def test_low_bits_of_info_are_not_the_opcode() -> None:
    view = gist_page()
    gist.redo(make_part(view, PAGE_UPDATE | 2, *update([], [A])))
    assert tuples(view) == [A]


@pytest.mark.parametrize(("flags", "after"), [(LEAF, LEAF | TUPLES_DELETED), (0, 0)])
def test_deletion_is_noted_on_a_leaf(flags: int, after: int) -> None:
    view = gist_page(A, B, C, D, flags=flags)
    assert gist.redo(make_part(view, PAGE_UPDATE, *update([1, 2, 4], []))) == 1
    assert tuples(view) == [C]
    assert offsets(view) == [8160]
    assert special(view)[2] == after


def test_one_for_one_takes_its_very_place() -> None:
    view = gist_page(A, B, C)
    assert gist.redo(make_part(view, PAGE_UPDATE, *update([2], [WIDE]))) == 1
    assert tuples(view) == [A, WIDE, C]
    assert offsets(view) == [8160, 8120, 8104]
    assert special(view)[2] == LEAF, "nothing was deleted"


def test_two_for_one_go_to_the_end() -> None:
    view = gist_page(A, B, C, flags=0)
    gist.redo(make_part(view, PAGE_UPDATE, *update([1], [WIDE, D])))
    assert tuples(view) == [B, C, WIDE, D]


@pytest.mark.parametrize(
    ("info", "block_id", "main"),
    [
        (PAGE_UPDATE, 1, update([], [A])[0]),
        (PAGE_SPLIT, 0, split_main(2, leaf=False, follow=True)),
    ],
)
def test_a_downlink_ends_the_split_of_the_left_child(info: int, block_id: int, main: bytes) -> None:
    view = gist_page(A, right=7, flags=LEAF | FOLLOW_RIGHT | HAS_GARBAGE)
    part = make_part(view, info, main, b"", {0: 5, 1: 6, 2: 8}, block_id)
    assert gist.redo(part) == 1
    assert special(view) == (LSN, 7, LEAF | HAS_GARBAGE, 0xFF81)
    assert tuples(view) == [A]


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_dead_tuples_make_room(version: int) -> None:
    """From 16 on something stands between the count and the numbers."""
    view = gist_page(A, B, C, D, flags=LEAF | HAS_GARBAGE)
    part = make_part(view, DELETE, deletion([1, 3, 4], version), version=version)
    assert gist.redo(part) == 1
    assert tuples(view) == [B]
    assert special(view)[2] == LEAF | TUPLES_DELETED


BLOCKS = {1: 0x10002, 2: 9, 3: 4}


@pytest.mark.parametrize(
    ("block_id", "follow", "right", "flags"),
    [
        (1, True, 9, LEAF | FOLLOW_RIGHT),
        (2, True, 4, LEAF | FOLLOW_RIGHT),
        (3, True, 0x50006, LEAF),
        (1, False, 9, LEAF),
    ],
)
def test_split_makes_its_pages_anew(block_id: int, follow: bool, right: int, flags: int) -> None:
    view = memoryview(bytearray(8192))
    main = split_main(3, leaf=True, follow=follow, right=0x50006)
    part = make_part(view, PAGE_SPLIT, main, split_data(B, WIDE), BLOCKS, block_id)
    assert gist.redo(part) == 1
    assert tuples(view) == [B, WIDE]
    assert offsets(view) == [8160, 8120]
    assert special(view) == (NSN, right, flags, 0xFF81)


def test_split_of_an_inner_page() -> None:
    view = memoryview(bytearray(8192))
    main = split_main(3, leaf=False, follow=True)
    gist.redo(make_part(view, PAGE_SPLIT, main, split_data(A), BLOCKS, 3))
    assert special(view) == (NSN, NONE, 0, 0xFF81)


@pytest.mark.parametrize(
    ("block_id", "right", "flags"), [(1, NONE, 0), (2, 4, LEAF), (3, NONE, LEAF)]
)
def test_split_of_the_root_is_complete(block_id: int, right: int, flags: int) -> None:
    """Block 1 is the root: never a leaf, it has no neighbour, and nobody has to follow right."""
    view = memoryview(bytearray(8192))
    main = split_main(3, leaf=True, follow=True)
    part = make_part(view, PAGE_SPLIT, main, split_data(A, B), {1: 0, 2: 9, 3: 4}, block_id)
    assert gist.redo(part) == 1
    assert special(view) == (NSN, right, flags, 0xFF81)
    assert tuples(view) == [A, B]


DELETE_MAIN = struct.pack("<QH", 0x0102030405060708, 2)


def test_deleted_page_holds_the_transaction() -> None:
    view = gist_page(right=7, flags=LEAF | TUPLES_DELETED)
    assert gist.redo(make_part(view, PAGE_DELETE, DELETE_MAIN, b"", {0: 5, 1: 6})) == 1
    assert special(view) == (NSN, 7, LEAF | TUPLES_DELETED | DELETED, 0xFF81)
    assert struct.unpack("<HH", view[12:16]) == (32, 8176)
    assert bytes(view[24:32]) == DELETE_MAIN[:8]


def test_deleted_page_loses_its_downlink() -> None:
    view = gist_page(A, B, C, flags=0)
    assert gist.redo(make_part(view, PAGE_DELETE, DELETE_MAIN, b"", {0: 5, 1: 6}, 1)) == 1
    assert tuples(view) == [A, C]
    assert special(view)[2] == 0


@pytest.mark.parametrize(
    ("info", "main", "data", "message"),
    [
        (PAGE_UPDATE, b"\0\0\0", b"", "main data is too short"),
        (DELETE, bytes(7), b"", "main data is too short"),
        (PAGE_SPLIT, bytes(23), b"", "main data is too short"),
        (PAGE_DELETE, bytes(9), b"", "main data is too short"),
        (PAGE_UPDATE, update([1, 2], [])[0], b"\1\0", "data is too short"),
        (DELETE, deletion([1, 2, 3])[:-2], b"", "data is too short"),
        (PAGE_UPDATE, b"\0\0\2\0", A, "does not hold its tuples"),
        (PAGE_UPDATE, b"\0\0\1\0", A[:-1], "cut off"),
        (PAGE_UPDATE, b"\1\0\1\0", b"\1\0" + A + B, "does not hold its tuples"),
        (PAGE_UPDATE, *update([], [index_tuple(1, 0x1FF8)]), "does not fit the page"),
        (PAGE_UPDATE, *update([1], [index_tuple(1, 0x1FF8)]), "does not fit the page"),
        (PAGE_UPDATE, *update([3, 2, 1], []), "not there or out of order"),
        (PAGE_DELETE, DELETE_MAIN, b"", "not empty"),
        *[(info, bytes(30), b"", "opcode") for info in (PAGE_REUSE, 0x40, ASSIGN_LSN, 0x80)],
    ],
)
def test_record_that_does_not_fit_is_refused(
    info: int, main: bytes, data: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        gist.redo(make_part(gist_page(A, B, C), info, main, data, {0: 5, 1: 6}))


@pytest.mark.parametrize(
    ("data", "blocks", "block_id", "message"),
    [
        (b"\1\0\0", BLOCKS, 1, "does not hold its tuples"),
        (split_data(A, B) + C, BLOCKS, 1, "does not hold its tuples"),
        (split_data(A, B)[:-1], BLOCKS, 1, "cut off"),
        (split_data(A), {1: 3, 3: 4}, 1, "name all of its pages"),
        (split_data(A), {**BLOCKS, 4: 8}, 4, "block that its opcode does not have"),
    ],
)
def test_split_that_does_not_fit_is_refused(
    data: bytes, blocks: dict[int, int], block_id: int, message: str
) -> None:
    main = split_main(3, leaf=True, follow=True)
    with pytest.raises(ValueError, match=message):
        gist.redo(make_part(gist_page(), PAGE_SPLIT, main, data, blocks, block_id))


@pytest.mark.parametrize("info", [PAGE_UPDATE, DELETE, PAGE_DELETE])
def test_unexpected_block_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        gist.redo(make_part(gist_page(), info, bytes(24), b"", {2: 5}, 2))


def test_page_of_something_else_is_refused() -> None:
    view = gist_page(A)
    view[8190:] = b"\0\0"
    for info, main in ((PAGE_UPDATE, bytes(4)), (DELETE, bytes(8)), (PAGE_DELETE, DELETE_MAIN)):
        for block_id in (0, 1) if info != DELETE else (0,):
            with pytest.raises(ValueError, match="not one of a gist index"):
                gist.redo(make_part(view, info, main, b"", {0: 5, 1: 6}, block_id))


@pytest.mark.parametrize(("hole", "block_id"), [(8000, 1), (0, 1), (8000, 0)])
def test_split_ends_even_where_the_record_has_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hole: int, block_id: int
) -> None:
    """As in gistRedoClearFollowRight: the primary takes that image before it changes the page."""
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    content = bytes(gist_page(right=7, flags=LEAF | FOLLOW_RIGHT))
    image = Image(content, 0, 0, APPLY)
    if hole:
        image = Image(content[:100] + content[100 + hole :], 100, hole, APPLY | HAS_HOLE)
    references = [Reference(block_id, REL, 3, image=image)]
    small = SmallStore(tmp_path)
    end = small.put(Record(14, PAGE_UPDATE, 700, update([], [A])[0], references))
    found = memoryview(bytearray(small.page(3, end)))
    assert page.lsn(found) == end
    if block_id == 1:
        assert special(found) == (end, 7, LEAF, 0xFF81)
    else:
        assert special(found) == (NSN, 7, LEAF | FOLLOW_RIGHT, 0xFF81)


def test_image_without_room_for_what_ends_a_split_is_refused() -> None:
    version = memoryview(bytearray(struct.pack("<HHH", 1, 24, 8160) + bytes(32)))
    with pytest.raises(ValueError, match="covers the end of the page"):
        gist.end_split_of_image(version, 0, LSN)
