cimport cython
from libc.stdint cimport uint8_t, uint32_t

from engine.redo cimport btree_page as pages
from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int HAS_OTHER_TID, IS_POSTING, LENGTH_MAX

cdef bint is_posting(const uint8_t[::1] view, Py_ssize_t pos) except -1 nogil
cdef int tid_count(const uint8_t[::1] view, Py_ssize_t pos) except -1 nogil
cdef Py_ssize_t tids_start(const uint8_t[::1] view, Py_ssize_t pos) except -1 nogil
@cython.locals(space=uint32_t)
cdef int key_space(const uint8_t[::1] view, Py_ssize_t pos) except -1 nogil
@cython.locals(posting=Py_ssize_t, count=int, tids=Py_ssize_t, last=Py_ssize_t, place=Py_ssize_t)
cdef int insert_tid(uint8_t[::1] page, int number, int index, const uint8_t[::1] source,
                    Py_ssize_t pos, int last_goes_to) except -1 nogil
@cython.locals(total=int, n=int, base=Py_ssize_t, key_length=int, length=int, lower=int,
               upper=int, place=Py_ssize_t)
cdef int append_merged(uint8_t[::1] page, const uint8_t[::1] old, int first,
                       int count) except -1 nogil
cdef int put_header(uint8_t[::1] view, Py_ssize_t pos, int info, int length, int key_length,
                    int count) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", room=uint8_t[::1],
               posting=Py_ssize_t, total=int, kept=int, key_length=int, length=int,
               place=Py_ssize_t, info=int, taken=int, i=int)
cdef int remove_tids(Part part, int number, Py_ssize_t indexes, int count) except -1 nogil
