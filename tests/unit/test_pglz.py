"""PostgreSQL's compression: known bytes, round trips through a plain compressor, hostile input.

Images that a real server compressed are decompressed in tests/integration/test_wal_decode.py.
"""

import random

import pytest

from formats import pglz


def compress(data: bytes) -> bytes:
    """Greedy: the longest earlier match of at least 3 bytes within 4095, else the byte itself."""
    output = bytearray()
    pos = 0
    while pos < len(data):
        control_at = len(output)
        output.append(0)
        for item in range(8):
            if pos >= len(data):
                break
            best, best_offset = 0, 0
            for offset in range(1, min(pos, 4095) + 1):
                length = 0
                while (
                    length < 273
                    and pos + length < len(data)
                    and data[pos + length - offset] == data[pos + length]
                ):
                    length += 1
                if length > best:
                    best, best_offset = length, offset
            if best < 3:
                output.append(data[pos])
                pos += 1
                continue
            output[control_at] |= 1 << item
            output.append(best_offset >> 4 & 0xF0 | min(best, 18) - 3)
            output.append(best_offset & 0xFF)
            if best >= 18:
                output.append(best - 18)
            pos += best
    return bytes(output)


def decompress(data: bytes, length: int) -> bytes:
    target = bytearray(length)
    pglz.decompress(memoryview(data), 0, len(data), memoryview(target), 0, length)
    return bytes(target)


def test_the_layout_in_bytes():
    # Four single bytes; then a match of 12 that repeats them; then one of 3 + 15 + 255 zeros.
    data = bytes.fromhex("50 31 32 33 34 09 04 00 0f 01 ff")
    assert decompress(data, 4 + 12 + 1 + 273) == b"1234" * 4 + bytes(274)


def test_an_offset_uses_all_twelve_bits():
    literals = random.Random(3).randbytes(4095)
    data = bytearray()
    for start in range(0, 4088, 8):
        data += b"\x00" + literals[start : start + 8]
    data += b"\x80" + literals[4088:] + b"\xf0\xff"
    assert decompress(bytes(data), 4098) == literals + literals[:3]


@pytest.mark.parametrize("seed", range(12))
def test_round_trip(seed):
    rng = random.Random(seed)
    pieces = [rng.randbytes(rng.randrange(1, 40)) for _ in range(4)] + [bytes(300)]
    data = b"".join(rng.choices(pieces, k=rng.randrange(1, 25)))
    assert decompress(compress(data), len(data)) == data


def test_writes_only_its_range():
    source = b"?" + compress(b"abcabcabcabc") + b"?"
    target = bytearray(b"." * 20)
    pglz.decompress(memoryview(source), 1, len(source) - 2, memoryview(target), 3, 12)
    assert target == b"...abcabcabcabc....."


@pytest.mark.parametrize(
    ("data", "length", "message"),
    [
        (b"\x01\x00", 10, "cut off"),
        (b"\x02a\x00", 10, "cut off"),
        (b"\x02a\x0f\x01", 100, "cut off"),
        (b"\x01\x00\x01", 10, "before the output"),
        (b"\x02a\x00\x00", 10, "before the output"),
        (b"\x02a\x00\x02", 10, "before the output"),
        (b"\x02a\x00\x01", 3, "runs over the end"),
        (b"\x00abc", 4, "input ends before"),
        (b"", 4, "input ends before"),
        (b"\x00", 4, "input ends before"),
        (b"\x00abcd", 3, "full before the input"),
        (b"\x00", 0, "full before the input"),
    ],
)
def test_bad_input(data, length, message):
    with pytest.raises(ValueError, match=message):
        decompress(data, length)


def test_nothing_from_nothing():
    assert decompress(b"", 0) == b""


@pytest.mark.parametrize(
    "args",
    [(-1, 2, 0, 2), (0, 5, 0, 2), (0, 2, -1, 2), (0, 2, 0, 5), (5, 0, 0, 0), (0, 2, 1 << 60, 2)],
)
def test_ranges_outside_of_the_buffers(args):
    pos, length, target_pos, target_length = args
    with pytest.raises(IndexError):
        pglz.decompress(
            memoryview(bytes(4)), pos, length, memoryview(bytearray(4)), target_pos, target_length
        )


def test_any_bytes_give_an_error_or_the_length_asked_for():
    rng = random.Random(5)
    outcomes = set()
    valid = compress(b"the quick brown fox jumps over the lazy dog, " * 20)
    for _ in range(3000):
        damaged = bytearray(valid)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cut = rng.randrange(len(damaged) + 1) if rng.random() < 0.3 else len(damaged)
        try:
            outcomes.add(len(decompress(bytes(damaged[:cut]), 900)))
        except ValueError as error:
            outcomes.add(str(error))
    assert outcomes >= {900, "pglz: a match lies before the output"}
    assert all(outcome == 900 or str(outcome).startswith("pglz: ") for outcome in outcomes)
