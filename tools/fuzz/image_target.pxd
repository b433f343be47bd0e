cimport cython
from libc.stdint cimport uint8_t, uint32_t

from engine.reconstruct cimport Reconstruct
from engine.version_set cimport VersionSet
from formats cimport coding, pglz
from tools.fuzz.mutator cimport Mutator
from tools.fuzz.target cimport Target

cdef Py_ssize_t HEAD, SOURCE_BYTES


cdef class ImageTarget(Target):
    cdef Reconstruct reconstruct
    cdef VersionSet versions
    cdef uint8_t[::1] source, raw, out

    @cython.locals(i=Py_ssize_t)
    cdef int make(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, at=Py_ssize_t)
    cdef int _change(self, Mutator m) except -1 nogil
    @cython.locals(length=Py_ssize_t, at=Py_ssize_t, kept=Py_ssize_t)
    cdef int _cut_out(self, Mutator m) except -1 nogil
    @cython.locals(length=Py_ssize_t)
    cdef int _fit_hole(self, Mutator m) except -1 nogil
    @cython.locals(pos=Py_ssize_t, length=Py_ssize_t, control=uint32_t, item=int,
                   run=Py_ssize_t)
    cdef Py_ssize_t _pglz_length(self, Mutator m) except -1 nogil
    @cython.locals(codec=int, length=Py_ssize_t, hole_length=Py_ssize_t,
                   raw_length=Py_ssize_t, start=Py_ssize_t)
    cdef int execute(self, Mutator m) except -1 nogil
    cdef int _library(self, int codec, Py_ssize_t start, Py_ssize_t length,
                      Py_ssize_t raw_length) except -1 with gil
    @cython.locals(start=Py_ssize_t)
    cdef int _restore(self, Mutator m, Py_ssize_t length) except -1 nogil
