# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Deleting and replacing the tuples of an index page, as PostgreSQL's bufpage.c leaves the page.

PageIndexTupleDelete, PageIndexTupleDeleteNoCompact, PageIndexMultiDelete, PageIndexTupleOverwrite:
line pointers go with their tuples, and the others close up. What does not fit inside the page
raises ValueError or IndexError.
"""

import cython

from formats import coding
from formats import page as page_layout


def delete(page, n):
    """Delete tuple and line pointer `n`: later line pointers move down, tuples before it up."""
    page_layout.check_compactable(page)
    offset = page_layout.item_offset(page, n)
    length = page_layout.item_length(page, n)
    page_layout.check_item(page, offset, length)
    lower = coding.u16(page, 12)
    pos = 20 + 4 * n
    coding.move(page, pos, pos + 4, lower - pos - 4)
    coding.put_u16(page, 12, lower - 4)
    return page_layout.shift_before(page, offset, (length + 7) & -8)


def delete_no_compact(page, n):
    """Delete tuple `n`; its line pointer becomes unused, or goes if it is the last one."""
    page_layout.check_compactable(page)
    offset = page_layout.item_offset(page, n)
    length = page_layout.item_length(page, n)
    page_layout.check_item(page, offset, length)
    if n < page_layout.max_offset(page):
        page_layout.set_item(page, n, 0, 0, 0)
    else:
        coding.put_u16(page, 12, coding.u16(page, 12) - 4)
    return page_layout.shift_before(page, offset, (length + 7) & -8)


def multi_delete(page, numbers, count):
    """Delete the tuples and line pointers numbers[0:count], which must rise.

    One or two go one at a time, which keeps the other tuples in the order in which they lie; more
    put them into reverse order of their line pointers.
    """
    if count <= 2:
        while count > 0:
            count -= 1
            delete(page, numbers[count])
        return 0
    page_layout.check_compactable(page)
    left = cython.declare(cython.ushort[2048])  # line pointers that have a tuple, renumbered
    present = page_layout.max_offset(page)
    upper = coding.u16(page, 14)
    special = coding.u16(page, 16)
    tuples = 0
    kept = 0
    deleted = 0
    n = 1
    while n <= present:
        item = coding.u32_checked_before(page, 20 + 4 * n)
        offset = item & 0x7FFF
        # check_item of another module for each of some hundred tuples took most of the time
        if offset < upper or offset + (item >> 17) > special or offset & 7 != 0:
            raise ValueError("line pointer to outside the page's tuples")
        if deleted < count and numbers[deleted] == n:
            deleted += 1
        else:
            kept += 1
            coding.put_u32_checked_before(page, 20 + 4 * kept, item)
            left[tuples] = kept
            tuples += item >> 17 != 0
        n += 1
    if deleted != count:
        raise ValueError("index tuples to delete that are not there or out of order")
    coding.put_u16(page, 12, 24 + 4 * kept)
    return page_layout.compact(page, left, tuples)


def overwrite(page, n, source, source_pos, length):
    """Replace tuple `n` where it stands, moving those before it; 0 if there is no room, else 1."""
    page_layout.check_compactable(page)
    offset = page_layout.item_offset(page, n)
    flags = page_layout.item_flags(page, n)
    old_length = page_layout.item_length(page, n)
    page_layout.check_item(page, offset, old_length)
    old_aligned = (old_length + 7) & -8
    aligned = (length + 7) & -8
    if length < 0 or aligned > old_aligned + coding.u16(page, 14) - coding.u16(page, 12):
        return 0
    if aligned != old_aligned:
        page_layout.shift_before(page, offset, old_aligned - aligned)
    offset += old_aligned - aligned
    page_layout.set_item(page, n, offset, flags, length)
    coding.copy(page, offset, source, source_pos, length)
    return 1
