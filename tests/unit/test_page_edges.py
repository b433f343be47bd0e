"""Heap and index pages at the edges: what one bit, one byte or one line pointer more changes."""

import pytest

from formats import index_tuples, page


def page_of(*lengths: int, special: int = 0) -> memoryview:
    """A page with a tuple of each length, filled with its number."""
    view = memoryview(bytearray(8192))
    page.init(view, special)
    for n, length in enumerate(lengths, 1):
        content = memoryview(bytes([n & 0xFF]) * length)
        assert page.add_item(view, content, 0, length, 0, False, False) == n
    return view


def pointer(view: memoryview, n: int) -> tuple[int, int, int]:
    return page.item_offset(view, n), page.item_flags(view, n), page.item_length(view, n)


def contents(view: memoryview) -> list[bytes]:
    found = []
    for n in range(1, page.max_offset(view) + 1):
        offset, _, length = pointer(view, n)
        found.append(bytes(view[offset : offset + length]))
    return found


def pointers_put(view: memoryview, n: int, offset: int, flags: int, length: int) -> None:
    """Whatever set_item would not write."""
    value = offset | flags << 15 | length << 17
    view[20 + 4 * n : 24 + 4 * n] = value.to_bytes(4, "little")


@pytest.mark.parametrize("field", [(0x7FFF, 0, 0), (0, 3, 0), (0, 0, 0x7FFF), (1, 2, 3), (2, 1, 1)])
def test_a_line_pointer_keeps_its_three_fields_apart(field: tuple[int, int, int]) -> None:
    view = page_of(8, 8, 8)
    page.set_item(view, 2, *field)
    assert pointer(view, 2) == field
    assert [pointer(view, 1), pointer(view, 3)] == [(8184, 1, 8), (8168, 1, 8)]


def test_a_line_pointer_takes_no_more_bits_than_it_has() -> None:
    view = page_of(8, 8, 8)
    page.set_item(view, 2, 0x8000, 4, 0x8000)
    assert pointer(view, 2) == (0, 0, 0)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_a_line_pointer_that_is_not_there(n: int) -> None:
    with pytest.raises(IndexError, match="line pointer"):
        page.item_position(page_of(8, 8, 8), n)


@pytest.mark.parametrize(
    ("flags", "length", "is_free"),
    [
        (0, 0, True),
        (0, 1, False),
        (0, 2, False),
        (1, 0, False),
        (2, 0, False),
        (3, 0, False),
        (1, 8, False),
    ],
)
def test_only_an_unused_line_pointer_without_length_is_free(
    flags: int, length: int, is_free: bool
) -> None:
    source = memoryview(b"12345678")
    for n in (1, 2, 3):
        for offset in (0, 0x123):
            view = page_of(200, 200, 200)
            view[9:11] = b"\x77\1"
            pointers_put(view, n, offset, flags, length)
            expected = n if is_free else 4
            assert page.add_item(view, source, 0, 8, 0, False, True) == expected
            # The hint is set right when nothing was found.
            assert bytes(view[9:11]) == (b"\x77\1" if is_free else b"\x77\0")
        view = page_of(200, 200, 200)
        pointers_put(view, n, 0, flags, length)
        assert page.add_item(view, source, 0, 8, n, True, True) == (n if is_free else 0)


def test_a_free_line_pointer_is_not_looked_for_without_the_hint() -> None:
    view = page_of(8, 8, 8)
    pointers_put(view, 2, 0, 0, 0)
    view[10] = 0xFE
    assert page.add_item(view, memoryview(b"12345678"), 0, 8, 0, False, True) == 4
    assert view[10] == 0xFE


def test_a_tuple_of_no_bytes_is_a_tuple() -> None:
    view = page_of(8)
    assert page.add_item(view, memoryview(b""), 0, 0, 2, False, False) == 2
    assert pointer(view, 2) == (8184, 1, 0)
    assert page.add_room(view, -1, 0, False, False) == 0


@pytest.mark.parametrize(("free", "number"), [(11, 0), (12, 3)])
def test_room_is_needed_for_the_line_pointer_too(free: int, number: int) -> None:
    view = page_of(8, 8)
    view[14:16] = (32 + free).to_bytes(2, "little")
    assert page.add_item(view, memoryview(b"12345678"), 0, 8, 0, False, False) == number


