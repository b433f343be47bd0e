"""Redo of Btree records: insertions, page splits, new roots, the meta page, wrong records."""

import random
import struct

import pytest

from engine.redo import btree
from formats import page
from tests.fixtures.btree_parts import (
    DEDUP,
    DELETE,
    GARBAGE,
    HALF_DEAD,
    HALF_DEAD_MAIN,
    INCOMPLETE,
    INSERT_LEAF,
    INSERT_META,
    INSERT_POSTING,
    INSERT_UPPER,
    LEAF,
    META,
    META_CLEANUP,
    NEW_ROOT,
    ROOT,
    SPLIT_END,
    SPLIT_L,
    SPLIT_R,
    UNLINK,
    UNLINK_MAIN,
    UNLINK_META,
    VACUUM,
    A,
    B,
    C,
    D,
    btree_page,
    deletion,
    meta_data,
    offsets,
    plain,
    posting,
    special,
    split_main,
    tuples,
)
from tests.fixtures.redo_parts import make_part

BLOCKS = {0: 5, 1: 0x10007, 2: 6, 3: 2}


def meta_page(root: int = 3, level: int = 2) -> bytes:
    head = bytes(12) + struct.pack("<HHHHI", 72, 8176, 8176, 8192 | 4, 0)
    head += struct.pack("<IIIIIIIIdB", 0x053162, 4, root, level, root, level, 9, 0, -1.0, 1)
    return head.ljust(8176, b"\0") + struct.pack("<IIIHH", 0, 0, 0, META, 0)


def test_insert_moves_the_later_line_pointers() -> None:
    view = btree_page(plain(1), plain(3), flags=LEAF | GARBAGE, cycle=7)
    assert btree.redo(make_part(view, INSERT_LEAF, b"\2\0", plain(2))) == 1
    assert tuples(view) == [plain(1), plain(2), plain(3)]
    assert offsets(view) == [8160, 8128, 8144]
    assert special(view) == (0, 0, 0, LEAF | GARBAGE, 7)


def test_low_bits_of_info_are_not_the_opcode() -> None:
    view = btree_page()
    btree.redo(make_part(view, INSERT_LEAF | 2, b"\1\0", plain(2)))
    assert tuples(view) == [plain(2)]


@pytest.mark.parametrize("number", [0, 3, 0xFFFF])
def test_insert_at_a_number_beyond_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="tuple"):
        btree.redo(
            make_part(btree_page(plain(1)), INSERT_LEAF, number.to_bytes(2, "little"), plain(2))
        )


def test_insert_into_a_full_page_is_refused() -> None:
    view = btree_page(*[plain(n) for n in range(407)])
    with pytest.raises(ValueError, match="does not fit"):
        btree.redo(make_part(view, INSERT_LEAF, b"\1\0", plain(2)))


@pytest.mark.parametrize("info", [INSERT_UPPER, INSERT_META])
def test_insert_above_completes_the_split_below(info: int) -> None:
    blocks = {0: 5, 1: 4, 2: 0}
    above = btree_page(plain(1), level=1, flags=0)
    btree.redo(make_part(above, info, b"\2\0", plain(2), blocks))
    assert tuples(above) == [plain(1), plain(2)]
    below = btree_page(plain(1), following=9, flags=LEAF | INCOMPLETE | GARBAGE, cycle=3)
    btree.redo(make_part(below, info, b"\2\0", b"", blocks, block_id=1))
    assert special(below) == (0, 9, 0, LEAF | GARBAGE, 3)
    assert tuples(below) == [plain(1)]


@pytest.mark.parametrize(
    ("info", "main", "block_id"),
    [
        (INSERT_META, b"\2\0", 2),
        (UNLINK_META, bytes(36), 4),
        (NEW_ROOT, bytes(8), 2),
        (META_CLEANUP, b"", 0),
    ],
    ids=["insert", "unlink", "new root", "cleanup"],
)
def test_meta_page_is_made_anew(info: int, main: bytes, block_id: int) -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    part = make_part(view, info, main, meta_data(), {block_id: 0}, block_id)
    assert btree.redo(part) == 1
    assert bytes(view) == meta_page()
    with pytest.raises(ValueError, match="meta page"):
        btree.redo(make_part(view, info, main, meta_data()[:-1], {block_id: 0}, block_id))


