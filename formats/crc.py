# cython: annotation_typing=False, wraparound=False, initializedcheck=False, cdivision=True
"""CRC-32C of WAL records, inside kernels.

`update(crc, data, pos, length)` continues a CRC; `crc` is the value of what went before, 0 at the
start, so `update(update(0, a), b)` is the CRC of a + b. It is the value that PostgreSQL stores in
xl_crc and that the crc32c package returns; our own files use the package (one long run a call),
which costs more than the CRC itself for the 60 bytes of a typical record.

Compiled, the CPU's CRC instruction is used where there is one. It starts once a cycle but takes
three until its result can be used, so a run of bytes is cut in three that advance side by side.
Their values are joined with CRC(a + b) = zeros(CRC(a), length of b) xor CRC(b), where zeros() is
what a number of zero bytes makes of a CRC. (That holds without the inversions at a CRC's ends; they
are made outside.) zeros() is a multiplication of polynomials by x ** (8 * n), modulo the CRC's own:
one carry-less multiplication by a constant from a table, and the CRC instruction, which reduces.
Without the instructions, and interpreted, a table of 256 entries does it byte by byte.

A CRC over what is in the first cache leaves the memory idle, and memory is what WAL waits for. So
`of_two` may be told what will be wanted soon, and asks for it between the pieces of a long run: few
lines of the cache at a time, as the CPU can wait for few only.
"""

import cython

INVERT = 0xFFFFFFFF  # a CRC begins and ends inverted
STEPS_MAX = 64  # of 8 bytes each, in each of the three runs
ALL_BITS = (1 << 64) - 1
LINE_BYTES = 64  # of the CPU's caches
CUT_MIN = 72  # what is shorter is not worth cutting in three


def _byte_table():
    """What each value of a byte does to a CRC: the table of the bytewise algorithm."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _zeros_table():
    """Entry n is the multiplier for 8 * n zero bytes: x ** (64 * n - 33), lowest power highest bit.

    33 less because the CRC instruction multiplies by x ** 32, and because the product of two
    32-bit polynomials in this order of bits comes out shifted by one. Entry 0 is not used.
    """
    byte_table = _byte_table()
    table = [0]
    value = 1
    for _ in range(2 * STEPS_MAX):
        table.append(value)
        for _ in range(8):
            value = value >> 8 ^ byte_table[value & 0xFF]
    return table


TABLE = _byte_table()
ZEROS = _zeros_table()


def update(crc, data, pos, length):
    """The CRC-32C of everything up to here, given that of all before data[pos : pos + length]."""
    _check(data.shape[0], pos, length)
    if length == 0:
        return crc
    return _advance(crc ^ INVERT, first(data), pos, pos + length, first(data), 0) ^ INVERT


def by_table(crc, data, pos, length):
    """As `update`, the way that it goes where there are no instructions."""
    _check(data.shape[0], pos, length)
    if length == 0:
        return crc
    return _by_table(crc ^ INVERT, first(data), pos, pos + length) ^ INVERT


def of_two(data, pos, length, then_pos, then_length, soon, soon_pos):
    """The CRC-32C of two runs of bytes, one after the other.

    Meanwhile the CPU is asked for as many bytes of `soon` as the first run has, from `soon_pos` on,
    if there are that many: a hint only, it changes nothing but the time.
    """
    _check(data.shape[0], pos, length)
    _check(data.shape[0], then_pos, then_length)
    if length + then_length == 0:
        return 0
    start = first(data)
    if soon_pos >= 0 and soon_pos <= soon.shape[0] - length - LINE_BYTES:
        prefetch(first(soon), soon_pos)
        crc = _advance(INVERT, start, pos, pos + length, first(soon), soon_pos - pos)
    else:
        crc = _advance(INVERT, start, pos, pos + length, start, 0)
    return _advance(crc, start, then_pos, then_pos + then_length, start, 0) ^ INVERT


def _check(size, pos, length):
    # The only check of bounds: nothing below checks any, which is half the time.
    if pos < 0 or length < 0 or length > size or pos > size - length:
        raise IndexError("CRC out of bounds")
    return 0


def _advance(crc, start, pos, end, soon, ahead):
    if HAS_INSTRUCTIONS:
        return _by_instructions(crc, start, pos, end, soon, ahead)
    return _by_table(crc, start, pos, end)


def _by_table(crc, start, pos, end):
    for i in range(pos, end):
        crc = (crc >> 8) ^ TABLE[(crc ^ start[i]) & 0xFF]
    return crc


def _by_instructions(crc, start, pos, end, soon, ahead):
    if end - pos < 8:
        return _by_table(crc, start, pos, end)
    while end - pos >= CUT_MIN:
        steps = (end - pos) // 24
        if steps > STEPS_MAX:
            steps = STEPS_MAX
        run = 8 * steps
        for i in range(pos, pos + 3 * run, 64):  # LINE_BYTES; Cython wants it so
            prefetch(soon, i + 64 + ahead)
        second = 0
        third = 0
        for i in range(pos, pos + run, 8):
            crc = step_u64(crc, start, i)
            second = step_u64(second, start, i + run)
            third = step_u64(third, start, i + 2 * run)
        crc = (
            reduce(multiply(crc, ZEROS[2 * steps])) ^ reduce(multiply(second, ZEROS[steps])) ^ third
        )
        pos += 3 * run
    while end - pos >= 8:
        crc = step_u64(crc, start, pos)
        pos += 8
    # The last 0 to 7 bytes without a branch on how many, which would be mispredicted for most
    # records: they come from the last 8 bytes. Shifted to the top, they are what 8 bytes with zeros
    # before them are to a CRC of 0, and the CRC goes into those that it reaches. Shifts by 64 are
    # made of two.
    bits = 8 * (end - pos)
    last = load_u64(start, end - 8) >> 1 >> (63 - bits)
    return reduce((last ^ crc) << (63 - bits) << 1 & ALL_BITS) ^ (crc >> bits)


if not cython.compiled:
    # Compiled, crc.pxd has these; all but the first two are one instruction each.
    def has_instructions():
        return False

    def first(data):
        return data

    def prefetch(start, i):
        return None

    def load_u64(start, pos):
        return int.from_bytes(start[pos : pos + 8], "little")

    def step_u64(crc, start, pos):
        return _by_table(crc, start, pos, pos + 8)

    def reduce(product):
        return _by_table(0, product.to_bytes(8, "little"), 0, 8)

    def multiply(a, b):
        product = 0
        for bit in range(32):
            if b >> bit & 1:
                product ^= a << bit
        return product


HAS_INSTRUCTIONS = has_instructions()
