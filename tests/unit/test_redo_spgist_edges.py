"""SP-GiST records at the edges: block 0, damaged tuples, links with more bits than they have."""

import struct

import pytest

from engine.redo import spgist
from formats import page
from tests.fixtures import spgist_parts as parts
from tests.fixtures.redo_parts import make_part
from tests.fixtures.spgist_parts import encode_tid, inner, leaf, special, spgist_page, tuples

ADD_LEAF, MOVE, ADD_NODE, SPLIT, PICK_SPLIT, VACUUM, VACUUM_ROOT, REDIRECT = range(0x10, 0x90, 0x10)


def redo(
    view: memoryview,
    info: int,
    main: bytes,
    block_id: int = 0,
    blocks: dict[int, int] | None = None,
) -> int:
    named = {0: 3, 1: 4, 2: 5, 3: 6} if blocks is None else blocks
    return spgist.redo(make_part(view, info, main, b"", named, block_id))


def nodes(view: memoryview, number: int) -> bytes:
    """An inner tuple without its header."""
    return tuples(view)[number - 1][8:]


def test_a_node_may_lead_to_block_0() -> None:
    view = spgist_page(inner((9, 9)), flags=0)
    redo(view, ADD_LEAF, parts.add_leaf(b"", 4, 4, (1, 0)), 1, {0: 0, 1: 4})
    assert nodes(view, 1)[:6] == encode_tid((0, 4))


def test_a_node_behind_one_of_odd_length() -> None:
    content = encode_tid((7, 7)) + struct.pack("<H", 9) + b"x" + encode_tid((8, 8))
    content += struct.pack("<H", 8)
    view = spgist_page(struct.pack("<IHH", 2 << 3, 8 + len(content), 0) + content, flags=0)
    redo(view, ADD_LEAF, parts.add_leaf(b"", 4, 4, (1, 1)), 1, {0: 0x01020304, 1: 4})
    assert nodes(view, 1)[9:15] == encode_tid((0x01020304, 4))
    assert nodes(view, 1)[:9] == content[:9]


@pytest.mark.parametrize("length", [8, 9, 15])
def test_a_node_outside_of_its_tuple_is_refused(length: int) -> None:
    item = struct.pack("<IHH", 1 << 3, 16, 0) + encode_tid((7, 7)) + struct.pack("<H", 8)
    view = spgist_page(item, leaf(1), flags=0)
    page.set_item(view, 1, page.item_offset(view, 1), 1, length)
    with pytest.raises(ValueError, match="outside of its tuple"):
        redo(view, ADD_LEAF, parts.add_leaf(b"", 4, 4, (1, 0)), 1)
    page.set_item(view, 1, page.item_offset(view, 1), 1, 7)
    with pytest.raises(ValueError, match="too short or outside of its page"):
        redo(view, ADD_LEAF, parts.add_leaf(b"", 4, 4, (1, 0)), 1)
    page.set_item(view, 1, page.item_offset(view, 1), 1, 16)
    assert redo(view, ADD_LEAF, parts.add_leaf(b"", 4, 4, (1, 0)), 1) == 1


def with_item(view: memoryview, number: int, offset: int, length: int) -> memoryview:
    page.set_item(view, number, offset, 1, length)
    return view


@pytest.mark.parametrize(
    ("offset", "length"),
    [(16, 24), (23, 24), (8176, 9), (8168, 17), (8160, 15), (0x7FF8, 16), (8184, 16)],
)
def test_a_tuple_that_is_too_short_or_outside_is_not_changed(offset: int, length: int) -> None:
    chain = parts.vacuum_leaf([], [], [], [(1, 2)])
    with pytest.raises(ValueError, match="too short or outside"):
        redo(with_item(spgist_page(leaf(1), leaf(2)), 1, offset, length), VACUUM, chain)
    view = with_item(spgist_page(parts.dead(1), leaf(2)), 1, offset, length)
    with pytest.raises(ValueError, match="too short or outside"):
        redo(view, REDIRECT, parts.vacuum_redirect(1))


def test_a_link_has_14_bits_and_the_flags_beside_it_stay() -> None:
    plain = struct.pack("<IH", 24 << 2, 0).ljust(24, b"\1")
    view = spgist_page(plain, leaf(2))
    redo(view, VACUUM, parts.vacuum_leaf([], [], [], [(1, 0xFFFF), (2, 0xC001)]))
    links = [struct.unpack_from("<H", item, 4)[0] for item in tuples(view)]
    assert links == [0x3FFF, 0xC001]


@pytest.mark.parametrize("length", [3, 4, 16])
def test_a_placeholder_of_any_length_is_replaced(length: int) -> None:
    view = spgist_page(leaf(1), parts.dead(3), placeholders=1)
    page.set_item(view, 2, page.item_offset(view, 2), 1, length)
    main = parts.add_leaf(leaf(5, length=16), 2)
    if length < 4:
        with pytest.raises(ValueError, match="too short"):
            redo(view, ADD_LEAF, main)
    else:
        redo(view, ADD_LEAF, main)
        assert special(view)[2] == 0


def test_a_tuple_without_a_number_is_refused_even_where_there_is_no_room() -> None:
    for items in ([leaf(1)], [leaf(1, length=2032)] * 4):
        with pytest.raises(IndexError, match="line pointer"):
            redo(spgist_page(*items), ADD_LEAF, parts.add_leaf(leaf(5, length=200), 0, 9))


def test_a_page_made_anew_has_nothing_to_delete() -> None:
    """Whatever the record lists."""
    main = parts.pick_split([1, 2], [(1, 0, leaf(7))], inner((4, 1)), 3, init=(True, False, False))
    view = spgist_page(leaf(1), leaf(2), placeholders=5)
    assert redo(view, PICK_SPLIT, main) == 1
    assert tuples(view) == [leaf(7)]
    assert special(view)[1:3] == (0, 0)


def test_a_page_of_another_kind_is_refused() -> None:
    other = memoryview(bytearray(8192))
    page.init(other, 8)
    page.add_item(other, memoryview(parts.dead(1)), 0, 16, 0, False, False)
    with pytest.raises(ValueError, match="spgist"):
        redo(other, REDIRECT, parts.vacuum_redirect(1))


@pytest.mark.parametrize(
    ("info", "main", "needed"),
    [
        (ADD_LEAF, parts.add_leaf(leaf(5, length=16), 4, 1), 16),
        (ADD_NODE, parts.add_node(struct.pack("<IHH", 0, 8, 0), 1), 8),
    ],
)
def test_of_a_tuple_that_is_cut_off_nothing_is_read(info: int, main: bytes, needed: int) -> None:
    """Not even its length: there may be nothing behind the record."""
    for missing in range(1, needed + 1):
        part = make_part(spgist_page(leaf(1), leaf(2), leaf(3)), info, main[:-missing], behind=b"")
        with pytest.raises(ValueError, match="cut off"):
            spgist.redo(part)
