# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Leaves of a GIN posting tree: TIDs in compressed segments, one behind the other from byte 32 on.

    offset  size    field           of a segment
    0       6       first TID: block (high half u16, low half u16), number u16
    6       2       length of the bytes that follow
    8       length  the other TIDs, each as its distance from the one before; and a zero if odd

A TID counts as the number block << 11 | number. A distance has 7 bits in each byte, the lowest
first; the highest bit of a byte says that another one follows, of at most 7.

Leaves last written before 9.4 hold `count` TIDs of 6 bytes instead and lack the flag COMPRESSED.
No server writes them any more, but a cluster that pg_upgrade brought here may still have them: the
first change of their TIDs makes one segment of them, here as in PostgreSQL.

Layouts and rules are those of access/ginblock.h, gin/ginpostinglist.c and gin/ginxlog.c
(ginRedoRecompress) of PostgreSQL 15.18, 17.11 and 18.6, between which they do not differ.
"""

from engine.redo import gin_page as pages
from formats import coding

# What a record does to a segment.
DELETE = 1
INSERT = 2
REPLACE = 3
ADD_ITEMS = 4

NUMBER_BITS = 11
ITEM_BITS = 43
VARBYTE_LENGTH_MAX = 7


def start(page, source, pos, length):
    """A posting tree's first page: a leaf with the `length` bytes of segments at source[pos]."""
    if length > pages.DATA_END - pages.DATA_START:
        raise ValueError("gin posting list does not fit the page")
    pages.start(page, pages.DATA | pages.LEAF | pages.COMPRESSED)
    coding.copy(page, pages.DATA_START, source, pos, length)
    return coding.put_u16(page, 12, pages.DATA_START + length)


def recompress(part):
    """Change a leaf's segments as the block's data says.

    Data: u16 number of actions; for each u8 number of the old segment that it concerns, never
    falling, u8 what is done to it. INSERT (before it) and REPLACE are followed by a segment,
    ADD_ITEMS by u16 how many TIDs and the TIDs; the lengths of all are even.
    """
    page = part.page
    source = part.bytes
    old = part.scratch
    place = part.data + 2
    end = part.data + part.data_length
    pages.check_tree_page(page, pages.DATA | pages.LEAF)
    if coding.u16(page, pages.FLAGS) & pages.COMPRESSED == 0:
        convert(page, old)
    coding.copy(old, 0, page, 0, 8192)
    old_end = coding.u16(old, 12)
    if part.data_length < 4 or old_end < pages.DATA_START or old_end > pages.DATA_END:
        raise ValueError("gin record without actions, or a page without segments")
    at = pages.DATA_START
    to = pages.DATA_START
    segment = 0
    for _ in range(coding.u16(source, part.data)):
        if place + 2 > end or coding.u8(source, place) < segment:
            raise ValueError("gin actions that are cut off or out of order")
        while segment < coding.u8(source, place):
            to = put(page, to, old, at, old_end)
            at += segment_space(old, at, old_end)
            segment += 1
        action = coding.u8(source, place + 1)
        place += 2
        if action == ADD_ITEMS:
            length = items_space(source, place, end)
            to = merge(page, to, old, at, old_end, source, place + 2, place + length)
            place += length
        elif action in (INSERT, REPLACE):
            to = put(page, to, source, place, end)
            place += segment_space(source, place, end)
        elif action != DELETE:
            raise ValueError("gin action that is not known")
        if action != INSERT:
            at += segment_space(old, at, old_end)
            segment += 1
    if place != end:
        raise ValueError("gin record with more than its actions")
    while at < old_end:
        to = put(page, to, old, at, old_end)
        at += segment_space(old, at, old_end)
    return coding.put_u16(page, 12, to)


def convert(page, old):
    """Bring a leaf from the format before 9.4 into today's; its TIDs become a single segment."""
    count = coding.u16(page, pages.COUNT)
    items_end = pages.DATA_START + 6 * count
    coding.copy(old, 0, page, 0, 8192)
    end = pages.DATA_START
    if items_end > pages.DATA_END:
        raise ValueError("gin page with more items than it can hold")
    if count > 0:
        end = merge(page, end, old, items_end, items_end, old, pages.DATA_START, items_end)
    coding.put_u16(page, 12, end)
    coding.put_u16(page, pages.COUNT, 0)
    return pages.set_flags(page, pages.COMPRESSED)


