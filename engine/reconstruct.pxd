cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.redo cimport dispatch, effect
from engine.redo.part cimport Part
from engine.version_set cimport VersionSet
from formats cimport coding
from formats cimport page as pages


@cython.final
cdef class Reconstruct:
    cdef public Part part
    cdef public uint64_t new_page_lsn_max, unreadable_lsn
    cdef public int unreadable_rmgr, unreadable_info

    @cython.locals(fuzzy=int, number=uint32_t)
    cpdef int page(self, VersionSet versions, uint32_t oldest, uint8_t[::1] out, Py_ssize_t pos,
                   bint has_base) except -1 nogil
    cdef bint _begins_with_image(self, VersionSet versions, uint32_t oldest) except -1 nogil
    @cython.locals(kind=uint32_t)
    cpdef int apply(self, Part part, Py_ssize_t start, Py_ssize_t length, uint64_t lsn,
                    int fuzzy) except -1 nogil
    @cython.locals(hole_offset=Py_ssize_t, hole_length=Py_ssize_t, tail=Py_ssize_t)
    cdef int _image(self, Part part, Py_ssize_t start, Py_ssize_t length) except -1 nogil
    cdef int _record(self, Part part, Py_ssize_t start, Py_ssize_t length, uint64_t lsn,
                     int fuzzy) except -1 nogil
    cdef int _set_lsn(self, Part part, uint64_t lsn) except -1 nogil
    cdef bint _may_be_new(self, Part part) except -1 nogil
