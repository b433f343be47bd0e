# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of resource manager Heap2 (9): pruning, freezing, visibility, insertion of many tuples.

One function for each kind of record, after heapam_xlog.c of PostgreSQL 18.6 and, for what 15 writes
in its own layout (PRUNE, VACUUM, FREEZE_PAGE), the redo functions in heapam.c of 15.18. From 17 on,
one layout serves for pruning and freezing, whatever the opcode.

Which block of a record is which (`part.block_id`):

    prune, vacuum, freeze                     0 heap
    visible                                   0 map, 1 heap
    multi insert, lock updated                0 heap, 1 map (17.11, 18.6)

Pruning puts tuples where PageRepairFragmentation puts them; that of vacuum's second pass over the
heap moves none.
"""

from engine.redo import heap, heap_tuple, visibility
from formats import coding
from formats import page as layout

PRUNE = 0x10  # 17 and later: prune on access
VACUUM = 0x20  # 17 and later: prune in vacuum's first pass
FREEZE_PAGE = 0x30  # 17 and later: prune in vacuum's second pass
VISIBLE = 0x40
MULTI_INSERT = 0x50
LOCK_UPDATED = 0x60

# Flags in main data.
PRUNE_CLEANUP_LOCK = 4
PRUNE_HAS_FREEZE_PLANS = 16
PRUNE_HAS_REDIRECTIONS = 32
PRUNE_HAS_DEAD_ITEMS = 64
PRUNE_HAS_UNUSED_ITEMS = 128
FREEZE_XVAC = 2
INVALID_XVAC = 4
INSERT_ALL_VISIBLE_CLEARED = 1
INSERT_ALL_FROZEN_SET = 32
LOCK_ALL_FROZEN_CLEARED = 1

# States of a line pointer.
UNUSED = 0
REDIRECT = 2
DEAD = 3


def redo(part):
    """Apply the part to its page (heap2_redo); 1 if the page gets the record's LSN."""
    opcode = part.info & 0x70
    if opcode == VISIBLE:
        return _visible(part)
    if part.block_id == 0:
        if opcode in (PRUNE, VACUUM, FREEZE_PAGE):
            return _prune_or_freeze(part, opcode)
        if opcode == MULTI_INSERT:
            return _multi_insert(part)
        if opcode == LOCK_UPDATED:
            return _lock_updated(part)
    if part.block_id == 1:
        if opcode == MULTI_INSERT:
            cleared = visibility.VISIBLE_AND_FROZEN
            return heap.clear_map(part, 0, INSERT_ALL_VISIBLE_CLEARED, cleared)
        if opcode == LOCK_UPDATED:
            return heap.clear_map(part, 7, LOCK_ALL_FROZEN_CLEARED, visibility.FROZEN)
    raise ValueError("heap2 record of a kind that does not change this block")


def _prune_or_freeze(part, opcode):
    if part.version >= 17:
        return _prune_17(part)
    if opcode == PRUNE:
        return _prune_15(part)
    if opcode == VACUUM:
        return _vacuum_15(part)
    if part.version == 16:
        return _freeze_page_16(part)
    return _freeze_page_15(part)


def _set_items(part, pos, end, count, state):
    """Make the `count` line pointers listed at `pos` dead or unused; where the list ends."""
    if pos + 2 * count > end:
        raise ValueError("heap2 record whose list of line pointers is cut off")
    i = 0
    while i < count:
        layout.set_item(part.page, coding.u16(part.bytes, pos + 2 * i), 0, state, 0)
        i += 1
    return pos + 2 * count


def _redirect_items(part, pos, count):
    """Redirect line pointers as listed at `pos`, from and to by turns; where the list ends.

    That it ends within the record is seen by who reads on there.
    """
    i = 0
    while i < count:
        target = coding.u16(part.bytes, pos + 4 * i + 2)
        layout.set_item(part.page, coding.u16(part.bytes, pos + 4 * i), target, REDIRECT, 0)
        i += 1
    return pos + 4 * count


