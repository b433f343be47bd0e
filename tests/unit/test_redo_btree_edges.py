"""Btree records at the edges: sizes that just fit, flags that only look like others, far blocks."""

import struct

import pytest

from engine.redo import btree
from formats import page
from tests.fixtures import btree_parts as parts
from tests.fixtures.btree_parts import btree_page, encode_tid, plain, posting, special, tuples
from tests.fixtures.redo_parts import make_part

ZEROS = bytes(8192)
LENGTH_MAX = 2704


def dedup(view: memoryview, *runs: tuple[int, int]) -> int:
    data = b"".join(struct.pack("<HH", *run) for run in runs)
    return btree.redo(make_part(view, parts.DEDUP, struct.pack("<H", len(runs)), data))


def delete(view: memoryview, numbers: list[int], shrunk: dict[int, list[int]]) -> int:
    return btree.redo(make_part(view, parts.VACUUM, *parts.deletion(parts.VACUUM, numbers, shrunk)))


def wide(n: int, length: int, tid: tuple[int, int] = (1, 1), info: int = 0) -> bytes:
    """A plain tuple with a long key."""
    return (encode_tid(tid) + struct.pack("<H", info | length)).ljust(length, bytes([n]))


@pytest.mark.parametrize(
    "other",
    [
        plain(1, (1, 0x2003)),  # the bit of posting lists, in the number of a TID
        plain(1, (1, 3), info=0x2000),  # another TID, but no posting list
    ],
)
def test_what_only_looks_like_a_posting_list_has_one_tid(other: bytes) -> None:
    tid = other[:6]
    view = btree_page(plain(9), other, plain(1, (1, 5)), following=7)
    dedup(view, (2, 2))
    (_, merged) = tuples(view)
    assert merged[16:28] == tid + encode_tid((1, 5))
    assert struct.unpack("<HHHH", merged[:8]) == (0, 16, 0x2002, 0x2000 | 32)
    view = btree_page(plain(9), plain(1, (1, 2)), other, following=7)
    dedup(view, (2, 2))
    assert tuples(view)[1][16:28] == encode_tid((1, 2)) + tid
    with pytest.raises(ValueError, match="that many TIDs"):
        delete(btree_page(plain(9), other, following=7), [], {2: [0]})
    with pytest.raises(ValueError, match="that many TIDs"):
        delete(btree_page(plain(9), other, following=7), [], {2: []})


def test_a_run_of_one_tuple_is_refused_and_one_at_the_end_of_the_page_taken() -> None:
    view = btree_page(plain(1, (1, 1)), plain(1, (1, 2)), plain(1, (1, 3)))
    dedup(view, (2, 2))
    assert [len(item) for item in tuples(view)] == [16, 32]
    with pytest.raises(ValueError, match="not there"):
        dedup(btree_page(plain(1, (1, 1)), plain(1, (1, 2))), (1, 1))


@pytest.mark.parametrize(("key_length", "fits"), [(LENGTH_MAX - 16, True), (LENGTH_MAX - 8, False)])
def test_the_longest_posting_list(key_length: int, fits: bool) -> None:
    view = btree_page(wide(1, key_length, (1, 1)), wide(1, key_length, (1, 2)))
    if fits:
        dedup(view, (1, 2))
        assert [len(item) for item in tuples(view)] == [LENGTH_MAX]
    else:
        with pytest.raises(ValueError, match="too long"):
            dedup(view, (1, 2))


def test_other_flags_of_a_tuple_stay_and_its_length_goes() -> None:
    view = btree_page(wide(1, 24, (1, 1), 0xC000), wide(1, 24, (1, 2), 0xC000))
    dedup(view, (1, 2))
    assert struct.unpack_from("<H", tuples(view)[0], 6) == (0xC000 | 0x2000 | 40,)
    view = btree_page(posting(1, (1, 1), (1, 2), info=0xC000))
    delete(view, [], {1: [0]})
    (left,) = tuples(view)
    assert left == encode_tid((1, 2)) + struct.pack("<H", 0xC000 | 16) + parts.key(1)


@pytest.mark.parametrize(
    "tuple_",
    [struct.pack("<HHHH", 0, 0, 0x2002, 0x2000 | 32), struct.pack("<HHHH", 1, 0, 0x2002, 0x2020)],
)
def test_a_posting_list_that_starts_nowhere_is_refused(tuple_: bytes) -> None:
    broken = tuple_.ljust(32, b"\1")
    with pytest.raises(ValueError, match="no possible length"):
        dedup(btree_page(plain(1), broken, plain(1)), (2, 2))
    with pytest.raises(ValueError, match="no possible length"):
        delete(btree_page(plain(1), broken), [], {2: [0]})


