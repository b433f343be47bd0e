cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from formats cimport coding

cdef uint64_t ALL_BITS, GOLDEN, FIRST_FACTOR, SECOND_FACTOR
cdef uint32_t[32] NUMBERS
cdef uint32_t NUMBER_COUNT


@cython.final
cdef class Mutator:
    cdef readonly const uint8_t[::1] corpus
    cdef readonly int64_t[::1] ends
    cdef readonly Py_ssize_t count
    cdef public uint8_t[::1] data
    cdef public Py_ssize_t length
    cdef public uint64_t state

    @cython.locals(x=uint64_t)
    cpdef int begin(self, uint64_t seed, uint64_t index) except -1 nogil
    # None of these fails. But of calls that might, C evaluates several in one list of arguments in
    # the order in which they stand there, as Python does; of others in whichever it likes.
    @cython.locals(x=uint64_t)
    cpdef uint64_t next(self) except? 0 nogil
    cpdef Py_ssize_t below(self, Py_ssize_t limit) except? -1 nogil
    cpdef uint32_t number(self) except? 0x6E1B35C9 nogil
    @cython.locals(start=int64_t)
    cpdef int load(self, Py_ssize_t item) except -1 nogil
    @cython.locals(length=Py_ssize_t)
    cpdef int put(self, const uint8_t[::1] content) except -1
    @cython.locals(size=Py_ssize_t, pos=Py_ssize_t, kind=int, old=uint32_t, run=Py_ssize_t)
    cpdef int change(self, Py_ssize_t start, Py_ssize_t end) except -1 nogil
    cdef Py_ssize_t _run(self, Py_ssize_t pos, Py_ssize_t end) except? -1 nogil
    @cython.locals(old=Py_ssize_t)
    cdef int _change_word(self, int kind, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
    @cython.locals(low=uint32_t)
    cdef int _change_long(self, int kind, Py_ssize_t pos, Py_ssize_t end) except -1 nogil
    @cython.locals(tail=Py_ssize_t, filler=uint32_t, i=Py_ssize_t)
    cpdef Py_ssize_t resize(self, Py_ssize_t pos, Py_ssize_t removed,
                            Py_ssize_t added) except? -1 nogil
    @cython.locals(start=int64_t, there=Py_ssize_t)
    cpdef Py_ssize_t borrow(self, Py_ssize_t pos, Py_ssize_t length, Py_ssize_t item,
                            Py_ssize_t at) except -1 nogil