def _prune_17(part):
    """heap_xlog_prune_freeze.

    Main data: reason u8, flags u8, perhaps a transaction. Data, each only if flagged: freeze plans,
    and three lists of line pointers, each after its u16 count: redirected, dead, unused. Then the
    line pointers that the freeze plans are about.
    """
    heap_tuple.check_lengths(part, 2, 0)
    flags = coding.u8(part.bytes, part.main + 1)
    plan_count = 0
    pos = part.data
    end = pos + part.data_length
    if flags & PRUNE_HAS_FREEZE_PLANS:
        plan_count = coding.u16(part.bytes, pos)
        pos += 4 + 12 * plan_count
    if flags & PRUNE_HAS_REDIRECTIONS:
        pos = _redirect_items(part, pos + 2, coding.u16(part.bytes, pos))
    if flags & PRUNE_HAS_DEAD_ITEMS:
        pos = _set_items(part, pos + 2, end, coding.u16(part.bytes, pos), DEAD)
    if flags & PRUNE_HAS_UNUSED_ITEMS:
        pos = _set_items(part, pos + 2, end, coding.u16(part.bytes, pos), UNUSED)
    if flags & (PRUNE_HAS_REDIRECTIONS | PRUNE_HAS_DEAD_ITEMS | PRUNE_HAS_UNUSED_ITEMS):
        if flags & PRUNE_CLEANUP_LOCK:
            layout.repair_fragmentation(part.page, True)
        else:
            layout.truncate_line_pointers(part.page)
    pos = _freeze_by_plans(part, part.data + 4, plan_count, pos)
    if pos != end:
        raise ValueError("heap2 record whose parts do not add up to its length")
    return 1


def _freeze_by_plans(part, plan, count, pos):
    """Freeze the tuples listed at `pos` by the plans at `plan`; where the list ends.

    A plan: xmax u32, infomask2 u16, infomask u16, flags u8, a byte of padding, tuples u16.
    """
    while count > 0:
        tuples = coding.u16(part.bytes, plan + 10)
        if pos + 2 * tuples > part.data + part.data_length:
            raise ValueError("heap2 record whose list of frozen tuples is cut off")
        while tuples > 0:
            n = coding.u16(part.bytes, pos)
            _freeze_tuple(part, n, plan, plan + 4, coding.u8(part.bytes, plan + 8))
            pos += 2
            tuples -= 1
        plan += 12
        count -= 1
    return pos


def _freeze_tuple(part, n, xmax_pos, masks_pos, flags):
    """heap_execute_freeze_tuple; both infomasks stand at `masks_pos` in the record."""
    pos = heap_tuple.position(part, n)
    coding.put_u32(part.page, pos + 4, coding.u32(part.bytes, xmax_pos))
    if flags & FREEZE_XVAC:
        coding.put_u32(part.page, pos + 8, 2)
    if flags & INVALID_XVAC:
        coding.put_u32(part.page, pos + 8, 0)
    return coding.put_u32(part.page, pos + 18, coding.u32(part.bytes, masks_pos))


def _prune_15(part):
    """heap_xlog_prune of 15. Main data: a transaction, count of redirected u16, of dead u16.

    Data: redirected, dead and, in what is left, unused line pointers.
    """
    heap_tuple.check_lengths(part, 8, 0)
    end = part.data + part.data_length
    pos = _redirect_items(part, part.data, coding.u16(part.bytes, part.main + 4))
    pos = _set_items(part, pos, end, coding.u16(part.bytes, part.main + 6), DEAD)
    _set_items(part, pos, end, (end - pos) >> 1, UNUSED)
    layout.repair_fragmentation(part.page, part.version > 14)
    return 1


def _vacuum_15(part):
    """heap_xlog_vacuum of 15. Main data: count u16. Data: line pointers, dead before."""
    heap_tuple.check_lengths(part, 2, 0)
    end = part.data + part.data_length
    _set_items(part, part.data, end, coding.u16(part.bytes, part.main), UNUSED)
    layout.truncate_line_pointers(part.page)
    return 1


