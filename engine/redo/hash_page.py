# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A hash index's pages: the 16 bytes of its own at the end of each, meta page and bitmap pages.

    offset  size  field
    8176    4     page before it in its bucket; of a bucket's first page, which has none before it,
                  the highest bucket there was when this one was made or last split
    8180    4     page after it in its bucket
    8184    4     bucket
    8188    2     flags
    8190    2     0xFF80

A page, block or bucket that does not exist is all ones. Tuples start as in every index: 6 bytes
TID, u16 of which 13 bits are the length. A bitmap page has from byte 24 on a bit for each overflow
page, set while it is in use. The meta page, block 0:

    24      4     0x6440640
    28      4     4, the layout's version
    32      8     tuples in the index, a double
    40      2     tuples that a bucket is to have
    42      2     8152, bytes in which a bitmap might lie
    44      2     4096, bytes of a bitmap
    46      2     15: log2 of its bits
    48      4     highest bucket
    52      4     mask of a hash value to all buckets of the doubling that goes on
    56      4     mask to those of the doubling before
    60      4     splitpoint: how many allocations of buckets there were
    64      4     where to look for a free overflow page
    68      4     bitmap pages
    72      4     the hash function
    76      392   98 u32: overflow pages before each splitpoint
    468     4096  1024 u32: the bitmap pages

Layouts are those of access/hash.h of PostgreSQL 15.18 and 18.6, with pages of 8 KiB.
"""

from formats import coding
from formats import page as layout

NONE = -1  # as a u32 all ones

PREVIOUS = 8176
NEXT = 8180
BUCKET = 8184
FLAGS = 8188

# Flags.
IS_OVERFLOW = 1
IS_BITMAP = 4
IS_META = 8
NEEDS_SPLIT_CLEANUP = 64
HAS_DEAD_TUPLES = 128

# Of the meta page.
TUPLES = 32
MAX_BUCKET = 48
HIGH_MASK = 52
LOW_MASK = 56
SPLITPOINT = 60
FIRST_FREE = 64
BITMAP_COUNT = 68
SPARES = 76
BITMAPS = 468
META_END = 4568
SPLITPOINTS_MAX = 98
BITMAPS_MAX = 1024


def check(page):
    """Refuse a page that has not a hash index's fields at its end."""
    if len(page) != 8192 or coding.u16(page, 16) != PREVIOUS or coding.u16(page, 8190) != 0xFF80:
        raise ValueError("page is not one of a hash index")
    return 0


def check_meta(page):
    check(page)
    if coding.u16(page, FLAGS) & IS_META == 0:
        raise ValueError("page is not the meta page of a hash index")
    return 0


def start(page, previous, bucket, flags):
    """Make it an empty page with none after it (_hash_initbuf, hashpage.c)."""
    layout.init(page, 16)
    coding.put_u32(page, PREVIOUS, previous)
    coding.put_u32(page, NEXT, NONE)
    coding.put_u32(page, BUCKET, bucket)
    coding.put_u16(page, FLAGS, flags)
    return coding.put_u16(page, 8190, 0xFF80)


def set_previous(page, block):
    check(page)
    return coding.put_u32(page, PREVIOUS, block)


def set_next(page, block):
    check(page)
    return coding.put_u32(page, NEXT, block)


def set_flags(page, flags):
    check(page)
    return coding.put_u16(page, FLAGS, flags)


def clear_flag(page, flag):
    check(page)
    return coding.put_u16(page, FLAGS, coding.u16(page, FLAGS) & (0xFFFF - flag))


def tuple_space(view, pos, end):
    """Aligned length of the tuple at `pos`, which must end at or before `end`."""
    if pos + 8 > end:
        raise ValueError("hash tuple is cut off")
    space = ((coding.u16(view, pos + 6) & 0x1FFF) + 7) & -8
    if space < 8 or pos + space > end:
        raise ValueError("hash tuple is too short or cut off")
    return space


def add(page, source, pos, length, number):
    """Add source[pos : pos + length] as tuple `number`; the later ones move up."""
    check(page)
    if length < 8 or number < 1:
        raise ValueError("hash tuple is too short or has no number")
    if layout.add_item(page, source, pos, length, number, False, False) == 0:
        raise ValueError("hash tuple does not fit the page")
    return 0


