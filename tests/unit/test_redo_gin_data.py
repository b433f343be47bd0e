"""Redo of GIN records on leaves of a posting tree: segments, and the format before 9.4."""

import random
import struct

import pytest

from engine.redo import gin
from tests.fixtures.gin_parts import (
    CREATE_PTREE,
    DATA,
    DATA_LEAF,
    INSERT,
    IS_DATA,
    IS_LEAF,
    LEAF,
    NEXT_BLOCK,
    SEGMENT_ADD,
    SEGMENT_DELETE,
    SEGMENT_INSERT,
    SEGMENT_REPLACE,
    VACUUM_DATA,
    Tid,
    action,
    actions,
    data_page,
    encode_tid,
    insert_main,
    items,
    leaf,
    segment,
    segments,
)
from tests.fixtures.redo_parts import make_part

A = segment((1, 1), 1, 2, 3)
B = segment((0x10002, 5), *NEXT_BLOCK)
C = segment((0x10020, 7))
NEW = segment((0x10004, 1), 4, 4, 4, 4, 4)


def recompress(view: memoryview, *each: bytes, info: int = INSERT) -> int:
    main = insert_main(IS_DATA | IS_LEAF) if info == INSERT else b""
    return gin.redo(make_part(view, info, main, actions(*each)))


@pytest.mark.parametrize("held", [b"", A + B, segment((1, 1), *[1] * 8144)], ids=len)
def test_new_posting_tree(held: bytes) -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    assert gin.redo(make_part(view, CREATE_PTREE, struct.pack("<I", len(held)) + held)) == 1
    expected = data_page(held)
    expected[24:32] = bytes(8)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize(
    "main", [struct.pack("<I", 8154) + bytes(8154), struct.pack("<I", 5) + b"1234"]
)
def test_posting_tree_of_a_wrong_length_is_refused(main: bytes) -> None:
    with pytest.raises(ValueError, match="gin posting"):
        gin.redo(make_part(memoryview(bytearray(8192)), CREATE_PTREE, main))


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ([action(0, SEGMENT_DELETE)], B + C),
        ([action(1, SEGMENT_DELETE)], A + C),
        ([action(2, SEGMENT_DELETE)], A + B),
        ([action(n, SEGMENT_DELETE) for n in range(3)], b""),
        ([action(0, SEGMENT_INSERT, NEW)], NEW + A + B + C),
        ([action(2, SEGMENT_INSERT, NEW)], A + B + NEW + C),
        ([action(3, SEGMENT_INSERT, NEW)], A + B + C + NEW),
        ([action(3, SEGMENT_INSERT, NEW), action(3, SEGMENT_INSERT, A)], A + B + C + NEW + A),
        ([action(1, SEGMENT_REPLACE, NEW)], A + NEW + C),
        ([action(0, SEGMENT_REPLACE, NEW), action(2, SEGMENT_REPLACE, A)], NEW + B + A),
        (
            [
                action(0, SEGMENT_INSERT, C),
                action(0, SEGMENT_REPLACE, NEW),
                action(1, SEGMENT_DELETE),
                action(2, SEGMENT_INSERT, B),
                action(2, SEGMENT_INSERT, A),
            ],
            C + NEW + B + A + C,
        ),
    ],
)
@pytest.mark.parametrize("info", [INSERT, VACUUM_DATA])
def test_segments_come_and_go(each: list[bytes], expected: bytes, info: int) -> None:
    view = leaf(A, B, C)
    assert recompress(view, *each, info=info) == 1
    assert segments(view) == expected
    assert bytes(view[14:32]) == bytes(leaf()[14:32])
    assert bytes(view[8184:]) == bytes(leaf()[8184:])


def test_what_lies_behind_the_segments_stays() -> None:
    view = leaf(A, B, C, rest=0xEE)
    recompress(view, action(0, SEGMENT_DELETE))
    held = A + B + C
    expected = B + C
    assert bytes(view[32:8184]) == (expected + held[len(expected) :]).ljust(8152, b"\xee")