def test_a_posting_list_that_starts_in_its_header_is_refused() -> None:
    broken = struct.pack("<HHHH", 0, 7, 0x2002, 0x2000 | 32).ljust(32, b"\1")
    with pytest.raises(ValueError, match="no possible length"):
        delete(btree_page(plain(1), broken), [], {2: [0]})


@pytest.mark.parametrize(("count", "length"), [(449, LENGTH_MAX), (450, 0)])
def test_a_posting_list_that_says_more_than_it_has_is_no_longer_than_may_be(
    count: int, length: int
) -> None:
    item = bytearray(posting(1, (1, 1), (1, 3)))
    item[4:6] = struct.pack("<H", 0x2000 | count)
    view = btree_page(*[plain(9)] * 200, bytes(item))
    if length:
        delete(view, [], {201: [0]})
        assert page.item_length(view, 201) == length
    else:
        with pytest.raises(ValueError, match="too long"):
            delete(view, [], {201: [0]})


def test_a_posting_list_that_grows_needs_room() -> None:
    item = bytearray(posting(1, (1, 1), (1, 3)))
    item[4:6] = struct.pack("<H", 0x2000 | 300)
    view = btree_page(*[plain(9)] * 390, bytes(item))
    with pytest.raises(ValueError, match="does not fit"):
        delete(view, [], {391: [0]})


@pytest.mark.parametrize("start", [8, 9])
def test_a_posting_list_may_start_right_behind_the_header(start: int) -> None:
    item = struct.pack("<HHHH", 0, start, 0x2002, 0x2000 | 24) + b"k" * (start - 8)
    item = (item + encode_tid((1, 1)) + encode_tid((1, 2))).ljust(24, b"\0")
    view = btree_page(plain(1), item)
    delete(view, [], {2: [1]})
    assert tuples(view)[1][:6] == encode_tid((1, 1))


@pytest.mark.parametrize("index", [0, 3])
def test_a_posting_list_is_split_between_its_tids(index: int) -> None:
    view = btree_page(posting(1, (1, 1), (1, 3), (1, 5)), plain(2))
    data = struct.pack("<H", index) + plain(1, (1, 4))
    with pytest.raises(ValueError, match="cannot be split"):
        btree.redo(make_part(view, parts.INSERT_POSTING, struct.pack("<H", 2), data))


def test_all_six_bytes_of_tids_change_places() -> None:
    tids = (0x01020304, 0x0506), (0x11121314, 0x1516), (0x21222324, 0x2526)
    view = btree_page(posting(1, *tids), plain(2))
    new = (0x31323334, 0x3536)
    data = struct.pack("<H", 1) + plain(1, new)
    btree.redo(make_part(view, parts.INSERT_POSTING, struct.pack("<H", 2), data))
    assert tuples(view)[:2] == [posting(1, tids[0], new, tids[1]), plain(1, tids[2])]


def test_a_posting_list_that_says_more_than_it_has_is_not_split() -> None:
    item = bytearray(posting(1, (1, 1), (1, 3)))
    item[4:6] = struct.pack("<H", 0x2000 | 3)  # 34 bytes
    for count, is_refused in ((3, True), (2, False)):
        item[4:6] = struct.pack("<H", 0x2000 | count)
        view = btree_page(bytes(item), plain(2))
        data = struct.pack("<H", 1) + plain(1, (1, 2))
        part = make_part(view, parts.INSERT_POSTING, struct.pack("<H", 2), data)
        if is_refused:
            with pytest.raises(ValueError, match="cannot be split"):
                btree.redo(part)
        else:
            btree.redo(part)


@pytest.mark.parametrize("length", [8, 16])
def test_an_inserted_tuple_may_be_a_header_alone(length: int) -> None:
    item = (encode_tid((1, 1)) + struct.pack("<H", length)).ljust(length, b"k")
    view = btree_page(plain(1))
    btree.redo(make_part(view, parts.INSERT_LEAF, struct.pack("<H", 2), item))
    assert tuples(view) == [plain(1), item]


@pytest.mark.parametrize(("version", "cycle"), [(17, 0x506), (18, 0)])
def test_vacuum_resets_the_cycle_from_18_on(version: int, cycle: int) -> None:
    view = btree_page(plain(1), plain(2), cycle=0x506, flags=0xFFFF)
    main, data = parts.deletion(parts.VACUUM, [1], {})
    btree.redo(make_part(view, parts.VACUUM, main, data, version=version))
    assert special(view) == (0, 0, 0, 0xFFFF - parts.GARBAGE, cycle)


