# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Posting lists of a btree leaf page: tuples with many TIDs behind one key.

In such a tuple bit 13 of the info and bit 13 of the TID's number are set; the other bits of the
number count the TIDs, and the TID's block says where in the tuple they start, at 6 bytes each. The
key before them is aligned, zeros fill the tuple up to a multiple of 8.

The rules are those of access/nbtree/nbtdedup.c of PostgreSQL 15.18 and 18.6.
"""

from engine.redo import btree_page as pages
from formats import coding, index_tuples
from formats import page as layout

HAS_OTHER_TID = 0x2000
IS_POSTING = 0x2000

# Three tuples must fit on a page, beside a TID that their high key may need.
LENGTH_MAX = 2704


def is_posting(view, pos):
    if coding.u16(view, pos + 6) & HAS_OTHER_TID == 0:
        return False
    return coding.u16(view, pos + 4) & IS_POSTING != 0


def tid_count(view, pos):
    """TIDs of the tuple at `pos`, 1 if it is a plain one."""
    if is_posting(view, pos):
        return coding.u16(view, pos + 4) & 0x0FFF
    return 1


def tids_start(view, pos):
    """Where the tuple at `pos` has its TIDs: a plain one has the only one at its start."""
    if is_posting(view, pos):
        return pos + pages.block_number(view, pos)
    return pos


def key_space(view, pos):
    """Bytes of the tuple at `pos` before its posting list, all of them in a plain tuple."""
    space = pages.tuple_length(view, pos)
    if is_posting(view, pos):
        space = pages.block_number(view, pos)
    if space < 8 or space > LENGTH_MAX:
        raise ValueError("btree tuple has a key of no possible length")
    return space


def insert_tid(page, number, index, source, pos, last_goes_to):
    """Put the TID at source[pos] at `index` into posting list `number`, whose last TID drops out.

    That one becomes the TID of the plain tuple `last_goes_to`; 0 if nothing here takes it
    (_bt_swap_posting).
    """
    posting = layout.item_offset(page, number)
    count = tid_count(page, posting)
    tids = tids_start(page, posting)
    last = tids + 6 * (count - 1)
    if index < 1 or index >= count or last + 6 > posting + layout.item_length(page, number):
        raise ValueError("btree posting list cannot be split there")
    if last_goes_to != 0:
        coding.move(page, layout.item_offset(page, last_goes_to), last, 6)
    place = tids + 6 * index
    coding.move(page, place + 6, place, last - place)
    return coding.copy(page, place, source, pos, 6)


def append_merged(page, old, first, count):
    """Append one tuple with the key of old's tuple `first` and the TIDs of `count` from there on.

    It is built where it comes to lie (_bt_dedup_finish_pending, _bt_form_posting).
    """
    total = 0
    for n in range(first, first + count):
        total += tid_count(old, layout.item_offset(old, n))
    base = layout.item_offset(old, first)
    key_length = key_space(old, base)
    length = (key_length + 6 * total + 7) & -8
    lower = coding.u16(page, 12) + 4
    upper = coding.u16(page, 14) - length
    if length > LENGTH_MAX or lower > upper:
        raise ValueError("btree posting list is too long")
    coding.put_u16(page, 12, lower)
    coding.put_u16(page, 14, upper)
    layout.set_item(page, layout.max_offset(page), upper, 1, length)
    coding.copy(page, upper, old, base, key_length)
    put_header(page, upper, coding.u16(old, base + 6), length, key_length, total)
    place = upper + key_length
    for n in range(first, first + count):
        base = layout.item_offset(old, n)
        length = 6 * tid_count(old, base)
        coding.copy(page, place, old, tids_start(old, base), length)
        place += length
    return 0


def put_header(view, pos, info, length, key_length, count):
    """Make the tuple at `pos` a posting list of `count` TIDs; `info` gives its two other flags."""
    pages.put_block_number(view, pos, key_length)
    coding.put_u16(view, pos + 4, count | IS_POSTING)
    return coding.put_u16(view, pos + 6, (info & 0xC000) | HAS_OTHER_TID | length)


def remove_tids(part, number, indexes, count):
    """Take `count` TIDs out of posting list `number`; their indexes stand at `indexes`, rising.

    A single TID that stays makes it a plain tuple (_bt_update_posting).
    """
    page = part.page
    source = part.bytes
    room = part.scratch
    posting = layout.item_offset(page, number)
    total = tid_count(page, posting)
    kept = total - count
    if total < 2 or kept < 1:
        raise ValueError("btree posting list does not have that many TIDs to remove")
    key_length = key_space(page, posting)
    length = key_length
    place = 0
    if kept > 1:
        length = (key_length + 6 * kept + 7) & -8
        place = key_length
    if length > LENGTH_MAX:
        raise ValueError("btree posting list is too long")
    coding.fill(room, 0, length, 0)
    coding.copy(room, 0, page, posting, key_length)
    info = coding.u16(page, posting + 6)
    if kept > 1:
        put_header(room, 0, info, length, key_length, kept)
    else:
        coding.put_u16(room, 6, (info & 0xC000) | length)
    taken = 0
    for i in range(total):
        if taken < count and coding.u16(source, indexes + 2 * taken) == i:
            taken += 1
        else:
            coding.copy(room, place, page, posting + key_length + 6 * i, 6)
            place += 6
    if taken != count:
        raise ValueError("btree posting list does not have a TID to remove")
    if index_tuples.overwrite(page, number, room, 0, length) == 0:
        raise ValueError("btree posting list does not fit the page")
    return 0
