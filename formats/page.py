# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A PostgreSQL page: 8 KiB with a header, an array of line pointers and the tuples they point to.

    0           24          lower           upper               special      8192
    | header    | pointers -> | free space     | <- tuples        | index's own |

    offset  size  field             of the header
    0       8     pd_lsn            two u32, the high half first
    8       2     pd_checksum
    10      2     pd_flags          1 has free line pointers, 2 full, 4 all visible
    12      2     pd_lower
    14      2     pd_upper          0 in a page that was never initialised
    16      2     pd_special
    18      2     page size | layout version 4
    20      4     pd_prune_xid

A line pointer is a u32: 15 bits offset, 2 bits state, 15 bits length. They are numbered from 1.

The functions that add, delete and compact leave every byte where PostgreSQL's own leave it, so that
a later image, comparison or checksum finds no difference; storage/page/bufpage.c and
storage/checksum_impl.h say how (the same in 15 and 18). What does not fit inside the page raises
ValueError, a line pointer that is not there IndexError: pages come from outside.
"""

import cython

from formats import coding


def init(page, special_size):
    """Make it an empty page with `special_size` bytes, rounded up to 8, for the index."""
    special = 8192 - ((special_size + 7) & -8)
    if len(page) != 8192 or special < 24 or special > 8192:
        raise ValueError("page to initialise: wrong size of page or special space")
    coding.fill(page, 0, 8192, 0)
    coding.put_u16(page, 12, 24)
    coding.put_u16(page, 14, special)
    coding.put_u16(page, 16, special)
    coding.put_u16(page, 18, 8192 | 4)
    return 0


def is_new(page):
    """Whether the page was never initialised."""
    return coding.u16(page, 14) == 0


def lsn(page):
    """End of the last WAL record that changed the page."""
    high = coding.u32(page, 0)
    low = coding.u32(page, 4)
    return high << 32 | low


def set_lsn(page, value):
    coding.put_u32(page, 0, value >> 32)
    coding.put_u32(page, 4, value)
    return 0


def max_offset(page):
    """How many line pointers there are, which is also the number of the last one."""
    lower = coding.u16(page, 12)
    if lower <= 24:
        return 0
    return (lower - 24) >> 2


def item_position(page, n):
    """Where line pointer `n` stands in the page; IndexError if there is none."""
    if n < 1 or n > max_offset(page):
        raise IndexError("line pointer that the page does not have")
    return 20 + 4 * n


def line_pointer(page, n):
    """Line pointer `n` as it stands there."""
    return coding.u32(page, item_position(page, n))


def item_offset(page, n):
    """Where the tuple of line pointer `n` starts; of a redirection, the line pointer it names."""
    return line_pointer(page, n) & 0x7FFF


def item_flags(page, n):
    """0 unused, 1 normal, 2 redirect, 3 dead."""
    return line_pointer(page, n) >> 15 & 3


def item_length(page, n):
    """Bytes of the tuple, 0 if the line pointer has none."""
    return line_pointer(page, n) >> 17


def _put_item(page, pos, offset, flags, length):
    coding.put_u16(page, pos, (offset & 0x7FFF) | (flags & 1) << 15)
    coding.put_u16(page, pos + 2, (flags & 3) >> 1 | (length & 0x7FFF) << 1)
    return 0


def set_item(page, n, offset, flags, length):
    """Change a line pointer that is there."""
    return _put_item(page, item_position(page, n), offset, flags, length)


def _check_bounds(page):
    """Refuse a page whose regions are out of order."""
    lower = coding.u16(page, 12)
    upper = coding.u16(page, 14)
    special = coding.u16(page, 16)
    if len(page) != 8192 or lower < 24 or lower > upper or upper > special or special > 8192:
        raise ValueError("page whose lower, upper and special are out of order")
    return 0


def check_compactable(page):
    _check_bounds(page)
    if coding.u16(page, 16) & 7 != 0:
        raise ValueError("page whose special space is not aligned")
    return 0


def check_item(page, offset, length):
    """Refuse a tuple that lies outside the tuple space or not on a multiple of 8."""
    outside = offset < coding.u16(page, 14) or offset + length > coding.u16(page, 16)
    if outside or offset & 7 != 0:
        raise ValueError("line pointer to outside the page's tuples")
    return 0


def _free_item(page, count):
    """The first unused line pointer, or one more than `count`, and the hint set right."""
    flags = coding.u16(page, 10)
    if flags & 1 == 0:
        return count + 1
    n = 1
    while n <= count:
        item = coding.u32(page, 20 + 4 * n)
        if item >> 15 & 3 == 0 and item >> 17 == 0:
            return n
        n += 1
    coding.put_u16(page, 10, flags & 0xFFFE)
    return n


def add_item(page, source, source_pos, length, offset_number, overwrite, is_heap):
    """Add source[source_pos : source_pos + length] as a tuple; the number of its line pointer.

    `offset_number` 0 takes the first free line pointer. Otherwise that one: with `overwrite` it
    must be unused or the next new one, without it the later ones move up. 0 where there is no room.
    """
    n = add_room(page, length, offset_number, overwrite, is_heap)
    if n != 0:
        coding.copy(page, coding.u16(page, 14), source, source_pos, length)
    return n


def add_room(page, length, offset_number, overwrite, is_heap):
    """The same, but for the tuple's bytes: the caller puts them where pd_upper is now."""
    _check_bounds(page)
    lower = coding.u16_checked_before(page, 12)
    upper = coding.u16_checked_before(page, 14)
    count = (lower - 24) >> 2
    n = offset_number
    shift = 0
    if n == 0:
        n = _free_item(page, count)
    elif n <= count:
        if not overwrite:
            shift = 1
        elif item_flags(page, n) != 0 or item_length(page, n) != 0:
            return 0
    if n < 0 or n > count + 1 or (is_heap and n > 291) or length < 0 or length > 8192:
        return 0
    if n > count or shift == 1:
        lower += 4
    upper -= (length + 7) & -8
    if lower > upper:
        return 0
    pos = 20 + 4 * n
    if shift == 1:
        coding.move(page, pos + 4, pos, 4 * (count + 1 - n))
    coding.put_u32(page, pos, upper | 1 << 15 | length << 17)
    coding.put_u16(page, 12, lower)
    coding.put_u16(page, 14, upper)
    return n


