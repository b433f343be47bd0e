"""Heap, btree, GiST and smaller records, just long enough and cut off."""

import struct

import pytest

from engine.redo import brin, btree, generic, gist, heap, heap2, sequence
from formats import page
from tests.fixtures import btree_parts, gist_parts
from tests.fixtures.btree_parts import btree_page, plain, posting
from tests.fixtures.cut_off import Record, check_accepted, check_data, check_longer, check_main_data
from tests.fixtures.gist_parts import gist_page, index_tuple
from tests.fixtures.redo_parts import Row, heap_page


def rows(count: int = 3) -> memoryview:
    return heap_page(*(Row(content=b"\0row") for _ in range(count)))


def with_items(view: memoryview, states: dict[int, int]) -> memoryview:
    for number, state in states.items():
        page.set_item(view, number, 0, state, 0)
    return view


def brin_page(kind: int) -> memoryview:
    view = memoryview(bytearray(8192))
    page.init(view, 8)
    view[8190:] = struct.pack("<H", kind)
    if kind == 0xF093:
        page.add_item(view, memoryview(b"summary1"), 0, 8, 0, False, False)
    return view


HEADER = struct.pack("<HHB", 2, 0x802, 24)
TUPLE = struct.pack("<H", 1) + HEADER + b"\0"
ZEROS = memoryview(bytearray(8192))
ABOUT_ROW_2 = struct.pack("<IHBB", 9, 2, 0, 1)
UPDATED = struct.pack("<IHBBIH", 9, 2, 0, 0, 0, 4)
PREFIX_AND_SUFFIX = struct.pack("<IHBBIH", 9, 2, 0, 96, 0, 4)
PLAN_15 = struct.pack("<IHHHBx", 0x900, 2, 3, 4, 1)
PLAN = struct.pack("<IHHBxH", 9, 3, 4, 1, 1)
REVMAP, REGULAR, BRIN_META = 0xF092, 0xF093, 0xF091
BRIN_BLOCKS = {0: 4, 1: 2, 2: 6}

