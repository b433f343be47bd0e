"""Redo of SPGist records that change the tree: chains, inner tuples, and what was there before."""

import pytest

from engine.redo import spgist
from tests.fixtures.redo_parts import make_part
from tests.fixtures.spgist_parts import (
    ADD_LEAF,
    ADD_NODE,
    DEAD,
    LEAF,
    MOVE_LEAFS,
    NULLS,
    PICK_SPLIT,
    PLACEHOLDER,
    REDIRECT,
    SPLIT_TUPLE,
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
)

HERE, THERE, ABOVE = 0x10005, 0x20006, 7
EMPTY = (0xFFFFFFFF, 0)
FREE = dead(PLACEHOLDER)


def redo(view, info, main, blocks, block_id=0):
    """Every block of every record gets the record's LSN."""
    assert spgist.redo(make_part(view, info | 2, main, b"", blocks, block_id)) == 1
    return tuples(view)


def nothing() -> memoryview:
    return memoryview(bytearray(8192))


@pytest.mark.parametrize(("nulls", "flags"), [(False, LEAF), (True, LEAF | NULLS)])
def test_first_leaf_of_a_new_page(nulls: bool, flags: int) -> None:
    view = nothing()
    main = add_leaf(leaf(1), 1, new=True, nulls=nulls)
    assert redo(view, ADD_LEAF, main, {0: HERE}) == [leaf(1)]
    assert special(view) == (flags, 0, 0, 0xFF82)
    assert offsets(view) == [8160]


def test_leaf_comes_second_in_its_chain() -> None:
    view = spgist_page(leaf(1), leaf(2, 1))
    found = redo(view, ADD_LEAF, add_leaf(leaf(3, 1), 3, 2), {0: HERE})
    assert found == [leaf(1), leaf(2, 3), leaf(3, 1)]


def test_leaf_takes_the_place_of_a_placeholder() -> None:
    view = spgist_page(leaf(1), FREE, leaf(2), placeholders=1)
    found = redo(view, ADD_LEAF, add_leaf(leaf(3), 2), {0: HERE})
    assert found == [leaf(1), leaf(3), leaf(2)]
    assert offsets(view) == [8160, 8112, 8136]
    assert special(view)[1:3] == (0, 0)


def test_leaf_takes_the_place_of_a_dead_one() -> None:
    view = spgist_page(leaf(1), dead(DEAD), placeholders=4)
    assert redo(view, ADD_LEAF, add_leaf(leaf(3), 2, 2), {0: HERE}) == [leaf(1), leaf(3)]
    assert special(view)[1:3] == (0, 4)


def test_leaf_is_linked_from_above() -> None:
    view = spgist_page(FREE, inner(EMPTY, EMPTY, EMPTY, prefix=b"prefixes"), flags=0)
    main = add_leaf(leaf(1), 9, parent=(2, 2))
    found = redo(view, ADD_LEAF, main, {0: HERE, 1: ABOVE}, 1)
    assert found == [FREE, inner(EMPTY, EMPTY, (HERE, 9), prefix=b"prefixes")]


MOVED = move_leafs([2, 4, 3], [3, 1, 5, 4], [leaf(2), leaf(4, 3), leaf(3, 1), leaf(9, 5)])
MOVE_BLOCKS = {0: HERE, 1: THERE, 2: ABOVE}


def test_moved_chain_leaves_a_redirection() -> None:
    """The first of the list becomes it, wherever it stands, and leads to the chain's new head."""
    view = spgist_page(leaf(1), leaf(2, 4), leaf(3), leaf(4, 3))
    main = move_leafs([4, 2, 3], [3, 1, 5, 4], [leaf(2)])
    found = redo(view, MOVE_LEAFS, main, MOVE_BLOCKS)
    assert found == [leaf(1), FREE, FREE, dead(REDIRECT, (THERE, 4), XID)]
    assert special(view) == (LEAF, 1, 2, 0xFF82)
    assert offsets(view) == [8160, 8144, 8128, 8112]


