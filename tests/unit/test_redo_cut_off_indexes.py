"""Hash, GIN and SP-GiST records, just long enough and cut off (tests/fixtures/cut_off.py)."""

import struct

import pytest

from engine.redo import gin, hash_index, spgist
from tests.fixtures import gin_parts, hash_parts, spgist_parts
from tests.fixtures.cut_off import Record, check_accepted, check_data, check_longer, check_main_data
from tests.fixtures.gin_parts import entry_page, segment
from tests.fixtures.hash_parts import BLOCKS, bucket_page
from tests.fixtures.spgist_parts import leaf, spgist_page

ZEROS = memoryview(bytearray(8192))

ENTRY = hash_parts.entry(7)
HELD = bucket_page(hash_parts.entry(1), hash_parts.entry(2), hash_parts.entry(3))
META = hash_parts.meta_page()
BITMAP = memoryview(bytearray(hash_parts.bitmap_page()))
ALLOCATE = struct.pack("<IHHB", 2, 0x12, 0x22, 3)
SQUEEZE = struct.pack("<IIHBB", 5, 6, 1, 0, 1)


def hashed(
    info: int,
    page: memoryview,
    main: bytes,
    data: bytes = b"",
    block_id: int = 0,
    version: int = 18,
) -> Record:
    return Record(hash_index.redo, info, page, main, data, BLOCKS, block_id, version)


HASH = {
    "init meta": hashed(0x00, ZEROS, struct.pack("<dIH", 9.0, 450, 307)),
    "init bitmap": hashed(0x10, ZEROS, struct.pack("<H", 4096)),
    "init bitmap, meta": hashed(0x10, META, struct.pack("<H", 4096), b"", 1),
    "insert": hashed(0x20, HELD, struct.pack("<H", 4), ENTRY),
    "overflow page": hashed(0x30, ZEROS, struct.pack("<HB", 4096, 1), struct.pack("<I", 3)),
    "overflow page, bitmap": hashed(
        0x30, BITMAP, struct.pack("<HB", 4096, 1), struct.pack("<I", 3), 2
    ),
    "overflow page, meta": hashed(0x30, META, struct.pack("<HB", 4096, 1), struct.pack("<I", 3), 4),
    "allocate": hashed(0x40, HELD, ALLOCATE),
    "allocate, meta": hashed(0x40, META, ALLOCATE, struct.pack("<IIII", 3, 7, 2, 9), 2),
    "split complete": hashed(0x60, HELD, struct.pack("<HH", 2, 2)),
    "split complete, new": hashed(0x60, HELD, struct.pack("<HH", 2, 2), b"", 1),
    "move": hashed(
        0x70, HELD, struct.pack("<HB", 2, 0), struct.pack("<HH", 4, 5) + ENTRY + ENTRY, 1
    ),
    "move, from": hashed(0x70, HELD, struct.pack("<HB", 2, 0), struct.pack("<HH", 1, 3), 2),
    "squeeze": hashed(0x80, HELD, SQUEEZE, struct.pack("<H", 4) + ENTRY, 1),
    "squeeze, bitmap": hashed(0x80, BITMAP, SQUEEZE, struct.pack("<I", 3), 5),
    "squeeze, meta": hashed(0x80, META, SQUEEZE, struct.pack("<I", 3), 6),
    "delete": hashed(0x90, HELD, b"\1\0", struct.pack("<HH", 1, 2), 1),
    "update meta": hashed(0xB0, META, struct.pack("<d", 9.0)),
    "vacuum one page": hashed(0xC0, HELD, struct.pack("<IHBxHH", 9, 2, 0, 1, 2)),
    "vacuum one page, 15": hashed(0xC0, HELD, struct.pack("<IIHH", 9, 2, 1, 2), version=15),
}

