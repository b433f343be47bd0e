# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of GiST records, resource manager 14: one function for each opcode.

A GiST page has 16 bytes of its own at the end (access/gist.h):

    offset  size  field
    8176    8     NSN: the LSN at which its last split got its downlink, high half first
    8184    4     page on its right, 0xFFFFFFFF if none
    8188    2     flags
    8190    2     0xFF81

Block 0 is the root. Its tuples are index tuples: TID (6 bytes), u16 whose low 13 bits are the
length. A page that was split keeps FOLLOW_RIGHT until the page above has the new downlink; the
record of that insertion names the page as its *left child* and ends the split there.

Functions do what those named in parentheses do in access/gist/gistxlog.c of PostgreSQL 15.18,
17.11 and 18.6; records are laid out as access/gistxlog.h says. Every byte of the page ends up as
PostgreSQL's redo leaves it, but for pd_checksum. Where a record does not fit the page an error is
raised and the page, changed halfway, is not to be used.

Not here, as they name no block: PAGE_REUSE (0x20), which concerns standbys that run queries, and
ASSIGN_LSN (0x70), which does nothing. What builds an index logs whole pages.
"""

from formats import coding, index_tuples
from formats import page as layout

PAGE_UPDATE = 0x00
DELETE = 0x10
PAGE_SPLIT = 0x30
PAGE_DELETE = 0x60

SPECIAL = 8176
RIGHT_LINK = 8184
FLAGS = 8188
PAGE_ID = 8190

# Flags.
LEAF = 1
DELETED = 2
TUPLES_DELETED = 4
FOLLOW_RIGHT = 8
HAS_GARBAGE = 16


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set (gist_redo)."""
    info = part.info & 0xF0
    if info == PAGE_UPDATE:
        _page_update(part)
    elif info == DELETE:
        _delete(part)
    elif info == PAGE_SPLIT:
        _page_split(part)
    elif info == PAGE_DELETE:
        _page_delete(part)
    else:
        raise ValueError("gist record of an unknown opcode")
    return 1


def is_left_child(info, block_id):
    """Whether a record names a page as this block id because a split of it ends."""
    opcode = info & 0xF0
    return (opcode == PAGE_UPDATE and block_id == 1) or (opcode == PAGE_SPLIT and block_id == 0)


def end_split(view, special, lsn):
    """Searches that come from above find its right sibling now (gistRedoClearFollowRight).

    `special` is where GiST's own bytes of the page start in `view`.
    """
    coding.put_u32(view, special, lsn >> 32)
    coding.put_u32(view, special + 4, lsn)
    flags = coding.u16(view, special + 12)
    return coding.put_u16(view, special + 12, flags & (0xFFFF - FOLLOW_RIGHT))


def end_split_of_image(view, pos, lsn):
    """The same in an image version (formats/version.py) that starts at `pos`.

    PostgreSQL does it even if the record has an image of the page: the primary takes that before
    it knows the LSN, and changes the page after it.
    """
    hole_offset = coding.u16(view, pos + 2)
    hole_length = coding.u16(view, pos + 4)
    if hole_offset + hole_length > SPECIAL:
        raise ValueError("image of a gist page: its hole covers the end of the page")
    return end_split(view, pos + 6 + SPECIAL - hole_length, lsn)


def _check(page):
    """Refuse a page that has no GiST fields at its end."""
    if len(page) != 8192 or coding.u16(page, 16) != SPECIAL or coding.u16(page, PAGE_ID) != 0xFF81:
        raise ValueError("page is not one of a gist index")
    return 0


def _set_flags(page, flags):
    return coding.put_u16(page, FLAGS, coding.u16(page, FLAGS) | flags)


def _main_data(part, length):
    """Where the main data starts, which must have `length` bytes."""
    if part.main_length < length:
        raise ValueError("gist record whose main data is too short")
    return part.main


def _unexpected_block():
    raise ValueError("gist record with a block that its opcode does not have")


def _end_split_of_child(part):
    _check(part.page)
    return end_split(part.page, SPECIAL, part.lsn)


def _tuple_length(view, pos, end):
    """Length of the tuple at `pos`, which must end at or before `end`."""
    if pos + 8 > end:
        raise ValueError("gist tuple is cut off")
    length = coding.u16(view, pos + 6) & 0x1FFF
    if length < 8 or pos + length > end:
        raise ValueError("gist tuple is too short or cut off")
    return length


def _append(page, source, pos, end, count):
    """Add the `count` tuples that source[pos:end] holds behind those that are there."""
    while pos < end:
        length = _tuple_length(source, pos, end)
        number = layout.max_offset(page) + 1
        if layout.add_item(page, source, pos, length, number, False, False) == 0:
            raise ValueError("gist tuple does not fit the page")
        pos += length
        count -= 1
    if count != 0:
        raise ValueError("gist record whose data does not hold its tuples")
    return 0


