cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.ingest cimport Ingest
from engine.record_batch cimport RecordBatch
from formats cimport coding, crc, wal_record
from tools.fuzz.mutator cimport Mutator
from tools.fuzz.target cimport Target

cdef Py_ssize_t HEAD, SOURCE_BYTES
cdef uint64_t LSN
cdef int INGESTED, FULL, IN_PYTHON


cdef class RecordTarget(Target):
    cdef RecordBatch shape, batch
    cdef uint8_t[::1] source
    cdef int64_t[::1] heads
    cdef ChunkTable chunks
    cdef Ingest ingest
    cdef dict controls
    cdef int major

    @cython.locals(known=bint, i=Py_ssize_t)
    cdef int make(self, Mutator m) except -1 nogil
    @cython.locals(pos=Py_ssize_t, i=Py_ssize_t, flags=uint32_t, info=uint32_t,
                   compressed=uint32_t)
    cdef int _find_heads(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, main=Py_ssize_t)
    cdef int _change_field(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, head=Py_ssize_t, flags=uint32_t, pos=Py_ssize_t)
    cdef int _change_reference(self, Mutator m, Py_ssize_t r) except -1 nogil
    @cython.locals(count=Py_ssize_t, r=Py_ssize_t, head=Py_ssize_t, length=Py_ssize_t)
    cdef int _resize_field(self, Mutator m) except -1 nogil
    @cython.locals(at=Py_ssize_t, grown=Py_ssize_t)
    cdef int _resize_at(self, Mutator m, Py_ssize_t pos, Py_ssize_t length,
                        Py_ssize_t field) except -1 nogil
    @cython.locals(length=Py_ssize_t, first=Py_ssize_t, at=Py_ssize_t, removed=Py_ssize_t,
                   added=Py_ssize_t, grown=Py_ssize_t)
    cdef int _resize_main(self, Mutator m) except -1 nogil
    @cython.locals(length=Py_ssize_t, computed=uint32_t)
    cdef int _repair_crc(self, Mutator m) except -1 nogil
    @cython.locals(other=Py_ssize_t, length=Py_ssize_t, end=Py_ssize_t)
    cdef int _add_other(self, Mutator m) except -1 nogil
    @cython.locals(flags=uint32_t, end=Py_ssize_t, other=Py_ssize_t, outcome=int)
    cdef int execute(self, Mutator m) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cdef int _forget(self) except -1 nogil
    @cython.locals(start=Py_ssize_t, fault=int)
    cdef int _take(self, Mutator m, Py_ssize_t pos, Py_ssize_t length, uint64_t lsn) except -1 nogil
    @cython.locals(batch=RecordBatch, main_pos=Py_ssize_t)
    cdef int _take_in_python(self, uint64_t lsn) except -1 with gil