def test_the_page_on_the_right_keeps_all_16_bytes_of_its_own() -> None:
    view = btree_page(
        plain(9), plain(1), plain(1), previous=0x01020304, following=0x05060708, cycle=0x0D0E
    )
    dedup(view, (2, 2))
    assert special(view) == (0x01020304, 0x05060708, 0, parts.LEAF, 0x0D0E)


@pytest.mark.parametrize("following", [{}, {2: 0}, {2: 1}, {2: 0x01020304}])
def test_the_new_page_of_a_split_and_the_one_after_it(following: dict[int, int]) -> None:
    view = memoryview(bytearray(ZEROS))
    part = make_part(
        view, parts.SPLIT_R, parts.split_main(2, 2), plain(8), {0: 1, 1: 2, **following}, block_id=1
    )
    btree.redo(part)
    assert special(view)[:2] == (1, following.get(2, 0))


@pytest.mark.parametrize(("count", "fits"), [(408, True), (409, False)])
def test_as_many_tuples_as_a_page_holds(count: int, fits: bool) -> None:
    """8,152 bytes for tuples of 16 bytes and line pointers of 4, less what is left of one."""
    data = b"".join(plain(n & 0xFF) for n in range(count - 1)) + wide(7, 8)
    data = data if count < 409 else data + plain(1)
    view = memoryview(bytearray(ZEROS))
    part = make_part(view, parts.NEW_ROOT, struct.pack("<II", 3, 1), data)
    if fits:
        btree.redo(part)
        assert page.max_offset(view) == count
    else:
        with pytest.raises(ValueError, match="do not fit"):
            btree.redo(part)


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (8, False)])
def test_tuples_fill_a_page_to_the_last_byte(spare: int, fits: bool) -> None:
    # 24 + 4 * 4 + 2032 + 3 * 2032 + 8 = 8176
    data = b"".join(wide(n, 2032) for n in range(3)) + wide(4, 2040 + spare)
    view = memoryview(bytearray(ZEROS))
    part = make_part(view, parts.NEW_ROOT, struct.pack("<II", 3, 1), data)
    if fits:
        btree.redo(part)
        assert bytes(view[12:16]) == struct.pack("<HH", 40, 40)
    else:
        with pytest.raises(ValueError, match="do not fit"):
            btree.redo(part)


def test_all_bytes_of_the_meta_page() -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    data = bytes(range(1, 25)) + b"\1\0\0\0"
    btree.redo(make_part(view, parts.META_CLEANUP, b"", data))
    assert bytes(view[24:28]) == struct.pack("<I", 0x053162)
    assert bytes(view[28:52]) == data[:24]
    assert bytes(view[52:56]) == bytes(4)
    assert struct.unpack("<d", view[56:64]) == (-1.0,)
    assert view[64] == 1
    assert special(view) == (0, 0, 0, parts.META, 0)


def test_a_new_root_without_a_level_below_has_no_tuples() -> None:
    view = memoryview(bytearray(ZEROS))
    btree.redo(make_part(view, parts.NEW_ROOT, struct.pack("<II", 3, 0), plain(1)))
    assert page.max_offset(view) == 0
    assert special(view) == (0, 0, 0, parts.LEAF | parts.ROOT, 0)


@pytest.mark.parametrize(
    ("info", "block_id"),
    [
        (parts.SPLIT_R, 2),
        (parts.SPLIT_R, 3),
        (parts.UNLINK, 1),
        (parts.UNLINK, 2),
        (parts.VACUUM, 0),
        (parts.HALF_DEAD, 1),
        (parts.INSERT_UPPER, 1),
    ],
)
def test_pages_of_others_are_refused(info: int, block_id: int) -> None:
    """Zeros, and a page with a smaller special space: nothing may be written there."""
    main = {parts.UNLINK: parts.UNLINK_MAIN, parts.HALF_DEAD: parts.HALF_DEAD_MAIN}.get(
        info, bytes(10)
    )
    other = memoryview(bytearray(ZEROS))
    page.init(other, 8)
    for n in range(3):
        page.add_item(other, memoryview(plain(n)), 0, 16, 0, False, False)
    part = make_part(other, info, main, b"", dict.fromkeys(range(4), 9), block_id)
    with pytest.raises(ValueError, match="not one of a btree"):
        btree.redo(part)
