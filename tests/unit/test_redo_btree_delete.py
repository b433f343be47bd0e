"""Redo of Btree records that remove: deduplication, deletion of tuples and of pages."""

import struct

import pytest

from engine.redo import btree
from formats import page
from tests.fixtures.btree_parts import (
    DEDUP,
    DELETE,
    DELETED,
    FULL_XID,
    GARBAGE,
    HALF,
    HALF_DEAD,
    HALF_DEAD_MAIN,
    LEAF,
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
    offsets,
    plain,
    posting,
    special,
    tuples,
)
from tests.fixtures.redo_parts import make_part


@pytest.mark.parametrize("following", [0, 6])
def test_dedup_merges_runs(following: int) -> None:
    high_key = [posting(9, A, B)] if following else []
    before = [plain(1), plain(2, A, 0x4000), plain(2, B), posting(3, A, B), plain(3, C), plain(4)]
    view = btree_page(
        *high_key, *before, previous=3, following=following, flags=LEAF | GARBAGE, cycle=4
    )
    view[10] = 1
    first = len(high_key) + 2
    runs = struct.pack("<HHHH", first, 2, first + 2, 2)
    assert btree.redo(make_part(view, DEDUP, b"\2\0", runs)) == 1
    after = [plain(1), posting(2, A, B, info=0x4000), posting(3, A, B, C), plain(4)]
    expected = btree_page(*high_key, *after, previous=3, following=following, cycle=4)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize(
    "runs",
    [(1, 0), (1, 1), (3, 2), (5, 2), (3, 0xFFFF), (2, 2, 1, 2)],
    ids=["none", "one", "too many", "not there", "far too many", "falling"],
)
def test_dedup_of_tuples_that_are_not_there_is_refused(runs: tuple[int, ...]) -> None:
    view = btree_page(plain(2, A), plain(2, B), plain(2, C))
    data = struct.pack(f"<{len(runs)}H", *runs)
    with pytest.raises(ValueError, match="dedup"):
        btree.redo(make_part(view, DEDUP, (len(runs) // 2).to_bytes(2, "little"), data))


def test_a_posting_list_longer_than_any_tuple_is_refused() -> None:
    view = btree_page(*[posting(2, *[(1, n) for n in range(1, 200)])] * 3)
    with pytest.raises(ValueError, match="too long"):
        btree.redo(make_part(view, DEDUP, b"\1\0", struct.pack("<HH", 1, 3)))


@pytest.mark.parametrize("info", [DELETE, VACUUM])
@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([2], [8160, 8112, 8144, 8128]),
        ([1, 2], [8128, 8160, 8144]),
        ([1, 2, 5], [8160, 8144]),
        ([1, 2, 3, 4, 5], []),
    ],
)
def test_tuples_are_put_in_order_if_more_than_two_are_deleted(
    info: int, numbers: list[int], expected: list[int]
) -> None:
    view = btree_page(plain(1), plain(2), plain(4), plain(5), flags=LEAF | GARBAGE)
    third = plain(3)
    page.add_item(view, memoryview(third), 0, 16, 3, False, False)
    main, data = deletion(info, numbers, {})
    assert btree.redo(make_part(view, info, main, data)) == 1
    assert tuples(view) == [plain(n) for n in range(1, 6) if n not in numbers]
    assert offsets(view) == expected
    assert special(view)[3] == LEAF


def test_vacuum_resets_the_cycle_since_18() -> None:
    for info, version, cycle in [
        (VACUUM, 18, 0),
        (VACUUM, 15, 5),
        (DELETE, 18, 5),
        (DELETE, 15, 5),
    ]:
        view = btree_page(plain(1), cycle=5)
        main, data = deletion(info, [1], {})
        btree.redo(make_part(view, info, main, data, version=version))
        assert special(view)[4] == cycle


@pytest.mark.parametrize("info", [DELETE, VACUUM])
@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ([0], posting(2, B, C, D, info=0x4000)),
        ([1, 3], posting(2, A, C, info=0x4000)),
        ([0, 1, 2], plain(2, D, 0x4000)),
        ([1, 2, 3], plain(2, A, 0x4000)),
    ],
)
def test_posting_lists_shrink_where_they_lie(
    info: int, indexes: list[int], expected: bytes
) -> None:
    view = btree_page(plain(1), posting(2, A, B, C, D, info=0x4000), plain(3))
    main, data = deletion(info, [3], {2: indexes})
    btree.redo(make_part(view, info, main, data))
    assert tuples(view) == [plain(1), expected]
    assert offsets(view) == [8160, 8160 - len(expected)]


def test_a_shrunk_posting_list_without_padding() -> None:
    view = btree_page(posting(2, A, B, C, D, (0x20000, 2)))
    main, data = deletion(VACUUM, [], {1: [3]})
    btree.redo(make_part(view, VACUUM, main, data))
    assert tuples(view) == [posting(2, A, B, C, (0x20000, 2))]
    assert offsets(view) == [8136]