@pytest.mark.parametrize(("is_heap", "added"), [(True, 291), (False, 300)])
def test_a_heap_page_has_so_many_line_pointers(is_heap: bool, added: int) -> None:
    view = memoryview(bytearray(8192))
    page.init(view, 0)
    for _ in range(300):
        page.add_item(view, memoryview(b"12345678"), 0, 8, 0, False, is_heap)
    assert page.max_offset(view) == added


def test_a_tuple_in_between_moves_the_later_line_pointers() -> None:
    view = page_of(8, 8, 8)
    assert page.add_item(view, memoryview(b"\x09" * 8), 0, 8, 2, False, False) == 2
    assert [item[0] for item in contents(view)] == [1, 9, 2, 3]
    assert page.add_item(view, memoryview(b"\x0a" * 8), 0, 8, 6, False, False) == 0


@pytest.mark.parametrize(
    ("offset", "length"),
    [(8000, 8), (8176, 24), (8184, 9), (8161, 7), (8162, 6), (8164, 4), (8169, 1)],
)
def test_a_tuple_outside_the_tuple_space_or_not_aligned_is_refused(
    offset: int, length: int
) -> None:
    for n in (1, 2, 3, 4):
        view = page_of(8, 8, 8, 8)
        pointers_put(view, n, offset, 1, length)
        with pytest.raises(ValueError, match="outside the page's tuples"):
            page.repair_fragmentation(view, True)


def test_tuples_that_together_are_larger_than_their_space_are_refused() -> None:
    view = page_of(*[1000] * 7)
    for n in range(1, 8):
        pointers_put(view, n, page.item_offset(view, 7), 1, 7000)
    with pytest.raises(ValueError, match="larger than their space"):
        page.repair_fragmentation(view, True)


@pytest.mark.parametrize("gone", [(), (1,), (3,), (6,), (1, 6), (2, 3), (1, 3, 5), (2, 4, 6)])
@pytest.mark.parametrize("order", ["as added", "swapped"])
def test_gaps_are_closed_whatever_the_order(gone: tuple[int, ...], order: str) -> None:
    view = page_of(8, 30, 17, 64, 9, 41)
    if order == "swapped":
        two, five = pointer(view, 2), pointer(view, 5)
        page.set_item(view, 2, *five)
        page.set_item(view, 5, *two)
    expected = [b"" if n in gone else item for n, item in enumerate(contents(view), 1)]
    for n in gone:
        page.set_item(view, n, 0, 0, 0)
    page.repair_fragmentation(view, False)
    assert contents(view) == expected
    end = 8192
    for n, item in enumerate(expected, 1):
        if item:
            end -= (len(item) + 7) & -8
            assert page.item_offset(view, n) == end
    assert int.from_bytes(view[14:16], "little") == end
    assert view[10] == (1 if gone else 0)


@pytest.mark.parametrize(
    ("unused", "left", "hint"),
    [((), 4, 0), ((4,), 3, 0), ((3, 4), 2, 0), ((1, 4), 3, 1), ((1, 2, 3, 4), 0, 0), ((2,), 4, 1)],
)
def test_line_pointers_at_the_end_go_when_gaps_are_closed(
    unused: tuple[int, ...], left: int, hint: int
) -> None:
    view = page_of(8, 8, 8, 8)
    for n in unused:
        page.set_item(view, n, 0, 0, 0)
    page.repair_fragmentation(view, True)
    assert (bytes(view[12:14]), view[10]) == (bytes([24 + 4 * left, 0]), hint)


@pytest.mark.parametrize(
    ("unused", "left", "hint"),
    [((), 4, 0), ((4,), 3, 0), ((3, 4), 2, 0), ((1, 4), 3, 1), ((1, 2, 3, 4), 1, 1), ((2,), 4, 1)],
)
def test_line_pointers_at_the_end_go_but_for_the_first(
    unused: tuple[int, ...], left: int, hint: int
) -> None:
    view = page_of(8, 8, 8, 8)
    for n in unused:
        page.set_item(view, n, 0, 0, 0)
    upper = bytes(view[14:16])
    page.truncate_line_pointers(view)
    assert (page.max_offset(view), view[10], bytes(view[14:16])) == (left, hint, upper)


@pytest.mark.parametrize("length", [0, 1, 8, 9, 16, 17, 24, 25])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_index_tuple_is_replaced_in_its_place(n: int, length: int) -> None:
    view = page_of(16, 16, 16, special=16)
    expected = contents(view)
    expected[n - 1] = b"\x99" * length
    assert index_tuples.overwrite(view, n, memoryview(b"\x99" * length), 0, length) == 1
    assert contents(view) == expected
    space = 32 + ((length + 7) & -8)
    assert int.from_bytes(view[14:16], "little") == 8176 - space


