"""Redo of SPGist records that VACUUM writes, and of records that do not fit their page."""

import struct

import pytest

from engine.redo import spgist
from tests.fixtures.redo_parts import make_part
from tests.fixtures.spgist_parts import (
    ADD_LEAF,
    ADD_NODE,
    DEAD,
    LEAF,
    MOVE_LEAFS,
    NOWHERE,
    PICK_SPLIT,
    PLACEHOLDER,
    REDIRECT,
    SPLIT_TUPLE,
    VACUUM_LEAF,
    VACUUM_REDIRECT,
    VACUUM_ROOT,
    XID,
    add_leaf,
    add_node,
    dead,
    inner,
    leaf,
    move_leafs,
    offsets,
    pick_split,
    special,
    spgist_page,
    split_tuple,
    tuples,
    vacuum_leaf,
    vacuum_redirect,
    vacuum_root,
)

FREE = dead(PLACEHOLDER)
OVER = dead(PLACEHOLDER, NOWHERE, XID)
"""A redirection that was ended keeps its transaction."""


def redo(view, info, main, version=18):
    assert spgist.redo(make_part(view, info, main, version=version)) == 1
    return tuples(view)


def test_vacuum_of_a_leaf() -> None:
    """A chain of which nothing is left; one that loses its head, one its middle, one its end."""
    view = spgist_page(
        leaf(1),
        leaf(2, 3),
        leaf(3),
        leaf(4, 5),
        leaf(5, 6),
        leaf(6),
        leaf(7, 8),
        leaf(8),
        redirections=3,
        placeholders=2,
    )
    main = vacuum_leaf([1], [5, 8], [(3, 2)], [(4, 6), (7, 0)])
    assert redo(view, VACUUM_LEAF, main) == [
        dead(DEAD),
        leaf(3),
        FREE,
        leaf(4, 6),
        FREE,
        leaf(6),
        leaf(7),
        FREE,
    ]
    assert special(view) == (LEAF, 3, 5, 0xFF82)


def test_moved_tuple_stays_where_it_lies() -> None:
    """It swaps line pointers with the head, whose own tuple goes."""
    view = spgist_page(leaf(1, 2), leaf(2, length=40))
    assert offsets(view) == [8160, 8120]
    assert redo(view, VACUUM_LEAF, vacuum_leaf([], [], [(2, 1)], [])) == [
        leaf(2, length=40),
        FREE,
    ]
    assert offsets(view) == [8144, 8128]


def test_vacuum_of_a_root() -> None:
    view = spgist_page(*(leaf(n) for n in range(1, 7)))
    assert redo(view, VACUUM_ROOT, vacuum_root(1, 3, 4, 6)) == [leaf(2), leaf(5)]
    assert offsets(view) == [8160, 8136]
    assert special(view)[1:3] == (0, 0)


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
def test_redirections_become_placeholders(version: int) -> None:
    """From 16 on something stands between the transaction and the numbers."""
    redirection = dead(REDIRECT, (0x30004, 2), XID)
    view = spgist_page(FREE, redirection, leaf(1), redirection, redirections=2, placeholders=1)
    main = vacuum_redirect(4, 2, version=version)
    assert redo(view, VACUUM_REDIRECT, main, version) == [FREE, OVER, leaf(1), OVER]
    assert special(view)[1:3] == (0, 3)


def test_placeholders_at_the_end_go() -> None:
    redirection = dead(REDIRECT, (0x30004, 2), XID)
    view = spgist_page(FREE, leaf(1), FREE, redirection, FREE, redirections=1, placeholders=3)
    assert redo(view, VACUUM_REDIRECT, vacuum_redirect(4, first=3)) == [FREE, leaf(1)]
    assert special(view)[1:3] == (0, 1)
    assert redo(view, VACUUM_REDIRECT, vacuum_redirect(first=1)) == []


BLOCKS = {0: 5, 1: 6, 2: 9, 3: 4}
INNER = inner((8, 1), (8, 2), prefix=b"prefixes")
MAIN_LENGTHS = {ADD_LEAF: 10, MOVE_LEAFS: 20, ADD_NODE: 20, SPLIT_TUPLE: 6, PICK_SPLIT: 28}
MAIN_LENGTHS |= {VACUUM_LEAF: 16, VACUUM_ROOT: 12, VACUUM_REDIRECT: 10}
PICKED = pick_split([2], [(4, 0, leaf(5)), (5, 1, leaf(6))], INNER, 3)


