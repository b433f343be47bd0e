"""Redo of hash index records on the meta page and on bitmap pages."""

import struct

import pytest

from engine.redo import hash_index
from tests.fixtures.hash_parts import (
    ADD_OVERFLOW,
    BLOCKS,
    EXTENDED,
    FOUND,
    GARBAGE,
    INIT_BITMAP,
    INIT_META,
    INSERT,
    META,
    NONE,
    SPLIT_ALLOCATE,
    SQUEEZE,
    UPDATE_META,
    VACUUM_ONE_PAGE,
    bitmap_page,
    bucket_page,
    entry,
    meta_page,
)
from tests.fixtures.redo_parts import make_part


@pytest.mark.parametrize(
    ("expected", "per_bucket", "max_bucket", "high_mask", "splitpoint"),
    [
        (0.0, 307, 1, 3, 1),
        (615.0, 307, 1, 3, 1),
        (921.0, 307, 3, 7, 2),
        (1228.0, 307, 3, 7, 2),
        (1535.0, 307, 7, 15, 3),
        (512.9 * 40, 40, 511, 1023, 9),
        (513.0 * 40, 40, 639, 1023, 10),
        (641.0 * 40, 40, 767, 1023, 11),
        (897.0 * 40, 40, 1023, 2047, 13),
        (1025.0 * 40, 40, 1279, 2047, 14),
        (5e18, 10, 0x3FFFFFFF, 0x7FFFFFFF, 93),
        (float("inf"), 10, 0x3FFFFFFF, 0x7FFFFFFF, 93),
    ],
)
def test_meta_page_of_a_new_index(
    expected: float, per_bucket: int, max_bucket: int, high_mask: int, splitpoint: int
) -> None:
    view = memoryview(bytearray(GARBAGE))
    main = struct.pack("<dIH", expected, 450, per_bucket)
    assert hash_index.redo(make_part(view, INIT_META, main)) == 1
    spares = {splitpoint: 1}
    wanted = meta_page(0.0, per_bucket, max_bucket, high_mask, splitpoint, 0, spares)
    assert bytes(view) == bytes(wanted)


@pytest.mark.parametrize(("count", "per_bucket"), [(1.0, 0), (-1.0, 10), (float("nan"), 10)])
def test_meta_page_of_an_index_that_cannot_be(count: float, per_bucket: int) -> None:
    view = memoryview(bytearray(8192))
    with pytest.raises(ValueError, match="hash index of no"):
        hash_index.redo(make_part(view, INIT_META, struct.pack("<dIH", count, 450, per_bucket)))


def test_first_bitmap_page() -> None:
    view = memoryview(bytearray(GARBAGE))
    assert hash_index.redo(make_part(view, INIT_BITMAP, b"\0\x10")) == 1
    assert bytes(view) == bitmap_page()
    view = meta_page(max_bucket=7)
    assert hash_index.redo(make_part(view, INIT_BITMAP, b"\0\x10", block_id=1)) == 1
    assert bytes(view) == bytes(meta_page(max_bucket=7, bitmaps=(9,)))


def test_bitmap_that_fills_the_page_and_no_more() -> None:
    view = memoryview(bytearray(8192))
    hash_index.redo(make_part(view, INIT_BITMAP, (8152).to_bytes(2, "little")))
    assert bytes(view) == bitmap_page(8152)
    with pytest.raises(ValueError, match="larger than a page"):
        hash_index.redo(make_part(view, INIT_BITMAP, (8153).to_bytes(2, "little")))


