# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of resource manager Heap (10): tuples inserted, updated, deleted and locked.

One function for each kind of record, after heapam_xlog.c of PostgreSQL 18.6, which does the same as
the redo functions in heapam.c of 15.18. Both write the same records, but that 17.11 and 18.6 may
also reference the visibility map's page, and then clear its bits and set its LSN. Where there is no
such reference, the map changes without its LSN, and ingest makes an effect of it.

Which block of a record is which (`part.block_id`):

    insert, delete, lock, confirm, inplace    0 heap, 1 map
    update, hot update                        0 page of the new tuple, 1 that of the old if another,
                                              2 map for the new page, 3 map for the old page
"""

from engine.redo import heap_tuple, visibility
from formats import coding
from formats import page as layout

INSERT = 0x00
DELETE = 0x10
UPDATE = 0x20
TRUNCATE = 0x30
HOT_UPDATE = 0x40
CONFIRM = 0x50
LOCK = 0x60
INPLACE = 0x70
INIT_PAGE = 0x80

# Flags in main data.
INSERT_ALL_VISIBLE_CLEARED = 1
DELETE_ALL_VISIBLE_CLEARED = 1
DELETE_IS_SUPER = 8
DELETE_IS_PARTITION_MOVE = 16
UPDATE_OLD_ALL_VISIBLE_CLEARED = 1
UPDATE_NEW_ALL_VISIBLE_CLEARED = 2
UPDATE_PREFIX_FROM_OLD = 32
UPDATE_SUFFIX_FROM_OLD = 64
LOCK_ALL_FROZEN_CLEARED = 1


def redo(part):
    """Apply the part to its page (heap_redo); 1 if the page gets the record's LSN."""
    opcode = part.info & 0x70
    if opcode in (UPDATE, HOT_UPDATE):
        return _update(part, opcode == HOT_UPDATE)
    if part.block_id == 0:
        if opcode == INSERT:
            return _insert(part)
        if opcode == DELETE:
            return _delete(part)
        if opcode == CONFIRM:
            return _confirm(part)
        if opcode == LOCK:
            return _lock(part)
        if opcode == INPLACE:
            return _inplace(part)
    if part.block_id == 1:
        if opcode == INSERT:
            return clear_map(part, 2, INSERT_ALL_VISIBLE_CLEARED, visibility.VISIBLE_AND_FROZEN)
        if opcode == DELETE:
            return clear_map(part, 7, DELETE_ALL_VISIBLE_CLEARED, visibility.VISIBLE_AND_FROZEN)
        if opcode == LOCK:
            return clear_map(part, 7, LOCK_ALL_FROZEN_CLEARED, visibility.FROZEN)
    raise ValueError("heap record of a kind that does not change this block")


def clear_map(part, flags_offset, condition, bits):
    """Clear bits of heap block 0 in the map page, if the record says so (heap_xlog_vm_clear)."""
    heap_tuple.check_lengths(part, flags_offset + 1, 0)
    if coding.u8(part.bytes, part.main + flags_offset) & condition == 0:
        return 0
    return visibility.clear_bits(part.page, heap_tuple.block_number(part, 0), bits)


def _insert(part):
    """heap_xlog_insert. Main data: line pointer u16, flags u8. Data: tuple header 5, tuple."""
    heap_tuple.check_lengths(part, 3, 5)
    n = coding.u16(part.bytes, part.main)
    if part.info & INIT_PAGE:
        layout.init(part.page, 0)
    length = part.data_length - 5
    pos = heap_tuple.add(part, part.data, 0, n, 23 + length)
    coding.copy(part.page, pos + 23, part.bytes, part.data + 5, length)
    if coding.u8(part.bytes, part.main + 2) & INSERT_ALL_VISIBLE_CLEARED:
        heap_tuple.set_all_visible(part, False)
    return 1


