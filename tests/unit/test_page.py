"""The page kernel leaves every byte where PostgreSQL's bufpage.c leaves it.

The checksums expected here were computed by PostgreSQL's own checksum_impl.h (18.6).
"""

import array
import random
from collections.abc import Callable

import pytest

from formats import index_tuples, page, page_checksum

UNUSED, NORMAL, REDIRECT, DEAD = range(4)


def new_page(special_size: int = 0) -> memoryview:
    view = memoryview(bytearray(b"\xff" * 8192))
    page.init(view, special_size)
    return view


def add(view: memoryview, content: bytes, number: int = 0, overwrite: bool = False) -> int:
    return int(page.add_item(view, memoryview(content), 0, len(content), number, overwrite, False))


def filled(contents: list[bytes], special_size: int = 0) -> memoryview:
    view = new_page(special_size)
    for content in contents:
        assert add(view, content) > 0
    return view


def items(view: memoryview) -> list[tuple[int, int, int]]:
    """Offset, state and length of every line pointer."""
    return [
        (page.item_offset(view, n), page.item_flags(view, n), page.item_length(view, n))
        for n in range(1, page.max_offset(view) + 1)
    ]


def contents(view: memoryview) -> list[bytes]:
    return [bytes(view[offset : offset + length]) for offset, _, length in items(view)]


def upper(view: memoryview) -> int:
    return int.from_bytes(view[14:16], "little")


def numbers(*values: int) -> memoryview:
    return memoryview(array.array("H", values))


def pattern(seed: int) -> memoryview:
    return memoryview(bytearray(random.Random(seed).randbytes(8192)))


def test_init_writes_the_header_and_zeroes_the_rest() -> None:
    view = new_page(16)
    header = "0000000000000000000000001800f01ff01f042000000000"
    assert bytes(view) == bytes.fromhex(header) + bytes(8192 - 24)
    assert not page.is_new(view)
    assert page.is_new(memoryview(bytes(8192)))
    assert new_page(13)[:24] == view[:24]


@pytest.mark.parametrize("special_size", [-1000, 8170, 9000])
def test_init_refuses_a_special_space_that_leaves_no_header(special_size: int) -> None:
    with pytest.raises(ValueError, match="special space"):
        page.init(memoryview(bytearray(8192)), special_size)


def test_lsn_stores_the_high_half_first() -> None:
    view = new_page()
    page.set_lsn(view, 0xFEDCBA9876543210)
    assert bytes(view[:8]) == bytes.fromhex("98badcfe10325476")
    assert page.lsn(view) == 0xFEDCBA9876543210


def test_add_item_fills_from_both_ends() -> None:
    view = filled([b"a" * 24, b"b" * 9])
    assert items(view) == [(8168, NORMAL, 24), (8152, NORMAL, 9)]
    assert bytes(view[24:32]) == bytes.fromhex("e89f3000d89f1200")
    assert contents(view) == [b"a" * 24, b"b" * 9]
    assert (page.max_offset(view), upper(view)) == (2, 8152)


def test_add_item_takes_the_source_from_its_position() -> None:
    view = new_page()
    assert page.add_item(view, memoryview(b"0123456789"), 3, 4, 0, False, True) == 1
    assert contents(view) == [b"3456"]


def test_add_item_in_the_middle_moves_line_pointers_up() -> None:
    view = filled([b"a", b"b", b"c"])
    assert add(view, b"x", 2) == 2
    assert contents(view) == [b"a", b"x", b"b", b"c"]
    assert items(view)[1] == (8160, NORMAL, 1)


def test_add_item_overwrites_only_unused_line_pointers() -> None:
    view = filled([b"a", b"b"])
    page.set_item(view, 1, 0, UNUSED, 0)
    assert add(view, b"y", 2, overwrite=True) == 0
    assert add(view, b"x", 1, overwrite=True) == 1
    assert add(view, b"z", 3, overwrite=True) == 3
    assert add(view, b"w", 5, overwrite=True) == 0
    assert contents(view) == [b"x", b"b", b"z"]


def test_add_item_overwrites_the_last_line_pointer() -> None:
    view = filled([b"a", b"b"])
    page.set_item(view, 2, 0, UNUSED, 0)
    assert add(view, b"x", 2, overwrite=True) == 2
    assert contents(view) == [b"a", b"x"]