def test_moved_chain_leaves_placeholders_while_an_index_is_built() -> None:
    view = spgist_page(leaf(1), leaf(2))
    main = move_leafs([2], [1, 2], [leaf(2), leaf(9, 1)], build=True)
    assert redo(view, MOVE_LEAFS, main, MOVE_BLOCKS) == [leaf(1), FREE]
    assert special(view)[1:3] == (0, 1)


def test_moved_chain_arrives() -> None:
    view = spgist_page(FREE, leaf(8), FREE, FREE, placeholders=3)
    found = redo(view, MOVE_LEAFS, MOVED, MOVE_BLOCKS, 1)
    assert found == [leaf(4, 3), leaf(8), leaf(2), leaf(9, 5), leaf(3, 1)]
    assert special(view)[1:3] == (0, 0)


def test_dead_chain_does_not_move() -> None:
    main = move_leafs([2], [1], [leaf(9)], new=True, replaces_dead=True)
    view = nothing()
    assert redo(view, MOVE_LEAFS, main, MOVE_BLOCKS, 1) == [leaf(9)]
    assert special(view) == (LEAF, 0, 0, 0xFF82)
    view = spgist_page(leaf(1), dead(DEAD))
    found = redo(view, MOVE_LEAFS, main, MOVE_BLOCKS, 0)
    assert found == [leaf(1), dead(REDIRECT, (THERE, 1), XID)]


def test_moved_chain_is_linked_from_above() -> None:
    view = spgist_page(inner((1, 1), (HERE, 2)), flags=0)
    assert redo(view, MOVE_LEAFS, MOVED, MOVE_BLOCKS, 2) == [inner((1, 1), (THERE, 4))]


OLD, NEW = inner((8, 1), (8, 2)), inner((8, 1), EMPTY, (8, 2))


def test_node_more_in_place() -> None:
    view = spgist_page(inner((1, 1)), OLD, FREE, flags=0, placeholders=1)
    assert redo(view, ADD_NODE, add_node(NEW, 2), {0: HERE}) == [inner((1, 1)), NEW, FREE]
    assert special(view) == (0, 0, 1, 0xFF82)


@pytest.mark.parametrize("build", [False, True])
@pytest.mark.parametrize("parent_block", [0, 1, 2])
def test_node_more_on_another_page(parent_block: int, build: bool) -> None:
    """The inner tuple above may be on either of the two pages, or on a third."""
    blocks = {0: HERE, 1: THERE, **({2: ABOVE} if parent_block == 2 else {})}
    main = add_node(NEW, 2, 1, parent_block, (3, 0), new=parent_block != 1, build=build)
    before, after = inner((HERE, 2)), inner((THERE, 1))

    parent = after if parent_block == 0 else before
    view = spgist_page(FREE, OLD, before, flags=0, placeholders=1)
    left = FREE if build else dead(REDIRECT, (THERE, 1), XID)
    assert redo(view, ADD_NODE, main, blocks) == [FREE, left, parent]
    assert special(view)[1:3] == ((0, 2) if build else (1, 1))

    if parent_block == 1:
        view = spgist_page(FREE, FREE, before, flags=0, placeholders=2)
        assert redo(view, ADD_NODE, main, blocks, 1) == [NEW, FREE, after]
    else:
        view = nothing()
        assert redo(view, ADD_NODE, main, blocks, 1) == [NEW]
        assert special(view) == (0, 0, 0, 0xFF82)
    if parent_block == 2:
        view = spgist_page(OLD, OLD, before, flags=0)
        assert redo(view, ADD_NODE, main, blocks, 2) == [OLD, OLD, after]


PREFIX, POSTFIX = inner((HERE, 3)), inner((8, 1), (8, 2), prefix=b"the rest")


@pytest.mark.parametrize("number", [2, 3])
def test_split_tuple_on_its_page(number: int) -> None:
    view = spgist_page(OLD, FREE, flags=0, placeholders=1)
    main = split_tuple(PREFIX, POSTFIX, 1, number, new=False, same=True)
    found = redo(view, SPLIT_TUPLE, main, {0: HERE})
    assert found == ([PREFIX, POSTFIX] if number == 2 else [PREFIX, FREE, POSTFIX])