@pytest.mark.parametrize(("free", "replaced"), [(7, 0), (8, 1)])
def test_an_index_tuple_is_not_replaced_by_one_that_does_not_fit(free: int, replaced: int) -> None:
    view = page_of(16, 16, special=16)
    upper = int.from_bytes(view[14:16], "little")
    view[12:14] = (upper - free).to_bytes(2, "little")
    page.set_item(view, 2, upper, 1, 16)
    # Line pointers that are none lie between; their tuples have no bytes.
    assert index_tuples.overwrite(view, 2, memoryview(b"\x99" * 24), 0, 24) == replaced


@pytest.mark.parametrize("gone", [(1,), (4,), (1, 4), (2, 3), (1, 2, 3), (2, 3, 4), (1, 2, 3, 4)])
def test_index_tuples_are_deleted(gone: tuple[int, ...]) -> None:
    view = page_of(16, 24, 9, 40, special=16)
    expected = [item for n, item in enumerate(contents(view), 1) if n not in gone]
    numbers = memoryview(bytearray(4096)).cast("H")
    for i, n in enumerate(gone):
        numbers[i] = n
    index_tuples.multi_delete(view, numbers, len(gone))
    assert contents(view) == expected
    space = sum((len(item) + 7) & -8 for item in expected)
    assert int.from_bytes(view[14:16], "little") == 8176 - space


@pytest.mark.parametrize(
    ("position", "value"), [(12, 23), (12, 8185), (14, 8193), (16, 8193), (16, 8168), (16, 0)]
)
def test_a_page_whose_regions_are_out_of_order_is_refused(position: int, value: int) -> None:
    view = page_of(8, 8)
    view[position : position + 2] = value.to_bytes(2, "little")
    with pytest.raises(ValueError, match="out of order"):
        page.add_room(view, 8, 0, False, False)
    for change in (
        lambda: page.repair_fragmentation(view, True),
        lambda: index_tuples.delete_no_compact(view, 1),
        lambda: index_tuples.delete(view, 1),
    ):
        with pytest.raises((ValueError, IndexError)):
            change()


@pytest.mark.parametrize("special", [8185, 8186, 8188, 8191])
def test_gaps_are_not_closed_before_a_special_space_that_is_not_aligned(special: int) -> None:
    view = page_of(8, 8, special=8)
    view[16:18] = special.to_bytes(2, "little")
    for change in (
        lambda: page.repair_fragmentation(view, True),
        lambda: index_tuples.delete_no_compact(view, 1),
        lambda: index_tuples.delete(view, 1),
    ):
        with pytest.raises(ValueError, match="not aligned"):
            change()


def test_the_hint_goes_when_no_line_pointer_is_unused() -> None:
    view = page_of(8, 8)
    view[10] = 0xFF
    page.repair_fragmentation(view, True)
    assert view[10] == 0xFE
    view[10] = 0xFF
    page.truncate_line_pointers(view)
    assert view[10] == 0xFE


def test_an_unused_line_pointer_is_unused_whatever_else_it_says() -> None:
    view = page_of(8, 8, 8)
    pointers_put(view, 2, 0x1238, 0, 5)
    page.repair_fragmentation(view, True)
    assert pointer(view, 2) == (0, 0, 0)
    assert contents(view) == [b"\1" * 8, b"", b"\3" * 8]
    assert view[10] == 1


def test_a_page_that_is_full_to_the_last_byte() -> None:
    view = page_of(*[8] * 680)
    assert view[12:14] != view[14:16]
    assert page.add_item(view, memoryview(b"\x77" * 4), 0, 4, 0, False, False) == 0
    lower = int.from_bytes(view[12:14], "little")
    upper = int.from_bytes(view[14:16], "little")
    assert (lower, upper) == (24 + 4 * 680, 8192 - 8 * 680)
    view[12:14] = upper.to_bytes(2, "little")  # more line pointers, all unused
    view[lower:upper] = bytes(upper - lower)
    before = contents(view)
    page.repair_fragmentation(view, False)
    assert contents(view) == before