def test_a_page_can_be_filled_to_the_last_byte() -> None:
    view = filled([b"a" * 8000])
    assert add(view, b"b" * 161) == 0
    assert add(view, b"b" * 157) == 2, "24 + 2 * 4 + 8000 + 160 = 8192"
    assert upper(view) == 32
    assert index_tuples.overwrite(view, 1, memoryview(b"c" * 8001), 0, 8001) == 0
    view = filled([b"a" * 7992, b"b" * 160])
    assert index_tuples.overwrite(view, 1, memoryview(b"c" * 8000), 0, 8000) == 1
    assert (upper(view), contents(view)) == (32, [b"c" * 8000, b"b" * 160])


def test_add_item_looks_for_free_line_pointers_only_when_the_hint_says_so() -> None:
    view = filled([b"a", b"b"])
    page.set_item(view, 1, 0, UNUSED, 0)
    assert add(view, b"c") == 3
    view[10] = 1
    assert add(view, b"d") == 1
    assert add(view, b"e") == 4
    assert view[10] == 0, "the hint was wrong and has been taken back"


def test_add_item_that_does_not_fit_changes_nothing() -> None:
    view = filled([b"a" * 4000, b"b" * 4000])
    before = bytes(view)
    assert add(view, b"c" * 153) == 0
    assert bytes(view) == before
    assert add(view, b"c" * 152) == 3, "24 + 3 * 4 + 8000 + 152 = 8188"


def test_a_heap_page_takes_291_tuples() -> None:
    view = new_page()
    for n in range(1, 292):
        assert page.add_item(view, memoryview(b"x" * 8), 0, 8, 0, False, True) == n
    assert page.add_item(view, memoryview(b"x" * 8), 0, 8, 0, False, True) == 0
    assert add(view, b"x" * 8) == 292


def test_repair_closes_gaps_and_drops_unused_line_pointers_at_the_end() -> None:
    view = filled([bytes([65 + n]) * (8 * n + 1) for n in range(6)])
    page.set_item(view, 2, 4, REDIRECT, 0)
    page.set_item(view, 3, 0, UNUSED, 0)
    page.set_item(view, 5, 0, UNUSED, 0)
    page.set_item(view, 6, 0, UNUSED, 0)
    page.repair_fragmentation(view, True)
    assert items(view) == [(8184, NORMAL, 1), (4, REDIRECT, 0), (0, 0, 0), (8152, NORMAL, 25)]
    assert contents(view)[3] == b"D" * 25
    assert (upper(view), view[10]) == (8152, 1)


def test_repair_may_keep_unused_line_pointers_at_the_end() -> None:
    view = filled([b"a" * 8, b"b" * 16])
    page.set_item(view, 2, 0, UNUSED, 0)
    page.repair_fragmentation(view, False)
    assert items(view) == [(8184, NORMAL, 8), (0, 0, 0)]
    assert view[10] == 1


def test_repair_puts_tuples_into_reverse_order_of_their_line_pointers() -> None:
    view = filled([b"a" * 8, b"b" * 16, b"c" * 24])
    page.set_item(view, 1, 0, UNUSED, 0)
    assert add(view, b"d" * 40, 1, overwrite=True) == 1
    page.repair_fragmentation(view, True)
    assert items(view) == [(8152, NORMAL, 40), (8136, NORMAL, 16), (8112, NORMAL, 24)]
    assert contents(view) == [b"d" * 40, b"b" * 16, b"c" * 24]
    assert view[10] == 0


def test_repair_of_a_page_without_tuples_resets_it() -> None:
    view = filled([b"a", b"b"])
    page.set_item(view, 1, 0, DEAD, 0)
    page.set_item(view, 2, 0, UNUSED, 0)
    page.repair_fragmentation(view, True)
    assert (items(view), upper(view), view[10]) == ([(0, DEAD, 0)], 8192, 0)


@pytest.mark.parametrize(
    ("states", "left", "hint"),
    [
        ([UNUSED, UNUSED, UNUSED], 1, 1),
        ([DEAD, UNUSED, UNUSED], 1, 0),
        ([UNUSED, DEAD, UNUSED], 2, 1),
        ([DEAD, DEAD, DEAD], 3, 0),
    ],
)
def test_truncate_line_pointers_leaves_at_least_one(
    states: list[int], left: int, hint: int
) -> None:
    view = filled([b"a", b"b", b"c"])
    for n, state in enumerate(states, 1):
        page.set_item(view, n, 0, state, 0)
    page.truncate_line_pointers(view)
    assert (page.max_offset(view), view[10]) == (left, hint)


