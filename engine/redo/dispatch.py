# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Which module redoes which resource manager's records.

The numbers are PostgreSQL's (src/include/access/rmgrlist.h, the same in 14-18) and are never
reused there. XLOG records change pages by images alone, which need no redo.
"""

from engine.redo import brin, btree, generic, gin, gist, hash_index, heap, heap2, sequence, spgist

HEAP2 = 9
HEAP = 10
BTREE = 11
HASH = 12
GIN = 13
GIST = 14
SEQUENCE = 15
SPGIST = 16
BRIN = 17
GENERIC = 20


def is_supported(rmgr):
    """Whether records of this resource manager can be redone."""
    return 9 <= rmgr <= 17 or rmgr == 20


def redo(part):
    """Apply a record's part to `part.page`; returns 1 if pd_lsn is to be set to its LSN."""
    if part.rmgr == 10:
        return heap.redo(part)
    if part.rmgr == 9:
        return heap2.redo(part)
    if part.rmgr == 11:
        return btree.redo(part)
    return redo_of_other_access_methods(part)


def redo_of_other_access_methods(part):
    """`redo`, of the rarer ones."""
    if part.rmgr == 12:
        return hash_index.redo(part)
    if part.rmgr == 13:
        return gin.redo(part)
    if part.rmgr == 14:
        return gist.redo(part)
    if part.rmgr == 15:
        return sequence.redo(part)
    if part.rmgr == 16:
        return spgist.redo(part)
    if part.rmgr == 17:
        return brin.redo(part)
    if part.rmgr == 20:
        return generic.redo(part)
    raise ValueError("no redo for this resource manager")
