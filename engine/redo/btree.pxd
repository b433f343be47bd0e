cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from engine.redo cimport btree_page as pages
from engine.redo cimport btree_posting as postings
from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int INSERT_LEAF, INSERT_UPPER, INSERT_META, SPLIT_LEFT, SPLIT_RIGHT, INSERT_POSTING, DEDUP
cdef int DELETE, UNLINK_PAGE, UNLINK_PAGE_META, NEW_ROOT, MARK_PAGE_HALF_DEAD, VACUUM, META_CLEANUP

@cython.locals(info=int)
cpdef int redo(Part part) except -1 nogil
cdef Py_ssize_t _main_data(Part part, int length) except -1 nogil
cdef int _unexpected_block() except -1 nogil

@cython.locals(number=int)
cdef int _insert_leaf(Part part) except -1 nogil
cdef int _insert_upper(Part part) except -1 nogil
cdef int _insert_meta(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", number=int, index=int)
cdef int _insert_posting(Part part) except -1 nogil

cdef int _split(Part part, bint new_on_left) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", old=uint8_t[::1],
               main=Py_ssize_t, split_at=int, number=int, index=int, end=Py_ssize_t, length=int,
               high_key=Py_ssize_t, high_key_length=int, first=int, n=int, flags=int)
cdef int _split_left(Part part, bint new_on_left) except -1 nogil
@cython.locals(level=uint32_t, following=int64_t)
cdef int _split_right(Part part) except -1 nogil

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", old=uint8_t[::1],
               run=Py_ssize_t, end=Py_ssize_t, n=int, count=int, merged=int)
cdef int _dedup(Part part) except -1 nogil

cdef int _delete(Part part) except -1 nogil
cdef int _vacuum(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", numbers=uint16_t[::1],
               deleted=int, shrunk=int, shrunk_numbers=Py_ssize_t, pos=Py_ssize_t,
               end=Py_ssize_t, i=int, tids=int)
cdef int _delete_tuples(Part part, Py_ssize_t counts) except -1 nogil

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, left=uint32_t,
               right=uint32_t, number=int)
cdef int _mark_page_half_dead(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, left=uint32_t,
               right=uint32_t)
cdef int _unlink_page(Part part) except -1 nogil
cdef int _unlink_page_meta(Part part) except -1 nogil
@cython.locals(level=uint32_t)
cdef int _new_root(Part part) except -1 nogil
cdef int _meta_cleanup(Part part) except -1 nogil
cdef int _restore_meta(Part part) except -1 nogil
