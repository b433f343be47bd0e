cimport cython
from libc.stdint cimport uint8_t, uint32_t

from engine.redo cimport gin_data as leaves
from engine.redo cimport gin_page as pages
from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int CREATE_POSTING_TREE, INSERT, SPLIT, VACUUM_PAGE, DELETE_PAGE, UPDATE_META_PAGE
cdef int INSERT_LIST_PAGE, DELETE_LIST_PAGES, VACUUM_DATA_LEAF_PAGE
cdef int IS_DATA, IS_LEAF

@cython.locals(info=int)
cpdef int redo(Part part) except -1 nogil
cdef Py_ssize_t _main_data(Part part, int length) except -1 nogil
cdef int _unexpected_block() except -1 nogil

@cython.locals(length=uint32_t)
cdef int _create_posting_tree(Part part) except -1 nogil
@cython.locals(flags=int)
cdef int _insert(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", end=Py_ssize_t, number=int,
               place=int)
cdef int _insert_entry(Part part, int flags) except -1 nogil
@cython.locals(number=int)
cdef int _insert_downlink(Part part) except -1 nogil
@cython.locals(flags=int)
cdef int _split(Part part) except -1 nogil
cdef int _vacuum_data_leaf_page(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t)
cdef int _delete_page(Part part) except -1 nogil

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, count=uint32_t)
cdef int _update_meta_page(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], main=Py_ssize_t)
cdef int _insert_list_page(Part part) except -1 nogil
@cython.locals(end=Py_ssize_t)
cdef int _append_tuples(Part part, uint32_t count) except -1 nogil
@cython.locals(source="const uint8_t[::1]", main=Py_ssize_t)
cdef int _delete_list_pages(Part part) except -1 nogil