@pytest.mark.parametrize(
    ("old", "added", "expected"),
    [
        (segment((1, 1)), [(1, 4)], segment((1, 1), 3)),
        (segment((1, 4)), [(1, 1)], segment((1, 1), 3)),
        (segment((1, 1), 1), [(1, 4)], segment((1, 1), 1, 2)),
        (segment((1, 1), 5), [(1, 4)], segment((1, 1), 3, 2)),
        (
            segment((1, 3), 2, 2),
            [(1, 1), (1, 4), (1, 6), (1, 9)],
            segment((1, 1), 2, 1, 1, 1, 1, 2),
        ),
        (segment((1, 1), 1, 2), [], segment((1, 1), 1, 2)),
        (segment((1, 1)), [(2, 1)], segment((1, 1), *NEXT_BLOCK)),
        (segment((1, 1)), [(1, 0x80)], segment((1, 1), 0x7F)),
        (segment((1, 1)), [(1, 0x81)], segment((1, 1), 0x80, 1)),
        (segment((0, 1)), [(0x10000, 0x7FF)], segment((0, 1), 0xFE, 0x8F, 0x80, 0x40)),
        (
            segment((0, 0)),
            [(0xFFFFFFFF, 0x7FF)],
            segment((0, 0), 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1),
        ),
        (
            segment((0, 0), 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1),
            [(0, 1)],
            segment((0, 0), 1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1),
        ),
        (
            segment((0xFFFF0000, 1), 0x80, 0xF0, 0xFF, 0x3F),
            [(0xFFFF0000, 2)],
            segment((0xFFFF0000, 1), 1, 0xFF, 0xEF, 0xFF, 0x3F),
        ),
    ],
)
def test_items_are_added_to_a_segment(old: bytes, added: list[Tid], expected: bytes) -> None:
    view = leaf(A, old, C)
    assert recompress(view, action(1, SEGMENT_ADD, items(*added))) == 1
    assert segments(view) == A + expected + C
    view = leaf(A, old)
    recompress(view, action(1, SEGMENT_ADD, items(*added)))
    assert segments(view) == A + expected


def test_padding_is_zero() -> None:
    view = leaf(segment((1, 1), 1, 1), rest=0xEE)
    recompress(view, action(0, SEGMENT_ADD, items((1, 4))))
    assert segments(view) == segment((1, 1), 1, 1, 1)
    assert bytes(view[43:45]) == b"\0\xee"


def test_the_last_segment_may_be_a_single_item_at_the_end() -> None:
    big = segment((1, 1), *[1] * 8136)
    view = leaf(big, C)
    recompress(view, action(1, SEGMENT_ADD, items()))
    assert segments(view) == big + C


def test_leaf_is_filled_to_the_brim_and_no_further() -> None:
    big = segment((1, 1), *[1] * 8136)
    view = leaf(C)
    recompress(view, action(1, SEGMENT_INSERT, big))
    assert segments(view) == C + big
    for each in [
        action(0, SEGMENT_INSERT, segment((1, 1))),
        action(0, SEGMENT_REPLACE, segment((1, 1), 1)),
        action(1, SEGMENT_ADD, items((4, 1994))),
        action(1, SEGMENT_ADD, items((9, 1))),
        action(0, SEGMENT_ADD, items((0x10020, 9))),
    ]:
        with pytest.raises(ValueError, match="do not fit"):
            recompress(memoryview(bytearray(view)), each)
    recompress(view, action(0, SEGMENT_DELETE), action(1, SEGMENT_ADD, items((9, 1))))
    assert len(segments(view)) == 8146


@pytest.mark.parametrize(
    ("added", "old"),
    [
        ([(1, 3)], segment((1, 1), 2)),
        ([(1, 1)], segment((1, 1), 2)),
        ([(1, 6), (1, 5)], segment((1, 1), 2)),
        ([(1, 6), (1, 6)], segment((1, 1), 2)),
        ([(1, 6)], segment((1, 1), 0)),
        ([(1, 0x800)], segment((1, 1), 2)),
        ([(9, 1)], segment((1, 0x801), 2)),
        ([(9, 1)], segment((0xFFFFFFFF, 0x7FF), 1)),
    ],
)
def test_items_out_of_order_or_too_large_are_refused(added: list[Tid], old: bytes) -> None:
    with pytest.raises(ValueError, match="gin item"):
        recompress(leaf(old), action(0, SEGMENT_ADD, items(*added)))


@pytest.mark.parametrize(
    "distances",
    [[0x80], [1, 0xFF], [0x81] * 7, [0xFF] * 7 + [1]],
    ids=lambda each: bytes(each).hex(),
)
def test_broken_distances_are_refused(distances: list[int]) -> None:
    with pytest.raises(ValueError, match="distance"):
        recompress(leaf(segment((1, 1), *distances)), action(0, SEGMENT_ADD, items((9, 1))))


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("without actions", b""),
        ("without actions", b"\0\0"),
        ("without actions", b"\1\0\0"),
        ("not known", actions(action(0, 0))),
        ("not known", actions(action(0, 5))),
        ("not there", actions(action(3, SEGMENT_DELETE))),
        ("not there", actions(action(3, SEGMENT_REPLACE, NEW))),
        ("not there", actions(action(3, SEGMENT_ADD, items((9, 1))))),
        ("not there", actions(action(3, SEGMENT_ADD, items()))),
        ("not there", actions(action(4, SEGMENT_INSERT, NEW))),
        ("not there", actions(action(255, SEGMENT_INSERT, NEW))),
        ("segment is cut off", actions(action(0, SEGMENT_INSERT, NEW[:-1]))),
        ("or cut off", actions(action(0, SEGMENT_INSERT, NEW[:7]))),
        ("more than its actions", actions(action(0, SEGMENT_INSERT, NEW + b"\0\0"))),
        ("items to add are cut off", actions(action(0, SEGMENT_ADD, items((9, 1))[:-1]))),
        ("items to add are cut off", actions(action(0, SEGMENT_ADD, b"\1"))),
        ("out of order", actions(action(1, SEGMENT_DELETE), action(0, SEGMENT_DELETE))),
        ("out of order", actions(action(1, SEGMENT_DELETE), action(1, SEGMENT_DELETE))),
        ("cut off", struct.pack("<H", 2) + action(0, SEGMENT_DELETE)),
        ("cut off", struct.pack("<H", 2) + action(0, SEGMENT_DELETE) + b"\1"),
        ("more than its actions", struct.pack("<H", 1) + action(0, SEGMENT_DELETE) * 2),
    ],
)
def test_actions_that_do_not_fit_are_refused(reason: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=reason):
        gin.redo(make_part(leaf(A, B, C), VACUUM_DATA, b"", data))


