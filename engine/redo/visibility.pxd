cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from formats cimport coding
from formats cimport page as layout

cdef uint32_t HEAP_BLOCKS_PER_PAGE
cdef int VISIBLE_AND_FROZEN, FROZEN

@cython.locals(index=uint32_t, pos=int, shift=int, before=int)
cpdef int set_bits(uint8_t[::1] page, uint32_t heap_block, int flags) except -1 nogil
@cython.locals(index=uint32_t, pos=int, mask=int, before=int)
cpdef int clear_bits(uint8_t[::1] page, uint32_t heap_block, int flags) except -1 nogil
@cython.locals(pos=int, kept_bits=int)
cpdef int truncate(uint8_t[::1] page, int64_t heap_blocks_kept) except -1 nogil
