cimport cython
from libc.stdint cimport uint8_t, uint64_t

from engine.page_reader cimport PageReader
from formats.pagestream cimport PageBatch
from server cimport socket_calls


@cython.final
cdef class Exchange:
    cdef public int descriptor
    cdef public uint8_t[::1] requests
    cdef public PageBatch batch
    cdef public PageReader reader
    cdef public const uint8_t[::1] stop
    cdef public Py_ssize_t pos, end, length, sent, received

    @cython.locals(reason=int)
    cpdef int run(self, Py_ssize_t pos, Py_ssize_t end) except -1
    cdef int _serve(self) except -1 nogil
    cdef bint _receive(self) except -1 nogil
    @cython.locals(ready_lsn=uint64_t, horizon_lsn=uint64_t, retained_lsn=uint64_t)
    cdef bint _answer(self) except -1 nogil
    @cython.locals(count=Py_ssize_t)
    cdef bint _send(self, uint8_t[::1] replies, Py_ssize_t length) except -1 nogil
