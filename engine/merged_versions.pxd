cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class MergedVersions:
    cdef public uint8_t[::1] data
    cdef public uint32_t[::1] chunk, block, offset, length, order, hot
    cdef public uint64_t[::1] lsn
    cdef const uint64_t[::1] retained
    cdef public Py_ssize_t count, used, hot_count
    cdef Py_ssize_t batch_bytes, versions_max, capacity, accepted
    cdef Py_ssize_t hot_records, hot_bytes, chain_records, chain_bytes
    cdef uint32_t chain_chunk, chain_block
    cdef uint64_t keeper
    cdef bint is_open

    cdef int _grow_columns(self, Py_ssize_t capacity) except -1 with gil
    cdef int _reserve(self, Py_ssize_t length) except -1 with gil
    cdef bint is_full(self) noexcept nogil
    @cython.locals(i=Py_ssize_t)
    cdef int add(self, uint32_t chunk, uint32_t block, uint64_t lsn, const uint8_t[::1] source,
                 Py_ssize_t pos, Py_ssize_t length) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cdef int add_again(self, const uint8_t[::1] source, Py_ssize_t pos,
                       Py_ssize_t length) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cdef int settle(self) except -1 nogil
    cdef int end_block(self) except -1 nogil
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t)
    cdef uint64_t _first_retained(self, uint64_t lsn) except? 0x6E1B35C96E1B35C9 nogil
    @cython.locals(to=Py_ssize_t)
    cdef Py_ssize_t _first_replaced(self, Py_ssize_t i) except -1 nogil
    cdef Py_ssize_t _drop_pending(self, Py_ssize_t to, Py_ssize_t i) except -1 nogil
    cdef int _accept(self, Py_ssize_t end) except -1 nogil
    cdef int _count_in_chain(self, Py_ssize_t i) except -1 nogil
    cdef bint _is_self_contained(self, Py_ssize_t i) except -1 nogil
    cdef uint32_t _cut_blocks(self, Py_ssize_t i) except? 0xC0C0C0C0 nogil
    cdef bint _is_cut(self, Py_ssize_t i) except -1 nogil
    cpdef int replace(self, Py_ssize_t i, const uint8_t[::1] payload) except -1
    cpdef int clear(self) except -1


cdef bint _needs_none_older(uint32_t kind) noexcept nogil
