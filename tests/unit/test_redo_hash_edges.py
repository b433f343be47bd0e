"""Hash records at the edges: block 0, the last bitmap page, tuples of odd lengths."""

import struct

import pytest

from engine.redo import hash_index
from formats import page
from tests.fixtures.hash_parts import BLOCKS, bucket_page, entry, meta_page, tuples
from tests.fixtures.redo_parts import make_part

INIT_BITMAP, ADD_OVERFLOW, ALLOCATE, COMPLETE, MOVE, VACUUM_ONE = 0x10, 0x30, 0x40, 0x60, 0x70, 0xC0


def test_a_page_may_be_followed_by_block_0() -> None:
    view = bucket_page()
    part = make_part(view, ADD_OVERFLOW, struct.pack("<HB", 4096, 1), b"", {0: 0, 1: 5}, 1)
    assert hash_index.redo(part) == 1
    assert bytes(view[8180:8184]) == bytes(4)


def test_other_flags_of_a_split_mean_nothing() -> None:
    view = meta_page()
    main = struct.pack("<IHHB", 5, 0, 0, 0xFC)
    hash_index.redo(make_part(view, ALLOCATE, main, b"", BLOCKS, 2))
    assert bytes(view) == bytes(meta_page(max_bucket=5))


def test_a_split_is_complete_on_two_pages() -> None:
    with pytest.raises(ValueError, match="block that its opcode"):
        hash_index.redo(make_part(bucket_page(), COMPLETE, bytes(8), b"", BLOCKS, 2))


@pytest.mark.parametrize("length", [8, 9, 15, 16, 17, 24])
@pytest.mark.parametrize("flags", [0, 0x4000, 0xE000])
def test_moved_tuples_lie_on_multiples_of_8(length: int, flags: int) -> None:
    items = []
    for n in (1, 2):
        item = bytearray(
            entry(n, max(length, 16))[: (length + 7) & -8].ljust((length + 7) & -8, b"\0")
        )
        item[6:8] = struct.pack("<H", flags | length)
        items.append(bytes(item))
    view = bucket_page()
    data = struct.pack("<HH", 1, 2) + b"".join(items)
    hash_index.redo(make_part(view, MOVE, struct.pack("<HB", 2, 0), data, BLOCKS, 1))
    assert tuples(view) == items


@pytest.mark.parametrize("version", [15, 16])
def test_more_than_255_tuples_are_deleted(version: int) -> None:
    held = [entry(n) for n in range(1, 301)]
    view = bucket_page(*held)
    numbers = struct.pack("<257H", *range(1, 258))
    main = struct.pack("<IHH", 9, 257, 0) + numbers
    hash_index.redo(make_part(view, VACUUM_ONE, main, version=version))
    assert tuples(view) == held[257:]


def test_so_many_are_taken_off_the_count_without_their_numbers() -> None:
    view = meta_page(1000.0)
    for length in (7, 8):
        main = struct.pack("<IHH", 9, 257, 0)[:length]
        part = make_part(view, VACUUM_ONE, main, b"", BLOCKS, 1, behind=bytes(4))
        if length < 8:
            with pytest.raises(ValueError, match="too short"):
                hash_index.redo(part)
        else:
            hash_index.redo(part)
    assert bytes(view) == bytes(meta_page(743.0))


def test_the_last_bitmap_page_that_the_meta_page_has_room_for() -> None:
    view = meta_page(bitmaps=(6,) * 1023)
    hash_index.redo(make_part(view, INIT_BITMAP, b"\0\x10", block_id=1))
    assert bytes(view) == bytes(meta_page(bitmaps=(6,) * 1023 + (3,)))


def test_more_tuples_than_a_heap_page_has() -> None:
    view = bucket_page(*[entry(1)] * 300)
    hash_index.redo(make_part(view, 0x20, struct.pack("<H", 301), entry(2), BLOCKS))
    assert page.max_offset(view) == 301
