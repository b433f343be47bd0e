cimport cython
from libc.stdint cimport uint64_t

from tools.fuzz.mutator cimport Mutator


cdef class Target:
    cdef readonly Mutator mutator
    cdef public uint64_t[::1] place, outcomes
    cdef public dict errors
    cdef public uint64_t index
    cdef bint making

    @cython.locals(end=uint64_t)
    cpdef run(self, uint64_t seed, uint64_t first, uint64_t count)
    cdef int _run(self, uint64_t seed, uint64_t end) except -1 nogil
    cdef int make(self, Mutator mutator) except -1 nogil
    cdef int execute(self, Mutator mutator) except -1 nogil