def test_index_tuple_delete_keeps_the_order_of_the_others() -> None:
    view = filled([b"a" * 8], 16)
    add(view, b"b" * 16, 1)
    add(view, b"c" * 24, 1)
    index_tuples.delete(view, 2)
    assert contents(view) == [b"c" * 24, b"a" * 8]
    assert [offset for offset, _, _ in items(view)] == [8144, 8168]
    assert upper(view) == 8144


def test_index_tuple_delete_no_compact_keeps_the_numbers_of_the_others() -> None:
    view = filled([b"a" * 8, b"b" * 20, b"c" * 24], 16)
    index_tuples.delete_no_compact(view, 2)
    assert items(view) == [(8168, NORMAL, 8), (0, UNUSED, 0), (8144, NORMAL, 24)]
    assert contents(view) == [b"a" * 8, b"", b"c" * 24]
    index_tuples.delete_no_compact(view, 3)
    assert (items(view), upper(view)) == ([(8168, NORMAL, 8), (0, UNUSED, 0)], 8168)


def test_index_multi_delete_of_two_keeps_the_order_and_of_three_does_not() -> None:
    letters = [bytes([letter]) * 8 for letter in b"abcdef"]
    view = new_page()
    for letter in letters:
        add(view, letter, 1)
    index_tuples.multi_delete(view, numbers(2, 4), 2)
    assert contents(view) == [b"f" * 8, b"d" * 8, b"b" * 8, b"a" * 8]
    assert [offset for offset, _, _ in items(view)] == [8160, 8168, 8176, 8184]
    add(view, b"x" * 8, 1)
    index_tuples.multi_delete(view, numbers(1, 3, 5), 3)
    assert contents(view) == [b"f" * 8, b"b" * 8]
    assert [offset for offset, _, _ in items(view)] == [8184, 8176]


def test_index_multi_delete_of_everything() -> None:
    view = filled([b"a", b"b", b"c"], 16)
    index_tuples.multi_delete(view, numbers(1, 2, 3), 3)
    assert (items(view), upper(view)) == ([], 8176)


@pytest.mark.parametrize(
    ("length", "offsets"),
    [(16, [8168, 8152, 8136]), (10, [8168, 8152, 8136]), (3, [8168, 8160, 8144])]
    + [(40, [8168, 8128, 8112])],
)
def test_index_tuple_overwrite_moves_the_tuples_before_it(length: int, offsets: list[int]) -> None:
    view = filled([b"a" * 24, b"b" * 16, b"c" * 16])
    page.set_item(view, 2, 8152, DEAD, 16)
    assert index_tuples.overwrite(view, 2, memoryview(b"x" * length), 0, length) == 1
    assert [offset for offset, _, _ in items(view)] == offsets
    assert items(view)[1][1:] == (DEAD, length)
    assert contents(view) == [b"a" * 24, b"x" * length, b"c" * 16]


def test_index_tuple_operations_check_the_page_and_the_line_pointer() -> None:
    source = memoryview(b"xxxxxxxx")
    view = filled([b"a" * 8, b"b" * 8], 16)
    page.set_item(view, 2, 8191, NORMAL, 8)
    with pytest.raises(ValueError, match="outside the page's tuples"):
        index_tuples.overwrite(view, 2, source, 0, 8)
    view[16] |= 4
    with pytest.raises(ValueError, match="not aligned"):
        index_tuples.overwrite(view, 1, source, 0, 8)
    with pytest.raises(ValueError, match="not aligned"):
        index_tuples.delete(view, 1)


def test_truncate_line_pointers_keeps_the_other_hints() -> None:
    view = filled([b"a", b"b"])
    view[10] = 6
    page.set_item(view, 1, 0, UNUSED, 0)
    page.truncate_line_pointers(view)
    assert view[10] == 7


def test_index_tuple_overwrite_without_room() -> None:
    view = filled([b"a" * 4000, b"b" * 4000])
    before = bytes(view)
    assert index_tuples.overwrite(view, 1, memoryview(b"x" * 4168), 0, 4168) == 0
    assert bytes(view) == before
    assert index_tuples.overwrite(view, 1, memoryview(b"x" * 4160), 0, 4160) == 1


def test_line_pointers_that_are_not_there() -> None:
    view = filled([b"a"])
    calls: list[Callable[[memoryview, int], object]] = [
        page.item_offset,
        page.item_flags,
        page.item_length,
        page.item_position,
        index_tuples.delete,
        index_tuples.delete_no_compact,
        lambda target, n: page.set_item(target, n, 0, 0, 0),
    ]
    for call in calls:
        for n in (-1, 0, 2, 5000):
            with pytest.raises(IndexError):
                call(view, n)