def test_split_tuple_onto_another_page() -> None:
    main = split_tuple(PREFIX, POSTFIX, 1, 1, new=True, same=False)
    view = spgist_page(OLD, flags=0)
    assert redo(view, SPLIT_TUPLE, main, {0: HERE, 1: THERE}) == [PREFIX]
    view = nothing()
    assert redo(view, SPLIT_TUPLE, main, {0: HERE, 1: THERE}, 1) == [POSTFIX]
    assert special(view) == (0, 0, 0, 0xFF82)


SPLIT_LEAFS = [(2, 0, leaf(5)), (1, 1, leaf(6)), (4, 0, leaf(7, 2)), (2, 1, leaf(8, 1))]
INNER = inner((HERE, 4), (THERE, 2))
PICK_BLOCKS = {0: HERE, 1: THERE, 2: 9, 3: ABOVE}


@pytest.mark.parametrize("build", [False, True])
def test_split_chain_goes_where_each_tuple_is_sent(build: bool) -> None:
    main = pick_split([3, 2], SPLIT_LEAFS, INNER, 6, init=(False, True, False), build=build)
    view = spgist_page(leaf(1), leaf(2), leaf(3, 2))
    found = redo(view, PICK_SPLIT, main, PICK_BLOCKS)
    left = FREE if build else dead(REDIRECT, (9, 6), XID)
    assert found == [leaf(1), leaf(5), left, leaf(7, 2)]
    assert special(view)[1:3] == ((0, 1) if build else (1, 0))
    view = nothing()
    assert redo(view, PICK_SPLIT, main, PICK_BLOCKS, 1) == [leaf(6), leaf(8, 1)]
    assert special(view) == (LEAF, 0, 0, 0xFF82)
    view = spgist_page(inner((1, 1), (HERE, 3)), flags=0)
    found = redo(view, PICK_SPLIT, main, PICK_BLOCKS, 3)
    assert found == [inner((1, 1), (9, 6))]


def test_source_of_a_split_may_be_made_anew() -> None:
    leafs = [(1, 0, leaf(5)), (2, 0, leaf(7, 1))]
    main = pick_split([], leafs, INNER, 1, init=(True, False, True), nulls=True)
    view = spgist_page(leaf(1), leaf(2))
    found = redo(view, PICK_SPLIT, main, {0: HERE, 2: 9, 3: ABOVE})
    assert found == [leaf(5), leaf(7, 1)]
    assert special(view) == (LEAF | NULLS, 0, 0, 0xFF82)
    view = nothing()
    assert redo(view, PICK_SPLIT, main, {0: HERE, 2: 9, 3: ABOVE}, 2) == [INNER]
    assert special(view) == (NULLS, 0, 0, 0xFF82)


def test_inner_tuple_of_a_split_beside_its_parent() -> None:
    main = pick_split([2], [], INNER, 2, inner_is_parent=True)
    view = spgist_page(inner((1, 1), (HERE, 3)), FREE, flags=0, placeholders=1)
    found = redo(view, PICK_SPLIT, main, {0: HERE, 2: 9}, 2)
    assert found == [inner((1, 1), (9, 2)), INNER]
    assert special(view)[1:3] == (0, 0)


def test_split_of_a_root() -> None:
    """What was a leaf is an inner page afterwards, and all of its tuples are elsewhere."""
    leafs = [(1, 1, leaf(5)), (2, 1, leaf(6))]
    main = pick_split([], leafs, INNER, 1, (0, 0), root=True, init=(False, True, True))
    view = nothing()
    assert redo(view, PICK_SPLIT, main, {1: THERE, 2: 1}, 1) == [leaf(5), leaf(6)]
    view = spgist_page(leaf(5))
    assert redo(view, PICK_SPLIT, main, {1: THERE, 2: 1}, 2) == [INNER]
    assert special(view) == (0, 0, 0, 0xFF82)