SEGMENT = segment((1, 1))
LEAF = gin_parts.leaf(segment((1, 1), 5), segment((2, 1), 5))
ENTRIES = entry_page(gin_parts.entry(1), gin_parts.entry(2))
DOWNLINKS = gin_parts.inner_page(
    gin_parts.downlink(4, (1, 1)), gin_parts.downlink(5, (2, 1)), gin_parts.downlink(6, (3, 1))
)
IS_DATA, IS_LEAF = gin_parts.IS_DATA, gin_parts.IS_LEAF
SHORT_ENTRY = gin_parts.entry(9, length=8)[:8]


def gin_record(
    info: int, page: memoryview, main: bytes, data: bytes = b"", block_id: int = 0
) -> Record:
    return Record(gin.redo, info, page, main, data, {0: 3, 1: 4, 2: 5, 3: 6}, block_id)


GIN = {
    "posting tree": gin_record(0x10, ZEROS, struct.pack("<I", 8) + SEGMENT),
    "insert": gin_record(
        0x20, ENTRIES, gin_parts.insert_main(IS_LEAF), gin_parts.entry_data(2, SHORT_ENTRY)
    ),
    "insert, inner": gin_record(
        0x20,
        entry_page(gin_parts.entry(1), gin_parts.entry(2), flags=0),
        gin_parts.insert_main(0),
        gin_parts.entry_data(1, gin_parts.entry(4)),
    ),
    "insert, below": gin_record(0x20, LEAF, gin_parts.insert_main(0), b"", 1),
    "insert, downlink": gin_record(
        0x20,
        DOWNLINKS,
        gin_parts.insert_main(IS_DATA),
        struct.pack("<H", 2) + gin_parts.downlink(7, (1, 9)),
    ),
    "insert, segments": gin_record(
        0x20,
        LEAF,
        gin_parts.insert_main(IS_DATA | IS_LEAF),
        gin_parts.actions(
            gin_parts.action(0, gin_parts.SEGMENT_ADD, gin_parts.items((1, 9), (1, 10))),
            gin_parts.action(1, gin_parts.SEGMENT_INSERT, segment((1, 20), 1, 2, 3)),
            gin_parts.action(1, gin_parts.SEGMENT_REPLACE, SEGMENT),
        ),
    ),
    "split, below": gin_record(0x30, LEAF, gin_parts.split_main(0)[:26], b"", 3),
    "vacuum data leaf": gin_record(
        0x90, LEAF, b"", gin_parts.actions(gin_parts.action(1, gin_parts.SEGMENT_DELETE))
    ),
    "delete page": gin_record(0x50, LEAF, gin_parts.DELETE_MAIN),
    "delete page, parent": gin_record(0x50, DOWNLINKS, gin_parts.DELETE_MAIN, b"", 1),
    "delete page, left": gin_record(0x50, LEAF, gin_parts.DELETE_MAIN, b"", 2),
    "meta page": gin_record(0x60, ZEROS, gin_parts.meta_main(1)[:84]),
    "meta page, tail": gin_record(
        0x60,
        entry_page(flags=gin_parts.LIST),
        gin_parts.meta_main(2)[:84],
        gin_parts.entry(1) + SHORT_ENTRY,
        1,
    ),
    "list page": gin_record(
        0x70, ZEROS, struct.pack("<II", 5, 2), gin_parts.entry(1) + SHORT_ENTRY
    ),
    "delete list": gin_record(0x80, ZEROS, gin_parts.META_DATA + struct.pack("<I", 1)),
    "delete list, page": gin_record(
        0x80, ZEROS, gin_parts.META_DATA + struct.pack("<I", 1), b"", 1
    ),
}

SHORT_LEAF = leaf(5, length=16)
NO_NODES = struct.pack("<IHH", 0, 8, 0)
INNER = spgist_parts.inner((4, 1), (5, 1))
TREE = spgist_page(INNER, INNER, flags=0)
LEAVES = spgist_page(leaf(1, 2), leaf(2, 3), leaf(3))
REDIRECTED = spgist_page(
    leaf(1), spgist_parts.dead(1, (9, 9)), spgist_parts.dead(3), redirections=1, placeholders=1
)


