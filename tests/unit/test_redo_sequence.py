"""Redo of Sequence records, written by hand."""

import struct

import pytest

from engine.redo import sequence
from tests.fixtures.redo_parts import make_part

TUPLE = bytes(range(1, 42))
LOCATOR = struct.pack("<III", 1663, 5, 16384)


def test_every_record_makes_the_page_anew() -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    assert sequence.redo(make_part(view, 0, LOCATOR + TUPLE)) == 1
    header = bytes(12) + struct.pack("<HHHHI", 28, 8136, 8184, 8192 | 4, 0)
    pointer = struct.pack("<I", 8136 | 1 << 15 | 41 << 17)
    tail = TUPLE.ljust(48, b"\0") + struct.pack("<II", 0x1717, 0)
    assert bytes(view) == header + pointer + bytes(8192 - 28 - len(tail)) + tail


def test_low_bits_of_info_are_not_the_opcode() -> None:
    assert sequence.redo(make_part(memoryview(bytearray(8192)), 0x03, LOCATOR + TUPLE)) == 1


@pytest.mark.parametrize(
    ("info", "main", "block_id"),
    [
        (0x10, LOCATOR + TUPLE, 0),
        (0, LOCATOR + TUPLE, 1),
        (0, LOCATOR[:-1], 0),
        (0, LOCATOR + bytes(8153), 0),
    ],
    ids=["opcode", "block", "cut off", "too long"],
)
def test_impossible_records_are_refused(info: int, main: bytes, block_id: int) -> None:
    view = memoryview(bytearray(8192))
    with pytest.raises(ValueError, match="sequence"):
        sequence.redo(make_part(view, info, main, b"", {0: 0}, block_id))