@pytest.mark.parametrize(
    ("numbers", "shrunk"),
    [
        ([4], {}),
        ([3, 2, 1], {}),
        ([1, 2, 2], {}),
        ([], {1: [0]}),
        ([], {2: [0, 1, 2, 3]}),
        ([], {2: [0, 1, 2, 3, 4]}),
        ([], {2: [4]}),
        ([], {2: [1, 0]}),
        ([], {9: [0]}),
    ],
)
def test_deletion_of_what_is_not_there_is_refused(
    numbers: list[int], shrunk: dict[int, list[int]]
) -> None:
    view = btree_page(plain(1), posting(2, A, B, C, D), plain(3))
    main, data = deletion(VACUUM, numbers, shrunk)
    with pytest.raises((ValueError, IndexError)):
        btree.redo(make_part(view, VACUUM, main, data))


def test_deletion_with_too_little_or_too_much_data_is_refused() -> None:
    main, data = deletion(VACUUM, [1], {2: [0, 1]})
    for other in [data[:n] for n in range(len(data))] + [data + b"\0\0"]:
        view = btree_page(plain(1), posting(2, A, B, C, D), plain(3))
        with pytest.raises(ValueError, match="data"):
            btree.redo(make_part(view, VACUUM, main, other))


def half_dead_page(previous: int, following: int, top_parent: int) -> bytes:
    high_key = struct.pack("<HHHH", top_parent >> 16, top_parent & 0xFFFF, 0, 0x2008)
    view = btree_page(high_key, previous=previous, following=following, flags=LEAF | HALF)
    return bytes(view)


def test_half_dead_leaf() -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    btree.redo(make_part(view, HALF_DEAD, HALF_DEAD_MAIN))
    assert bytes(view) == half_dead_page(4, 0x10006, 0xFFFFFFFF)


def test_parent_of_a_half_dead_leaf_loses_its_downlink() -> None:
    downlinks = [plain(n, (0x10000 + n, 1)) for n in range(1, 5)]
    view = btree_page(*downlinks, level=1, flags=0)
    btree.redo(make_part(view, HALF_DEAD, HALF_DEAD_MAIN, b"", {0: 5, 1: 3}, block_id=1))
    assert tuples(view) == [downlinks[0], plain(2, (0x10003, 1)), downlinks[3]]
    assert offsets(view) == [8160, 8144, 8128]


def test_parent_without_the_downlink_is_refused() -> None:
    view = btree_page(plain(1), plain(2), level=1, flags=0)
    with pytest.raises(IndexError):
        btree.redo(make_part(view, HALF_DEAD, HALF_DEAD_MAIN, b"", {0: 5, 1: 3}, block_id=1))


UNLINK_BLOCKS = {0: 5, 1: 4, 2: 0x10006, 3: 20, 4: 0}


@pytest.mark.parametrize("info", [UNLINK, UNLINK_META])
def test_unlinked_page_keeps_its_transaction_only(info: int) -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    btree.redo(make_part(view, info, UNLINK_MAIN, b"", UNLINK_BLOCKS))
    expected = btree_page(previous=4, following=0x10006, level=2, flags=DELETED | FULL_XID)
    expected[12:14] = b"\x20\0"
    expected[24:32] = bytes(range(8, 0, -1))
    assert bytes(view) == bytes(expected)


def test_unlinked_leaf_stays_a_leaf() -> None:
    view = memoryview(bytearray(8192))
    main = UNLINK_MAIN[:8] + bytes(4) + UNLINK_MAIN[12:]
    btree.redo(make_part(view, UNLINK, main, b"", UNLINK_BLOCKS))
    assert special(view) == (4, 0x10006, 0, LEAF | DELETED | FULL_XID, 0)


@pytest.mark.parametrize(("block_id", "expected"), [(1, (1, 0x10006)), (2, (4, 2))])
def test_siblings_of_an_unlinked_page_are_linked(block_id: int, expected: tuple[int, int]) -> None:
    view = btree_page(plain(1), previous=1, following=2, flags=LEAF | GARBAGE, cycle=6)
    btree.redo(make_part(view, UNLINK, UNLINK_MAIN, b"", UNLINK_BLOCKS, block_id))
    assert special(view) == (*expected, 0, LEAF | GARBAGE, 6)
    assert tuples(view) == [plain(1)]


def test_leaf_below_an_unlinked_page_names_its_next_parent() -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    btree.redo(make_part(view, UNLINK, UNLINK_MAIN, b"", UNLINK_BLOCKS, block_id=3))
    assert bytes(view) == half_dead_page(11, 12, 0x10013)
