cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.redo cimport gin_page as pages
from engine.redo.part cimport Part
from formats cimport coding

cdef int DELETE, INSERT, REPLACE, ADD_ITEMS
cdef int NUMBER_BITS, ITEM_BITS, VARBYTE_LENGTH_MAX

cdef int start(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos,
               Py_ssize_t length) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", old=uint8_t[::1],
               place=Py_ssize_t, end=Py_ssize_t, old_end=Py_ssize_t, at=Py_ssize_t, to=int,
               segment=uint32_t, action=uint32_t, length=int, _=int)
cdef int recompress(Part part) except -1 nogil
@cython.locals(count=int, items_end=int, end=int)
cdef int convert(uint8_t[::1] page, uint8_t[::1] old) except -1 nogil
@cython.locals(space=int)
cdef int segment_space(const uint8_t[::1] view, Py_ssize_t pos,
                       Py_ssize_t end) except -1 nogil
cdef int items_space(const uint8_t[::1] view, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
@cython.locals(space=int)
cdef int put(uint8_t[::1] page, int to, const uint8_t[::1] source, Py_ssize_t pos,
             Py_ssize_t end) except -1 nogil
@cython.locals(stop=Py_ssize_t, value=uint64_t, taken=uint64_t, previous=uint64_t, has_old=bint,
               place=int, length=int)
cdef int merge(uint8_t[::1] page, int to, const uint8_t[::1] old, Py_ssize_t at,
               Py_ssize_t old_end, const uint8_t[::1] source, Py_ssize_t pos,
               Py_ssize_t end) except -1 nogil
@cython.locals(length=int)
cdef int finish_segment(uint8_t[::1] page, int to, int end) except -1 nogil
@cython.locals(value=uint64_t, number=uint32_t)
cdef uint64_t item(const uint8_t[::1] view, Py_ssize_t pos) except? 0xFFFFFFFFFFFFFFFF nogil
@cython.locals(block=uint64_t)
cdef int put_item(uint8_t[::1] page, int to, uint64_t value) except -1 nogil
@cython.locals(length=int)
cdef int varbyte_length(const uint8_t[::1] view, Py_ssize_t pos,
                        Py_ssize_t end) except -1 nogil
@cython.locals(value=uint64_t)
cdef uint64_t varbyte(const uint8_t[::1] view, Py_ssize_t pos,
                      int length) except? 0xFFFFFFFFFFFFFFFF nogil
cdef int put_varbyte(uint8_t[::1] page, int to, uint64_t value) except -1 nogil
