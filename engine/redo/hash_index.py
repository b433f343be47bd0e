# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of hash index records, resource manager 12: one function for each opcode.

They do what the functions named in parentheses do in access/hash/hash_xlog.c of PostgreSQL 15.18,
17.11 and 18.6; records are laid out as access/hash_xlog.h says (the same in all, but for
VACUUM_ONE_PAGE).

Block 0 of MOVE_PAGE_CONTENTS, SQUEEZE_PAGE and DELETE is a bucket's first page, named so that redo
can lock it: it does not change, nor does its pd_lsn. Where that page does change it is block 1, and
there is no block 0.

Where PostgreSQL applies SPLIT_ALLOCATE_PAGE and SPLIT_COMPLETE over an image as well, that changes
nothing: the image was taken after the change.

Every byte of the page ends up as PostgreSQL's redo leaves it, but for pd_checksum. Where a record
does not fit the page an error is raised and the page, changed halfway, is not to be used.
"""

from engine.redo import hash_page as pages
from formats import coding, index_tuples
from formats import page as layout

INIT_META_PAGE = 0x00
INIT_BITMAP_PAGE = 0x10
INSERT = 0x20
ADD_OVERFLOW_PAGE = 0x30
SPLIT_ALLOCATE_PAGE = 0x40
SPLIT_PAGE = 0x50
SPLIT_COMPLETE = 0x60
MOVE_PAGE_CONTENTS = 0x70
SQUEEZE_PAGE = 0x80
DELETE = 0x90
SPLIT_CLEANUP = 0xA0
UPDATE_META_PAGE = 0xB0
VACUUM_ONE_PAGE = 0xC0

# Flags of SPLIT_ALLOCATE_PAGE.
NEW_MASKS = 1
NEW_SPLITPOINT = 2


def redo(part):
    """Bring part.page to its state after the record; 1 if its pd_lsn is to be set (hash_redo)."""
    info = part.info & 0xF0
    if info == INSERT:
        return _insert(part)
    if info == INIT_META_PAGE:
        return _init_meta_page(part)
    if info == INIT_BITMAP_PAGE:
        return _init_bitmap_page(part)
    if info == ADD_OVERFLOW_PAGE:
        return _add_overflow_page(part)
    if info == SPLIT_ALLOCATE_PAGE:
        return _split_allocate_page(part)
    if info == SPLIT_PAGE:
        raise ValueError("hash split record without the page's image")
    if info == SPLIT_COMPLETE:
        return _split_complete(part)
    if info == MOVE_PAGE_CONTENTS:
        return _move_page_contents(part)
    if info == SQUEEZE_PAGE:
        return _squeeze_page(part)
    if info == DELETE:
        return _delete(part)
    if info == SPLIT_CLEANUP:
        return _split_cleanup(part)
    if info == UPDATE_META_PAGE:
        return _update_meta_page(part)
    if info == VACUUM_ONE_PAGE:
        return _vacuum_one_page(part)
    raise ValueError("hash record of an unknown opcode")


def _main_data(part, length):
    """Where the main data starts, which must have `length` bytes."""
    if part.main_length < length:
        raise ValueError("hash record whose main data is too short")
    return part.main


def _data(part, length):
    """Where the block's data starts, which must be `length` bytes."""
    if part.data_length != length:
        raise ValueError("hash record whose data is of a wrong length")
    return part.data


def _block(part, block_id):
    """The number of a block that the record must have."""
    number = part.block(block_id)
    if number < 0:
        raise ValueError("hash record without a block that its opcode has")
    return number


def _unexpected_block():
    raise ValueError("hash record with a block that its opcode does not have")


def _init_meta_page(part):
    """An index begins (hash_xlog_init_meta_page).

    Main data: double tuples expected, u32 hash function, u16 tuples that a bucket is to have.
    """
    source = part.bytes
    main = _main_data(part, 14)
    if part.block_id != 0:
        return _unexpected_block()
    pages.start_meta(
        part.page,
        coding.f64(source, main),
        coding.u16(source, main + 12),
        coding.u32(source, main + 8),
    )
    return 1


def _init_bitmap_page(part):
    """Its first bitmap page, behind the buckets (hash_xlog_init_bitmap_page). Main: u16 bytes."""
    main = _main_data(part, 2)
    if part.block_id == 0:
        pages.start_bitmap(part.page, coding.u16(part.bytes, main))
    elif part.block_id == 1:
        pages.add_bitmap(part.page, coding.u32(part.page, pages.MAX_BUCKET) + 2)
    else:
        return _unexpected_block()
    return 1


