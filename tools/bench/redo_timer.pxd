cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.reconstruct cimport Reconstruct
from formats cimport coding


@cython.final
cdef class RedoTimer:
    cdef readonly Reconstruct reconstruct
    cdef readonly Py_ssize_t count
    cdef readonly uint8_t[::1] pages, data, page
    cdef readonly uint32_t[::1] lengths
    cdef readonly uint64_t[::1] lsns

    cpdef run(self, Py_ssize_t rounds, bint redoes)
    @cython.locals(pos=Py_ssize_t, i=Py_ssize_t)
    cdef int _run(self, Py_ssize_t rounds, bint redoes) except -1 nogil
