"""CRC-32C against the crc32c package and published values, by every path there is."""

import random

import crc32c
import pytest

from formats import crc

# RFC 3720, appendix B.4, and the check value of the CRC catalogues.
KNOWN = [
    (b"", 0),
    (b"123456789", 0xE3069283),
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
]
NOTHING = memoryview(b"")
WAYS = [crc.update, crc.by_table]
if crc.__file__.endswith(".py"):
    # Compiled, this is what `update` does where the CPU has the instructions; interpreted, Python
    # functions stand in for them.
    def by_instructions(value, data, pos, length):
        crc._check(len(data), pos, length)
        end = pos + length
        return crc._by_instructions(value ^ crc.INVERT, data, pos, end, data, 0) ^ crc.INVERT

    WAYS.append(by_instructions)
# Around the length from which a run is cut in three, and the longest that is cut at once.
LENGTHS = sorted(
    {n + d for n in (0, 8, 24, 72, 96, 1536, 8192, 12288) for d in (-9, -1, 0, 1, 7, 30)}
)


@pytest.mark.parametrize("function", WAYS)
@pytest.mark.parametrize(("data", "value"), KNOWN)
def test_known_values(function, data, value):
    assert function(0, memoryview(data), 0, len(data)) == value


@pytest.mark.parametrize("function", WAYS)
@pytest.mark.parametrize("length", [n for n in LENGTHS if n >= 0])
def test_equal_to_the_package_at_any_offset(function, length):
    data = random.Random(length).randbytes(length + 16)
    view = memoryview(data)
    for pos in (0, 1, 5, 8, 16):
        assert function(0, view, pos, length) == crc32c.crc32c(data[pos : pos + length])


@pytest.mark.parametrize("function", WAYS)
def test_continues_where_it_was_cut(function):
    data = random.Random(1).randbytes(9000)
    view = memoryview(data)
    whole = crc32c.crc32c(data)
    for cut in (0, 1, 20, 71, 384, 8999, 9000):
        first = function(0, view, 0, cut)
        assert function(first, view, cut, 9000 - cut) == whole


@pytest.mark.parametrize("function", WAYS)
@pytest.mark.parametrize(
    ("pos", "length"), [(-1, 4), (0, 9), (8, 1), (0, -1), (9, 0), (1 << 60, 8)]
)
def test_bounds(function, pos, length):
    with pytest.raises(IndexError):
        function(0, memoryview(bytes(8)), pos, length)


def test_two_runs_after_each_other():
    data = random.Random(2).randbytes(300)
    for length in (0, 1, 20, 276):
        value = crc.of_two(memoryview(data), 24, length, 0, 20, NOTHING, 0)
        assert value == crc32c.crc32c(data[:20], crc32c.crc32c(data[24 : 24 + length]))
    assert crc.of_two(NOTHING, 0, 0, 0, 0, NOTHING, 0) == 0


@pytest.mark.parametrize("length", [0, 10, 71, 5_000])
def test_what_is_wanted_soon_may_be_anywhere(length):
    data = random.Random(3).randbytes(5_024)
    right = crc32c.crc32c(data[:20], crc32c.crc32c(data[24 : 24 + length]))
    sizes = (0, 1, length, length + 63, length + 64, length + 65, 6_000)
    places = (-(1 << 62), -1, 0, 1, 2, 900, 1_000, 5_000, 1 << 62)
    for size in sizes:
        soon = memoryview(bytes(size))
        for pos in places:
            assert crc.of_two(memoryview(data), 24, length, 0, 20, soon, pos) == right


@pytest.mark.parametrize("runs", [(-1, 4, 0, 4), (0, 9, 0, 4), (0, 4, -1, 4), (0, 4, 5, 4)])
def test_bounds_of_two_runs(runs):
    with pytest.raises(IndexError):
        crc.of_two(memoryview(bytes(8)), *runs, NOTHING, 0)