def _insert(part):
    """A tuple more (hash_xlog_insert). Main data: u16 its number. Data of block 0: the tuple."""
    if part.block_id == 0:
        number = coding.u16(part.bytes, _main_data(part, 2))
        pages.add(part.page, part.bytes, part.data, part.data_length, number)
    elif part.block_id == 1:
        pages.count_tuples(part.page, 1)
    else:
        return _unexpected_block()
    return 1


def _add_overflow_page(part):
    """A bucket gets a page more, a freed one or a new one (hash_xlog_add_ovfl_page).

    Main data: u16 bytes of a bitmap, u8 whether a freed page was found. A u32 is the data of block
    0, bucket; of block 2, its bit in the bitmap; of block 4, where to look for the next free page.
    Block 3 is a new bitmap page, which lies before the new page.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 3)
    if part.block_id == 0:
        bucket = coding.u32(source, _data(part, 4))
        pages.start(page, _block(part, 1), bucket, pages.IS_OVERFLOW)
    elif part.block_id == 1:
        pages.set_next(page, _block(part, 0))
    elif part.block_id == 2:
        pages.set_bit(page, coding.u32(source, _data(part, 4)), True)
    elif part.block_id == 3:
        pages.start_bitmap(page, coding.u16(source, main))
    elif part.block_id == 4:
        pages.check_meta(page)
        coding.put_u32(page, pages.FIRST_FREE, coding.u32(source, _data(part, 4)))
        if coding.u8(source, main + 2) == 0:
            pages.count_overflow_pages(page, 1)
            if part.has_block(3):
                pages.add_bitmap(page, _block(part, 3))
                pages.count_overflow_pages(page, 1)
    else:
        return _unexpected_block()
    return 1


def _split_allocate_page(part):
    """A bucket is about to be split, the new one begins (hash_xlog_split_allocate_page).

    Main data: u32 new bucket, u16 flags of the old bucket's page, u16 of the new one's, u8 flags.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 9)
    bucket = coding.u32(source, main)
    if part.block_id == 0:
        pages.set_flags(page, coding.u16(source, main + 4))
        pages.set_previous(page, bucket)
    elif part.block_id == 1:
        pages.start(page, bucket, bucket, coding.u16(source, main + 6))
    elif part.block_id == 2:
        _split_in_meta(part, bucket, coding.u8(source, main + 8))
    else:
        return _unexpected_block()
    return 1


def _split_in_meta(part, bucket, flags):
    """Block 2, the meta page. By the flags its data has u32 low mask, high mask; splitpoint, count
    of overflow pages."""
    page = part.page
    source = part.bytes
    masks = flags & NEW_MASKS
    splitpoint = (flags & NEW_SPLITPOINT) >> 1
    pos = _data(part, 8 * (masks + splitpoint))
    pages.check_meta(page)
    coding.put_u32(page, pages.MAX_BUCKET, bucket)
    if masks:
        coding.put_u32(page, pages.LOW_MASK, coding.u32(source, pos))
        coding.put_u32(page, pages.HIGH_MASK, coding.u32(source, pos + 4))
        pos += 8
    if splitpoint:
        pages.set_splitpoint(page, coding.u32(source, pos), coding.u32(source, pos + 4))
    return 0


def _split_complete(part):
    """Both halves are there (hash_xlog_split_complete). Main: u16 flags of old page, of new one."""
    main = _main_data(part, 4)
    if part.block_id > 1:
        return _unexpected_block()
    pages.set_flags(part.page, coding.u16(part.bytes, main + 2 * part.block_id))
    return 1


def _move_page_contents(part):
    """Tuples go to a page further ahead in their bucket (hash_xlog_move_page_contents).

    Main data: u16 number of tuples, u8 whether block 1 is the bucket's first page. Data of block 1,
    where they go: as _add_tuples says; of block 2, whence they come: u16 their numbers.
    """
    main = _main_data(part, 3)
    if part.block_id == 0:
        return 0
    if part.block_id == 1:
        _add_tuples(part, coding.u16(part.bytes, main))
    elif part.block_id == 2:
        _delete_tuples(part, part.data, part.data_length)
    else:
        return _unexpected_block()
    return 1


