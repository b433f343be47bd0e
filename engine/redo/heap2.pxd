cimport cython
from libc.stdint cimport uint32_t

from engine.redo cimport heap, heap_tuple, visibility
from engine.redo.part cimport Part
from formats cimport coding
from formats cimport page as layout

cdef int PRUNE, VACUUM, FREEZE_PAGE, VISIBLE, MULTI_INSERT, LOCK_UPDATED
cdef int PRUNE_CLEANUP_LOCK, PRUNE_HAS_FREEZE_PLANS, PRUNE_HAS_REDIRECTIONS
cdef int PRUNE_HAS_DEAD_ITEMS, PRUNE_HAS_UNUSED_ITEMS, FREEZE_XVAC, INVALID_XVAC
cdef int INSERT_ALL_VISIBLE_CLEARED, INSERT_ALL_FROZEN_SET, LOCK_ALL_FROZEN_CLEARED
cdef int UNUSED, REDIRECT, DEAD

@cython.locals(opcode=int, cleared=int)
cpdef int redo(Part part) except -1 nogil
cdef int _prune_or_freeze(Part part, int opcode) except -1 nogil
@cython.locals(i=int)
cdef Py_ssize_t _set_items(Part part, Py_ssize_t pos, Py_ssize_t end, int count,
                           int state) except -1 nogil
@cython.locals(i=int, target=int)
cdef Py_ssize_t _redirect_items(Part part, Py_ssize_t pos, int count) except -1 nogil
@cython.locals(flags=int, plan_count=int, pos=Py_ssize_t, end=Py_ssize_t)
cdef int _prune_17(Part part) except -1 nogil
@cython.locals(tuples=int, n=int)
cdef Py_ssize_t _freeze_by_plans(Part part, Py_ssize_t plan, int count,
                                 Py_ssize_t pos) except -1 nogil
@cython.locals(pos=int)
cdef int _freeze_tuple(Part part, int n, Py_ssize_t xmax_pos, Py_ssize_t masks_pos,
                       int flags) except -1 nogil
@cython.locals(end=Py_ssize_t, pos=Py_ssize_t)
cdef int _prune_15(Part part) except -1 nogil
@cython.locals(end=Py_ssize_t)
cdef int _vacuum_15(Part part) except -1 nogil
@cython.locals(count=int, pos=Py_ssize_t)
cdef int _freeze_page_15(Part part) except -1 nogil
@cython.locals(count=int, end=Py_ssize_t)
cdef int _freeze_page_16(Part part) except -1 nogil
@cython.locals(heap_block=uint32_t)
cdef int _visible(Part part) except -1 nogil
@cython.locals(flags=int, count=int, initialise=bint, offset=Py_ssize_t, i=int, n=int)
cdef int _multi_insert(Part part) except -1 nogil
@cython.locals(pos=Py_ssize_t, length=int, start=int)
cdef Py_ssize_t _insert_one(Part part, Py_ssize_t offset, int n) except -1 nogil
@cython.locals(pos=int)
cdef int _lock_updated(Part part) except -1 nogil
