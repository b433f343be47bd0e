# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of btree records, resource manager 11: one function for each opcode.

They do what the functions named in parentheses do in access/nbtree/nbtxlog.c of PostgreSQL 15.18
and 18.6; records are laid out as access/nbtxlog.h says (the same in both for what redo reads).

Every byte of the page ends up as PostgreSQL's redo leaves it, but for pd_checksum. Where a record
does not fit the page an error is raised and the page, changed halfway, is not to be used.

Not here: REUSE_PAGE (0xD0), which references no block and concerns standbys that run queries.
"""

from engine.redo import btree_page as pages
from engine.redo import btree_posting as postings
from formats import coding, index_tuples
from formats import page as layout

INSERT_LEAF = 0x00
INSERT_UPPER = 0x10
INSERT_META = 0x20
SPLIT_LEFT = 0x30
SPLIT_RIGHT = 0x40
INSERT_POSTING = 0x50
DEDUP = 0x60
DELETE = 0x70
UNLINK_PAGE = 0x80
UNLINK_PAGE_META = 0x90
NEW_ROOT = 0xA0
MARK_PAGE_HALF_DEAD = 0xB0
VACUUM = 0xC0
META_CLEANUP = 0xE0


def redo(part):
    """Bring part.page to its state after the record; 1: its pd_lsn is to be set (btree_redo)."""
    info = part.info & 0xF0
    if info == INSERT_LEAF:
        _insert_leaf(part)
    elif info == INSERT_POSTING:
        _insert_posting(part)
    elif info == INSERT_UPPER:
        _insert_upper(part)
    elif info == INSERT_META:
        _insert_meta(part)
    elif info == SPLIT_LEFT:
        _split(part, True)
    elif info == SPLIT_RIGHT:
        _split(part, False)
    elif info == DEDUP:
        _dedup(part)
    elif info == DELETE:
        _delete(part)
    elif info == VACUUM:
        _vacuum(part)
    elif info == MARK_PAGE_HALF_DEAD:
        _mark_page_half_dead(part)
    elif info == UNLINK_PAGE:
        _unlink_page(part)
    elif info == UNLINK_PAGE_META:
        _unlink_page_meta(part)
    elif info == NEW_ROOT:
        _new_root(part)
    elif info == META_CLEANUP:
        _meta_cleanup(part)
    else:
        raise ValueError("btree record of an unknown opcode")
    return 1


def _main_data(part, length):
    """Where the main data starts, which must have `length` bytes."""
    if part.main_length < length:
        raise ValueError("btree record whose main data is too short")
    return part.main


def _unexpected_block():
    raise ValueError("btree record with a block that its opcode does not have")


def _insert_leaf(part):
    """A tuple more on a leaf page (btree_xlog_insert)."""
    if part.block_id != 0:
        return _unexpected_block()
    number = coding.u16(part.bytes, _main_data(part, 2))
    return pages.add(part.page, part.bytes, part.data, part.data_length, number)


def _insert_upper(part):
    """A downlink more on an inner page, which completes a split below (btree_xlog_insert)."""
    if part.block_id == 1:
        return pages.clear_flag(part.page, pages.INCOMPLETE_SPLIT)
    return _insert_leaf(part)


def _insert_meta(part):
    """The same above a level that had a single page so far: searches start here from now on."""
    if part.block_id == 2:
        return _restore_meta(part)
    return _insert_upper(part)


def _insert_posting(part):
    """A tuple more whose TID lies within the posting list before it (btree_xlog_insert).

    It enters that list, whose last TID makes the new tuple. Data: u16 index in the list, tuple.
    """
    if part.block_id != 0:
        return _unexpected_block()
    page = part.page
    source = part.bytes
    number = coding.u16(source, _main_data(part, 2))
    index = coding.u16(source, part.data)
    pages.add(page, source, part.data + 2, part.data_length - 2, number)
    return postings.insert_tid(page, number - 1, index, source, part.data + 2, number)


def _split(part, new_on_left):
    """Half of a page's tuples go to a new page on its right (btree_xlog_split)."""
    if part.block_id == 0:
        return _split_left(part, new_on_left)
    if part.block_id == 1:
        return _split_right(part)
    if part.block_id == 2:
        return pages.set_previous(part.page, part.block(1))
    if part.block_id == 3:
        return pages.clear_flag(part.page, pages.INCOMPLETE_SPLIT)
    return _unexpected_block()