def _delete(part):
    """heap_xlog_delete. Main data: xmax u32, line pointer u16, infobits u8, flags u8."""
    heap_tuple.check_lengths(part, 8, 0)
    n = coding.u16(part.bytes, part.main + 4)
    flags = coding.u8(part.bytes, part.main + 7)
    pos = heap_tuple.position(part, n)
    heap_tuple.set_hot_updated(part, pos, False)
    heap_tuple.set_infobits(part, pos, coding.u8(part.bytes, part.main + 6))
    if flags & DELETE_IS_SUPER:
        coding.put_u32(part.page, pos, 0)
    else:
        coding.put_u32(part.page, pos + 4, coding.u32(part.bytes, part.main))
    heap_tuple.clear_command(part, pos)
    heap_tuple.set_prunable(part)
    if flags & DELETE_ALL_VISIBLE_CLEARED:
        heap_tuple.set_all_visible(part, False)
    if flags & DELETE_IS_PARTITION_MOVE:
        heap_tuple.put_ctid(part, pos, 0xFFFFFFFF, 0xFFFD)
    else:
        heap_tuple.put_ctid(part, pos, heap_tuple.block_number(part, 0), n)
    return 1


def _update(part, hot):
    """heap_xlog_update, for one of its blocks.

    Main data: old xmax u32, old line pointer u16, old infobits u8, flags u8, new xmax u32, new line
    pointer u16. Both tuples are in one page when the record has no block 1.
    """
    heap_tuple.check_lengths(part, 14, 0)
    same_page = not part.has_block(1)
    if part.block_id == 0:
        if same_page:
            _end_old_version(part, hot)
        return _add_new_version(part, same_page)
    if part.block_id == 1:
        return _end_old_version(part, hot)
    if part.block_id == 2:
        return _clear_map_of_new_version(part)
    if part.block_id == 3:
        return visibility.clear_bits(part.page, _old_block(part), visibility.VISIBLE_AND_FROZEN)
    raise ValueError("heap update of a block that it cannot have")


def _old_block(part):
    if part.has_block(1):
        return heap_tuple.block_number(part, 1)
    return heap_tuple.block_number(part, 0)


def _clear_map_of_new_version(part):
    """The map page of the new tuple's page, which may cover the old one's too (17.11, 18.6)."""
    flags = coding.u8(part.bytes, part.main + 7)
    new_block = heap_tuple.block_number(part, 0)
    old_block = _old_block(part)
    covers_old = old_block // visibility.HEAP_BLOCKS_PER_PAGE == heap_tuple.block_number(part, 2)
    cleared = 0
    if flags & UPDATE_OLD_ALL_VISIBLE_CLEARED and covers_old:
        cleared |= visibility.clear_bits(part.page, old_block, visibility.VISIBLE_AND_FROZEN)
    if flags & (UPDATE_OLD_ALL_VISIBLE_CLEARED | UPDATE_NEW_ALL_VISIBLE_CLEARED):
        cleared |= visibility.clear_bits(part.page, new_block, visibility.VISIBLE_AND_FROZEN)
    return cleared


def _end_old_version(part, hot):
    pos = heap_tuple.position(part, coding.u16(part.bytes, part.main + 4))
    heap_tuple.set_hot_updated(part, pos, hot)
    heap_tuple.set_infobits(part, pos, coding.u8(part.bytes, part.main + 6))
    coding.put_u32(part.page, pos + 4, coding.u32(part.bytes, part.main))
    heap_tuple.clear_command(part, pos)
    new_block = heap_tuple.block_number(part, 0)
    heap_tuple.put_ctid(part, pos, new_block, coding.u16(part.bytes, part.main + 12))
    heap_tuple.set_prunable(part)
    if coding.u8(part.bytes, part.main + 7) & UPDATE_OLD_ALL_VISIBLE_CLEARED:
        heap_tuple.set_all_visible(part, False)
    return 1


def _add_new_version(part, same_page):
    """Data: prefix length u16 and suffix length u16 where flagged, tuple header 5, tuple."""
    flags = coding.u8(part.bytes, part.main + 7)
    n = coding.u16(part.bytes, part.main + 12)
    if part.info & INIT_PAGE and not same_page:
        layout.init(part.page, 0)
    pos = part.data
    prefix = 0
    suffix = 0
    if flags & UPDATE_PREFIX_FROM_OLD:
        prefix = coding.u16(part.bytes, pos)
        pos += 2
    if flags & UPDATE_SUFFIX_FROM_OLD:
        suffix = coding.u16(part.bytes, pos)
        pos += 2
    if prefix + suffix > 0 and not same_page:
        raise ValueError("heap update that needs the old version from another page")
    end = part.data + part.data_length
    if pos + 5 > end:
        raise ValueError("heap update that is shorter than its kind")
    length = 23 + prefix + (end - pos - 5) + suffix
    start = heap_tuple.add(part, pos, coding.u32(part.bytes, part.main + 8), n, length)
    _put_content(part, start + 23, pos + 5, end, prefix, suffix)
    if flags & UPDATE_NEW_ALL_VISIBLE_CLEARED:
        heap_tuple.set_all_visible(part, False)
    return 1


