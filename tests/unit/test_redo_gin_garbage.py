"""GIN records and pages with random damage: an error or a page, never a crash, a hang or worse."""

import random
import struct

import pytest

from engine.redo import gin
from tests.fixtures.gin_parts import (
    CREATE_PTREE,
    DATA,
    DELETE_LIST,
    DELETE_MAIN,
    DELETE_PAGE,
    INSERT,
    INSERT_LIST,
    IS_DATA,
    IS_LEAF,
    LEAF,
    LIST,
    META_DATA,
    SEGMENT_ADD,
    SEGMENT_DELETE,
    SEGMENT_INSERT,
    SEGMENT_REPLACE,
    SPLIT,
    UPDATE_META,
    VACUUM_DATA,
    action,
    actions,
    data_page,
    downlink,
    encode_tid,
    entry,
    entry_data,
    entry_page,
    inner_page,
    insert_main,
    items,
    leaf,
    meta_main,
    segment,
    split_main,
)
from tests.fixtures.redo_parts import make_part

A, B, C = segment((1, 1), 1, 2, 3, 0x80, 0x10), segment((0x10002, 5), 9), segment((0x10020, 7))
CHANGES = actions(
    action(0, SEGMENT_ADD, items((1, 3), (7, 7))),
    action(1, SEGMENT_REPLACE, A),
    action(2, SEGMENT_DELETE),
    action(3, SEGMENT_INSERT, segment((1, 4), *[1] * 300)),
    action(3, SEGMENT_ADD, items((0x10030, 4))),
)
OLD_ITEMS = b"".join(encode_tid((n, n % 9 + 1)) for n in range(40))


def valid_parts() -> list[tuple[memoryview, int, bytes, bytes, int]]:
    """A page and record of every kind: page, opcode, main data, data, block."""
    tuples = [entry(n, length=16 + n) for n in range(20)]
    downlinks = [downlink(n, (n, 1)) for n in range(20)]
    relisted = b"".join(tuples)
    deletion = struct.pack("<ixxxx", 3)
    return [
        (entry_page(*tuples), INSERT, insert_main(IS_LEAF), entry_data(4, entry(9), True), 0),
        (entry_page(*tuples, flags=0), INSERT, insert_main(0), entry_data(4, entry(9)), 0),
        (entry_page(*tuples, flags=0), INSERT, insert_main(0), b"", 1),
        (inner_page(*downlinks), INSERT, insert_main(IS_DATA), b"\3\0" + downlinks[0], 0),
        (leaf(A, B, C, A), INSERT, insert_main(IS_DATA | IS_LEAF), CHANGES, 0),
        (leaf(A, B, C, A), VACUUM_DATA, b"", CHANGES, 0),
        (
            data_page(OLD_ITEMS, flags=DATA | LEAF, count=40),
            VACUUM_DATA,
            b"",
            actions(action(0, SEGMENT_ADD, items((500, 7)))),
            0,
        ),
        (leaf(), CREATE_PTREE, struct.pack("<I", len(A + B)) + A + B, b"", 0),
        (entry_page(*tuples), SPLIT, split_main(0), b"", 3),
        (leaf(A), DELETE_PAGE, DELETE_MAIN, b"", 0),
        (inner_page(*downlinks), DELETE_PAGE, DELETE_MAIN, b"", 1),
        (leaf(A), DELETE_PAGE, DELETE_MAIN, b"", 2),
        (leaf(A), UPDATE_META, meta_main(20), b"", 0),
        (entry_page(*tuples, flags=LIST), UPDATE_META, meta_main(20), relisted, 1),
        (leaf(A), INSERT_LIST, struct.pack("<Ii", 7, 20), relisted, 0),
        (leaf(A), DELETE_LIST, META_DATA + deletion, b"", 2),
    ]


@pytest.mark.parametrize("seed", range(len(valid_parts())))
def test_damaged_bytes_give_an_error_or_a_page(seed: int) -> None:
    choice = random.Random(seed)
    view, info, main, data, block_id = valid_parts()[seed]
    blocks = {0: 5, 1: 7, 2: 9, 3: 11}
    assert gin.redo(make_part(memoryview(bytearray(view)), info, main, data, blocks, block_id))
    for _ in range(400):
        damaged = [bytearray(view), bytearray(main), bytearray(data)]
        for _ in range(choice.randrange(1, 4)):
            target = choice.choice([item for item in damaged if item])
            at = choice.randrange(len(target))
            if target is damaged[0]:
                at = choice.choice([*range(10, 120), *range(8100, 8192)])
            target[at] = choice.choice([0, 1, 0x7F, 0xFF, choice.randrange(256)])
        for item in damaged[1:]:
            if choice.random() < 0.1:
                del item[choice.randrange(len(item) + 1) :]
        if choice.random() < 0.05:
            info = choice.randrange(0x10, 0xA0, 0x10)
        part = make_part(
            memoryview(damaged[0]),
            info,
            bytes(damaged[1]),
            bytes(damaged[2]),
            blocks,
            choice.choice([block_id, block_id, block_id, 0, 1, 2, 3, 32]),
        )
        try:
            result = gin.redo(part)
        except (ValueError, IndexError):
            continue
        assert result == 1


@pytest.mark.parametrize("seed", range(10))
def test_random_actions_on_a_random_leaf(seed: int) -> None:
    """Right in form, so that they get far: random segments, random items, random order."""
    choice = random.Random(seed)

    def tid() -> tuple[int, int]:
        return choice.randrange(1 << choice.choice([2, 16, 32])), choice.randrange(0x7FF)

    def any_segment() -> bytes:
        return segment(tid(), *choice.randbytes(choice.choice([0, 1, 9, 300, 2000])))

    def any_action(number: int) -> bytes:
        kind = choice.choice([SEGMENT_ADD, SEGMENT_ADD, SEGMENT_INSERT, SEGMENT_REPLACE])
        if kind == SEGMENT_ADD:
            added = sorted(tid() for _ in range(choice.choice([0, 1, 2, 50])))
            return action(number, kind, items(*added))
        return action(number, kind, any_segment())

    for _ in range(50):
        held = b"".join(any_segment() for _ in range(choice.randrange(8)))[: choice.randrange(8153)]
        flags = DATA | LEAF | choice.choice([0, 128, 128, 128])
        view = data_page(held, flags=flags, count=choice.randrange(1400))
        each = [any_action(number) for number in range(choice.randrange(5))]
        try:
            assert gin.redo(make_part(view, VACUUM_DATA, b"", actions(*each))) == 1
        except (ValueError, IndexError):
            continue
