cimport cython
from libc.stdint cimport uint8_t, uint32_t

from formats cimport coding
from formats cimport page as layout

cdef int NONE, PREVIOUS, NEXT, BUCKET, FLAGS
cdef int IS_OVERFLOW, IS_BITMAP, IS_META, NEEDS_SPLIT_CLEANUP, HAS_DEAD_TUPLES
cdef int TUPLES, MAX_BUCKET, HIGH_MASK, LOW_MASK, SPLITPOINT, FIRST_FREE, BITMAP_COUNT
cdef int SPARES, BITMAPS, META_END, SPLITPOINTS_MAX, BITMAPS_MAX

cdef int check(const uint8_t[::1] page) except -1 nogil
cdef int check_meta(const uint8_t[::1] page) except -1 nogil
cdef int start(uint8_t[::1] page, uint32_t previous, uint32_t bucket, int flags) except -1 nogil
cdef int set_previous(uint8_t[::1] page, uint32_t block) except -1 nogil
cdef int set_next(uint8_t[::1] page, uint32_t block) except -1 nogil
cdef int set_flags(uint8_t[::1] page, int flags) except -1 nogil
cdef int clear_flag(uint8_t[::1] page, int flag) except -1 nogil
@cython.locals(space=int)
cdef int tuple_space(const uint8_t[::1] view, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
cdef int add(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t length,
             int number) except -1 nogil
cdef int start_bitmap(uint8_t[::1] page, int length) except -1 nogil
@cython.locals(pos=uint32_t, mask=int, byte=int)
cdef int set_bit(uint8_t[::1] page, uint32_t bit, bint value) except -1 nogil
@cython.locals(half=int)
cdef int _buckets(int splitpoint) noexcept nogil
@cython.locals(splitpoint=int, buckets=uint32_t, high_mask=uint32_t)
cdef int start_meta(uint8_t[::1] page, double tuples, int per_bucket,
                    uint32_t function) except -1 nogil
cdef int count_tuples(uint8_t[::1] page, int change) except -1 nogil
@cython.locals(count=uint32_t)
cdef int add_bitmap(uint8_t[::1] page, uint32_t block) except -1 nogil
@cython.locals(splitpoint=uint32_t, pos=Py_ssize_t)
cdef int count_overflow_pages(uint8_t[::1] page, int change) except -1 nogil
cdef int set_splitpoint(uint8_t[::1] page, uint32_t splitpoint,
                        uint32_t overflow_pages) except -1 nogil
