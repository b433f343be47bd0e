"""Finding pages with a wrong data checksum, many at a time."""

import random
from array import array

import pytest

from formats import page_checksum

PAGE_BYTES = 8192


def pages(count: int, first_block: int) -> bytearray:
    """Pages of random content with right checksums."""
    data = bytearray(random.Random(count).randbytes(count * PAGE_BYTES))
    for index in range(count):
        one = memoryview(data)[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
        one[14:16] = b"\0\x20"  # pd_upper: not new
        one[8:10] = page_checksum.checksum(one, first_block + index).to_bytes(2, "little")
    return data


def wrong(data: bytes | bytearray, first_block: int) -> list[int]:
    found = array("I", bytes(4 * (len(data) // PAGE_BYTES)))
    count = page_checksum.find_bad_checksums(data, first_block, found)
    return list(found[:count])


def test_right_pages_and_new_ones() -> None:
    data = pages(5, 1_000_000)
    assert wrong(data, 1_000_000) == []
    data[2 * PAGE_BYTES : 3 * PAGE_BYTES] = bytes(PAGE_BYTES)
    assert wrong(data, 1_000_000) == []
    assert wrong(data, 1_000_001) == [0, 1, 3, 4]
    assert wrong(b"", 0) == []


def test_one_bit_anywhere() -> None:
    data = pages(3, 7)
    rng = random.Random(2)
    for _ in range(20):
        at = rng.randrange(PAGE_BYTES, 2 * PAGE_BYTES)
        data[at] ^= 1 << rng.randrange(8)
        assert wrong(data, 7) == [1]
        data[:] = pages(3, 7)
    data[2 * PAGE_BYTES :] = bytes(PAGE_BYTES)
    data[-1] = 1
    assert wrong(data, 7) == [2]


def test_whole_pages_only() -> None:
    with pytest.raises(ValueError, match="whole number of pages"):
        wrong(bytes(PAGE_BYTES + 1), 0)
    with pytest.raises(ValueError, match="whole number of pages"):
        page_checksum.find_bad_checksums(bytes(2 * PAGE_BYTES), 0, array("I", [0]))
