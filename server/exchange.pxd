cimport cython
from libc.stdint cimport uint8_t

from server cimport socket_calls


@cython.final
cdef class Exchange:
    cdef public int descriptor
    cdef public const uint8_t[::1] replies
    cdef public uint8_t[::1] requests
    cdef public Py_ssize_t sent, received

    @cython.locals(descriptor=int, replies="const uint8_t[::1]", requests=uint8_t[::1],
                   sent=Py_ssize_t, received=Py_ssize_t)
    cpdef bint turn(self, Py_ssize_t length) except -1
