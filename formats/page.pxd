cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from formats cimport coding

@cython.locals(special=int)
cpdef int init(uint8_t[::1] page, int special_size) except -1 nogil
cpdef bint is_new(const uint8_t[::1] page) except -1 nogil
@cython.locals(high=uint64_t, low=uint64_t)
cpdef uint64_t lsn(const uint8_t[::1] page) except? 0xFFFFFFFFFFFFFFFF nogil
cpdef int set_lsn(uint8_t[::1] page, uint64_t value) except -1 nogil
@cython.locals(lower=int)
cpdef int max_offset(const uint8_t[::1] page) except -1 nogil
cpdef int item_position(const uint8_t[::1] page, int n) except -1 nogil
cpdef uint32_t line_pointer(const uint8_t[::1] page, int n) except? 0xFFFFFFFF nogil
cpdef int item_offset(const uint8_t[::1] page, int n) except -1 nogil
cpdef int item_flags(const uint8_t[::1] page, int n) except -1 nogil
cpdef int item_length(const uint8_t[::1] page, int n) except -1 nogil
cdef int _put_item(uint8_t[::1] page, int pos, int offset, int flags, int length) except -1 nogil
cpdef int set_item(uint8_t[::1] page, int n, int offset, int flags, int length) except -1 nogil

@cython.locals(lower=int, upper=int, special=int)
cdef int _check_bounds(const uint8_t[::1] page) except -1 nogil
cdef int check_compactable(const uint8_t[::1] page) except -1 nogil
@cython.locals(outside=bint)
cdef int check_item(const uint8_t[::1] page, int offset, int length) except -1 nogil

@cython.locals(flags=int, n=int, item=uint32_t)
cdef int _free_item(uint8_t[::1] page, int count) except -1 nogil
@cython.locals(n=int)
cpdef int add_item(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t source_pos,
                   Py_ssize_t length, int offset_number, bint overwrite,
                   bint is_heap) except -1 nogil
@cython.locals(count=int, n=int, shift=int, lower=int, upper=int, pos=int)
cpdef int add_room(uint8_t[::1] page, Py_ssize_t length, int offset_number, bint overwrite,
                   bint is_heap) except -1 nogil

@cython.locals(upper=int, head=int, tail=int, i=int, pos=int, item=uint32_t, length=int,
               offset=int)
cdef int _close_gaps(uint8_t[::1] page, uint16_t *numbers, int count) except -1 nogil
@cython.locals(upper=int, word=int, i=int, item_pos=int, item=uint32_t, length=int, offset=int,
               pos=int)
cdef int _reorder(uint8_t[::1] page, uint16_t *numbers, int count) except -1 nogil
@cython.locals(lower=int, upper=int, special=int, lowest=int, highest=int, disorder=int,
               misaligned=int, total=int, last=int, i=int, item=uint32_t, length=int, offset=int)
cdef int compact(uint8_t[::1] page, uint16_t *numbers, int count) except -1 nogil
@cython.locals(flags=int)
cdef int _set_free_lines(uint8_t[::1] page, bint has_free_lines) except -1 nogil

@cython.locals(count=int, kept=int, unused=int, used_end=int, n=int, item=uint32_t)
cpdef int repair_fragmentation(uint8_t[::1] page, bint truncates) except -1 nogil
@cython.locals(count=int, end=int, has_free_lines=bint, n=int)
cpdef int truncate_line_pointers(uint8_t[::1] page) except -1 nogil

@cython.locals(upper=int, count=int, n=int, pos=int, item=uint32_t)
cdef int shift_before(uint8_t[::1] page, int offset, int distance) except -1 nogil
