cimport cython
from libc.stdint cimport uint8_t, uint32_t

from formats cimport coding
from formats cimport page as layout

# except? 0x6E1B35C9: after this value, which hardly any call returns, the caller asks for an error.

cdef int PREVIOUS, NEXT, LEVEL, FLAGS, CYCLE
cdef int IS_LEAF, IS_ROOT, IS_DELETED, IS_META, IS_HALF_DEAD, HAS_GARBAGE, INCOMPLETE_SPLIT
cdef int HAS_FULL_XID

cdef int check(const uint8_t[::1] page) except -1 nogil
cdef int set_previous(uint8_t[::1] page, uint32_t block) except -1 nogil
cdef int set_next(uint8_t[::1] page, uint32_t block) except -1 nogil
cdef int clear_flag(uint8_t[::1] page, int flag) except -1 nogil
cdef int tuple_length(const uint8_t[::1] view, Py_ssize_t pos) except -1 nogil
@cython.locals(space=int)
cdef int tuple_space(const uint8_t[::1] view, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
@cython.locals(high=uint32_t)
cdef uint32_t block_number(const uint8_t[::1] view, Py_ssize_t pos) except? 0x6E1B35C9 nogil
cdef int put_block_number(uint8_t[::1] view, Py_ssize_t pos, uint32_t block) except -1 nogil
cdef int add(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t length,
             int number) except -1 nogil
cdef int append(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos,
                Py_ssize_t length) except -1 nogil
cdef int start(uint8_t[::1] page, uint32_t previous, uint32_t following, uint32_t level,
               int flags) except -1 nogil
cdef int start_anew(uint8_t[::1] page, uint8_t[::1] old) except -1 nogil
@cython.locals(special=Py_ssize_t, end=Py_ssize_t, place=Py_ssize_t, count=int, space=int)
cdef int restore(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos,
                 Py_ssize_t length) except -1 nogil
cdef int half_dead(uint8_t[::1] page, uint32_t previous, uint32_t following,
                   uint32_t top_parent) except -1 nogil
cdef int deleted(uint8_t[::1] page, uint32_t previous, uint32_t following, uint32_t level,
                 const uint8_t[::1] source, Py_ssize_t xid_pos) except -1 nogil
cdef int meta(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos) except -1 nogil
