cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int PAGE_UPDATE, DELETE, PAGE_SPLIT, PAGE_DELETE
cdef int SPECIAL, RIGHT_LINK, FLAGS, PAGE_ID
cdef int LEAF, DELETED, TUPLES_DELETED, FOLLOW_RIGHT, HAS_GARBAGE

@cython.locals(info=int)
cpdef int redo(Part part) except -1 nogil
@cython.locals(opcode=int)
cpdef bint is_left_child(int info, int block_id) except -1 nogil
@cython.locals(flags=int)
cpdef int end_split(uint8_t[::1] view, Py_ssize_t special, uint64_t lsn) except -1 nogil
@cython.locals(hole_offset=int, hole_length=int)
cpdef int end_split_of_image(uint8_t[::1] view, Py_ssize_t pos, uint64_t lsn) except -1 nogil

cdef int _check(const uint8_t[::1] page) except -1 nogil
cdef int _set_flags(uint8_t[::1] page, int flags) except -1 nogil
cdef Py_ssize_t _main_data(Part part, int length) except -1 nogil
cdef int _unexpected_block() except -1 nogil
cdef int _end_split_of_child(Part part) except -1 nogil
@cython.locals(length=int)
cdef int _tuple_length(const uint8_t[::1] view, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
@cython.locals(length=int, number=int)
cdef int _append(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t end,
                 int64_t count) except -1 nogil
@cython.locals(source="const uint8_t[::1]", numbers=uint16_t[::1], i=int)
cdef int _delete_tuples(Part part, Py_ssize_t pos, int count, Py_ssize_t end) except -1 nogil

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, deleted=int,
               inserted=int, pos=Py_ssize_t, end=Py_ssize_t, length=int, number=int)
cdef int _page_update(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], head=int, main=Py_ssize_t, count=int)
cdef int _delete(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, pages=int,
               is_root=bint, flags=int, right=uint32_t, following=int64_t, end=Py_ssize_t)
cdef int _page_split(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t)
cdef int _page_delete(Part part) except -1 nogil
