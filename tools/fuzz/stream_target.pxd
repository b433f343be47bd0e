cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.record_batch cimport RecordBatch
from engine.wal_reader cimport WalReader
from formats cimport coding, crc
from tools.fuzz.mutator cimport Mutator
from tools.fuzz.target cimport Target

cdef Py_ssize_t HEAD, PAGE_BYTES
cdef uint64_t SEGMENT_BYTES
cdef uint32_t CUTS
cdef int READ, RECORDS_MAX


cdef class StreamTarget(Target):
    cdef RecordBatch batch
    cdef uint8_t[::1] record
    cdef uint64_t end
    cdef object fault

    @cython.locals(i=Py_ssize_t)
    cdef int make(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, pages=Py_ssize_t, page=Py_ssize_t, at=Py_ssize_t)
    cdef int _change(self, Mutator m) except -1 nogil
    @cython.locals(pos=Py_ssize_t, i=Py_ssize_t, length=Py_ssize_t, following=Py_ssize_t,
                   kind=int)
    cdef int _change_record(self, Mutator m) except -1 nogil
    @cython.locals(start=uint64_t, in_page=uint64_t, header=Py_ssize_t, rest=Py_ssize_t)
    cdef Py_ssize_t _first_record(self, Mutator m) except -1 nogil
    @cython.locals(start=uint64_t, in_page=uint64_t, room=Py_ssize_t)
    cdef Py_ssize_t _after(self, Mutator m, Py_ssize_t pos, Py_ssize_t length) except -1 nogil
    cdef Py_ssize_t _length_at(self, Mutator m, Py_ssize_t pos) except -1 nogil
    @cython.locals(pos=Py_ssize_t, previous=uint64_t, count=int, length=Py_ssize_t,
                   end=Py_ssize_t, computed=uint32_t, i=int)
    cdef int _repair(self, Mutator m) except -1 nogil
    cdef int _put(self, Mutator m, Py_ssize_t pos, uint64_t value) except -1 nogil
    @cython.locals(done=Py_ssize_t, start=uint64_t, room=Py_ssize_t, step=Py_ssize_t)
    cdef int _gather(self, Mutator m, Py_ssize_t pos, Py_ssize_t length) except -1 nogil
    cdef int execute(self, Mutator m) except -1 nogil
    @cython.locals(flags=int, again=bint, count=Py_ssize_t, end=uint64_t, repeated=Py_ssize_t,
                   size=int)
    cdef int _read(self, Mutator m) except -1 with gil
    @cython.locals(lsn=uint64_t, version=int, reader=WalReader, wal="const uint8_t[::1]",
                   cuts=uint32_t, pos=Py_ssize_t, count=Py_ssize_t, step=Py_ssize_t,
                   got=Py_ssize_t)
    cdef Py_ssize_t _read_all(self, Mutator m, int flags) except -1
