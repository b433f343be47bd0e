cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class VersionSet:
    cdef public uint8_t[::1] data
    cdef public uint64_t[::1] offset, lsn
    cdef public uint32_t[::1] length, newer
    cdef public Py_ssize_t count, used, bytes_max, bytes_initial, versions_initial
    cdef public uint32_t oldest

    cdef int _begin_small(self) except -1 with gil
    cpdef int reset(self) except -1 nogil
    cpdef int begin(self) except -1 nogil
    cpdef int resume(self, uint32_t oldest) except -1 nogil
    @cython.locals(number=Py_ssize_t, kind=int)
    cpdef int push(self, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t length,
                   uint64_t lsn) except -1 nogil
    cdef int _grow_versions(self) except -1 with gil
    @cython.locals(size=Py_ssize_t)
    cdef int _grow_bytes(self, Py_ssize_t length) except -1 with gil