HEAP = {
    "insert": Record(heap.redo, 0x00, rows(), struct.pack("<HB", 4, 0), HEADER),
    "insert, map": Record(heap.redo, 0x00, ZEROS, struct.pack("<HB", 4, 1), b"", {0: 5, 1: 0}, 1),
    "delete": Record(heap.redo, 0x10, rows(), ABOUT_ROW_2),
    "delete, map": Record(heap.redo, 0x10, ZEROS, ABOUT_ROW_2, b"", {0: 5, 1: 0}, 1),
    "update": Record(heap.redo, 0x20, rows(), UPDATED, HEADER),
    "update, prefix and suffix": Record(
        heap.redo, 0x20, rows(), PREFIX_AND_SUFFIX, b"\1\0\1\0" + HEADER + b"\0"
    ),
    "confirm": Record(heap.redo, 0x50, rows(), struct.pack("<H", 2)),
    "lock": Record(heap.redo, 0x60, rows(), ABOUT_ROW_2),
    "lock, map": Record(heap.redo, 0x60, ZEROS, ABOUT_ROW_2, b"", {0: 5, 1: 0}, 1),
    "inplace": Record(heap.redo, 0x70, rows(), struct.pack("<H", 2), b"new"),
    "multi insert": Record(
        heap2.redo, 0x50, rows(), struct.pack("<BxHHH", 0, 2, 4, 5), TUPLE + TUPLE
    ),
    "multi insert, page made anew": Record(
        heap2.redo, 0xD0, ZEROS, struct.pack("<BxH", 0, 2), TUPLE + TUPLE
    ),
    "multi insert, tuples without content": Record(
        heap2.redo, 0xD0, ZEROS, struct.pack("<BxH", 0, 1), struct.pack("<H", 0) + HEADER
    ),
    "multi insert, nothing": Record(heap2.redo, 0x50, rows(), struct.pack("<BxH", 0, 0)),
    "multi insert, long tuple": Record(
        heap2.redo,
        0x50,
        rows(),
        struct.pack("<BxHH", 0, 1, 4),
        struct.pack("<H", 256) + HEADER + bytes(256),
    ),
    "inplace, nothing": Record(
        heap.redo, 0x70, heap_page(Row(content=b"\0")), struct.pack("<H", 1)
    ),
    "prune, 15, nothing": Record(heap2.redo, 0x10, rows(), bytes(8), version=15),
    "vacuum, 15, nothing": Record(heap2.redo, 0x20, rows(), bytes(2), version=15),
    "freeze, 15, nothing": Record(heap2.redo, 0x30, rows(), bytes(6), version=15),
    "freeze, 16, nothing": Record(heap2.redo, 0x30, rows(), bytes(7), version=16),
    "lock updated": Record(heap2.redo, 0x60, rows(), ABOUT_ROW_2),
    "visible, map": Record(heap2.redo, 0x40, ZEROS, struct.pack("<IB", 9, 1), b"", {0: 0, 1: 5}),
    "visible": Record(heap2.redo, 0x40, rows(), struct.pack("<IB", 9, 1), b"", {0: 0, 1: 5}, 1),
    "prune, 17": Record(
        heap2.redo,
        0x10,
        with_items(rows(6), {4: 0, 5: 3, 6: 3}),
        struct.pack("<BB", 0, 16 | 32 | 64 | 128 | 4),
        struct.pack("<Hxx", 1) + PLAN + struct.pack("<9H", 1, 1, 2, 1, 3, 2, 5, 6, 2),
    ),
    "prune, nothing but a reason": Record(heap2.redo, 0x10, rows(), struct.pack("<BB", 0, 0)),
    "prune, 15": Record(
        heap2.redo,
        0x10,
        rows(),
        struct.pack("<IHH", 9, 1, 1),
        struct.pack("<HHH", 1, 2, 3),
        version=15,
    ),
    "vacuum, 15": Record(
        heap2.redo, 0x20, rows(), struct.pack("<H", 2), struct.pack("<HH", 1, 2), version=15
    ),
    "freeze, 15": Record(
        heap2.redo, 0x30, rows(), struct.pack("<IH", 9, 2), PLAN_15 * 2, version=15
    ),
    "freeze, 16": Record(
        heap2.redo,
        0x30,
        rows(),
        struct.pack("<IHB", 9, 2, 0),
        PLAN * 2 + struct.pack("<HH", 2, 3),
        version=16,
    ),
}
OTHERS = {
    "generic": Record(generic.redo, 0, rows(), b"", struct.pack("<HHHH", 8192, 0, 8190, 2) + b"ab"),
    "sequence": Record(sequence.redo, 0, ZEROS, bytes(12)),
    "brin create": Record(brin.redo, 0x80, ZEROS, struct.pack("<IH", 1, 1)),
    "brin insert": Record(
        brin.redo, 0x10, brin_page(REGULAR), struct.pack("<IIH", 9, 1, 2), b"", BRIN_BLOCKS
    ),
    "brin insert, map": Record(
        brin.redo, 0x10, brin_page(REVMAP), struct.pack("<IIH", 9, 1, 2), b"", BRIN_BLOCKS, 1
    ),
    "brin update": Record(
        brin.redo,
        0x20,
        brin_page(REGULAR),
        struct.pack("<HHIIH", 1, 0, 9, 1, 1),
        b"",
        BRIN_BLOCKS,
        2,
    ),
    "brin samepage": Record(brin.redo, 0x30, brin_page(REGULAR), struct.pack("<H", 1), b"12345678"),
    "brin extend": Record(brin.redo, 0x40, brin_page(BRIN_META), struct.pack("<I", 7)),
    "brin desummarize": Record(
        brin.redo, 0x50, brin_page(REGULAR), struct.pack("<IIH", 1, 9, 1), b"", BRIN_BLOCKS, 1
    ),
}
LEAVES = btree_page(plain(9), plain(1), plain(2), plain(3), following=7)
LISTS = btree_page(plain(9), posting(1, (1, 1), (1, 3), (1, 5)), plain(2), following=7)
INNER = btree_page(plain(1, (3, 0)), plain(2, (4, 0)), plain(3, (5, 0)), flags=0, level=1)
BTREE = {
    "insert": Record(btree.redo, 0x00, LEAVES, struct.pack("<H", 3), plain(7)),
    "insert posting": Record(
        btree.redo, 0x50, LISTS, struct.pack("<H", 3), struct.pack("<H", 1) + plain(1, (1, 2))
    ),
    "split, left": Record(
        btree.redo, 0x30, LEAVES, btree_parts.split_main(3, 2), plain(8) + plain(4), {0: 1, 1: 2}
    ),
    "split, right": Record(
        btree.redo, 0x30, ZEROS, btree_parts.split_main(3, 2), plain(8) + plain(4), {0: 1, 1: 2}, 1
    ),
    "dedup": Record(btree.redo, 0x60, LEAVES, struct.pack("<H", 1), struct.pack("<HH", 2, 2)),
    "delete": Record(btree.redo, 0x70, LISTS, *btree_parts.deletion(0x70, [3], {2: [1]})),
    "vacuum": Record(btree.redo, 0xC0, LISTS, *btree_parts.deletion(0xC0, [3], {2: [1]})),
    "half dead": Record(btree.redo, 0xB0, ZEROS, btree_parts.HALF_DEAD_MAIN),
    "half dead, parent": Record(
        btree.redo, 0xB0, INNER, btree_parts.HALF_DEAD_MAIN, b"", {0: 5, 1: 6}, 1
    ),
    "unlink": Record(btree.redo, 0x80, ZEROS, btree_parts.UNLINK_MAIN),
    "unlink, left": Record(btree.redo, 0x80, LEAVES, btree_parts.UNLINK_MAIN, block_id=1),
    "unlink, leaf": Record(btree.redo, 0x80, ZEROS, btree_parts.UNLINK_MAIN, block_id=3),
    "unlink, meta": Record(btree.redo, 0x90, ZEROS, b"", btree_parts.meta_data(), block_id=4),
    "new root": Record(btree.redo, 0xA0, ZEROS, struct.pack("<II", 3, 1), plain(1) + plain(2)),
    "new root, leaf": Record(btree.redo, 0xA0, ZEROS, struct.pack("<II", 3, 0)),
    "meta cleanup": Record(btree.redo, 0xE0, ZEROS, b"", btree_parts.meta_data()),
}
ENTRIES = gist_page(index_tuple(1), index_tuple(2), index_tuple(3))
SHORTEST = index_tuple(4, 8)[:8]
GIST = {
    "update": Record(gist.redo, 0x00, ENTRIES, *gist_parts.update([1], [index_tuple(4)])),
    "update, shortest tuples": Record(
        gist.redo, 0x00, ENTRIES, *gist_parts.update([1, 2], [SHORTEST, SHORTEST])
    ),
    "delete": Record(gist.redo, 0x10, ENTRIES, gist_parts.deletion([1, 2, 3])),
    "delete, 15": Record(gist.redo, 0x10, ENTRIES, gist_parts.deletion([1, 3], 15), version=15),
    "split": Record(
        gist.redo,
        0x30,
        ZEROS,
        gist_parts.split_main(2, leaf=True, follow=True),
        gist_parts.split_data(index_tuple(1), SHORTEST),
        {0: 3, 1: 4, 2: 5},
        1,
    ),
    "split, no tuples": Record(
        gist.redo,
        0x30,
        ZEROS,
        gist_parts.split_main(2, leaf=True, follow=True),
        gist_parts.split_data(),
        {0: 3, 1: 4, 2: 5},
        2,
    ),
    "page delete": Record(gist.redo, 0x60, gist_page(), struct.pack("<QH", 9, 2)),
    "page delete, parent": Record(
        gist.redo, 0x60, ENTRIES, struct.pack("<QH", 9, 2), b"", {0: 3, 1: 4}, 1
    ),
}
RECORDS = {
    f"{manager}: {name}": record
    for manager, records in (("heap", HEAP), ("", OTHERS), ("btree", BTREE), ("gist", GIST))
    for name, record in records.items()
}
SHORTER_IS_ANOTHER = {
    # What is left is a record, too: with fewer tuples, or a smaller one.
    "btree: split, right": {0, 16},
    "btree: new root": {0, 16},
    ": generic": {0, 4},
    ": brin samepage": set(range(8)),
    "btree: insert": set(range(8, 16)),
    "btree: insert posting": set(range(10, 18)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_shortest_record_is_accepted(name: str) -> None:
    check_accepted(RECORDS[name])


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_cut_off_in_its_main_data_is_refused(name: str) -> None:
    check_main_data(RECORDS[name])


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_cut_off_in_its_data_is_refused(name: str) -> None:
    check_data(RECORDS[name], SHORTER_IS_ANOTHER.get(name, ()))


@pytest.mark.parametrize(
    "name",
    [
        "heap: inplace",
        "heap: multi insert",
        "heap: multi insert, page made anew",
        "heap: prune, 17",
        "heap: prune, nothing but a reason",
        "heap: freeze, 16",
        "btree: split, left",
        "btree: split, right",
        "btree: dedup",
        "btree: delete",
        "btree: vacuum",
        "btree: new root",
        "btree: meta cleanup",
        "gist: update",
        "gist: update, shortest tuples",
        "gist: split",
        "gist: split, no tuples",
    ],
)
def test_a_record_with_more_than_its_data_is_refused(name: str) -> None:
    check_longer(RECORDS[name])