@pytest.mark.parametrize("bit", [0, 13, 32767])
def test_bitmap_bits(bit: int) -> None:
    """A page goes into use, and is freed again."""
    view = memoryview(bytearray(bitmap_page()))
    data = struct.pack("<I", bit)
    squeeze = struct.pack("<IIHBB", 9, NONE, 0, 1, 1)
    assert hash_index.redo(make_part(view, SQUEEZE, squeeze, data, BLOCKS, 5)) == 1
    expected = bytearray(bitmap_page())
    expected[24 + bit // 8] = 0xFF ^ 1 << bit % 8
    assert bytes(view) == bytes(expected)
    assert hash_index.redo(make_part(view, ADD_OVERFLOW, FOUND, data, BLOCKS, 2)) == 1
    assert bytes(view) == bitmap_page()


@pytest.mark.parametrize("bit", [32768, 8152 * 8, NONE])
def test_a_bit_beyond_the_bitmap_is_refused(bit: int) -> None:
    view = memoryview(bytearray(bitmap_page()))
    with pytest.raises(ValueError, match="does not have this bit"):
        hash_index.redo(make_part(view, ADD_OVERFLOW, FOUND, struct.pack("<I", bit), BLOCKS, 2))


def test_a_bit_of_a_damaged_page_is_refused() -> None:
    view = memoryview(bytearray(bitmap_page()))
    view[12:14] = b"\0\x20"  # pd_lower 8192
    data = struct.pack("<I", 8152 * 8)
    with pytest.raises(ValueError, match="does not have this bit"):
        hash_index.redo(make_part(view, ADD_OVERFLOW, FOUND, data, BLOCKS, 2))
    view[8190] = 0x81
    with pytest.raises(ValueError, match="not one of a hash index"):
        hash_index.redo(make_part(view, ADD_OVERFLOW, FOUND, bytes(4), BLOCKS, 2))


def test_a_bit_of_another_page_is_refused() -> None:
    view = bucket_page(*[entry(n) for n in range(99)])
    with pytest.raises(ValueError, match="does not have this bit"):
        hash_index.redo(make_part(view, ADD_OVERFLOW, FOUND, bytes(4), BLOCKS, 2))


def test_second_bitmap_page() -> None:
    view = memoryview(bytearray(GARBAGE))
    assert hash_index.redo(make_part(view, ADD_OVERFLOW, EXTENDED, b"", BLOCKS, 3)) == 1
    assert bytes(view) == bitmap_page()


@pytest.mark.parametrize(
    ("main", "blocks", "spares", "bitmaps"),
    [
        (FOUND, {0: 4, 1: 7, 2: 9, 4: 0}, 5, (6,)),
        (EXTENDED, {0: 4, 1: 7, 4: 0}, 6, (6,)),
        (EXTENDED, {0: 4, 1: 7, 3: 0x10003, 4: 0}, 7, (6, 0x10003)),
    ],
    ids=["freed page", "new page", "new bitmap page"],
)
def test_overflow_page_in_the_meta_page(
    main: bytes, blocks: dict[int, int], spares: int, bitmaps: tuple[int, ...]
) -> None:
    view = meta_page(splitpoint=3, spares={3: 5}, bitmaps=(6,))
    data = struct.pack("<I", 77)
    assert hash_index.redo(make_part(view, ADD_OVERFLOW, main, data, blocks, 4)) == 1
    expected = meta_page(splitpoint=3, spares={3: spares}, bitmaps=bitmaps, first_free=77)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize("splitpoint", [98, NONE])
def test_a_splitpoint_that_cannot_be_is_refused(splitpoint: int) -> None:
    view = meta_page(splitpoint=splitpoint)
    with pytest.raises(ValueError, match="splitpoint"):
        hash_index.redo(make_part(view, ADD_OVERFLOW, EXTENDED, bytes(4), BLOCKS, 4))
    main, data = struct.pack("<IHHB", 2, 0, 0, 2), struct.pack("<II", splitpoint, 1)
    with pytest.raises(ValueError, match="splitpoint"):
        hash_index.redo(make_part(meta_page(), SPLIT_ALLOCATE, main, data, BLOCKS, 2))


def test_one_bitmap_page_too_many_is_refused() -> None:
    view = meta_page(bitmaps=(6,) * 1024)
    with pytest.raises(ValueError, match="no room for a bitmap page"):
        hash_index.redo(make_part(view, INIT_BITMAP, b"\0\x10", block_id=1))


@pytest.mark.parametrize(
    ("flags", "data", "expected"),
    [
        (0, b"", meta_page(max_bucket=5, high_mask=7)),
        (1, struct.pack("<II", 7, 15), meta_page(max_bucket=5, high_mask=15)),
        (
            2,
            struct.pack("<II", 3, 44),
            meta_page(max_bucket=5, high_mask=7, splitpoint=3, spares={1: 1, 3: 44}),
        ),
        (
            3,
            struct.pack("<IIII", 7, 15, 97, 44),
            meta_page(max_bucket=5, high_mask=15, splitpoint=97, spares={1: 1, 97: 44}),
        ),
    ],
)
def test_split_in_the_meta_page(flags: int, data: bytes, expected: memoryview) -> None:
    view = meta_page(max_bucket=4, high_mask=7)
    main = struct.pack("<IHHB", 5, 0, 0, flags)
    assert hash_index.redo(make_part(view, SPLIT_ALLOCATE, main, data, BLOCKS, 2)) == 1
    assert bytes(view) == bytes(expected)
    with pytest.raises(ValueError, match="wrong length"):
        hash_index.redo(make_part(view, SPLIT_ALLOCATE, main, data + b"\0", BLOCKS, 2))


def test_meta_page_after_vacuum() -> None:
    view = meta_page(41.0)
    assert hash_index.redo(make_part(view, UPDATE_META, struct.pack("<d", 1e17))) == 1
    assert bytes(view) == bytes(meta_page(1e17))


@pytest.mark.parametrize(
    ("info", "block_id", "data"),
    [
        (INSERT, 1, b""),
        (INIT_BITMAP, 1, b""),
        (ADD_OVERFLOW, 4, bytes(4)),
        (SPLIT_ALLOCATE, 2, b""),
        (SQUEEZE, 6, bytes(4)),
        (UPDATE_META, 0, b""),
        (VACUUM_ONE_PAGE, 1, b""),
    ],
)
def test_another_page_than_the_meta_page_is_refused(info: int, block_id: int, data: bytes) -> None:
    main = b"\0\0\1" + bytes(11)  # of ADD_OVERFLOW: a page was found
    for view in (bucket_page(), meta_page()):
        if view[8188] == META:
            view[8190] = 0x81  # the mark of another kind of index
        with pytest.raises(ValueError, match="page is not"):
            hash_index.redo(make_part(view, info, main, data, BLOCKS, block_id))