@pytest.mark.parametrize(
    ("pos", "value"), [(12, 20), (12, 9000), (14, 8), (14, 8193), (16, 4), (16, 8200), (16, 8190)]
)
def test_a_page_whose_regions_are_out_of_order_is_refused(pos: int, value: int) -> None:
    view = filled([b"a", b"b", b"c"])
    view[pos : pos + 2] = value.to_bytes(2, "little")
    with pytest.raises((ValueError, IndexError)):
        page.repair_fragmentation(view, True)
    with pytest.raises((ValueError, IndexError)):
        index_tuples.multi_delete(view, numbers(1, 2, 3), 3)
    if value != 8190:
        with pytest.raises(ValueError, match="out of order"):
            add(view, b"x")


@pytest.mark.parametrize("item", [(8191, NORMAL, 8), (8190, NORMAL, 2), (16, NORMAL, 8)])
def test_a_line_pointer_to_outside_the_tuples_is_refused(item: tuple[int, int, int]) -> None:
    view = filled([b"a", b"b", b"c"])
    page.set_item(view, 2, *item)
    with pytest.raises(ValueError, match="outside the page's tuples"):
        page.repair_fragmentation(view, True)
    with pytest.raises(ValueError, match="outside the page's tuples"):
        index_tuples.delete(view, 2)


def test_tuples_that_overlap_are_refused_when_they_exceed_the_space() -> None:
    view = filled([b"a" * 4000, b"b" * 4000])
    page.set_item(view, 1, upper(view), NORMAL, 8000)
    with pytest.raises(ValueError, match="larger than their space"):
        page.repair_fragmentation(view, True)


def test_index_multi_delete_refuses_numbers_out_of_order() -> None:
    for wrong in (numbers(3, 2, 1), numbers(1, 2, 9), numbers(0, 1, 2)):
        with pytest.raises(ValueError, match="not there or out of order"):
            index_tuples.multi_delete(filled([b"a", b"b", b"c", b"d"]), wrong, 3)


@pytest.mark.parametrize("seed", range(8))
def test_compaction_agrees_with_a_model(seed: int) -> None:
    """Whatever the history, tuples end up in reverse order of their line pointers."""
    choice = random.Random(seed)
    view = new_page(16)
    model: list[bytes] = []
    for _ in range(60):
        content = choice.randbytes(choice.randint(1, 90))
        at = choice.randint(1, len(model) + 1)
        assert add(view, content, at) == at
        model.insert(at - 1, content)
    victims = sorted(choice.sample(range(1, 61), choice.randint(3, 59)))
    index_tuples.multi_delete(view, numbers(*victims), len(victims))
    model = [content for n, content in enumerate(model, 1) if n not in victims]
    assert contents(view) == model
    end = 8176
    for offset, _, length in items(view):
        end -= (length + 7) & -8
        assert offset == end
    assert upper(view) == end


@pytest.mark.parametrize(
    ("seed", "block", "expected"), [(1, 0, 43762), (2, 1, 54993), (3, 0xFFFFFFFF, 26092)]
)
def test_checksum_is_postgresqls(seed: int, block: int, expected: int) -> None:
    view = pattern(seed)
    assert page_checksum.checksum(view, block) == expected
    view[8:10] = b"\xab\xcd"
    assert page_checksum.checksum(view, block) == expected, "pd_checksum itself does not count"
    view[8191] ^= 1
    assert page_checksum.checksum(view, block) != expected


def test_checksum_of_all_ones() -> None:
    assert page_checksum.checksum(memoryview(b"\xff" * 8192), 0) == 3612


def test_checksum_needs_a_page() -> None:
    with pytest.raises(ValueError, match="not a page"):
        page_checksum.checksum(memoryview(bytes(8191)), 0)


def test_set_checksum_writes_it_into_the_page_but_not_into_a_new_one() -> None:
    view = pattern(1)
    page_checksum.set_checksum(view, 0)
    assert view[8:10] == (43762).to_bytes(2, "little")
    assert view[:8] == pattern(1)[:8]
    assert view[10:] == pattern(1)[10:]
    empty = memoryview(bytearray(8192))
    page_checksum.set_checksum(empty, 7)
    assert not any(empty)
