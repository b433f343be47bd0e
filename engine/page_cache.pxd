cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class PageCache:
    cdef public uint8_t[::1] data, used
    cdef public uint32_t[::1] chunk, block, next, heads, pins
    cdef public uint64_t[::1] lsn_from, lsn_to
    cdef public uint64_t head_mask, hits, bases, misses
    cdef public uint32_t found
    cdef public Py_ssize_t capacity, count, hand

    @cython.locals(h=uint64_t)
    cdef uint64_t _head(self, uint32_t chunk, uint32_t block) noexcept nogil
    @cython.locals(slot=uint32_t)
    cpdef uint32_t find(self, uint32_t chunk, uint32_t block) noexcept nogil
    @cython.locals(slot=uint32_t)
    cpdef int look_up(self, uint32_t chunk, uint32_t block, uint64_t lsn) except -1 nogil
    cpdef int copy(self, uint32_t slot, uint8_t[::1] out, Py_ssize_t pos) except -1 nogil
    @cython.locals(position=Py_ssize_t)
    cpdef Py_ssize_t position(self, uint32_t slot) noexcept nogil
    cpdef int extend(self, uint32_t slot, uint64_t lsn_to) except -1 nogil
    cpdef int pin(self, uint32_t slot) except -1 nogil
    cpdef int unpin(self, uint32_t slot) except -1 nogil
    @cython.locals(slot=uint32_t, head=uint64_t)
    cpdef int put(self, uint32_t chunk, uint32_t block, uint64_t lsn_from, uint64_t lsn_to,
                  const uint8_t[::1] page, Py_ssize_t pos) except -1 nogil
    @cython.locals(steps=Py_ssize_t)
    cdef uint32_t _claim(self) except? 1 nogil
    @cython.locals(head=uint64_t, before=uint32_t)
    cdef int _unlink(self, uint32_t slot) except -1 nogil