def start_bitmap(page, length):
    """A bitmap of `length` bytes in which every page is in use (_hash_initbitmapbuffer)."""
    if length > PREVIOUS - 24:
        raise ValueError("hash bitmap is larger than a page")
    start(page, NONE, NONE, IS_BITMAP)
    coding.fill(page, 24, length, 0xFF)
    return coding.put_u16(page, 12, 24 + length)


def set_bit(page, bit, value):
    """Mark an overflow page as in use or free, by its bit in a bitmap page."""
    check(page)
    pos = 24 + (bit >> 3)
    mask = 1 << (bit & 7)
    if coding.u16(page, FLAGS) & IS_BITMAP == 0 or pos >= coding.u16(page, 12) or pos >= PREVIOUS:
        raise ValueError("hash bitmap does not have this bit")
    byte = coding.u8(page, pos) & (0xFF - mask)
    if value:
        byte |= mask
    return coding.put_u8(page, pos, byte)


def _buckets(splitpoint):
    """How many buckets there are once this splitpoint is allocated (_hash_get_totalbuckets).

    Up to the 9th each doubles them; from then on a doubling takes four.
    """
    if splitpoint < 10:
        return 1 << splitpoint
    half = 1 << (9 + ((splitpoint - 10) >> 2))
    return half + (half >> 2) * (((splitpoint - 10) & 3) + 1)


def start_meta(page, tuples, per_bucket, function):
    """The meta page of an index that expects so many tuples (_hash_init_metabuffer, hashpage.c).

    It starts with the first splitpoint after 0 that has enough buckets, 2^30 at most.
    """
    if per_bucket == 0 or not tuples >= 0:
        raise ValueError("hash index of no or less than no tuples")
    splitpoint = 1
    while splitpoint < 93 and _buckets(splitpoint) + 1 <= tuples / per_bucket:
        splitpoint += 1
    buckets = _buckets(splitpoint)
    high_mask = 3
    while high_mask < buckets:
        high_mask += high_mask + 1
    start(page, NONE, NONE, IS_META)
    coding.put_u16(page, 12, META_END)
    coding.put_u32(page, 24, 0x6440640)
    coding.put_u32(page, 28, 4)
    coding.put_u16(page, 40, per_bucket)
    coding.put_u16(page, 42, 8152)
    coding.put_u16(page, 44, 4096)
    coding.put_u16(page, 46, 15)
    coding.put_u32(page, MAX_BUCKET, buckets - 1)
    coding.put_u32(page, HIGH_MASK, high_mask)
    coding.put_u32(page, LOW_MASK, high_mask >> 1)
    coding.put_u32(page, SPLITPOINT, splitpoint)
    coding.put_u32(page, 72, function)
    return coding.put_u32(page, SPARES + 4 * splitpoint, 1)


def count_tuples(page, change):
    """The meta page's count, which is a double, goes up or down."""
    check_meta(page)
    return coding.put_f64(page, TUPLES, coding.f64(page, TUPLES) + change)


def add_bitmap(page, block):
    """Note on the meta page where one more bitmap page is."""
    check_meta(page)
    count = coding.u32(page, BITMAP_COUNT)
    if count >= BITMAPS_MAX:
        raise ValueError("hash meta page has no room for a bitmap page")
    coding.put_u32(page, BITMAPS + 4 * count, block)
    return coding.put_u32(page, BITMAP_COUNT, count + 1)


def count_overflow_pages(page, change):
    """Note on the meta page, checked before, that the index grew by overflow pages."""
    splitpoint = coding.u32(page, SPLITPOINT)
    if splitpoint >= SPLITPOINTS_MAX:
        raise ValueError("hash meta page with a splitpoint that cannot be")
    pos = SPARES + 4 * splitpoint
    return coding.put_u32(page, pos, coding.u32(page, pos) + change)


def set_splitpoint(page, splitpoint, overflow_pages):
    """Note on the meta page, checked before, a new splitpoint and the overflow pages before it."""
    if splitpoint >= SPLITPOINTS_MAX:
        raise ValueError("hash meta page with a splitpoint that cannot be")
    coding.put_u32(page, SPARES + 4 * splitpoint, overflow_pages)
    return coding.put_u32(page, SPLITPOINT, splitpoint)
