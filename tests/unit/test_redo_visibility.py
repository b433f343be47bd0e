"""Pages of the visibility map: their bits, and the records that reference them."""

import struct

import pytest

from engine.redo import heap, heap2, visibility
from tests.fixtures.redo_parts import heap_page, make_part

INSERT, DELETE, UPDATE, HOT_UPDATE, LOCK = 0x00, 0x10, 0x20, 0x40, 0x60
VISIBLE, MULTI_INSERT, LOCK_UPDATED = 0x40, 0x50, 0x60


def map_page(*set_blocks: int) -> memoryview:
    view = memoryview(bytearray(8192))
    for block in set_blocks:
        visibility.set_bits(view, block, 3)
    return view


def bits(view: memoryview, block: int) -> int:
    index = block % 32672
    return view[24 + index // 4] >> index % 4 * 2 & 3


def test_setting_fewer_bits_than_are_set_keeps_them_and_counts_as_a_change() -> None:
    view = memoryview(bytearray(8192))
    visibility.set_bits(view, 9, 3)
    assert visibility.set_bits(view, 9, 1) == 1
    assert view[26] == 0b1100


def test_clearing_bits_of_a_page_of_zeros_leaves_it() -> None:
    view = memoryview(bytearray(8192))
    assert visibility.clear_bits(view, 9, 3) == 0
    assert not any(view)


@pytest.mark.parametrize(
    ("kept", "position", "left"),
    [(0, 24, 0), (1, 24, 0b11), (5, 25, 0b11), (6, 25, 0b1111), (7, 25, 0b111111), (8, 26, 0)],
)
def test_truncate_clears_the_bits_behind(kept: int, position: int, left: int) -> None:
    view = heap_page()
    view[24:] = b"\xff" * 8168
    visibility.truncate(view, kept)
    assert bytes(view[24:position]) == b"\xff" * (position - 24)
    assert view[position] == left
    assert not any(view[position + 1 :])


def test_truncate_at_the_last_block_of_a_page() -> None:
    view = heap_page()
    view[24:] = b"\xff" * 8168
    visibility.truncate(view, 32671)
    assert view[8191] == 0b00111111
    for kept in (-1, 32672):
        with pytest.raises(ValueError, match="keeps more"):
            visibility.truncate(view, kept)


def test_truncate_makes_zeros_a_page() -> None:
    view = memoryview(bytearray(8192))
    visibility.truncate(view, 3)
    assert bytes(view) == bytes(heap_page())


@pytest.mark.parametrize(
    ("heap_block", "map_flags", "position", "value"),
    [
        (0, 1, 24, 0b01),
        (1, 3, 24, 0b1100),
        (7, 7, 25, 0b11000000),  # the flag for catalogs is not for the map
        (32671, 3, 8191, 0b11000000),
        (32672, 1, 24, 0b01),
        (0xFFFFFFFE, 3, 24 + (0xFFFFFFFE % 32672) // 4, 0b110000),
    ],
)
def test_visible_sets_bits_of_the_map(
    heap_block: int, map_flags: int, position: int, value: int
) -> None:
    view = memoryview(bytearray(8192))
    blocks = {0: heap_block // 32672, 1: heap_block}
    part = make_part(view, VISIBLE, struct.pack("<IB", 99, map_flags), blocks=blocks)
    assert heap2.redo(part) == 1
    expected = bytes(heap_page())
    assert bytes(view[:24]) == expected[:24], "a page of zeros becomes a page"
    assert (view[position], sum(view[24:])) == (value, value)
    assert heap2.redo(part) == 0


@pytest.mark.parametrize(
    ("opcode", "main", "bits_left"),
    [
        (INSERT, struct.pack("<HB", 1, 1), 0),
        (INSERT, struct.pack("<HB", 1, 0), 3),
        (DELETE, struct.pack("<IHBB", 9, 1, 0, 1), 0),
        (DELETE, struct.pack("<IHBB", 9, 1, 0, 16), 3),
        (LOCK, struct.pack("<IHBB", 9, 1, 0, 1), 1),
        (LOCK, struct.pack("<IHBB", 9, 1, 0, 0), 3),
    ],
)
def test_map_page_of_a_record_with_one_heap_block_of_heap(
    opcode: int, main: bytes, bits_left: int
) -> None:
    heap_block = 32672 + 77
    view = map_page(76, 77, 78)
    part = make_part(view, opcode, main, b"", {0: heap_block, 1: 1}, block_id=1)
    assert heap.redo(part) == (bits_left != 3)
    assert [bits(view, block) for block in (76, 77, 78)] == [3, bits_left, 3]
    assert heap.redo(part) == 0, "nothing left to clear: PostgreSQL leaves pd_lsn alone"


@pytest.mark.parametrize(
    ("opcode", "main", "bits_left"),
    [
        (MULTI_INSERT, struct.pack("<BxHH", 1, 1, 1), 0),
        (MULTI_INSERT, struct.pack("<BxHH", 32, 1, 1), 3),
        (LOCK_UPDATED, struct.pack("<IHBB", 9, 1, 0, 1), 1),
        (LOCK_UPDATED, struct.pack("<IHBB", 9, 1, 0, 2), 3),
    ],
)
def test_map_page_of_a_record_with_one_heap_block_of_heap2(
    opcode: int, main: bytes, bits_left: int
) -> None:
    view = memoryview(bytearray(8192))
    visibility.set_bits(view, 4, 3)
    visibility.set_bits(view, 5, 3)
    part = make_part(view, opcode, main, b"", {0: 32672 + 5, 1: 1}, block_id=1)
    assert heap2.redo(part) == (bits_left != 3)
    assert view[25] == 0b11 | bits_left << 2
    assert heap2.redo(part) == 0


def update_main(flag: int) -> bytes:
    return struct.pack("<IHBBIH", 701, 1, 0, flag, 0, 1)


@pytest.mark.parametrize(
    ("old_block", "new_block", "flag", "cleared"),
    [
        (10, 20, 3, [10, 20]),
        (10, 20, 2, [20]),
        (32672 + 10, 20, 3, [20]),  # the old page's bits are on another map page
        (None, 20, 3, [20]),
        (None, 20, 1, [20]),
    ],
)
def test_map_page_of_the_new_version(
    old_block: int | None, new_block: int, flag: int, cleared: list[int]
) -> None:
    view = map_page(10, 20, 30)
    blocks = {0: new_block, 2: 0}
    if old_block is not None:
        blocks[1] = old_block
    part = make_part(view, UPDATE, update_main(flag), b"", blocks, block_id=2)
    assert heap.redo(part) == 1
    assert [block for block in (10, 20, 30) if bits(view, block) == 0] == cleared
    assert heap.redo(part) == 0


@pytest.mark.parametrize(("blocks", "cleared"), [({0: 20, 1: 10, 3: 0}, 10), ({0: 20, 3: 0}, 20)])
def test_map_page_of_the_old_version(blocks: dict[int, int], cleared: int) -> None:
    view = map_page(10, 20)
    part = make_part(view, HOT_UPDATE, update_main(1), b"", blocks, block_id=3)
    assert heap.redo(part) == 1
    assert (bits(view, cleared), bits(view, 30 - cleared)) == (0, 3)


@pytest.mark.parametrize(("opcode", "block_id", "length"), [(INSERT, 1, 2), (UPDATE, 2, 13)])
def test_main_data_that_is_cut_off_is_refused_for_map_pages_too(
    opcode: int, block_id: int, length: int
) -> None:
    part = make_part(map_page(5), opcode, bytes(length), b"", {0: 5, block_id: 0}, block_id)
    with pytest.raises(ValueError, match="shorter than its kind"):
        heap.redo(part)
