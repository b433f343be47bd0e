cimport cython
from libc.stdint cimport uint8_t, uint32_t

from engine.reconstruct cimport Reconstruct
from engine.version_set cimport VersionSet
from formats cimport coding
from tools.fuzz.mutator cimport Mutator
from tools.fuzz.target cimport Target

cdef Py_ssize_t PAGE_AT, PART_AT, GUARD, SOURCE_BYTES
cdef uint32_t GUARD_BYTE


cdef class RedoTarget(Target):
    cdef Reconstruct reconstruct
    cdef VersionSet versions
    cdef uint8_t[::1] guarded, exact, first

    @cython.locals(i=Py_ssize_t)
    cdef int make(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, pointer=uint32_t, pos=Py_ssize_t)
    cdef int _change_page(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, main_length=Py_ssize_t, data_length=Py_ssize_t,
                   main=Py_ssize_t, data=Py_ssize_t, other=Py_ssize_t)
    cdef int _change_part(self, Mutator m) except -1 nogil
    @cython.locals(at=Py_ssize_t, grown=Py_ssize_t)
    cdef int _resize_main(self, Mutator m, Py_ssize_t main, Py_ssize_t length) except -1 nogil
    @cython.locals(at=Py_ssize_t, removed=Py_ssize_t, grown=Py_ssize_t)
    cdef int _resize_data(self, Mutator m, Py_ssize_t data, Py_ssize_t length) except -1 nogil
    cdef int execute(self, Mutator m) except -1 nogil
    @cython.locals(part_length=Py_ssize_t, start=Py_ssize_t)
    cdef int _redo(self, Mutator m, uint8_t[::1] out, Py_ssize_t pos) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cdef int _check_guards(self) except -1 nogil
    cdef int _redo_again(self, Mutator m) except -1 nogil