def test_insert_into_a_posting_list_swaps_tids() -> None:
    view = btree_page(plain(1), posting(2, A, B, D), plain(3))
    data = b"\2\0" + plain(2, C)
    btree.redo(make_part(view, INSERT_POSTING, b"\3\0", data))
    assert tuples(view) == [plain(1), posting(2, A, B, C), plain(2, D), plain(3)]
    assert offsets(view) == [8160, 8120, 8088, 8104]


@pytest.mark.parametrize("index", [0, 3, 4, 0xFFFF])
def test_a_posting_list_cannot_be_split_outside(index: int) -> None:
    view = btree_page(posting(2, A, B, D))
    data = index.to_bytes(2, "little") + plain(2, C)
    with pytest.raises(ValueError, match="split"):
        btree.redo(make_part(view, INSERT_POSTING, b"\2\0", data))


def test_a_plain_tuple_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="split"):
        btree.redo(make_part(btree_page(plain(2)), INSERT_POSTING, b"\2\0", b"\1\0" + plain(2)))


def test_a_posting_list_that_leaves_its_tuple_is_refused() -> None:
    view = btree_page(posting(2, A, B, D))
    view[page.item_offset(view, 1) + 4] = 9
    with pytest.raises(ValueError, match="split"):
        btree.redo(make_part(view, INSERT_POSTING, b"\2\0", b"\1\0" + plain(2)))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(2, [9, 1, 2, 3]), (3, [9, 2, 1, 3]), (4, [9, 2, 3, 1])],
    ids=["first", "amid", "last"],
)
def test_split_keeps_the_left_half_with_the_new_tuple(number: int, expected: list[int]) -> None:
    old = [plain(n) for n in (8, 2, 3, 4, 5)]
    flags = LEAF | ROOT | GARBAGE | SPLIT_END
    view = btree_page(*old, previous=3, following=6, flags=flags, cycle=7)
    page.set_item(view, 3, page.item_offset(view, 3), 3, 16)
    view[10] = 1
    data = plain(1) + plain(9)
    assert btree.redo(make_part(view, SPLIT_L, split_main(4, number), data, BLOCKS)) == 1
    fresh = btree_page(*[plain(n) for n in expected])
    fresh[8176:] = struct.pack("<IIIHH", 3, 0x10007, 0, LEAF | INCOMPLETE, 0)
    assert bytes(view) == bytes(fresh)


def test_split_of_the_last_page_gives_it_a_high_key() -> None:
    view = btree_page(plain(2), plain(3), plain(4), level=1, flags=ROOT)
    main = split_main(3, 4, level=1)
    btree.redo(make_part(view, SPLIT_R, main, plain(9), {0: 5, 1: 7, 3: 2}))
    assert tuples(view) == [plain(9), plain(2), plain(3)]
    assert special(view) == (0, 7, 1, INCOMPLETE, 0)


@pytest.mark.parametrize("following", [0, 6])
def test_split_with_a_posting_split_on_the_left(following: int) -> None:
    old = ([plain(8)] if following else []) + [plain(1), posting(2, A, B, D), plain(3)]
    view = btree_page(*old, following=following)
    shift = len(old) - 3
    main = split_main(4 + shift, 3 + shift, 1)
    btree.redo(make_part(view, SPLIT_L, main, plain(2, C) + plain(9), BLOCKS))
    assert tuples(view) == [plain(9), plain(1), posting(2, A, C, B), plain(2, D), plain(3)]


def test_split_with_a_posting_split_whose_new_tuple_goes_right() -> None:
    view = btree_page(plain(8), plain(1), posting(2, A, B, D), plain(3), following=6)
    main = split_main(4, 4, 2)
    btree.redo(make_part(view, SPLIT_R, main, plain(2, C) + plain(9), BLOCKS))
    assert tuples(view) == [plain(9), plain(1), posting(2, A, B, C)]