def _put_content(part, target, pos, end, prefix, suffix):
    """Fill the new tuple from its byte 23 on, at `target`, from the record and the old version.

    The record has the bitmap of nulls and the data between what is the same at the start and at the
    end of both versions.
    """
    if prefix > 0:
        bitmap_length = coding.u8(part.page, target - 1) - 23
        if bitmap_length < 0 or pos + bitmap_length > end:
            raise ValueError("heap update whose tuple header is longer than the tuple")
        coding.copy(part.page, target, part.bytes, pos, bitmap_length)
        pos += bitmap_length
        target += bitmap_length
        target += _copy_from_old(part, target, True, prefix)
    coding.copy(part.page, target, part.bytes, pos, end - pos)
    target += end - pos
    if suffix > 0:
        _copy_from_old(part, target, False, suffix)
    return 0


def _copy_from_old(part, target, at_start, length):
    """Copy the first or the last bytes of the old version's data; their number."""
    item = layout.line_pointer(part.page, coding.u16(part.bytes, part.main + 4))
    old = item & 0x7FFF
    old_end = old + (item >> 17)
    data = old + coding.u8(part.page, old + 22)
    if data + length > old_end:
        raise ValueError("heap update that takes more from the old version than it has")
    if not at_start:
        data = old_end - length
    coding.move(part.page, target, data, length)
    return length


def _confirm(part):
    """heap_xlog_confirm: a speculative insertion stays. Main data: line pointer u16."""
    heap_tuple.check_lengths(part, 2, 0)
    n = coding.u16(part.bytes, part.main)
    heap_tuple.put_ctid(part, heap_tuple.position(part, n), heap_tuple.block_number(part, 0), n)
    return 1


def _lock(part):
    """heap_xlog_lock. Main data: xmax u32, line pointer u16, infobits u8, flags u8."""
    heap_tuple.check_lengths(part, 8, 0)
    n = coding.u16(part.bytes, part.main + 4)
    pos = heap_tuple.position(part, n)
    heap_tuple.set_infobits(part, pos, coding.u8(part.bytes, part.main + 6))
    if _is_only_locked(coding.u16(part.page, pos + 20)):
        heap_tuple.set_hot_updated(part, pos, False)
        heap_tuple.put_ctid(part, pos, heap_tuple.block_number(part, 0), n)
    coding.put_u32(part.page, pos + 4, coding.u32(part.bytes, part.main))
    heap_tuple.clear_command(part, pos)
    return 1


def _is_only_locked(infomask):
    """Whether xmax locks the tuple without updating it (HEAP_XMAX_IS_LOCKED_ONLY)."""
    if infomask & heap_tuple.XMAX_LOCK_ONLY:
        return True
    locks = heap_tuple.XMAX_EXCLUSIVE_LOCK | heap_tuple.XMAX_KEY_SHARE_LOCK
    bits = infomask & (heap_tuple.XMAX_IS_MULTIXACT | locks)
    return bits == heap_tuple.XMAX_EXCLUSIVE_LOCK


def _inplace(part):
    """heap_xlog_inplace: the tuple's data is replaced. Main data: line pointer u16."""
    heap_tuple.check_lengths(part, 2, 0)
    n = coding.u16(part.bytes, part.main)
    pos = heap_tuple.position(part, n)
    start = coding.u8(part.page, pos + 22)
    if layout.item_length(part.page, n) - start != part.data_length:
        raise ValueError("heap record that replaces data by some of another length")
    coding.copy(part.page, pos + start, part.bytes, part.data, part.data_length)
    return 1