def _split_left(part, new_on_left):
    """The page itself gets a high key and keeps the tuples before the split point.

    Main data: u32 level, u16 first number that goes right, u16 number of the new tuple, u16 index
    in the posting list that it splits, 0 if none. Data: the new tuple, if it stays here or splits a
    posting list (which stays here even where the new tuple goes right); the high key.
    """
    page = part.page
    source = part.bytes
    old = part.scratch
    main = _main_data(part, 10)
    split_at = coding.u16(source, main + 4)
    number = coding.u16(source, main + 6)
    index = coding.u16(source, main + 8)
    end = part.data + part.data_length
    length = 0
    if new_on_left or index != 0:
        length = pages.tuple_space(source, part.data, end)
    high_key = part.data + length
    high_key_length = pages.tuple_space(source, high_key, end)
    first = pages.start_anew(page, old)
    if high_key + high_key_length != end or split_at > layout.max_offset(old) + 1:
        raise ValueError("btree split that does not fit the page")
    if new_on_left and (number < first or number > split_at):
        raise ValueError("btree split whose new tuple is not in its half")
    pages.append(page, source, high_key, high_key_length)
    n = first
    while n <= split_at:
        if new_on_left and n == number:
            pages.append(page, source, part.data, length)
        if n < split_at:
            pages.append(page, old, layout.item_offset(old, n), layout.item_length(old, n))
        n += 1
    if index != 0:
        number += 2 - first
        postings.insert_tid(
            page, number - 1, index, source, part.data, number if new_on_left else 0
        )
    flags = pages.INCOMPLETE_SPLIT
    if coding.u32(source, main) == 0:
        flags |= pages.IS_LEAF
    coding.put_u16(page, pages.FLAGS, flags)
    coding.put_u16(page, pages.CYCLE, 0)
    return pages.set_next(page, part.block(1))


def _split_right(part):
    """The new page holds nothing but what its data says."""
    level = coding.u32(part.bytes, _main_data(part, 10))
    following = part.block(2)
    if following < 0:
        following = 0  # the last page of its level
    pages.start(part.page, part.block(0), following, level, 0)
    return pages.restore(part.page, part.bytes, part.data, part.data_length)


def _dedup(part):
    """Runs of tuples with equal keys become posting lists (btree_xlog_dedup).

    Main data: u16 number of runs. Data: for each, rising, u16 its first number and u16 its length.
    """
    if part.block_id != 0:
        return _unexpected_block()
    page = part.page
    source = part.bytes
    old = part.scratch
    run = part.data
    end = run + part.data_length
    if part.data_length != 4 * coding.u16(source, _main_data(part, 2)):
        raise ValueError("btree deduplication whose data does not hold its runs")
    n = pages.start_anew(page, old)
    count = layout.max_offset(old)
    if n == 2:
        pages.append(page, old, layout.item_offset(old, 1), layout.item_length(old, 1))
    while n <= count:
        if run < end and coding.u16(source, run) == n:
            merged = coding.u16(source, run + 2)
            if merged < 2 or n + merged > count + 1:
                raise ValueError("btree deduplication of tuples that are not there")
            postings.append_merged(page, old, n, merged)
            run += 4
            n += merged
        else:
            pages.append(page, old, layout.item_offset(old, n), layout.item_length(old, n))
            n += 1
    if run != end:
        raise ValueError("btree deduplication of tuples that are not there")
    return pages.clear_flag(page, pages.HAS_GARBAGE)


def _delete(part):
    """An insertion removed dead tuples to make room (btree_xlog_delete)."""
    return _delete_tuples(part, _main_data(part, 8) + 4)


def _vacuum(part):
    """VACUUM removed dead tuples; from 18 on redo resets the cycle as well (btree_xlog_vacuum)."""
    _delete_tuples(part, _main_data(part, 4))
    if part.version >= 18:
        coding.put_u16(part.page, pages.CYCLE, 0)
    return 0


