"""GiST records at the edges: flags that others have set, odd lengths, the root."""

import struct

import pytest

from engine.redo import gist
from formats import page
from tests.fixtures import gist_parts as parts
from tests.fixtures.gist_parts import gist_page, index_tuple, special, tuples
from tests.fixtures.redo_parts import make_part

ZEROS = bytes(8192)


@pytest.mark.parametrize("length", [8, 9, 16, 17])
@pytest.mark.parametrize("flags", [0, 0x4000, 0xE000])
def test_tuples_of_any_length(length: int, flags: int) -> None:
    new = (bytes(6) + struct.pack("<H", flags | length)).ljust(length, b"n")
    view = gist_page(index_tuple(1), index_tuple(2))
    gist.redo(make_part(view, parts.PAGE_UPDATE, *parts.update([1], [new])))
    assert tuples(view) == [new, index_tuple(2)]
    gist.redo(make_part(view, parts.PAGE_UPDATE, *parts.update([], [new, new])))
    assert tuples(view) == [new, index_tuple(2), new, new]


@pytest.mark.parametrize("missing", range(1, 9))
def test_of_a_tuple_that_is_cut_off_nothing_is_read(missing: int) -> None:
    """Not even its length: there may be nothing behind the record."""
    main, data = parts.update([], [index_tuple(1), index_tuple(2, 8)[:8]])
    data = data[: len(data) - missing] if missing < 8 else data[:17]
    part = make_part(gist_page(), parts.PAGE_UPDATE, main, data, behind=b"")
    with pytest.raises(ValueError, match="cut off"):
        gist.redo(part)


def test_more_tuples_than_a_heap_page_has() -> None:
    short = index_tuple(4, 8)[:8]
    view = memoryview(bytearray(ZEROS))
    main = parts.split_main(2, leaf=True, follow=False)
    data = parts.split_data(*[short] * 400)
    gist.redo(make_part(view, parts.PAGE_SPLIT, main, data, {0: 9, 1: 5, 2: 6}, 1))
    assert page.max_offset(view) == 400


@pytest.mark.parametrize("flags", [0, parts.FOLLOW_RIGHT, parts.HAS_GARBAGE, 0xFFFE])
def test_deletion_from_a_page_that_is_no_leaf_leaves_its_flags(flags: int) -> None:
    view = gist_page(index_tuple(1), index_tuple(2), flags=flags)
    gist.redo(make_part(view, parts.PAGE_UPDATE, *parts.update([1], [])))
    assert special(view)[2] == flags


@pytest.mark.parametrize("flags", [0, parts.LEAF, 0xFFEB])
def test_flags_that_deletion_of_dead_tuples_does_not_change_stay(flags: int) -> None:
    view = gist_page(index_tuple(1), index_tuple(2), flags=flags | parts.HAS_GARBAGE)
    gist.redo(make_part(view, parts.DELETE, parts.deletion([1])))
    assert special(view)[2] == flags | parts.TUPLES_DELETED


@pytest.mark.parametrize("flags", [0, parts.LEAF, 0xFF00])
def test_a_deleted_page_gets_one_flag_and_eight_bytes(flags: int) -> None:
    view = gist_page(flags=flags)
    view[24:8176] = b"\xee" * 8152
    main = struct.pack("<QH", 0x0102030405060708, 0x1122)
    gist.redo(make_part(view, parts.PAGE_DELETE, main))
    assert special(view)[2] == flags | parts.DELETED
    assert bytes(view[24:34]) == main[:8] + b"\xee\xee"


@pytest.mark.parametrize(("following", "right"), [(0, 0), (0x01020304, 0x01020304)])
def test_the_page_after_in_a_split_may_be_any(following: int, right: int) -> None:
    view = memoryview(bytearray(ZEROS))
    main = parts.split_main(2, leaf=True, follow=False, right=77)
    blocks = {0: 9, 1: 5, 2: following}
    gist.redo(make_part(view, parts.PAGE_SPLIT, main, parts.split_data(), blocks, 1))
    assert special(view)[1] == right


def test_a_root_that_was_split_has_nothing_on_its_right() -> None:
    view = memoryview(bytearray(ZEROS))
    main = parts.split_main(3, leaf=True, follow=True, right=77)
    blocks = {1: 0, 2: 5, 3: 6}
    gist.redo(make_part(view, parts.PAGE_SPLIT, main, parts.split_data(), blocks, 1))
    assert special(view) == (parts.NSN, parts.NONE, 0, 0xFF81)
    gist.redo(make_part(view, parts.PAGE_SPLIT, main, parts.split_data(), blocks, 3))
    assert special(view) == (parts.NSN, 77, parts.LEAF, 0xFF81)


def test_a_tuple_shorter_than_its_header_is_refused() -> None:
    short = bytes(6) + struct.pack("<H", 7)
    with pytest.raises(ValueError, match="too short"):
        gist.redo(make_part(gist_page(), parts.PAGE_UPDATE, *parts.update([], [short])))
