cimport cython
from libc.stdint cimport uint8_t, uint64_t

from formats cimport coding
from formats.pagestream cimport PageBatch
from server.exchange cimport Exchange
from tools.fuzz.mutator cimport Mutator
from tools.fuzz.target cimport Target

cdef Py_ssize_t HEAD, ROOM
cdef int WAITS, REFUSED, SESSION


cdef class ProtocolTarget(Target):
    cdef uint8_t[::1] requests, replies
    cdef PageBatch batch
    cdef Exchange exchange

    @cython.locals(at=Py_ssize_t, length=Py_ssize_t, i=Py_ssize_t)
    cdef int make(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, message=Py_ssize_t, at=Py_ssize_t)
    cdef int _change(self, Mutator m) except -1 nogil
    cdef int execute(self, Mutator m) except -1 nogil
    @cython.locals(ready=uint64_t, reached=uint64_t, horizon=uint64_t, length=Py_ssize_t,
                   pos=Py_ssize_t, refused=bint, in_python=bint)
    cdef int _stream(self, Mutator m) except -1 nogil
    cdef int _exchange(self, Py_ssize_t pos) except -1 with gil
    @cython.locals(batch=PageBatch)
    cdef int _reply(self) except -1 with gil
    cdef int _session(self, Mutator m) except -1 with gil
    cdef _messages(self, bytes content)