def segment_space(view, pos, end):
    """Bytes of the segment at `pos`, which must end at or before `end`."""
    if pos + 8 > end:
        raise ValueError("gin segment that is not there or cut off")
    space = 8 + ((coding.u16(view, pos + 6) + 1) & -2)
    if pos + space > end:
        raise ValueError("gin segment is cut off")
    return space


def items_space(view, pos, end):
    """Bytes of a list of TIDs and the u16 before it that counts them."""
    if pos + 2 + 6 * coding.u16(view, pos) > end:
        raise ValueError("gin items to add are cut off")
    return 2 + 6 * coding.u16(view, pos)


def put(page, to, source, pos, end):
    """Copy the segment at source[pos] to page[to]; returns where it ends there."""
    space = segment_space(source, pos, end)
    if to + space > pages.DATA_END:
        raise ValueError("gin segments do not fit the page")
    coding.copy(page, to, source, pos, space)
    return to + space


def merge(page, to, old, at, old_end, source, pos, end):
    """Make a segment of old's at `at` and the TIDs source[pos:end], at page[to]; where it ends.

    Without an old one where `at` is `old_end`. Both are in order and have no TID in common
    (ginMergeItemPointers, ginCompressPostingList).
    """
    has_old = at < old_end
    stop = at
    value = 0
    if has_old:
        stop = at + 8 + coding.u16(old, at + 6)
        value = item(old, at)
        at += 8
    place = to
    previous = 0
    while has_old or pos < end:
        if has_old and (pos == end or value < item(source, pos)):
            taken = value
            has_old = at < stop
            if has_old:
                length = varbyte_length(old, at, stop)
                value += varbyte(old, at, length)
                at += length
        else:
            taken = item(source, pos)
            pos += 6
        if place == to:
            place = put_item(page, to, taken)
        elif taken <= previous or taken >> ITEM_BITS != 0:
            raise ValueError("gin items are not in order or too large")
        else:
            place = put_varbyte(page, place, taken - previous)
        previous = taken
    return finish_segment(page, to, place)


def finish_segment(page, to, end):
    """Note the length of the segment written to page[to : end], and make it even."""
    length = end - to - 8
    coding.put_u16(page, to + 6, length)
    if length & 1 != 0:
        coding.put_u8(page, end, 0)
        end += 1
    return end


def item(view, pos):
    """The TID at `pos` as a number."""
    value = coding.u16(view, pos)
    value = value << 16 | coding.u16(view, pos + 2)
    number = coding.u16(view, pos + 4)
    if number >> NUMBER_BITS != 0:
        raise ValueError("gin item with a number too large")
    return value << NUMBER_BITS | number


def put_item(page, to, value):
    """Start a segment with a TID given as a number; returns where its next one goes."""
    block = value >> NUMBER_BITS
    coding.put_u16(page, to, block >> 16)
    coding.put_u16(page, to + 2, block & 0xFFFF)
    coding.put_u16(page, to + 4, value & 0x7FF)
    return to + 8


def varbyte_length(view, pos, end):
    """Bytes of the distance at `pos`."""
    length = 1
    while pos + length <= end and coding.u8(view, pos + length - 1) & 0x80 != 0:
        length += 1
    if pos + length > end or length > VARBYTE_LENGTH_MAX:
        raise ValueError("gin segment has a distance that is cut off or too long")
    return length


def varbyte(view, pos, length):
    """The distance in the `length` bytes at `pos`."""
    value = 0
    while length > 0:
        length -= 1
        value = value << 7 | (coding.u8(view, pos + length) & 0x7F)
    return value


def put_varbyte(page, to, value):
    """Write a distance; returns where it ends."""
    while value > 0x7F:
        coding.put_u8(page, to, 0x80 | (value & 0x7F))
        value >>= 7
        to += 1
    if to >= pages.DATA_END:
        raise ValueError("gin segments do not fit the page")
    coding.put_u8(page, to, value)
    return to + 1
