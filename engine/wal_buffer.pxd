cimport cython
from libc.stdint cimport int64_t, uint8_t, uint64_t

from formats cimport coding

cdef Py_ssize_t PAGE_BYTES, SHORT_HEADER_BYTES, LONG_HEADER_BYTES, BUFFER_BYTES
cdef Py_ssize_t BUFFER_BYTES_MAX


@cython.final
cdef class WalBuffer:
    cdef uint8_t[::1] data, headers
    cdef const uint8_t[::1] source
    cdef int64_t[::1] page_end
    cdef uint64_t[::1] page_lsn
    cdef Py_ssize_t filled, page_count, taken
    cdef uint64_t segment_size, lsn, skip_lsn

    cdef _allocate(self, Py_ssize_t capacity)
    @cython.locals(kept=Py_ssize_t, pages_kept=Py_ssize_t, capacity=Py_ssize_t, i=Py_ssize_t,
                   header_bytes=Py_ssize_t)
    cdef make_room(self, Py_ssize_t head, Py_ssize_t page, Py_ssize_t length)
    cdef offer(self, const uint8_t[::1] source)
    cdef Py_ssize_t left(self) noexcept nogil
    cdef bint has_room(self) noexcept nogil
    @cython.locals(left=Py_ssize_t, step=Py_ssize_t)
    cdef int pull(self) except -1 nogil
    @cython.locals(in_page=Py_ssize_t, page_lsn=uint64_t, header_bytes=Py_ssize_t,
                   step=Py_ssize_t, header=Py_ssize_t)
    cdef Py_ssize_t _append_some(self, const uint8_t[::1] source, Py_ssize_t pos,
                                 Py_ssize_t length) except -1 nogil
    @cython.locals(after=Py_ssize_t)
    cdef Py_ssize_t skip_to(self, uint64_t lsn, Py_ssize_t head, Py_ssize_t page) except -1 nogil
