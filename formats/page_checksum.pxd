cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from formats cimport coding
from formats cimport page as page_format

cdef const uint8_t[::1] _checksum_seeds
cdef uint32_t _prime

@cython.locals(count=Py_ssize_t, found=Py_ssize_t, index=Py_ssize_t, start=Py_ssize_t,
               wrong=bint, one="const uint8_t[::1]")
cpdef Py_ssize_t find_bad_checksums(const uint8_t[::1] pages, uint32_t first_block,
                                    uint32_t[::1] bad) except -1 nogil
@cython.locals(pos=Py_ssize_t)
cdef bint _is_zero(const uint8_t[::1] one) except -1 nogil
@cython.locals(mask=uint32_t, prime=uint32_t, lane=int, stored=uint32_t, row=int, pos=Py_ssize_t,
               value=uint32_t, total=uint32_t)
cpdef int checksum(const uint8_t[::1] page, uint32_t block) except -1 nogil
cpdef int set_checksum(uint8_t[::1] page, uint32_t block) except -1 nogil
