cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class ChunkTable:
    cdef public object is_held
    cdef public int64_t count, capacity
    cdef public uint64_t slot_mask
    cdef public uint32_t[::1] slots, kind, spc, db, rel, fork, seg
    cdef public uint32_t[::1] root, history, blocks, cut_blocks
    cdef public uint64_t[::1] change_lsn, cut_lsn
    cdef public uint8_t[::1] exists, held

    @cython.locals(number=int64_t, old=int64_t)
    cdef int _allocate(self, int64_t capacity) except -1
    @cython.locals(h=uint64_t)
    cdef uint64_t _hash(self, uint64_t kind, uint64_t spc, uint64_t db, uint64_t rel,
                        uint64_t fork, uint64_t seg) noexcept nogil
    @cython.locals(slot=uint64_t)
    cdef int _enter(self, int64_t number) except -1
    @cython.locals(slot=uint64_t, entry=uint32_t, number=int64_t)
    cpdef int64_t find(self, uint32_t kind, uint32_t spc, uint32_t db, uint32_t rel,
                       uint32_t fork, uint32_t seg) except -2 nogil
    @cython.locals(number=int64_t)
    cpdef int64_t intern(self, uint32_t kind, uint32_t spc, uint32_t db, uint32_t rel,
                         uint32_t fork, uint32_t seg) except -1 nogil
    @cython.locals(number=int64_t)
    cdef int64_t _add(self, uint32_t kind, uint32_t spc, uint32_t db, uint32_t rel,
                      uint32_t fork, uint32_t seg) except -1 with gil