@pytest.mark.parametrize("lower", [0, 24, 31, 33, 50, 8185, 0xFFFF])
def test_page_whose_segments_do_not_end_at_pd_lower_is_refused(lower: int) -> None:
    view = leaf(A, B, C)
    view[12:14] = struct.pack("<H", lower)
    with pytest.raises(ValueError, match="segments|cut off"):
        recompress(view, action(0, SEGMENT_INSERT, NEW))


def old_leaf(tids: list[Tid], rest: int = 0xEE) -> memoryview:
    """A page as servers before 9.4 wrote it: they left pd_lower at the header's end."""
    content = b"".join(encode_tid(tid) for tid in tids)
    view = data_page(content, flags=DATA | LEAF, right=9, count=len(tids), rest=rest)
    view[12:14] = struct.pack("<H", 24)
    return view


def test_format_before_9_4_is_converted() -> None:
    tids = [(1, 1), (1, 2), (2, 2), (2, 0x80), (0x10000, 5)]
    view = old_leaf(tids)
    assert recompress(view, action(1, SEGMENT_INSERT, C)) == 1
    first = segment((1, 1), 1, *NEXT_BLOCK, 0x7E, 0x85, 0xDF, 0xFF, 0x3F)
    expected = old_leaf(tids)
    expected[12:14] = struct.pack("<H", 32 + len(first + C))
    expected[32 : 32 + len(first + C)] = first + C
    expected[8188:] = struct.pack("<HH", 0, DATA_LEAF)
    assert bytes(view) == bytes(expected)


def test_converted_page_is_one_segment() -> None:
    view = old_leaf([(1, 1), (1, 9)])
    recompress(view, action(0, SEGMENT_ADD, items((1, 4))))
    assert segments(view) == segment((1, 1), 3, 5)
    view = old_leaf([(1, 1), (1, 9)])
    recompress(view, action(0, SEGMENT_REPLACE, NEW), info=VACUUM_DATA)
    assert segments(view) == NEW


def test_empty_page_of_the_format_before_9_4() -> None:
    view = old_leaf([])
    recompress(view, action(0, SEGMENT_INSERT, NEW))
    assert segments(view) == NEW
    assert bytes(view[8188:]) == struct.pack("<HH", 0, DATA_LEAF)


@pytest.mark.parametrize("count", [1358, 1359, 0xFFFF])
def test_full_page_of_the_format_before_9_4(count: int) -> None:
    view = old_leaf([(n, 1) for n in range(1358)])
    view[8188:8190] = struct.pack("<H", count)
    if count == 1358:
        recompress(view, action(1, SEGMENT_INSERT, C))
        assert segments(view) == segment((0, 1), *NEXT_BLOCK * 1357) + C
    else:
        with pytest.raises(ValueError, match="more items than it can hold"):
            recompress(view, action(1, SEGMENT_INSERT, C))


@pytest.mark.parametrize("seed", range(10))
def test_items_are_merged_as_a_sorted_set(seed: int) -> None:
    """Against a plain encoder: sort, subtract, seven bits a byte."""
    choice = random.Random(seed)

    def encode(values: list[int]) -> bytes:
        distances = []
        for before, after in zip(values, values[1:], strict=False):
            rest = after - before
            while rest > 0x7F:
                distances.append(rest & 0x7F | 0x80)
                rest >>= 7
            distances.append(rest)
        return segment((values[0] >> 11, values[0] & 0x7FF), *distances)

    for bits in (8, 14, 20, 43):
        values = sorted(choice.sample(range(1 << bits), 100))
        new = set(choice.sample(values, choice.randrange(1, 99)))
        view = leaf(encode([value for value in values if value not in new]))
        added = [(value >> 11, value & 0x7FF) for value in sorted(new)]
        recompress(view, action(0, SEGMENT_ADD, items(*added)))
        assert segments(view) == encode(values)