def _close_gaps(page, numbers, count):
    """Close the gaps between tuples that lie in reverse order of their line pointers already.

    Those before the first gap stay; others that touch each other are moved in one go, once the next
    gap is found.
    """
    upper = coding.u16(page, 16)
    head = upper
    tail = upper
    for i in range(count):
        pos = 20 + 4 * numbers[i]
        item = coding.u32_checked_before(page, pos)
        offset = item & 0x7FFF
        length = ((item >> 17) + 7) & -8
        if offset + length != head:
            if upper != head:
                coding.move(page, upper, head, tail - head)
            tail = offset + length
        upper -= length
        head = offset
        coding.put_u32_checked_before(page, pos, (item & -32768) | upper)
    coding.move(page, upper, head, tail - head)
    return coding.put_u16(page, 14, upper)


def _reorder(page, numbers, count):
    """Put tuples that lie in any order into reverse order of their line pointers, without gaps."""
    words = cython.declare(cython.ulonglong[1024])
    upper = coding.u16(page, 16)
    for word in range(coding.u16(page, 14) >> 3, upper >> 3):
        words[word] = coding.u64_checked_before(page, word << 3)
    for i in range(count):
        item_pos = 20 + 4 * numbers[i]
        item = coding.u32_checked_before(page, item_pos)
        length = ((item >> 17) + 7) & -8
        upper -= length
        offset = item & 0x7FFF
        if offset != upper:
            # Inside the tuple space: so was each tuple, and their sum is not more than that.
            for pos in range(0, length, 8):
                coding.put_u64_checked_before(page, upper + pos, words[(offset + pos) >> 3])
            coding.put_u32_checked_before(page, item_pos, (item & -32768) | upper)
    return coding.put_u16(page, 14, upper)


def compact(page, numbers, count):
    """Close the gaps between the tuples of the line pointers numbers[0:count], which rise.

    Line pointers alone decide where each tuple ends up, as in PostgreSQL; tuples that lie in the
    right order already need no copy aside. The page must have passed check_compactable.
    """
    lower = coding.u16(page, 12)
    upper = coding.u16(page, 14)
    special = coding.u16(page, 16)
    lowest = special
    highest = upper
    disorder = 0  # negative when a tuple does not end before the one of the last line pointer
    misaligned = 0
    total = 0
    last = special
    for i in range(count):
        item = coding.u32_checked_before(page, 20 + 4 * numbers[i])
        offset = item & 0x7FFF
        length = item >> 17
        lowest = min(lowest, offset)
        highest = max(highest, offset + length)
        disorder |= last - offset - length
        misaligned |= offset & 7
        last = offset
        total += (length + 7) & -8
    if lowest < upper or highest > special or misaligned:
        raise ValueError("line pointer to outside the page's tuples")
    if total > special - lower:
        raise ValueError("page whose tuples are larger than their space")
    if disorder >= 0:
        return _close_gaps(page, numbers, count)
    return _reorder(page, numbers, count)


def _set_free_lines(page, has_free_lines):
    flags = coding.u16(page, 10) & 0xFFFE
    if has_free_lines:
        flags |= 1
    return coding.put_u16(page, 10, flags)


def repair_fragmentation(page, truncates):
    """Close the gaps in a heap page and set the hint.

    `truncates`: unused line pointers at the end go, as they do since PostgreSQL 15.
    """
    check_compactable(page)
    numbers = cython.declare(cython.ushort[2048])  # line pointers that have a tuple
    count = max_offset(page)
    kept = 0
    unused = 0
    used_end = 0
    n = 1
    while n <= count:
        item = coding.u32_checked_before(page, 20 + 4 * n)
        if item >> 15 & 3 == 0:
            unused += 1
            coding.put_u32_checked_before(page, 20 + 4 * n, 0)
        else:
            used_end = n
            numbers[kept] = n
            kept += item >> 17 != 0
        n += 1
    compact(page, numbers, kept)
    if truncates and used_end != count:
        unused -= count - used_end
        coding.put_u16(page, 12, 24 + 4 * used_end)
    return _set_free_lines(page, unused > 0)


def truncate_line_pointers(page):
    """Drop unused line pointers at the end of a heap page, but for the first, and set the hint."""
    count = max_offset(page)
    end = count
    while end > 1 and item_flags(page, end) == 0:
        end -= 1
    has_free_lines = 0
    n = end
    while n >= 1:
        if item_flags(page, n) == 0:
            has_free_lines = 1
            break
        n -= 1
    if end != count:
        coding.put_u16(page, 12, 24 + 4 * end)
    return _set_free_lines(page, has_free_lines)


def shift_before(page, offset, distance):
    """Move all tuples that start before `offset` by `distance` bytes, their line pointers too."""
    upper = coding.u16(page, 14)
    coding.move(page, upper + distance, upper, offset - upper)
    coding.put_u16(page, 14, upper + distance)
    count = max_offset(page)
    n = 1
    while n <= count:
        pos = 20 + 4 * n
        item = coding.u32(page, pos)
        if item >> 17 != 0 and item & 0x7FFF <= offset:
            coding.put_u32(page, pos, (item & -32768) | ((item & 0x7FFF) + distance & 0x7FFF))
        n += 1
    return 0
