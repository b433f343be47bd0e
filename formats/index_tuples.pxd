cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from formats cimport coding
from formats cimport page as page_layout


@cython.locals(offset=int, length=int, lower=int, pos=int)
cpdef int delete(uint8_t[::1] page, int n) except -1 nogil
@cython.locals(offset=int, length=int)
cpdef int delete_no_compact(uint8_t[::1] page, int n) except -1 nogil
@cython.locals(present=int, tuples=int, kept=int, deleted=int, n=int, item=uint32_t, upper=int,
               special=int, offset=int)
cpdef int multi_delete(uint8_t[::1] page, const uint16_t[::1] numbers,
                        int count) except -1 nogil
@cython.locals(offset=int, flags=int, old_length=int, old_aligned=int, aligned=int)
cpdef int overwrite(uint8_t[::1] page, int n, const uint8_t[::1] source,
                    Py_ssize_t source_pos, int length) except -1 nogil
