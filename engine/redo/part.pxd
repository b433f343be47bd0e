cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from formats cimport coding


@cython.final
cdef class Part:
    cdef public uint8_t[::1] page
    cdef public const uint8_t[::1] bytes
    cdef public uint8_t[::1] scratch
    cdef public uint16_t[::1] numbers
    cdef public int version, rmgr, info, block_id, reference_count, flags
    cdef public uint32_t xid
    cdef public uint64_t lsn
    cdef public bint hint_bits_logged
    cdef public Py_ssize_t references, main, main_length, data, data_length

    cpdef int load(self, Py_ssize_t pos, Py_ssize_t length) except -1 nogil
    @cython.locals(i=int)
    cpdef int64_t block(self, int block_id) except? -2 nogil
    cpdef bint has_block(self, int block_id) except -1 nogil
