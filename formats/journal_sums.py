"""The `.sums` file beside each journal segment: checksums of WAL bytes that are durable.

WAL records carry their own CRC, but page headers, padding and the start of a record whose rest has
not come are covered by none; and a torn tail, which a crash may leave, must not be taken for
damage, nor damage for a torn tail. So an entry is written only *after* the bytes that it covers
were fsynced: bytes that an entry covers and that differ from it are damaged, bytes behind the last
entry are what a crash may have torn.

    file   = magic, entry*
    magic  = "PGSSUMS1"
    entry  = u32 end, u32 CRC-32C of the segment's bytes from the previous entry's end (at first 0)
             to `end`, u32 CRC-32C of these eight bytes

Integers are little-endian; ends rise. The file of a complete segment covers all of it. In that of
the last segment, an entry that is cut off or does not match its own CRC ends the list: these
entries may be lost with the machine's power, and then only mean more bytes to look at.
"""

import struct
from typing import NamedTuple

import crc32c

MAGIC = b"PGSSUMS1"
ENTRY_BYTES = 12
SECTOR_BYTES = 512  # what a disk writes whole or not at all
_COVER = struct.Struct("<II")


class Sum(NamedTuple):
    """CRC-32C of a segment's bytes from the end of the sum before up to `end`."""

    end: int
    crc: int

    def pack(self) -> bytes:
        cover = _COVER.pack(self.end, self.crc)
        return cover + crc32c.crc32c(cover).to_bytes(4, "little")


def parse_sums(data: bytes) -> tuple[list[Sum], int]:
    """The sums up to the first that is not whole, and how many bytes of `data` they take."""
    if not data.startswith(MAGIC):
        return [], 0
    sums: list[Sum] = []
    offset = len(MAGIC)
    while offset + ENTRY_BYTES <= len(data):
        entry = Sum(*_COVER.unpack_from(data, offset))
        rises = entry.end > (sums[-1].end if sums else 0)
        if not rises or entry.pack() != data[offset : offset + ENTRY_BYTES]:
            break
        sums.append(entry)
        offset += ENTRY_BYTES
    return sums, offset


def ends_torn(data: bytes, used: int) -> bool:
    """Whether what is behind the first `used` bytes may be what a crash left of a sum: it is cut
    off, or its last byte, or all that it has in one of the disk's sectors, reads as zeros."""
    end = used + (ENTRY_BYTES if used else len(MAGIC))
    sector = end - end % SECTOR_BYTES
    parts = [data[used:end]] if sector <= used else [data[used:sector], data[sector:end]]
    return len(data) < end or data[end - 1] == 0 or not all(any(part) for part in parts if part)
