# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Which module redoes which resource manager's records.

The numbers are PostgreSQL's (src/include/access/rmgrlist.h, the same in 14-18) and are never
reused there. XLOG records change pages by images alone, which need no redo.
"""

from engine.redo import btree, gist, heap, heap2, sequence, spgist

HEAP2 = 9
HEAP = 10
BTREE = 11
GIST = 14
SEQUENCE = 15
SPGIST = 16


def is_supported(rmgr):
    """Whether records of this resource manager can be redone."""
    return rmgr == 9 or rmgr == 10 or rmgr == 11 or rmgr == 14 or rmgr == 15 or rmgr == 16


def redo(part):
    """Apply a record's part to `part.page`; returns 1 if pd_lsn is to be set to its LSN."""
    if part.rmgr == 10:
        return heap.redo(part)
    if part.rmgr == 9:
        return heap2.redo(part)
    if part.rmgr == 11:
        return btree.redo(part)
    if part.rmgr == 14:
        return gist.redo(part)
    if part.rmgr == 15:
        return sequence.redo(part)
    if part.rmgr == 16:
        return spgist.redo(part)
    raise ValueError("no redo for this resource manager")
