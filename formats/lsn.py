"""LSN arithmetic: text, segments, pages, and where a record can start.

An LSN is a byte address in the WAL, page headers included. WAL is cut into segments (16 MiB unless
initdb was told otherwise) and those into pages of 8 KiB. Each page begins with a header: 40 bytes
on the first page of a segment, 24 on the others. Records lie in what is left, the *usable bytes*,
one after the other, each starting at a multiple of 8; a record may run over any number of pages.

Two LSNs may stand for the same place between two records. When a record fills its page to the last
byte, it *ends* at the page's end, which is the next page's first byte; that end is what redo writes
into pd_lsn and what a server reports as written and flushed. The next record *starts* behind the
next page's header. `record_start` goes from the first to the second.
"""

PAGE_BYTES = 8192
SHORT_HEADER_BYTES = 24
LONG_HEADER_BYTES = 40
SEGMENT_BYTES_MIN = 1 << 20
SEGMENT_BYTES_MAX = 1 << 30
LSN_MAX = (1 << 64) - 1


def parse(text: str) -> int:
    """The LSN that PostgreSQL writes as "X/Y", two hexadecimal numbers of up to 8 digits."""
    high, slash, low = text.partition("/")
    digits = set("0123456789abcdefABCDEF")
    for half in (high, low):
        if not slash or not 1 <= len(half) <= 8 or not set(half) <= digits:
            raise ValueError(f'not an LSN: {text!r}; expected two hexadecimal numbers "X/Y"')
    return int(high, 16) << 32 | int(low, 16)


def show(lsn: int) -> str:
    """An LSN as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def is_segment_size(size: int) -> bool:
    """Whether `size` is one that PostgreSQL accepts: a power of two, 1 MiB to 1 GiB."""
    return SEGMENT_BYTES_MIN <= size <= SEGMENT_BYTES_MAX and size & (size - 1) == 0


def segment_number(lsn: int, segment_size: int) -> int:
    """The number of the segment that holds the byte at `lsn`."""
    return lsn // segment_size


def segment_offset(lsn: int, segment_size: int) -> int:
    """Where in its segment the byte at `lsn` lies."""
    return lsn % segment_size


def segment_start(number: int, segment_size: int) -> int:
    return number * segment_size


def align(lsn: int) -> int:
    """`lsn` rounded up to the 8 bytes at which records start and end."""
    return (lsn + 7) & ~7


def header_bytes(page_lsn: int, segment_size: int) -> int:
    """The length of the header of the page that starts at `page_lsn`."""
    return SHORT_HEADER_BYTES if page_lsn % segment_size else LONG_HEADER_BYTES


def record_start(lsn: int, segment_size: int) -> int:
    """Where the next record starts when the one before it ends at `lsn`."""
    if lsn % PAGE_BYTES:
        return lsn
    return lsn + header_bytes(lsn, segment_size)


def usable_before(lsn: int, segment_size: int) -> int:
    """How many usable bytes lie below `lsn`, counted from LSN 0."""
    segments, offset = divmod(lsn, segment_size)
    pages, in_page = divmod(offset, PAGE_BYTES)
    usable = segments * _usable_per_segment(segment_size)
    usable += pages * (PAGE_BYTES - SHORT_HEADER_BYTES)
    if pages:
        usable -= LONG_HEADER_BYTES - SHORT_HEADER_BYTES
    return usable + max(0, in_page - header_bytes(lsn - in_page, segment_size))


def start_after(usable: int, segment_size: int) -> int:
    """The LSN of the usable byte with `usable` usable bytes before it: where a record starts."""
    segments, rest = divmod(usable, _usable_per_segment(segment_size))
    pages, in_page = divmod(
        rest + LONG_HEADER_BYTES - SHORT_HEADER_BYTES, PAGE_BYTES - SHORT_HEADER_BYTES
    )
    return segments * segment_size + pages * PAGE_BYTES + SHORT_HEADER_BYTES + in_page


def end_after(usable: int, segment_size: int) -> int:
    """The end of the usable byte number `usable - 1`: where a record ends, maybe a page's end."""
    return start_after(usable - 1, segment_size) + 1


def _usable_per_segment(segment_size: int) -> int:
    pages = segment_size // PAGE_BYTES
    return pages * (PAGE_BYTES - SHORT_HEADER_BYTES) - (LONG_HEADER_BYTES - SHORT_HEADER_BYTES)
