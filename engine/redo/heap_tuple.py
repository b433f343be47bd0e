# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A tuple in a heap page: its header, and what several heap records do to it.

    offset  size  field
    0       4     t_xmin
    4       4     t_xmax            a transaction or a multixact
    8       4     t_cid             redo writes 0: it matters inside one transaction only
    12      6     t_ctid            block (high u16, low u16) and line pointer of the next version
    18      2     t_infomask2       attributes, HOT_UPDATED, KEYS_UPDATED
    20      2     t_infomask        what xmin and xmax are
    22      1     t_hoff            where the data starts
    23            bitmap of nulls, padding, data

Records carry t_infomask2, t_infomask and t_hoff of a new tuple and its bytes from 23 on; the rest
follows from the record. See access/htup_details.h and access/heap/heapam_xlog.c (18.6).
"""

from formats import coding
from formats import page as layout

# t_infomask2
KEYS_UPDATED = 0x2000
HOT_UPDATED = 0x4000
# t_infomask
XMAX_KEY_SHARE_LOCK = 0x0010
COMBO_COMMAND = 0x0020
XMAX_EXCLUSIVE_LOCK = 0x0040
XMAX_LOCK_ONLY = 0x0080
XMAX_IS_MULTIXACT = 0x1000
# XMAX_COMMITTED, XMAX_INVALID, the four above, MOVED_OFF and MOVED_IN
XMAX_AND_MOVED = 0xDCD0
# pd_flags
ALL_VISIBLE = 4


def check_lengths(part, main_length, data_length):
    """Refuse a part with less main data or less data of this block than the record must have."""
    if part.main_length < main_length or part.data_length < data_length:
        raise ValueError("heap record that is shorter than its kind")
    return 0


def block_number(part, block_id):
    """The number of a block that the record must reference."""
    number = part.block(block_id)
    if number < 0:
        raise ValueError("heap record without a block that its kind references")
    return number


def position(part, n):
    """Where the tuple of line pointer `n` starts in the page."""
    item = layout.line_pointer(part.page, n)
    if item >> 15 & 3 != 1:
        raise ValueError("heap record about a line pointer without a tuple")
    return item & 0x7FFF


def put_ctid(part, tuple_pos, block, n):
    coding.put_u16(part.page, tuple_pos + 12, block >> 16)
    coding.put_u16(part.page, tuple_pos + 14, block)
    return coding.put_u16(part.page, tuple_pos + 16, n)


def set_infobits(part, tuple_pos, infobits):
    """Replace what the tuple says about its xmax by a record's infobits."""
    infomask2 = coding.u16(part.page, tuple_pos + 18) & ~KEYS_UPDATED
    infomask = coding.u16(part.page, tuple_pos + 20) & ~XMAX_AND_MOVED
    if infobits & 1:
        infomask |= XMAX_IS_MULTIXACT
    if infobits & 2:
        infomask |= XMAX_LOCK_ONLY
    if infobits & 4:
        infomask |= XMAX_EXCLUSIVE_LOCK
    if infobits & 8:
        infomask |= XMAX_KEY_SHARE_LOCK
    if infobits & 16:
        infomask2 |= KEYS_UPDATED
    coding.put_u16(part.page, tuple_pos + 18, infomask2)
    return coding.put_u16(part.page, tuple_pos + 20, infomask)


def set_hot_updated(part, tuple_pos, hot):
    infomask2 = coding.u16(part.page, tuple_pos + 18) & ~HOT_UPDATED
    if hot:
        infomask2 |= HOT_UPDATED
    return coding.put_u16(part.page, tuple_pos + 18, infomask2)


def clear_command(part, tuple_pos):
    """Make it the deleting transaction's first command (HeapTupleHeaderSetCmax)."""
    coding.put_u32(part.page, tuple_pos + 8, 0)
    infomask = coding.u16(part.page, tuple_pos + 20) & ~COMBO_COMMAND
    return coding.put_u16(part.page, tuple_pos + 20, infomask)


def set_prunable(part):
    """Note the oldest transaction whose end may make a tuple of the page dead (PageSetPrunable)."""
    xid = part.xid
    present = coding.u32(part.page, 20)
    if present != 0:
        if xid < 3 or present < 3:
            if xid >= present:
                return 0
        else:
            # `xid` is older where the difference, modulo 2^32, is in the upper half.
            difference = xid - present
            if difference >> 31 & 1 == 0:
                return 0
    return coding.put_u32(part.page, 20, xid)


def set_all_visible(part, all_visible):
    flags = coding.u16(part.page, 10) & ~ALL_VISIBLE
    if all_visible:
        flags |= ALL_VISIBLE
    return coding.put_u16(part.page, 10, flags)


def add(part, header_pos, xmax, n, length):
    """Add a tuple of `length` bytes as line pointer `n` and write its header; where it starts.

    The record has 5 bytes of the header. The tuple's bytes from 23 on are still to be copied.
    """
    if layout.add_room(part.page, length, n, True, True) == 0:
        raise ValueError("heap record with a tuple that the page has no room for")
    pos = coding.u16(part.page, 14)
    coding.put_u32(part.page, pos, part.xid)
    coding.put_u32(part.page, pos + 4, xmax)
    coding.put_u32(part.page, pos + 8, 0)
    put_ctid(part, pos, block_number(part, 0), n)
    infomask = coding.u16(part.bytes, header_pos + 2) & ~COMBO_COMMAND
    coding.put_u16(part.page, pos + 18, coding.u16(part.bytes, header_pos))
    coding.put_u16(part.page, pos + 20, infomask)
    coding.put_u8(part.page, pos + 22, coding.u8(part.bytes, header_pos + 4))
    return pos