def _freeze_page_15(part):
    """heap_xlog_freeze_page of 15. Main data: a transaction, count of tuples u16.

    Data, for each tuple: xmax u32, line pointer u16, infomask2 u16, infomask u16, flags u8, a byte
    of padding.
    """
    heap_tuple.check_lengths(part, 6, 0)
    count = coding.u16(part.bytes, part.main + 4)
    heap_tuple.check_lengths(part, 0, 12 * count)
    pos = part.data
    while count > 0:
        _freeze_tuple(
            part, coding.u16(part.bytes, pos + 4), pos, pos + 6, coding.u8(part.bytes, pos + 10)
        )
        pos += 12
        count -= 1
    return 1


def _freeze_page_16(part):
    """heap_xlog_freeze_page of 16. Main data: a transaction, count of plans u16, flag u8.

    Data: the plans, then the line pointers that they are about.
    """
    heap_tuple.check_lengths(part, 7, 0)
    count = coding.u16(part.bytes, part.main + 4)
    end = _freeze_by_plans(part, part.data, count, part.data + 12 * count)
    if end != part.data + part.data_length:
        raise ValueError("heap2 record whose parts do not add up to its length")
    return 1


def _visible(part):
    """heap_xlog_visible. Main data: a transaction, flags u8.

    The heap page's LSN rises only where an image of it would have been logged, too.
    """
    heap_tuple.check_lengths(part, 5, 0)
    if part.block_id == 0:
        heap_block = heap_tuple.block_number(part, 1)
        return visibility.set_bits(part.page, heap_block, coding.u8(part.bytes, part.main + 4))
    if part.block_id != 1:
        raise ValueError("heap2 record of a kind that does not change this block")
    if layout.is_new(part.page):
        raise ValueError("heap page to be marked all visible that was never initialised")
    heap_tuple.set_all_visible(part, True)
    return part.hint_bits_logged


def _multi_insert(part):
    """heap_xlog_multi_insert. Main data: flags u8, padding, count u16, line pointers.

    Line pointers are left out where the page is initialised: they are 1, 2, ... Data, for each
    tuple and on an even offset: length u16, tuple header 5, tuple.
    """
    heap_tuple.check_lengths(part, 4, 0)
    flags = coding.u8(part.bytes, part.main)
    count = coding.u16(part.bytes, part.main + 2)
    initialise = part.info & heap.INIT_PAGE
    if initialise:
        layout.init(part.page, 0)
    else:
        heap_tuple.check_lengths(part, 4 + 2 * count, 0)
    offset = 0
    i = 0
    while i < count:
        n = i + 1
        if not initialise:
            n = coding.u16(part.bytes, part.main + 4 + 2 * i)
        offset = _insert_one(part, (offset + 1) & -2, n)
        i += 1
    if offset != part.data_length:
        raise ValueError("heap2 record whose tuples do not add up to its length")
    if flags & INSERT_ALL_VISIBLE_CLEARED:
        heap_tuple.set_all_visible(part, False)
    if flags & INSERT_ALL_FROZEN_SET:
        heap_tuple.set_all_visible(part, True)
    return 1


def _insert_one(part, offset, n):
    """Insert the tuple at `offset` of the block's data; the offset behind it."""
    pos = part.data + offset
    length = coding.u16(part.bytes, pos)
    if offset + 7 + length > part.data_length:
        raise ValueError("heap2 record whose tuples are cut off")
    start = heap_tuple.add(part, pos + 2, 0, n, 23 + length)
    coding.copy(part.page, start + 23, part.bytes, pos + 7, length)
    return offset + 7 + length


def _lock_updated(part):
    """heap_xlog_lock_updated. Main data: xmax u32, line pointer u16, infobits u8, flags u8."""
    heap_tuple.check_lengths(part, 8, 0)
    pos = heap_tuple.position(part, coding.u16(part.bytes, part.main + 4))
    heap_tuple.set_infobits(part, pos, coding.u8(part.bytes, part.main + 6))
    coding.put_u32(part.page, pos + 4, coding.u32(part.bytes, part.main))
    return 1