@pytest.mark.parametrize(
    ("info", "main", "data"),
    [
        (SPLIT_L, split_main(7, 2), plain(1) + plain(9)),
        (SPLIT_L, split_main(4, 1), plain(1) + plain(9)),
        (SPLIT_L, split_main(4, 5), plain(1) + plain(9)),
        (SPLIT_L, split_main(4, 2), plain(1)),
        (SPLIT_R, split_main(4, 4), plain(1) + plain(9)),
        (SPLIT_R, split_main(4, 4)[:9], plain(9)),
        (SPLIT_R, split_main(4, 4), b""),
    ],
)
def test_split_that_does_not_fit_is_refused(info: int, main: bytes, data: bytes) -> None:
    view = btree_page(*[plain(n) for n in (8, 2, 3, 4, 5)], following=6)
    with pytest.raises(ValueError, match="btree"):
        btree.redo(make_part(view, info, main, data, BLOCKS))


@pytest.mark.parametrize(("blocks", "following"), [(BLOCKS, 6), ({0: 5, 1: 7}, 0)])
@pytest.mark.parametrize(("level", "flags"), [(0, LEAF), (2, 0)])
def test_split_makes_the_right_page(
    blocks: dict[int, int], following: int, level: int, flags: int
) -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    held = [plain(9), posting(4, A, B), plain(6)]
    main = split_main(4, 2, level=level)
    data = b"".join(reversed(held))
    btree.redo(make_part(view, SPLIT_R, main, data, blocks, block_id=1))
    expected = btree_page(*held, previous=5, following=following, level=level, flags=flags)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize("data", [plain(9)[:15], bytes(16), plain(9) * 500], ids=len)
def test_a_right_page_of_broken_tuples_is_refused(data: bytes) -> None:
    view = memoryview(bytearray(8192))
    with pytest.raises(ValueError, match="tuple"):
        btree.redo(make_part(view, SPLIT_R, split_main(4, 2), data, BLOCKS, block_id=1))


def test_a_right_page_is_filled_to_the_brim_and_no_further() -> None:
    view = memoryview(bytearray(8192))
    held = [plain(n) for n in range(408)]
    main = split_main(4, 2)
    btree.redo(make_part(view, SPLIT_R, main, b"".join(reversed(held[:407])), BLOCKS, block_id=1))
    assert tuples(view) == held[:407]
    with pytest.raises(ValueError, match="do not fit"):
        btree.redo(make_part(view, SPLIT_R, main, b"".join(held), BLOCKS, block_id=1))


def test_split_links_the_old_right_sibling() -> None:
    view = btree_page(plain(1), previous=5, following=8, cycle=2)
    btree.redo(make_part(view, SPLIT_L, split_main(4, 2), b"", BLOCKS, block_id=2))
    assert special(view) == (0x10007, 8, 0, LEAF, 2)


def test_split_completes_the_split_below() -> None:
    view = btree_page(plain(1), flags=LEAF | INCOMPLETE)
    btree.redo(make_part(view, SPLIT_L, split_main(4, 2, level=1), b"", BLOCKS, block_id=3))
    assert special(view)[3] == LEAF


@pytest.mark.parametrize("level", [1, 3])
def test_new_root(level: int) -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    btree.redo(make_part(view, NEW_ROOT, struct.pack("<II", 5, 0)))
    assert bytes(view) == bytes(btree_page(flags=LEAF | ROOT))
    downlinks = [plain(0, (3, 0)), plain(7, (4, 1))]
    data = downlinks[1] + downlinks[0]
    btree.redo(make_part(view, NEW_ROOT, struct.pack("<II", 5, level), data))
    assert bytes(view) == bytes(btree_page(*downlinks, level=level, flags=ROOT))
    left = btree_page(plain(1), following=4, flags=LEAF | INCOMPLETE)
    btree.redo(make_part(left, NEW_ROOT, struct.pack("<II", 5, level), b"", {1: 3}, block_id=1))
    assert special(left)[3] == LEAF


