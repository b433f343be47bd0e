cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding

cdef uint32_t CONTINUES, LONG_HEADER, REMOVABLE, OVERWRITES, ALL_FLAGS
cdef uint32_t[5] MAGICS
cdef int VERSION_MIN, VERSION_MAX


@cython.final
cdef class PageHeader:
    cdef readonly uint32_t magic, flags, timeline, remaining, segment_size, page_size
    cdef readonly uint64_t lsn, system_identifier

    cpdef int load(self, const uint8_t[::1] view, Py_ssize_t pos) except -1 nogil


@cython.locals(i=int)
cpdef int major_version(uint32_t magic) except -1 nogil
cpdef uint32_t magic(int version) except? 0xFFFFFFFF nogil
