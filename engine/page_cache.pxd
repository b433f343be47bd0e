cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class PageCache:
    cdef public uint8_t[::1] data, used
    cdef public uint32_t[::1] chunk, block, next, heads
    cdef public uint64_t[::1] lsn_from, lsn_to
    cdef public uint64_t head_mask, hits, bases, misses, found_from, found_to
    cdef public Py_ssize_t capacity, count, hand

    @cython.locals(h=uint64_t)
    cdef uint64_t _head(self, uint32_t chunk, uint32_t block) noexcept nogil
    @cython.locals(slot=uint32_t)
    cpdef uint32_t find(self, uint32_t chunk, uint32_t block) noexcept nogil
    @cython.locals(slot=uint32_t)
    cpdef int get(self, uint32_t chunk, uint32_t block, uint64_t lsn, uint8_t[::1] out,
                  Py_ssize_t pos) except -1 nogil
    @cython.locals(slot=uint32_t, head=uint64_t)
    cpdef int put(self, uint32_t chunk, uint32_t block, uint64_t lsn_from, uint64_t lsn_to,
                  const uint8_t[::1] page, Py_ssize_t pos) except -1 nogil
    cdef uint32_t _claim(self) except 0 nogil
    @cython.locals(head=uint64_t, before=uint32_t)
    cdef int _unlink(self, uint32_t slot) except -1 nogil
