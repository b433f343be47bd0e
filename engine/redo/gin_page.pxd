cimport cython
from libc.stdint cimport uint8_t

from formats cimport coding
from formats cimport page as layout

cdef int RIGHT_LINK, COUNT, FLAGS
cdef int CONTENT, DATA_START, DATA_END, DOWNLINK_BYTES, META_BYTES
cdef int DATA, LEAF, DELETED, META, LIST, LIST_FULL_ROW, INCOMPLETE_SPLIT, COMPRESSED

cdef int check(const uint8_t[::1] page) except -1 nogil
cdef int check_tree_page(const uint8_t[::1] page, int kind) except -1 nogil
cdef int check_data(const uint8_t[::1] page) except -1 nogil
cdef bint is_last(const uint8_t[::1] page) except -1 nogil
cdef int set_flags(uint8_t[::1] page, int flags) except -1 nogil
@cython.locals(flags=int)
cdef int clear_incomplete_split(uint8_t[::1] page) except -1 nogil
cdef int start(uint8_t[::1] page, int flags) except -1 nogil
cdef int start_meta(uint8_t[::1] page, const uint8_t[::1] source,
                    Py_ssize_t pos) except -1 nogil
@cython.locals(length=int)
cdef int add_tuple(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t end,
                   int number) except -1 nogil
@cython.locals(number=int)
cdef int append_tuples(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos,
                       Py_ssize_t end, int count) except -1 nogil
cdef int downlink_position(const uint8_t[::1] page, int number) except -1 nogil
@cython.locals(place=int, count=int, end=int)
cdef int insert_downlink(uint8_t[::1] page, int number, const uint8_t[::1] source,
                         Py_ssize_t pos, Py_ssize_t right_child) except -1 nogil
@cython.locals(place=int, count=int, end=int)
cdef int delete_downlink(uint8_t[::1] page, int number) except -1 nogil
