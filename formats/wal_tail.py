"""Where the last whole record of a stretch of WAL ends.

Asked in two places, both rare and both about the few bytes at the end of what was received: when a
connection is made again, and when a journal is opened after a crash. So this is plain Python, a
record at a time; the stream itself is decoded elsewhere.

The way back is by page headers: each says how many bytes of a record from before it still holds,
so the last page on which a record starts is found without knowing where records lie. From there
the way forward checks every page header and every record's CRC-32C.
"""

from collections.abc import Callable
from typing import NamedTuple

import crc32c

from formats import lsn

PAGE_BYTES = lsn.PAGE_BYTES
RECORD_HEADER_BYTES = 24
_CRC_OFFSET = 20
_CONTINUES, _LONG_HEADER, _OVERWRITES, _ALL_FLAGS = 1, 2, 8, 15
_SWITCH = (0, 0x40)  # resource manager and opcode of XLOG_SWITCH

Reader = Callable[[int, int], bytes]
"""`reader(lsn, length)` returns that many bytes of WAL, all of them there."""


class _Page(NamedTuple):
    data_start: int  # LSN behind its header
    flags: int
    remaining: int  # bytes of a record that began before it, 0 if it does not continue one


def last_record_end(reader: Reader, floor: int, end: int, segment_bytes: int) -> int:
    """The end of the last whole record in floor..end, where WAL starts at the page `floor`.

    It is at most a page's end where that record filled its page; `floor` if there is no record.
    """
    start = record_start_before(reader, floor, end, segment_bytes)
    if start is None:
        return floor
    found = whole_records_end(reader, start, end, segment_bytes)
    page_lsn = found // PAGE_BYTES * PAGE_BYTES
    is_page_start = found == page_lsn + lsn.header_bytes(page_lsn, segment_bytes)
    return page_lsn if is_page_start else found


def record_start_before(
    reader: Reader, floor: int, position: int, segment_bytes: int
) -> int | None:
    """Where the first record starts on the last page below `position` on which one does."""
    page_lsn = (position - 1) // PAGE_BYTES * PAGE_BYTES
    while page_lsn >= floor:
        page = _page(reader, page_lsn, position, segment_bytes)
        if page is not None:
            start = page.data_start + lsn.align(page.remaining)
            if start <= position and start < page_lsn + PAGE_BYTES:
                return start
        page_lsn -= PAGE_BYTES
    return None


def first_record_start(reader: Reader, floor: int, end: int, segment_bytes: int) -> int | None:
    """Where the first record behind the page boundary `floor` starts."""
    for page_lsn in range(floor, end, PAGE_BYTES):
        page = _page(reader, page_lsn, end, segment_bytes)
        if page is None:
            return None
        start = page.data_start + lsn.align(page.remaining)
        if start < page_lsn + PAGE_BYTES:
            return start
    return None


def whole_records_end(reader: Reader, start: int, end: int, segment_bytes: int) -> int:
    """The end of the last record of an unbroken chain from `start`, a record's start, to `end`."""
    position = start
    while True:
        following = _record_end(reader, position, end, segment_bytes)
        if following is None:
            return position
        position = following


def _page(reader: Reader, page_lsn: int, end: int, segment_bytes: int) -> _Page | None:
    """The header of a page, or None if it is not all there or is not this page's."""
    length = lsn.header_bytes(page_lsn, segment_bytes)
    if page_lsn + length > end:
        return None
    header = reader(page_lsn, lsn.SHORT_HEADER_BYTES)
    flags = int.from_bytes(header[2:4], "little")
    address = int.from_bytes(header[8:16], "little")
    is_long = page_lsn % segment_bytes == 0
    if address != page_lsn or flags & ~_ALL_FLAGS or bool(flags & _LONG_HEADER) != is_long:
        return None
    continues = flags & _CONTINUES
    remaining = int.from_bytes(header[16:20], "little") if continues else 0
    return _Page(page_lsn + length, flags, remaining)


def _record_end(reader: Reader, position: int, end: int, segment_bytes: int) -> int | None:
    """The end of the record that starts at `position`, or None if none is there, whole and right.

    A record that a crash of the source cut off ends where the next page says so.
    """
    if position % PAGE_BYTES == 0:
        page = _page(reader, position, end, segment_bytes)
        if page is None or page.remaining:
            return None
        position = page.data_start
    if position + 4 > end:
        return None
    total = int.from_bytes(reader(position, 4), "little")
    if total < RECORD_HEADER_BYTES:
        return None
    header, crc, got = b"", 0, 0
    while got < total:
        if position % PAGE_BYTES == 0:
            page = _page(reader, position, end, segment_bytes)
            if page is None:
                return None
            if page.flags & _OVERWRITES:
                return position
            if page.remaining != total - got:
                return None
            position = page.data_start
        length = min(total - got, PAGE_BYTES - position % PAGE_BYTES)
        if position + length > end:
            return None
        piece = reader(position, length)
        missing = RECORD_HEADER_BYTES - len(header)
        header += piece[:missing]
        crc = crc32c.crc32c(piece[missing:], crc)
        got += length
        position += length
    crc = crc32c.crc32c(header[:_CRC_OFFSET], crc)
    if crc != int.from_bytes(header[_CRC_OFFSET:], "little"):
        return None
    following = lsn.align(position)
    if (header[17], header[16] & 0xF0) == _SWITCH:
        segment_end = (position - 1) // segment_bytes * segment_bytes + segment_bytes
        following = min(segment_end, end)
    return min(following, end)