@pytest.mark.parametrize("gone", [(2,), (2, 4), (2, 4, 5)])
def test_line_pointers_without_a_tuple_stay_as_they_are(gone: tuple[int, ...]) -> None:
    view = page_of(16, 16, 16, 16, 16, special=16)
    upper = int.from_bytes(view[14:16], "little")
    pointers_put(view, 3, upper, 3, 0)
    numbers = memoryview(bytearray(4096)).cast("H")
    for i, n in enumerate(gone):
        numbers[i] = n
    index_tuples.multi_delete(view, numbers, len(gone))
    assert pointer(view, 2) == (upper, 3, 0)
    assert contents(view)[0] == b"\1" * 16


@pytest.mark.parametrize(("offset", "length"), [(8001, 16), (8160, 24), (100, 16), (8161, 8)])
def test_index_tuples_are_not_deleted_beside_a_damaged_one(offset: int, length: int) -> None:
    numbers = memoryview(bytearray(4096)).cast("H")
    numbers[0:3] = memoryview(bytes([1, 0, 2, 0, 3, 0])).cast("H")
    view = page_of(16, 16, 16, 16, 16, special=16)
    pointers_put(view, 4, offset, 1, length)
    with pytest.raises(ValueError, match="outside the page's tuples"):
        index_tuples.multi_delete(view, numbers, 3)
    view = page_of(16, 16, 16, 16, 16, special=16)
    pointers_put(view, 4, offset, 1, length)
    for change in (
        lambda: index_tuples.delete(view, 4),
        lambda: index_tuples.delete_no_compact(view, 4),
        lambda: index_tuples.overwrite(view, 4, memoryview(bytes(16)), 0, 16),
    ):
        with pytest.raises(ValueError, match="outside the page's tuples"):
            change()


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 17])
def test_an_index_tuple_of_any_length_leaves_no_gap(length: int) -> None:
    for n in (1, 2, 3):
        view = page_of(length, length, length, special=16)
        expected = contents(view)
        del expected[n - 1]
        index_tuples.delete(view, n)
        assert contents(view) == expected
        assert int.from_bytes(view[14:16], "little") == 8176 - 2 * ((length + 7) & -8)
        view = page_of(length, length, length, special=16)
        index_tuples.delete_no_compact(view, n)
        assert int.from_bytes(view[14:16], "little") == 8176 - 2 * ((length + 7) & -8)
        assert [item for item in contents(view) if item] == expected


@pytest.mark.parametrize(("lower", "count"), [(0, 0), (23, 0), (24, 0), (27, 0), (28, 1), (31, 1)])
def test_so_many_line_pointers(lower: int, count: int) -> None:
    view = memoryview(bytearray(8192))
    view[12:14] = lower.to_bytes(2, "little")
    assert page.max_offset(view) == count


def test_tuples_take_more_space_than_their_bytes() -> None:
    view = page_of(*[1000] * 7)
    lowest = page.item_offset(view, 7)
    for n in range(1, 8):
        pointers_put(view, n, lowest, 1, 1161)  # 7 * 1168 > 8192 - 52 > 7 * 1160
    with pytest.raises(ValueError, match="larger than their space"):
        page.repair_fragmentation(view, True)


def test_a_damaged_index_tuple_is_not_deleted() -> None:
    numbers = memoryview(bytearray(4096)).cast("H")
    numbers[0:3] = memoryview(bytes([1, 0, 2, 0, 3, 0])).cast("H")
    for offset, length in ((8001, 16), (8160, 24), (100, 16), (8145, 8), (8148, 8)):
        view = page_of(16, 16, 16, 16, 16, special=16)
        pointers_put(view, 2, offset, 1, length)
        with pytest.raises(ValueError, match="outside the page's tuples"):
            index_tuples.multi_delete(view, numbers, 3)


def test_what_stands_before_the_line_pointers_is_none() -> None:
    view = page_of(16, 16, 16, special=16)
    looks_like_one = bytes(view[28:32])
    view[20:24] = looks_like_one
    index_tuples.delete(view, 1)
    assert bytes(view[20:24]) == looks_like_one


@pytest.mark.parametrize("length", [1, 8, 9, 16, 17, 24, 25])
def test_an_index_tuple_of_odd_length_is_replaced(length: int) -> None:
    view = page_of(17, 17, 17, special=16)
    assert index_tuples.overwrite(view, 2, memoryview(b"\x99" * length), 0, length) == 1
    assert contents(view) == [b"\1" * 17, b"\x99" * length, b"\3" * 17]
    assert int.from_bytes(view[14:16], "little") == 8176 - 48 - ((length + 7) & -8)