@pytest.mark.parametrize("info", MAIN_LENGTHS)
def test_short_main_data_is_refused(info: int) -> None:
    main = bytes(MAIN_LENGTHS[info] - 1)
    with pytest.raises(ValueError, match="main data is too short"):
        spgist.redo(make_part(spgist_page(), info, main))


@pytest.mark.parametrize(
    ("info", "main", "block_id"),
    [
        (ADD_LEAF, add_leaf(leaf(1), 1), 2),
        (MOVE_LEAFS, move_leafs([1], [1, 2], []), 3),
        (ADD_NODE, add_node(INNER, 1, 1, 1, (1, 0)), 2),
        (SPLIT_TUPLE, split_tuple(INNER, INNER, 1, 2, new=False, same=True), 1),
        (SPLIT_TUPLE, split_tuple(INNER, INNER, 1, 2, new=False, same=False), 2),
        (PICK_SPLIT, PICKED, 4),
        (PICK_SPLIT, pick_split([], [], INNER, 1, root=True), 0),
        (VACUUM_LEAF, vacuum_leaf([], [], [], []), 1),
        (VACUUM_ROOT, vacuum_root(), 1),
        (VACUUM_REDIRECT, vacuum_redirect(), 1),
    ],
)
def test_unexpected_block_is_refused(info: int, main: bytes, block_id: int) -> None:
    blocks = {**BLOCKS, 4: 1}
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        spgist.redo(make_part(spgist_page(), info, main, b"", blocks, block_id))


@pytest.mark.parametrize("info", [0x00, 0x90, 0xF0])
def test_unknown_opcode_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="unknown opcode"):
        spgist.redo(make_part(spgist_page(), info, bytes(40)))


@pytest.mark.parametrize("info", MAIN_LENGTHS)
@pytest.mark.parametrize("block_id", [0, 1, 2, 3])
def test_page_of_something_else_is_refused(info: int, block_id: int) -> None:
    view = spgist_page(INNER, INNER, INNER)
    view[8190:] = b"\0\0"
    mains = {
        ADD_LEAF: add_leaf(leaf(1), 1, parent=(1, 0)),
        MOVE_LEAFS: move_leafs([1], [1, 2], [leaf(1), leaf(2)]),
        ADD_NODE: add_node(INNER, 1, 1, 2, (1, 0)),
        SPLIT_TUPLE: split_tuple(INNER, INNER, 1, 2, new=False, same=False),
        PICK_SPLIT: PICKED,
        VACUUM_LEAF: vacuum_leaf([], [], [], []),
        VACUUM_ROOT: vacuum_root(1),
        VACUUM_REDIRECT: vacuum_redirect(1),
    }
    with pytest.raises(ValueError, match="spgist"):
        spgist.redo(make_part(view, info, mains[info], b"", BLOCKS, block_id))


TOO_LONG = struct.pack("<IHBB", 3 << 3, 0x6000, 0, 0) + bytes(0x6000 - 8)


