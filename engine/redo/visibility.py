# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Pages of a visibility map: two bits for each heap block, 1 all visible, 2 all frozen.

A map page is a page header of 24 bytes and 8,168 bytes of bits, four heap blocks to a byte, the
lowest block in the lowest bits: 32,672 heap blocks to a page. `heap_block` is any block of the
relation; that the page is the one that covers it is up to the caller.

What PostgreSQL does here stands in access/heap/visibilitymap.c, the same in 15 and 18.
"""

from formats import coding
from formats import page as layout

HEAP_BLOCKS_PER_PAGE = 32672
VISIBLE_AND_FROZEN = 3
FROZEN = 2


def set_bits(page, heap_block, flags):
    """Set the bits of a heap block (visibilitymap_set); 1 if they were not just these before.

    A page that is still all zeros becomes a page first, as in heap_xlog_visible. PostgreSQL sets
    pd_lsn exactly when this is 1.
    """
    if layout.is_new(page):
        layout.init(page, 0)
    index = heap_block % HEAP_BLOCKS_PER_PAGE
    pos = 24 + (index >> 2)
    shift = (index & 3) << 1
    before = coding.u8(page, pos)
    if before >> shift & VISIBLE_AND_FROZEN == flags & VISIBLE_AND_FROZEN:
        return 0
    coding.put_u8(page, pos, before | (flags & VISIBLE_AND_FROZEN) << shift)
    return 1


def clear_bits(page, heap_block, flags):
    """Clear bits of a heap block (visibilitymap_clear); 1 if one of them was set.

    A page that is still all zeros stays so: its bits are clear, and PostgreSQL does not mark the
    buffer dirty when it changes none.
    """
    index = heap_block % HEAP_BLOCKS_PER_PAGE
    pos = 24 + (index >> 2)
    mask = (flags & VISIBLE_AND_FROZEN) << ((index & 3) << 1)
    before = coding.u8(page, pos)
    if before & mask == 0:
        return 0
    coding.put_u8(page, pos, before & (255 - mask))
    return 1


def truncate(page, heap_blocks_kept):
    """Clear the bits of all but the first heap blocks of this page, fewer than 32,672.

    That is visibilitymap_prepare_truncate, which makes a page of zeros a page but does not set
    pd_lsn.
    """
    if heap_blocks_kept < 0 or heap_blocks_kept >= HEAP_BLOCKS_PER_PAGE:
        raise ValueError("visibility map page to truncate keeps more than it has")
    if layout.is_new(page):
        layout.init(page, 0)
    pos = 24 + (heap_blocks_kept >> 2)
    kept_bits = (1 << ((heap_blocks_kept & 3) << 1)) - 1
    coding.put_u8(page, pos, coding.u8(page, pos) & kept_bits)
    return coding.fill(page, pos + 1, 8192 - pos - 1, 0)
