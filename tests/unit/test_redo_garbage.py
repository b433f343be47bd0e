"""Heap records and pages with random damage: an error or a page, never a crash, a hang or worse.

Compiled kernels do not check array bounds by themselves wherever they could; what an attempt may
do at most is change the page it was given.
"""

import random
import struct

import pytest

from engine.redo import heap, heap2
from tests.fixtures.redo_parts import Row, heap_page, make_part


def damaged(choice: random.Random, content: bytes) -> bytes:
    """A few bytes changed, and now and then some cut off."""
    changed = bytearray(content)
    for _ in range(choice.randint(0, 3)):
        if changed:
            changed[choice.randrange(len(changed))] = choice.choice([0, 1, 4, 0x7F, 0xFF])
    if choice.random() < 0.2:
        del changed[choice.randrange(len(changed) + 1) :]
    return bytes(changed)


def damaged_page(choice: random.Random) -> memoryview:
    rows = [Row(content=choice.randbytes(choice.randint(1, 90))) for _ in range(12)]
    view = heap_page(*rows)
    for _ in range(choice.randint(0, 4)):
        # Header, line pointers and tuple headers, where damage hurts.
        position = choice.choice([choice.randrange(10, 80), choice.randrange(7000, 8192)])
        view[position] = choice.choice([0, 1, 0x7F, 0xFF, choice.randrange(256)])
    return view


def a_record(choice: random.Random) -> tuple[int, bytes, bytes]:
    """Opcode, main data and data that are right for some kind of record."""
    header = struct.pack("<HHB", 2, 2, 24)
    n = choice.randint(1, 13)
    kinds = [
        (0x00, struct.pack("<HB", n, 1), header + b"\0data"),
        (0x10, struct.pack("<IHBB", 9, n, 31, 1), b""),
        (0x20, struct.pack("<IHBBIH", 9, n, 0, 99, 0, 13), b"\2\0\1\0" + header + b"\0data"),
        (0x30, struct.pack("<IH", 9, 2), struct.pack("<IHHHBx", 1, n, 2, 3, 0) * 2),
        (
            0x10,
            b"\0\xfc",
            struct.pack("<HxxIHHBxH", 1, 1, 2, 3, 0, 1)
            + struct.pack("<10H", 1, 1, 4, 1, 2, 1, 3, 1, n, 5),
        ),
        (0x50, struct.pack("<BxHHH", 1, 2, 13, 14), struct.pack("<HHHB", 3, 2, 2, 24) * 2),
        (0x60, struct.pack("<IHBB", 9, n, 2, 1), b""),
        (0x70, struct.pack("<H", n), b"12345"),
    ]
    return choice.choice(kinds)


@pytest.mark.parametrize("seed", range(20))
def test_garbage_gives_an_error_or_a_page(seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(100):
        view = damaged_page(choice)
        info, main, data = a_record(choice)
        if choice.random() < 0.1:
            info = choice.randrange(256)
        part = make_part(
            view,
            info,
            damaged(choice, main),
            damaged(choice, data),
            choice.choice([{0: 5}, {0: 5, 1: 7}, {0: 5, 1: 7, 2: 0, 3: 1}, {}]),
            choice.choice([0, 0, 0, 1, 2, 3, 32]),
            version=choice.choice([15, 18]),
        )
        redo = choice.choice([heap.redo, heap2.redo])
        try:
            result = redo(part)
        except (ValueError, IndexError):
            continue
        assert result in (0, 1)