MAIN_LENGTHS = {
    **dict.fromkeys([INSERT_LEAF, INSERT_UPPER, INSERT_META, INSERT_POSTING, DEDUP], 2),
    **dict.fromkeys([SPLIT_L, SPLIT_R], 10),
    **dict.fromkeys([UNLINK, UNLINK_META], 36),
    **{DELETE: 8, NEW_ROOT: 8, HALF_DEAD: 20, VACUUM: 4},
}


@pytest.mark.parametrize("info", MAIN_LENGTHS)
def test_short_main_data_is_refused(info: int) -> None:
    main = bytes(MAIN_LENGTHS[info] - 1)
    with pytest.raises(ValueError, match="main data is too short"):
        btree.redo(make_part(btree_page(plain(1)), info, main, plain(2)))


@pytest.mark.parametrize("info", [*MAIN_LENGTHS, META_CLEANUP])
def test_unexpected_block_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        btree.redo(make_part(btree_page(), info, bytes(36), plain(2), {9: 1}, block_id=9))


@pytest.mark.parametrize("info", [0xD0, 0xF0])
def test_unknown_opcode_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="unknown opcode"):
        btree.redo(make_part(btree_page(), info, bytes(36)))


@pytest.mark.parametrize("info", [SPLIT_L, DEDUP, DELETE])
def test_page_of_something_else_is_refused(info: int) -> None:
    view = memoryview(bytearray(8192))
    page.init(view, 8)
    data = b"" if info == DELETE else plain(1) + plain(2)
    main = b"\x08\0" if info == DEDUP else bytes(10)
    with pytest.raises(ValueError, match="not one of a btree"):
        btree.redo(make_part(view, info, main, data))


def valid_parts() -> list[tuple[memoryview, int, bytes, bytes, int]]:
    """A page and record of every kind: page, opcode, main data, data, block."""
    old = [plain(8), plain(1), posting(2, A, B, D), posting(2, A, B, C, D), plain(3), plain(4)]
    return [
        (btree_page(*old, following=6), INSERT_LEAF, b"\3\0", plain(2), 0),
        (btree_page(*old, following=6), INSERT_POSTING, b"\4\0", b"\1\0" + plain(2), 0),
        (btree_page(*old, following=6), SPLIT_L, split_main(5, 4, 1), plain(2) + plain(9), 0),
        (btree_page(*old), SPLIT_R, split_main(4, 5), plain(9), 0),
        (btree_page(), SPLIT_R, split_main(4, 5), b"".join(old), 1),
        (btree_page(*old), DEDUP, b"\1\0", struct.pack("<HH", 3, 2), 0),
        (btree_page(*old), DELETE, *deletion(DELETE, [1, 5, 6], {3: [1], 4: [0, 1, 3]}), 0),
        (btree_page(*old), VACUUM, *deletion(VACUUM, [6], {3: [0, 2]}), 0),
        (btree_page(*old, level=1, flags=0), HALF_DEAD, HALF_DEAD_MAIN, b"", 1),
        (btree_page(), UNLINK, UNLINK_MAIN, b"", 0),
        (btree_page(), NEW_ROOT, struct.pack("<II", 5, 1), plain(2) + plain(1), 0),
    ]


@pytest.mark.parametrize("seed", range(11))
def test_damaged_bytes_give_an_error_or_a_page(seed: int) -> None:
    """Never anything but these two errors, whatever a few wrong bytes make of page and record."""
    generator = random.Random(seed)
    view, info, main, data, block_id = valid_parts()[seed]
    btree.redo(make_part(memoryview(bytearray(view)), info, main, data, BLOCKS, block_id))
    errors = 0
    for _ in range(400):
        damaged = [bytearray(view), bytearray(main), bytearray(data)]
        for _ in range(generator.randrange(1, 4)):
            target = generator.choice([item for item in damaged if item])
            at = generator.randrange(len(target))
            if target is damaged[0]:
                at = generator.choice([at, *range(10, 56), *range(8048, 8192)])
            target[at] = generator.choice([0, 0xFF, generator.randrange(256)])
        page_view = memoryview(damaged[0])
        part = make_part(page_view, info, bytes(damaged[1]), bytes(damaged[2]), BLOCKS, block_id)
        try:
            btree.redo(part)
        except (ValueError, IndexError):
            errors += 1
    assert errors < 400
