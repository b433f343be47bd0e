# cython: annotation_typing=False, wraparound=False, initializedcheck=False, cdivision=True
"""Inputs that nearly make sense: one taken from a corpus, and changed.

What an input becomes depends on the corpus, the seed and the input's index alone, so that naming
these three names the input. Compiled and interpreted it is the same one, as far as memory and the
CPU go: everything is 64-bit arithmetic (xorshift, started by splitmix64).

Nothing here knows what the bytes mean. Targets do, and call `change` on the fields they choose,
`resize` where something is to become longer or shorter, and repair lengths and checksums after it.
"""

from array import array
from itertools import accumulate

from formats import coding

ALL_BITS = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
FIRST_FACTOR = 0xBF58476D1CE4E5B9
SECOND_FACTOR = 0x94D049BB133111EB
ROOM = 1 << 17

# What is often compared with: ends of widths, sizes of pages, headers and tables, and neighbours.
NUMBERS = [
    0, 1, 2, 3, 4, 7, 8, 16, 24, 28, 32, 40, 127, 128, 255, 256, 1358, 2048, 8000, 8160, 8168,
    8191, 8192, 8193, 16384, 32767, 32768, 65528, 65535, 65536, 0x7FFFFFFF, 0xFFFFFFFF,
]  # fmt: skip
NUMBER_COUNT = 32


class Mutator:
    """The input is data[:length]; `begin` and `load` start one."""

    def __init__(self, inputs):
        """`inputs`: the corpus, not empty, none longer than 64 KiB."""
        if not inputs or max(len(one) for one in inputs) > ROOM // 2:
            raise ValueError("a corpus is some inputs of at most 64 KiB")
        self.corpus = memoryview(b"".join(inputs) + bytes(8))
        self.ends = memoryview(array("q", accumulate((len(one) for one in inputs), initial=0)))
        self.count = len(inputs)
        self.data = memoryview(bytearray(ROOM))
        self.length = 0
        self.state = 1

    def begin(self, seed, index):
        """Start input `index` of a seed: from here on all that is random follows."""
        self.state = (seed * GOLDEN + index) & ALL_BITS
        x = (self.state + GOLDEN) & ALL_BITS
        x = ((x ^ (x >> 30)) * FIRST_FACTOR) & ALL_BITS
        x = ((x ^ (x >> 27)) * SECOND_FACTOR) & ALL_BITS
        self.state = (x ^ (x >> 31)) | 1
        return 0

    def next(self):
        """64 random bits."""
        x = self.state
        x ^= (x << 13) & ALL_BITS
        x ^= x >> 7
        x ^= (x << 17) & ALL_BITS
        self.state = x
        return x

    def below(self, limit):
        """A number from 0 to `limit` - 1; 0 if that is none."""
        if limit <= 1:
            return 0
        return (self.next() >> 11) % limit

    def number(self):
        """One that code may compare with."""
        return NUMBERS[self.below(NUMBER_COUNT)]

    def load(self, item):
        """Make the corpus's input `item` the input."""
        start = self.ends[item]
        self.length = self.ends[item + 1] - start
        coding.copy(self.data, 0, self.corpus, start, self.length)
        return 0

    def put(self, content):
        """Make these bytes the input."""
        length = len(content)
        coding.copy(self.data, 0, content, 0, length)
        self.length = length
        return 0

    def change(self, start, end):
        """One change somewhere in data[start:end]."""
        size = end - start
        if size <= 0:
            return 0
        pos = start + self.below(size)
        kind = self.below(12)
        if kind == 0:
            old = coding.u8(self.data, pos)
            return coding.put_u8(self.data, pos, old ^ (1 << self.below(8)))
        if kind == 1:
            return coding.put_u8(self.data, pos, self.number() & 255)
        if kind == 2 or pos + 2 > end:
            return coding.put_u8(self.data, pos, self.below(256))
        if kind < 8:
            return self._change_word(kind, pos, end)
        if kind == 8:
            return coding.fill(self.data, pos, self._run(pos, end), self.below(256))
        if kind == 9:
            run = self._run(pos, end)
            return coding.move(self.data, pos, start + self.below(end - run - start + 1), run)
        return self._change_long(kind, pos, end)

    def _run(self, pos, end):
        """A length of at most 32 bytes from `pos`, inside of `end`."""
        return min(1 + self.below(32), end - pos)

    def _change_word(self, kind, pos, end):
        if kind < 5:
            return coding.put_u16(self.data, pos, self.number() & 65535)
        if kind == 5:
            return coding.put_u16(self.data, pos, self.below(8192))
        old = coding.u16(self.data, pos)
        return coding.put_u16(self.data, pos, (old + self.below(17) - 8) & 65535)

    def _change_long(self, kind, pos, end):
        if pos + 4 > end:
            return coding.put_u16(self.data, pos, self.below(65536))
        if kind == 10:
            return coding.put_u32(self.data, pos, self.number())
        low = self.below(65536)
        return coding.put_u32(self.data, pos, self.below(65536) << 16 | low)

    def resize(self, pos, removed, added):
        """Put `added` bytes in the place of the `removed` ones at `pos`: what lies there is copied
        over and over, or random. Returns by how much the input grew, 0 if it may not grow so."""
        tail = self.length - pos - removed
        if tail < 0 or self.length + added - removed > 65536:
            return 0
        coding.move(self.data, pos + added, pos + removed, tail)
        self.length += added - removed
        filler = self.below(256)
        i = 0
        while i < added:
            if filler & 1:
                coding.put_u8(self.data, pos + i, self.below(256))
            else:
                coding.put_u8(self.data, pos + i, filler)
            i += 1
        return added - removed

    def borrow(self, pos, length, item, at):
        """Put `length` bytes of the corpus's input `item`, from `at` on, to `pos`; as many as both
        have. Returns how many."""
        start = self.ends[item]
        there = self.ends[item + 1] - start - at
        length = min(length, there, self.length - pos)
        if length > 0:
            coding.copy(self.data, pos, self.corpus, start + at, length)
            return length
        return 0

    def content(self):
        """The input's bytes."""
        return bytes(self.data[: self.length])
