"""Gist and SPGist records and pages with random damage: an error or a page, never anything else."""

import random

import pytest

from engine.redo import gist, spgist
from tests.fixtures import gist_parts as g
from tests.fixtures import spgist_parts as s
from tests.fixtures.redo_parts import make_part

FREE = s.dead(s.PLACEHOLDER)
REDIRECTION = s.dead(s.REDIRECT, (3, 4), 7)
INNER = s.inner((8, 1), (8, 2), (8, 3), prefix=b"prefixes")
BLOCKS = {0: 5, 1: 6, 2: 0, 3: 4}


def gist_parts():
    """Page, opcode, main data, data, block id."""
    items = [g.index_tuple(n, 16 + 8 * (n % 3)) for n in range(1, 7)]
    page = g.gist_page(*items)
    yield page, g.PAGE_UPDATE, *g.update([], items[:3]), 0
    yield page, g.PAGE_UPDATE, *g.update([2], [items[4]]), 0
    yield page, g.PAGE_UPDATE, *g.update([1, 3, 5], [items[4]]), 0
    yield page, g.PAGE_UPDATE, *g.update([], items[:1]), 1
    yield page, g.DELETE, g.deletion([1, 2, 6]), b"", 0
    main = g.split_main(3, leaf=True, follow=True)
    yield g.gist_page(), g.PAGE_SPLIT, main, g.split_data(*items), 1
    yield g.gist_page(), g.PAGE_SPLIT, main, g.split_data(*items), 3
    yield g.gist_page(), g.PAGE_DELETE, bytes(8) + b"\2\0", b"", 0
    yield page, g.PAGE_DELETE, bytes(8) + b"\2\0", b"", 1


def spgist_parts():
    leafs = [s.leaf(1, 3), s.leaf(2), s.leaf(3, 0, 40), FREE, s.leaf(5), REDIRECTION, FREE]
    page = s.spgist_page(*leafs, redirections=1, placeholders=2)
    upper = s.spgist_page(INNER, FREE, REDIRECTION, INNER, flags=0, redirections=1, placeholders=1)
    yield page, s.ADD_LEAF, s.add_leaf(s.leaf(9, 3), 4, 1, (4, 2)), b"", 0
    yield upper, s.ADD_LEAF, s.add_leaf(s.leaf(9, 3), 4, 1, (4, 2)), b"", 1
    move = s.move_leafs([3, 1], [4, 8, 7], [s.leaf(3), s.leaf(1, 4), s.leaf(9, 8)], (4, 1))
    for block_id in (0, 1):
        yield page, s.MOVE_LEAFS, move, b"", block_id
    yield upper, s.MOVE_LEAFS, move, b"", 2
    for block_id in (0, 1, 2):
        for parent_block in (0, 1, 2):
            if block_id != 2 or parent_block == 2:
                main = s.add_node(INNER, 4, 2, parent_block, (1, 1))
                yield upper, s.ADD_NODE, main, b"", block_id
    yield upper, s.SPLIT_TUPLE, s.split_tuple(INNER, INNER, 1, 2, new=False, same=True), b"", 0
    yield upper, s.SPLIT_TUPLE, s.split_tuple(INNER, INNER, 1, 2, new=False, same=False), b"", 1
    inserted = [(4, 0, s.leaf(1)), (4, 1, s.leaf(2)), (7, 0, s.leaf(3, 4)), (8, 1, s.leaf(7, 4))]
    main = s.pick_split([3, 1], inserted, INNER, 2, (1, 1), inner_is_parent=True)
    for block_id in (0, 1):
        yield page, s.PICK_SPLIT, main, b"", block_id
    for block_id in (2, 3):
        yield upper, s.PICK_SPLIT, main, b"", block_id
    yield page, s.VACUUM_LEAF, s.vacuum_leaf([5], [3], [(2, 1)], [(1, 0)]), b"", 0
    yield page, s.VACUUM_ROOT, s.vacuum_root(1, 2, 5), b"", 0
    yield page, s.VACUUM_REDIRECT, s.vacuum_redirect(6, first=6), b"", 0


PARTS = [(gist.redo, part) for part in gist_parts()]
PARTS += [(spgist.redo, part) for part in spgist_parts()]


def damage(choice: random.Random, contents: list[bytearray]) -> None:
    """A few bytes changed, where damage hurts, and now and then some cut off."""
    page, *record = contents
    for _ in range(choice.randrange(1, 4)):
        target = choice.choice([item for item in contents if item])
        at = choice.randrange(len(target))
        if target is page:
            at = choice.choice([at, *range(10, 56), *range(7900, 8192)])
        target[at] = choice.choice([0, 1, 0x7F, 0xFF, choice.randrange(256)])
    if choice.random() < 0.15:
        cut = choice.choice(record)
        del cut[choice.randrange(len(cut) + 1) :]


@pytest.mark.parametrize("number", range(len(PARTS)))
def test_damaged_bytes_give_an_error_or_a_page(number: int) -> None:
    redo, (view, info, main, data, block_id) = PARTS[number]
    fresh = memoryview(bytearray(view))
    assert redo(make_part(fresh, info, main, data, BLOCKS, block_id)) == 1, "it fits undamaged"
    choice = random.Random(number)
    errors = 0
    for _ in range(300):
        contents = [bytearray(view), bytearray(main), bytearray(data)]
        damage(choice, contents)
        page = memoryview(contents[0])
        blocks = BLOCKS if choice.random() < 0.9 else {block_id: 3}
        version = choice.choice([14, 15, 16, 17, 18])
        record = bytes(contents[1]), bytes(contents[2])
        try:
            assert redo(make_part(page, info, *record, blocks, block_id, version=version)) == 1
        except (ValueError, IndexError):
            errors += 1
    assert errors < 300


@pytest.mark.parametrize("seed", range(10))
def test_random_bytes_give_an_error_or_a_page(seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(100):
        redo, (view, *_) = choice.choice(PARTS)
        page = memoryview(bytearray(choice.choice([bytes(view), choice.randbytes(8192)])))
        main, data = (choice.randbytes(choice.randrange(120)) for _ in range(2))
        if choice.random() < 0.5:
            main = bytes(choice.choice([0, 0, 1, 2, 7, 0xFF]) for _ in main)
        block_id = choice.choice([0, 0, 1, 2, 3, 32])
        part = make_part(page, choice.randrange(0, 256, 16), main, data, BLOCKS, block_id)
        try:
            assert redo(part) == 1
        except (ValueError, IndexError):
            continue
