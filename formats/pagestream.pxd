cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class PageBatch:
    cdef public const uint8_t[::1] requests
    cdef public uint8_t[::1] replies
    cdef public uint32_t[::1] spc, db, rel, block
    cdef public uint8_t[::1] fork, status
    cdef public uint64_t[::1] request_lsn, not_modified_since, lsn, out_pos
    cdef public dict errors
    cdef public int capacity, count, tag, stop, refusal
    cdef public Py_ssize_t start, end

    @cython.locals(requests="const uint8_t[::1]")
    cpdef Py_ssize_t parse(self, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
    cdef int _forget_errors(self) except -1 with gil
    @cython.locals(length=Py_ssize_t, tag=int)
    cdef int _parse_other(self, const uint8_t[::1] requests, Py_ssize_t pos,
                          Py_ssize_t end) except -1 nogil
    cdef int _frame_length(self, int tag) noexcept nogil
    @cython.locals(i=Py_ssize_t)
    cdef int _take(self, const uint8_t[::1] requests, Py_ssize_t pos, int tag) except -1 nogil
    cpdef int load(self, int tag, uint32_t spc, uint32_t db, uint32_t rel, int fork,
                   uint32_t block, uint64_t lsn) except -1
    @cython.locals(i=int, count=int, request=uint64_t, since=uint64_t, refusal=int)
    cpdef int resolve(self, uint64_t ready_lsn, uint64_t reached_lsn,
                      uint64_t horizon_lsn, uint64_t retained_lsn) except -1 nogil
    cdef int _refusal(self, Py_ssize_t i, uint64_t request, uint64_t since, uint64_t reached_lsn,
                      uint64_t horizon_lsn, uint64_t retained_lsn) except -1 nogil
    cpdef int refuse(self, int refusal) except -1 nogil
    @cython.locals(requests="const uint8_t[::1]", replies=uint8_t[::1], pos=Py_ssize_t,
                   out=Py_ssize_t, i=int)
    cpdef Py_ssize_t frame_pages(self) except -1 nogil
    @cython.locals(count=int, i=int)
    cpdef int failed(self) except -1 nogil