def _delete_tuples(part, counts):
    """Take TIDs out of some posting lists, then delete some tuples.

    At `counts` stand two u16: tuples to delete, posting lists to shrink. Data: the numbers of the
    ones, of the others, and for each of these u16 how many TIDs and u16 indexes of them.
    """
    if part.block_id != 0:
        return _unexpected_block()
    page = part.page
    source = part.bytes
    numbers = part.numbers
    deleted = coding.u16(source, counts)
    shrunk = coding.u16(source, counts + 2)
    shrunk_numbers = part.data + 2 * deleted
    pos = shrunk_numbers + 2 * shrunk
    end = part.data + part.data_length
    for i in range(shrunk):
        tids = 0
        if pos + 2 <= end:
            tids = coding.u16(source, pos)
        if pos + 2 + 2 * tids > end:
            raise ValueError("btree deletion whose data is too short")
        postings.remove_tids(part, coding.u16(source, shrunk_numbers + 2 * i), pos + 2, tids)
        pos += 2 + 2 * tids
    if pos != end or deleted > 1024:
        raise ValueError("btree deletion whose data is of a wrong length")
    for i in range(deleted):
        numbers[i] = coding.u16(source, part.data + 2 * i)
    index_tuples.multi_delete(page, numbers, deleted)
    return pages.clear_flag(page, pages.HAS_GARBAGE)


def _mark_page_half_dead(part):
    """First step of deleting an empty leaf: its downlink goes (btree_xlog_mark_page_halfdead).

    Main data: u16 number of the downlink, u16 0, u32 leaf, left sibling, right sibling, top parent.
    The tuple of the downlink stays and points to the right sibling, whose own tuple goes.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 20)
    if part.block_id == 0:
        left = coding.u32(source, main + 8)
        right = coding.u32(source, main + 12)
        return pages.half_dead(page, left, right, coding.u32(source, main + 16))
    if part.block_id != 1:
        return _unexpected_block()
    pages.check(page)
    number = coding.u16(source, main)
    right = pages.block_number(page, layout.item_offset(page, number + 1))
    pages.put_block_number(page, layout.item_offset(page, number), right)
    return index_tuples.delete(page, number + 1)


def _unlink_page(part):
    """Second step: out of its level's chain (btree_xlog_unlink_page).

    Main data: u32 left sibling, right sibling, level, 0, u64 transaction, u32 left sibling, right
    sibling, top parent of the half-dead leaf: block 3, where block 0 is a page above it.
    """
    page = part.page
    source = part.bytes
    main = _main_data(part, 36)
    left = coding.u32(source, main)
    right = coding.u32(source, main + 4)
    if part.block_id == 0:
        return pages.deleted(page, left, right, coding.u32(source, main + 8), source, main + 16)
    if part.block_id == 1:
        return pages.set_next(page, right)
    if part.block_id == 2:
        return pages.set_previous(page, left)
    if part.block_id == 3:
        left = coding.u32(source, main + 24)
        right = coding.u32(source, main + 28)
        return pages.half_dead(page, left, right, coding.u32(source, main + 32))
    return _unexpected_block()


def _unlink_page_meta(part):
    """The same where one page remains on its level: searches start there from now on."""
    if part.block_id == 4:
        return _restore_meta(part)
    return _unlink_page(part)


def _new_root(part):
    """An index's first page, or one level more (btree_xlog_newroot). Main: u32 block, u32 level."""
    if part.block_id == 1:
        return pages.clear_flag(part.page, pages.INCOMPLETE_SPLIT)
    if part.block_id == 2:
        return _restore_meta(part)
    if part.block_id != 0:
        return _unexpected_block()
    level = coding.u32(part.bytes, _main_data(part, 8) + 4)
    pages.start(part.page, 0, 0, level, pages.IS_ROOT)
    if level == 0:
        return 0
    return pages.restore(part.page, part.bytes, part.data, part.data_length)


def _meta_cleanup(part):
    """VACUUM noted on the meta page how many deleted pages it could not recycle."""
    if part.block_id != 0:
        return _unexpected_block()
    return _restore_meta(part)


def _restore_meta(part):
    """The meta page is always made anew (_bt_restore_meta)."""
    if part.data_length != 28:
        raise ValueError("btree meta page whose data is of a wrong length")
    return pages.meta(part.page, part.bytes, part.data)