@pytest.mark.parametrize(
    ("info", "main", "block_id", "message"),
    [
        (ADD_LEAF, add_leaf(leaf(1)[:-1], 3), 0, "cut off"),
        (ADD_LEAF, add_leaf(leaf(1)[:12], 3), 0, "cut off"),
        (ADD_LEAF, add_leaf(struct.pack("<IHQH", 60, 0, 0, 0), 3), 0, "too short"),
        (ADD_LEAF, add_leaf(leaf(1), 1), 0, "not a placeholder"),
        (ADD_LEAF, add_leaf(leaf(1), 0), 0, "line pointer"),
        (ADD_LEAF, add_leaf(leaf(1), 0, 1), 0, "line pointer"),
        (ADD_LEAF, add_leaf(leaf(1), 5), 0, "does not fit"),
        (ADD_LEAF, add_leaf(leaf(1), 4, 9), 0, "line pointer"),
        (ADD_LEAF, add_leaf(leaf(1), 4, parent=(3, 2)), 1, "does not have the node"),
        (ADD_LEAF, add_leaf(leaf(1), 4, parent=(4, 0)), 1, "line pointer"),
        (MOVE_LEAFS, move_leafs([1, 2], [1, 2], []), 1, "too short"),
        (MOVE_LEAFS, move_leafs([1, 1], [4, 5, 6], []), 0, "twice"),
        (MOVE_LEAFS, move_leafs([1, 2, 3, 4], [4, 5, 6, 7, 8], []), 0, "more tuples"),
        (MOVE_LEAFS, move_leafs([1, 2, 9], [4, 5, 6, 7], []), 0, "not there"),
        (MOVE_LEAFS, move_leafs([1], [4, 5], [leaf(1)]), 1, "cut off"),
        (ADD_NODE, add_node(INNER[:-8], 1), 0, "cut off"),
        (ADD_NODE, add_node(INNER[:6], 1), 0, "cut off"),
        (ADD_NODE, add_node(INNER[:4] + b"\7\0\0\0", 1), 0, "too short"),
        (ADD_NODE, add_node(TOO_LONG, 3), 0, "does not fit"),
        (SPLIT_TUPLE, split_tuple(INNER, INNER[:-1], 3, 4, new=False, same=True), 0, "cut off"),
        (PICK_SPLIT, PICKED[:-1], 0, "cut off"),
        (PICK_SPLIT, PICKED[:60], 0, "cut off"),
        (VACUUM_LEAF, vacuum_leaf([1], [2], [], [])[:-2], 0, "too short"),
        (VACUUM_LEAF, vacuum_leaf([], [], [(3, 9)], []), 0, "line pointer"),
        (VACUUM_LEAF, vacuum_leaf([], [], [], [(9, 1)]), 0, "line pointer"),
        (VACUUM_ROOT, vacuum_root(1, 2)[:-2], 0, "too short"),
        (VACUUM_ROOT, vacuum_root(3, 2, 1), 0, "out of order"),
        (VACUUM_REDIRECT, vacuum_redirect(1, 2)[:-2], 0, "too short"),
        (VACUUM_REDIRECT, vacuum_redirect(1), 0, "not a redirection"),
        (VACUUM_REDIRECT, vacuum_redirect(first=4), 0, "not there"),
    ],
)
def test_record_that_does_not_fit_is_refused(
    info: int, main: bytes, block_id: int, message: str
) -> None:
    view = spgist_page(leaf(1), leaf(2), INNER)
    blocks = {0: 5} if info == ADD_NODE else BLOCKS
    with pytest.raises((ValueError, IndexError), match=message):
        spgist.redo(make_part(view, info, main, b"", blocks, block_id))


@pytest.mark.parametrize(
    ("info", "main", "block_id", "missing"),
    [
        (ADD_LEAF, add_leaf(leaf(1), 1, parent=(3, 0)), 1, 0),
        (MOVE_LEAFS, move_leafs([1], [1, 2], [leaf(1), leaf(2)]), 0, 1),
        (PICK_SPLIT, PICKED, 0, 2),
        (PICK_SPLIT, PICKED, 3, 2),
    ],
)
def test_record_that_does_not_name_where_to_is_refused(
    info: int, main: bytes, block_id: int, missing: int
) -> None:
    view = spgist_page(leaf(1), leaf(2), INNER)
    blocks = {key: block for key, block in BLOCKS.items() if key != missing}
    with pytest.raises(ValueError, match="does not name a block"):
        spgist.redo(make_part(view, info, main, b"", blocks, block_id))


@pytest.mark.parametrize(
    ("position", "content", "message"),
    [
        (0, 3 << 3 | 64 << 16, "outside of its tuple"),
        (6 + 16, 7, "too short"),
        (6 + 16, 0x1FFF, "outside of its tuple"),
    ],
)
def test_node_outside_of_its_tuple_is_refused(position: int, content: int, message: str) -> None:
    item = bytearray(inner((1, 1), (1, 2), prefix=b"prefixes"))
    item[position : position + 4] = content.to_bytes(4, "little")
    view = spgist_page(bytes(item), flags=0)
    main = add_leaf(leaf(1), 4, parent=(1, 1))
    with pytest.raises(ValueError, match=message):
        spgist.redo(make_part(view, ADD_LEAF, main, b"", BLOCKS, 1))