def _squeeze_page(part):
    """A bucket's last page goes, its tuples to a page further ahead (hash_xlog_squeeze_page).

    Main data: u32 page before it, u32 page after it, u16 number of tuples, u8 whether block 1 is
    the bucket's first page, u8 whether it is the page before. Block 1 is where the tuples go, 2 the
    page itself, 3 the page before if that is not block 1, 4 the page after, 5 the bitmap page with
    u32 its bit, 6 the meta page with u32 where to look for a free page.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 12)
    if part.block_id == 0:
        return 0
    if part.block_id == 1:
        return _squeeze_into(part, main)
    if part.block_id == 2:
        pages.start(page, pages.NONE, pages.NONE, 0)
    elif part.block_id == 3:
        if coding.u8(source, main + 11):
            return _unexpected_block()
        pages.set_next(page, coding.u32(source, main + 4))
    elif part.block_id == 4:
        pages.set_previous(page, coding.u32(source, main))
    elif part.block_id == 5:
        pages.set_bit(page, coding.u32(source, _data(part, 4)), False)
    elif part.block_id == 6:
        pages.check_meta(page)
        coding.put_u32(page, pages.FIRST_FREE, coding.u32(source, _data(part, 4)))
    else:
        return _unexpected_block()
    return 1


def _squeeze_into(part, main):
    """Block 1 of SQUEEZE_PAGE: up to 16 its pd_lsn is set even where nothing else of it changes."""
    count = coding.u16(part.bytes, main + 8)
    is_before = coding.u8(part.bytes, main + 11)
    _add_tuples(part, count)
    if is_before:
        pages.set_next(part.page, coding.u32(part.bytes, main + 4))
    return part.version < 17 or count > 0 or is_before != 0


def _delete(part):
    """VACUUM or the cleanup after a split removed tuples (hash_xlog_delete).

    Main data: u8 whether none is left that is marked as dead, u8 whether block 1 is the bucket's
    first page. Data of block 1: u16 the numbers.
    """
    main = _main_data(part, 2)
    if part.block_id == 0:
        return 0
    if part.block_id != 1:
        return _unexpected_block()
    _delete_tuples(part, part.data, part.data_length)
    if coding.u8(part.bytes, main):
        pages.clear_flag(part.page, pages.HAS_DEAD_TUPLES)
    return 1


def _split_cleanup(part):
    """The old bucket has no tuple of the new one left (hash_xlog_split_cleanup)."""
    if part.block_id != 0:
        return _unexpected_block()
    pages.clear_flag(part.page, pages.NEEDS_SPLIT_CLEANUP)
    return 1


def _update_meta_page(part):
    """VACUUM counted the tuples (hash_xlog_update_meta_page). Main data: double their number."""
    main = _main_data(part, 8)
    if part.block_id != 0:
        return _unexpected_block()
    pages.check_meta(part.page)
    coding.copy(part.page, pages.TUPLES, part.bytes, main, 8)
    return 1


def _vacuum_one_page(part):
    """An insertion removed dead tuples to make room (hash_xlog_vacuum_one_page).

    Main data: u32 newest transaction that removed one; their number, until 15 an i32, from 16 on a
    u16, a u8 and a byte that means nothing; u16 the numbers of the tuples.
    """
    main = _main_data(part, 8)
    count = coding.u16(part.bytes, main + 4)
    if part.version < 16 and coding.u16(part.bytes, main + 6) != 0:
        raise ValueError("hash deletion of more tuples than a page has")
    if part.block_id == 0:
        _delete_tuples(part, _main_data(part, 8 + 2 * count) + 8, 2 * count)
        pages.clear_flag(part.page, pages.HAS_DEAD_TUPLES)
    elif part.block_id == 1:
        pages.count_tuples(part.page, -count)
    else:
        return _unexpected_block()
    return 1


def _add_tuples(part, count):
    """Add tuples: the data has u16 the number of each, then the tuples, each on a multiple of 8."""
    source = part.bytes
    pages.check(part.page)
    number = part.data
    pos = part.data + 2 * count
    end = part.data + part.data_length
    while pos < end and count > 0:
        space = pages.tuple_space(source, pos, end)
        pages.add(part.page, source, pos, space, coding.u16(source, number))
        number += 2
        pos += space
        count -= 1
    if pos != end or count != 0:
        raise ValueError("hash record whose data does not hold its tuples")
    return 0


def _delete_tuples(part, pos, length):
    """Delete the tuples whose u16 numbers stand at `pos`."""
    source = part.bytes
    numbers = part.numbers
    count = length >> 1
    pages.check(part.page)
    if length & 1 or count > layout.max_offset(part.page) or count > 2048:
        raise ValueError("hash deletion of more tuples than the page has")
    for i in range(count):
        numbers[i] = coding.u16(source, pos + 2 * i)
    return index_tuples.multi_delete(part.page, numbers, count)