def _delete_tuples(part, pos, count, end):
    """Delete the tuples whose numbers, u16 and rising, stand at `pos`."""
    source = part.bytes
    numbers = part.numbers
    if count > 2048 or pos + 2 * count > end:
        raise ValueError("gist deletion whose data is too short")
    for i in range(count):
        numbers[i] = coding.u16(source, pos + 2 * i)
    return index_tuples.multi_delete(part.page, numbers, count)


def _page_update(part):
    """Tuples go and others come, on one page (gistRedoPageUpdateRecord).

    Main data: u16 tuples to delete, u16 tuples to insert. Data: the numbers of the ones, the
    others. Where one takes the place of one, it does so in its very place.
    """
    if part.block_id == 1:
        return _end_split_of_child(part)
    if part.block_id != 0:
        return _unexpected_block()
    page = part.page
    source = part.bytes
    main = _main_data(part, 4)
    deleted = coding.u16(source, main)
    inserted = coding.u16(source, main + 2)
    pos = part.data
    end = pos + part.data_length
    _check(page)
    if deleted == 1 and inserted == 1:
        length = _tuple_length(source, pos + 2, end)
        if pos + 2 + length != end:
            raise ValueError("gist record whose data does not hold its tuples")
        number = coding.u16(source, pos)
        if index_tuples.overwrite(page, number, source, pos + 2, length) == 0:
            raise ValueError("gist tuple does not fit the page")
        return 0
    if deleted > 0:
        _delete_tuples(part, pos, deleted, end)
        if coding.u16(page, FLAGS) & LEAF:
            _set_flags(page, TUPLES_DELETED)
    return _append(page, source, pos + 2 * deleted, end, inserted)


def _delete(part):
    """An insertion removed dead tuples from a leaf to make room (gistRedoDeleteRecord).

    Main data: u32 transaction, u16 tuples to delete; from 16 on u8 whether the table is a catalog,
    one byte of padding; the numbers of the tuples.
    """
    if part.block_id != 0:
        return _unexpected_block()
    page = part.page
    head = 8 if part.version >= 16 else 6
    main = _main_data(part, head)
    count = coding.u16(part.bytes, main + 4)
    _check(page)
    _delete_tuples(part, main + head, count, part.main + part.main_length)
    coding.put_u16(page, FLAGS, coding.u16(page, FLAGS) & (0xFFFF - HAS_GARBAGE))
    return _set_flags(page, TUPLES_DELETED)


def _page_split(part):
    """A page's tuples are dealt out to several, all made anew (gistRedoPageSplitRecord).

    Main data: u32 page on the right of the one that was split, 4 bytes of padding, u64 its NSN,
    u8 whether it is a leaf, a byte of padding, u16 pages, u8 whether its split is to be ended by a
    later record, padding: 24 bytes. Blocks 1 to `pages` are they, from left to right; the data of
    each is u32 tuples, the tuples. Where block 1 is the root, the others are below it and complete.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 24)
    pages = coding.u16(source, main + 18)
    if part.block_id == 0:
        return _end_split_of_child(part)
    if part.block_id > pages:
        return _unexpected_block()
    if part.data_length < 4:
        raise ValueError("gist record whose data does not hold its tuples")
    is_root = part.block(part.block_id) == 0
    flags = 0
    if not is_root and coding.u8(source, main + 16):
        flags = LEAF
    right = 0xFFFF
    right = right << 16 | right
    if not is_root and part.block_id < pages:
        following = part.block(part.block_id + 1)
        if following < 0:
            raise ValueError("gist split that does not name all of its pages")
        right = following
        if part.block(1) != 0 and coding.u8(source, main + 20):
            flags |= FOLLOW_RIGHT
    elif not is_root:
        right = coding.u32(source, main)
    layout.init(page, 16)
    coding.put_u32(page, SPECIAL, coding.u32(source, main + 12))
    coding.put_u32(page, SPECIAL + 4, coding.u32(source, main + 8))
    coding.put_u32(page, RIGHT_LINK, right)
    coding.put_u16(page, FLAGS, flags)
    coding.put_u16(page, PAGE_ID, 0xFF81)
    end = part.data + part.data_length
    return _append(page, source, part.data + 4, end, coding.u32(source, part.data))


def _page_delete(part):
    """VACUUM takes an empty leaf out of the tree (gistRedoPageDelete).

    Main data: u64 transaction after which nobody can come there, u16 number of the downlink that
    goes from the page above, block 1. The page itself holds the transaction, nothing else.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 10)
    _check(page)
    if part.block_id == 1:
        return index_tuples.delete(page, coding.u16(source, main + 8))
    if part.block_id != 0:
        return _unexpected_block()
    if layout.max_offset(page) != 0:
        raise ValueError("gist page to delete is not empty")
    _set_flags(page, DELETED)
    coding.put_u16(page, 12, 32)
    return coding.copy(page, 24, source, main, 8)
