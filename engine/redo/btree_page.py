# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A btree page: the 16 bytes of its own at the end, and the ways in which redo makes one anew.

    offset  size  field
    8176    4     previous page of its level, 0 if it is the first
    8180    4     next page of its level, 0 if it is the last
    8184    4     level, 0 for a leaf
    8188    2     flags
    8190    2     cycle of the VACUUM during which the page was split, 0 if none

A page's first tuple is its high key unless it is the last one of its level. Tuples start with

    0       6     TID: block (high half u16, low half u16), number u16; a downlink is a block alone
    6       2     info: 13 bits length, bit 13 set where the TID means something else, 2 bits flags

Layouts are those of access/nbtree.h and access/itup.h of PostgreSQL 15.18 and 18.6.
"""

from formats import coding
from formats import page as layout

PREVIOUS = 8176
NEXT = 8180
LEVEL = 8184
FLAGS = 8188
CYCLE = 8190

# Flags.
IS_LEAF = 1
IS_ROOT = 2
IS_DELETED = 4
IS_META = 8
IS_HALF_DEAD = 16
HAS_GARBAGE = 64
INCOMPLETE_SPLIT = 128
HAS_FULL_XID = 256


def check(page):
    """Refuse a page that has no btree fields at its end."""
    if len(page) != 8192 or coding.u16(page, 16) != PREVIOUS:
        raise ValueError("page is not one of a btree")
    return 0


def set_previous(page, block):
    check(page)
    return coding.put_u32(page, PREVIOUS, block)


def set_next(page, block):
    check(page)
    return coding.put_u32(page, NEXT, block)


def clear_flag(page, flag):
    check(page)
    return coding.put_u16(page, FLAGS, coding.u16(page, FLAGS) & (0xFFFF - flag))


def tuple_length(view, pos):
    return coding.u16(view, pos + 6) & 0x1FFF


def tuple_space(view, pos, end):
    """Aligned length of the tuple at `pos`, which must end at or before `end`."""
    if pos + 8 > end:
        raise ValueError("btree tuple is cut off")
    space = (tuple_length(view, pos) + 7) & -8
    if space < 8 or pos + space > end:
        raise ValueError("btree tuple is too short or cut off")
    return space


def block_number(view, pos):
    """The block in a tuple's first four bytes: a downlink, or where its posting list starts."""
    high = coding.u16(view, pos)
    return high << 16 | coding.u16(view, pos + 2)


def put_block_number(view, pos, block):
    coding.put_u16(view, pos, block >> 16)
    return coding.put_u16(view, pos + 2, block & 0xFFFF)


def add(page, source, pos, length, number):
    """Add source[pos : pos + length] as tuple `number`; the later ones move up."""
    if length < 8 or number < 1:
        raise ValueError("btree tuple is too short or has no number")
    if layout.add_item(page, source, pos, length, number, False, False) == 0:
        raise ValueError("btree tuple does not fit the page")
    return 0


def append(page, source, pos, length):
    return add(page, source, pos, length, layout.max_offset(page) + 1)


def start(page, previous, following, level, flags):
    """Make it an empty page; a leaf if its level is 0 (_bt_pageinit and what follows it)."""
    layout.init(page, 16)
    coding.put_u32(page, PREVIOUS, previous)
    coding.put_u32(page, NEXT, following)
    coding.put_u32(page, LEVEL, level)
    if level == 0:
        flags |= IS_LEAF
    return coding.put_u16(page, FLAGS, flags)


def start_anew(page, old):
    """Move the page's content to `old` and empty it; the number of its first tuple.

    Line pointers, tuples, hints and free space start anew, as in PageGetTempPageCopySpecial. The
    high key is not counted as a tuple here: where there is one, the first tuple is number 2.
    """
    check(page)
    coding.copy(old, 0, page, 0, 8192)
    layout.init(page, 16)
    coding.copy(page, PREVIOUS, old, PREVIOUS, 16)
    if coding.u32(page, NEXT) == 0:
        return 1
    return 2


def restore(page, source, pos, length):
    """Fill an empty page with source[pos : pos + length], which held another's tuples as they lay.

    The one with the highest number comes first, as if they had been added in the order of their
    numbers (_bt_restore_page).
    """
    special = coding.u16(page, 16)
    end = pos + length
    count = 0
    place = pos
    while place < end:
        place += tuple_space(source, place, end)
        count += 1
    if 24 + 4 * count > special - length:
        raise ValueError("btree tuples do not fit the page")
    coding.put_u16(page, 12, 24 + 4 * count)
    coding.put_u16(page, 14, special - length)
    coding.copy(page, special - length, source, pos, length)
    place = special - length
    while count > 0:
        space = tuple_space(page, place, special)
        layout.set_item(page, count, place, 1, space)
        place += space
        count -= 1
    return 0


def half_dead(page, previous, following, top_parent):
    """A leaf about to be unlinked: no tuple but a high key that names the subtree's top parent."""
    start(page, previous, following, 0, IS_HALF_DEAD)
    coding.put_u16(page, 12, 28)
    coding.put_u16(page, 14, PREVIOUS - 8)
    layout.set_item(page, 1, PREVIOUS - 8, 1, 8)
    put_block_number(page, PREVIOUS - 8, top_parent)
    return coding.put_u16(page, PREVIOUS - 2, 0x2000 | 8)


def deleted(page, previous, following, level, source, xid_pos):
    """An unlinked page: the transaction after which it may be reused, nothing else."""
    start(page, previous, following, level, IS_DELETED | HAS_FULL_XID)
    coding.put_u16(page, 12, 32)
    return coding.copy(page, 24, source, xid_pos, 8)


def meta(page, source, pos):
    """Block 0 of an index, from the 25 bytes that a record has for it (_bt_restore_meta)."""
    start(page, 0, 0, 0, 0)
    coding.put_u16(page, FLAGS, IS_META)
    coding.put_u16(page, 12, 72)
    coding.put_u32(page, 24, 0x053162)
    coding.copy(page, 28, source, pos, 24)
    coding.put_u16(page, 62, 0xBFF0)  # the double -1.0 at 56: a count that is no longer kept
    return coding.put_u8(page, 64, coding.u8(source, pos + 24))
