# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""CRC-32C of WAL records, inside kernels.

`update(crc, data, pos, length)` continues a CRC; `crc` is the value of what went before, 0 at the
start, so `update(update(0, a), b)` is the CRC of a + b. It is the value that PostgreSQL stores in
xl_crc and that the crc32c package returns; our own files use the package (one long run a call),
which costs more than the CRC itself for the 60 bytes of a typical record.

Compiled, the CPU's CRC instruction is used where there is one. It takes three cycles before its
result can be used but starts one a cycle, so runs are cut in three that advance side by side. The
three values are then joined: `shift` advances a value over n zero bytes with four table look-ups,
and CRC(a + b) = shift(CRC(a), len(b)) xor CRC(b) as long as nothing is inverted on the way.
Without the instruction, and interpreted, a table of 256 entries does it byte by byte.
"""

import cython

from formats import coding

LONG_RUN = 1024  # bytes of each of the three runs: page images
SHORT_RUN = 128  # and what is left of them, and middling records
INVERT = 0xFFFFFFFF  # a CRC begins and ends inverted


def _byte_table():
    """What each value of a byte does to a CRC: the table of the bytewise algorithm."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _shift_table(length):
    """For each byte of a CRC and each of its values: that alone, advanced over `length` zeros."""
    byte_table = _byte_table()
    # Advancing is linear over xor: do it to the 32 single bits, combine the rest.
    bits = []
    for bit in range(32):
        value = 1 << bit
        for _ in range(length):
            value = value >> 8 ^ byte_table[value & 0xFF]
        bits.append(value)
    table = []
    for byte in range(4):
        for value in range(256):
            total = 0
            for bit in range(8):
                if value >> bit & 1:
                    total ^= bits[8 * byte + bit]
            table.append(total)
    return table


TABLE = _byte_table()
LONG_SHIFT = _shift_table(LONG_RUN)
SHORT_SHIFT = _shift_table(SHORT_RUN)


def by_table(crc, data, pos, length):
    """As `update`, byte by byte; what `update` does where there is no instruction."""
    if pos < 0 or length < 0 or pos + length > data.shape[0]:
        raise IndexError("CRC out of bounds")
    crc ^= INVERT
    for i in range(pos, pos + length):
        crc = (crc >> 8) ^ TABLE[(crc ^ data[i]) & 0xFF]
    return crc ^ INVERT


def update(crc, data, pos, length):
    """The CRC-32C of everything up to here, given that of all before data[pos : pos + length]."""
    if HAS_INSTRUCTION:
        return by_instruction(crc, data, pos, length)
    return by_table(crc, data, pos, length)


def by_instruction(crc, data, pos, length):
    """As `update`, with the CPU's CRC instruction."""
    if pos < 0 or length < 0 or pos + length > data.shape[0]:
        raise IndexError("CRC out of bounds")
    end = pos + length
    a = crc ^ INVERT
    while pos + 3 * LONG_RUN <= end:
        b = 0
        c = 0
        for i in range(pos, pos + LONG_RUN, 8):
            a = step_u64(a, coding.u64(data, i))
            b = step_u64(b, coding.u64(data, i + LONG_RUN))
            c = step_u64(c, coding.u64(data, i + 2 * LONG_RUN))
        a = shift(LONG_SHIFT, shift(LONG_SHIFT, a) ^ b) ^ c
        pos += 3 * LONG_RUN
    while pos + 3 * SHORT_RUN <= end:
        b = 0
        c = 0
        for i in range(pos, pos + SHORT_RUN, 8):
            a = step_u64(a, coding.u64(data, i))
            b = step_u64(b, coding.u64(data, i + SHORT_RUN))
            c = step_u64(c, coding.u64(data, i + 2 * SHORT_RUN))
        a = shift(SHORT_SHIFT, shift(SHORT_SHIFT, a) ^ b) ^ c
        pos += 3 * SHORT_RUN
    while pos + 8 <= end:
        a = step_u64(a, coding.u64(data, pos))
        pos += 8
    while pos < end:
        a = step_u8(a, data[pos])
        pos += 1
    return a ^ INVERT


def shift(table, crc):
    return (
        table[crc & 0xFF]
        ^ table[256 + ((crc >> 8) & 0xFF)]
        ^ table[512 + ((crc >> 16) & 0xFF)]
        ^ table[768 + (crc >> 24)]
    )


if not cython.compiled:
    # Compiled, crc.pxd declares these three in C.
    def has_instruction():
        return False

    def step_u8(crc, value):
        return crc >> 8 ^ TABLE[(crc ^ value) & 0xFF]

    def step_u64(crc, value):
        for byte in range(8):
            crc = step_u8(crc, value >> 8 * byte & 0xFF)
        return crc


HAS_INSTRUCTION = has_instruction()
