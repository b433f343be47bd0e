cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from engine.redo cimport hash_page as pages
from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int INIT_META_PAGE, INIT_BITMAP_PAGE, INSERT, ADD_OVERFLOW_PAGE, SPLIT_ALLOCATE_PAGE
cdef int SPLIT_PAGE, SPLIT_COMPLETE, MOVE_PAGE_CONTENTS, SQUEEZE_PAGE, DELETE, SPLIT_CLEANUP
cdef int UPDATE_META_PAGE, VACUUM_ONE_PAGE, NEW_MASKS, NEW_SPLITPOINT

@cython.locals(info=int)
cpdef int redo(Part part) except -1 nogil
cdef Py_ssize_t _main_data(Part part, int length) except -1 nogil
cdef Py_ssize_t _data(Part part, int length) except -1 nogil
@cython.locals(number=int64_t)
cdef int64_t _block(Part part, int block_id) except -1 nogil
cdef int _unexpected_block() except -1 nogil

@cython.locals(source="const uint8_t[::1]", main=Py_ssize_t)
cdef int _init_meta_page(Part part) except -1 nogil
@cython.locals(main=Py_ssize_t)
cdef int _init_bitmap_page(Part part) except -1 nogil
@cython.locals(number=int)
cdef int _insert(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, bucket=uint32_t)
cdef int _add_overflow_page(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, bucket=uint32_t)
cdef int _split_allocate_page(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", masks=int, splitpoint=int,
               pos=Py_ssize_t)
cdef int _split_in_meta(Part part, uint32_t bucket, int flags) except -1 nogil
@cython.locals(main=Py_ssize_t)
cdef int _split_complete(Part part) except -1 nogil
@cython.locals(main=Py_ssize_t)
cdef int _move_page_contents(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t)
cdef int _squeeze_page(Part part) except -1 nogil
@cython.locals(count=int, is_before=int)
cdef int _squeeze_into(Part part, Py_ssize_t main) except -1 nogil
@cython.locals(main=Py_ssize_t)
cdef int _delete(Part part) except -1 nogil
cdef int _split_cleanup(Part part) except -1 nogil
@cython.locals(main=Py_ssize_t)
cdef int _update_meta_page(Part part) except -1 nogil
@cython.locals(main=Py_ssize_t, count=int)
cdef int _vacuum_one_page(Part part) except -1 nogil

@cython.locals(source="const uint8_t[::1]", number=Py_ssize_t, pos=Py_ssize_t, end=Py_ssize_t,
               space=int)
cdef int _add_tuples(Part part, int count) except -1 nogil
@cython.locals(source="const uint8_t[::1]", numbers=uint16_t[::1], count=Py_ssize_t, i=Py_ssize_t)
cdef int _delete_tuples(Part part, Py_ssize_t pos, Py_ssize_t length) except -1 nogil