def tree_record(page: memoryview, info: int, main: bytes, block_id: int = 0) -> Record:
    return Record(spgist.redo, info, page, main, b"", {0: 3, 1: 4, 2: 5, 3: 6}, block_id)


SPGIST = {
    "add leaf": tree_record(LEAVES, 0x10, spgist_parts.add_leaf(SHORT_LEAF, 4, 1)),
    "add leaf, parent": tree_record(TREE, 0x10, spgist_parts.add_leaf(b"", 4, 4, (2, 1)), 1),
    "move leafs": tree_record(
        LEAVES, 0x20, spgist_parts.move_leafs([1, 2], [4, 5, 6], [SHORT_LEAF] * 0)
    ),
    "move leafs, to": tree_record(
        LEAVES, 0x20, spgist_parts.move_leafs([1, 2], [4, 5, 6], [SHORT_LEAF] * 3), 1
    ),
    "move leafs, parent": tree_record(
        TREE, 0x20, spgist_parts.move_leafs([1, 2], [4, 5, 6], []), 2
    ),
    "add node": tree_record(TREE, 0x30, spgist_parts.add_node(NO_NODES, 1)),
    "split tuple": tree_record(
        TREE, 0x40, spgist_parts.split_tuple(NO_NODES, NO_NODES, 1, 3, new=False, same=True)
    ),
    "pick split": tree_record(
        LEAVES,
        0x50,
        spgist_parts.pick_split([1, 2], [(4, 0, SHORT_LEAF), (5, 0, SHORT_LEAF)], NO_NODES, 3),
    ),
    "pick split, inner": tree_record(
        TREE, 0x50, spgist_parts.pick_split([1], [(4, 0, b"")], NO_NODES, 3), 2
    ),
    "pick split, parent": tree_record(
        TREE, 0x50, spgist_parts.pick_split([1], [(4, 0, b"")], NO_NODES, 3), 3
    ),
    "vacuum leaf": tree_record(LEAVES, 0x60, spgist_parts.vacuum_leaf([1], [2], [], [(3, 3)])),
    "vacuum leaf, moves": tree_record(LEAVES, 0x60, spgist_parts.vacuum_leaf([], [], [(3, 1)], [])),
    "vacuum root": tree_record(LEAVES, 0x70, spgist_parts.vacuum_root(1, 2, 3)),
    "vacuum redirect": tree_record(REDIRECTED, 0x80, spgist_parts.vacuum_redirect(2, first=0)),
    "vacuum redirect, 15": Record(
        spgist.redo,
        0x80,
        REDIRECTED,
        spgist_parts.vacuum_redirect(2, first=3, version=15),
        version=15,
    ),
}
RECORDS = {
    f"{manager}: {name}": record
    for manager, records in (("hash", HASH), ("gin", GIN), ("spgist", SPGIST))
    for name, record in records.items()
}
SHORTER_IS_ANOTHER = {
    # What is left is a record, too: of fewer tuples, or of a shorter one.
    "hash: insert": set(range(8, 16)),
    "hash: move, from": {0, 2},
    "hash: delete": {0, 2},
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
        "hash: overflow page",
        "hash: overflow page, bitmap",
        "hash: overflow page, meta",
        "hash: allocate, meta",
        "hash: move",
        "hash: squeeze",
        "hash: squeeze, bitmap",
        "hash: squeeze, meta",
        "gin: insert",
        "gin: insert, inner",
        "gin: insert, downlink",
        "gin: insert, segments",
        "gin: vacuum data leaf",
        "gin: meta page, tail",
        "gin: list page",
    ],
)
def test_a_record_with_more_than_its_data_is_refused(name: str) -> None:
    check_longer(RECORDS[name])
