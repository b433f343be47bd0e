cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int CREATE_INDEX, INSERT, UPDATE, SAMEPAGE_UPDATE, REVMAP_EXTEND, DESUMMARIZE, INIT_PAGE
cdef int META, REVMAP, REGULAR

@cython.locals(info=int)
cpdef int redo(Part part) except -1 nogil
cdef Py_ssize_t _main_data(Part part, int length) except -1 nogil
cdef int _unexpected_block() except -1 nogil
cdef int _check(const uint8_t[::1] page, int kind) except -1 nogil
cdef int _start(uint8_t[::1] page, int kind) except -1 nogil

@cython.locals(page=uint8_t[::1], main=Py_ssize_t)
cdef int _create_index(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", number=int, block=int64_t)
cdef int _insert(Part part, Py_ssize_t main) except -1 nogil
@cython.locals(main=Py_ssize_t)
cdef int _update(Part part) except -1 nogil
@cython.locals(source="const uint8_t[::1]", number=int)
cdef int _samepage_update(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], main=Py_ssize_t)
cdef int _revmap_extend(Part part) except -1 nogil
@cython.locals(source="const uint8_t[::1]", main=Py_ssize_t)
cdef int _desummarize(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], pos=Py_ssize_t)
cdef int _set_summary(Part part, uint32_t pages_per_range, uint32_t heap_block, int64_t block,
                      int number) except -1 nogil
