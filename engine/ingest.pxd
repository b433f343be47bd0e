cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.ingest_target cimport IngestTarget
from engine.memtable cimport Memtable
from engine.record_batch cimport RecordBatch
from engine.redo cimport dispatch, gist
from engine.transaction_ingest cimport TransactionIngest
from formats cimport coding, pglz


@cython.final
cdef class Ingest:
    cdef readonly IngestTarget target
    cdef readonly TransactionIngest transactions
    cdef public object decompress
    cdef public uint8_t[::1] image
    cdef public uint64_t records, images, unreadable
    cdef public int reason
    cdef public bint hint_bits_logged

    @cython.locals(i=Py_ssize_t)
    cpdef Py_ssize_t run(self, RecordBatch batch, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(i=Py_ssize_t, lsn=uint64_t, r=Py_ssize_t)
    cdef Py_ssize_t run_records(self, RecordBatch batch, Py_ssize_t start,
                                Py_ssize_t end) except -1 nogil
    @cython.locals(references=Py_ssize_t, entries=Py_ssize_t, payload=Py_ssize_t)
    cdef bint _fits(self, RecordBatch batch, Py_ssize_t i) except -1 nogil
    @cython.locals(fork=uint32_t, chunk=int64_t, block=uint32_t, rmgr=int, pos=Py_ssize_t)
    cdef int _reference(self, RecordBatch batch, Py_ssize_t i, Py_ssize_t r,
                        uint64_t lsn) except -1 nogil
    @cython.locals(target=uint8_t[::1], hole_offset=Py_ssize_t, hole_length=Py_ssize_t,
                   length=Py_ssize_t, pos=Py_ssize_t, source_pos=Py_ssize_t,
                   source_length=Py_ssize_t, codec=int)
    cdef int _image(self, Memtable memtable, RecordBatch batch, Py_ssize_t i, Py_ssize_t r,
                    uint32_t chunk, uint32_t block, uint64_t lsn) except -1 nogil
    cdef int _decompress(self, int codec, RecordBatch batch, Py_ssize_t source_pos,
                         Py_ssize_t source_length, Py_ssize_t length,
                         Py_ssize_t pos) except -1 with gil
    @cython.locals(target=uint8_t[::1], first=Py_ssize_t, count=Py_ssize_t,
                   main_length=Py_ssize_t, data_length=Py_ssize_t, length=Py_ssize_t,
                   pos=Py_ssize_t, init=uint32_t, flags=uint32_t, at=Py_ssize_t)
    cdef int _part(self, Memtable memtable, RecordBatch batch, Py_ssize_t i, Py_ssize_t r,
                   uint32_t chunk, uint32_t block, uint64_t lsn) except -1 nogil
    @cython.locals(rmgr=int, info=int)
    cdef int _effects(self, RecordBatch batch, Py_ssize_t i, uint64_t lsn) except -1 nogil
    @cython.locals(main=Py_ssize_t)
    cdef int _heap_effects(self, RecordBatch batch, Py_ssize_t i, int operation,
                           uint64_t lsn) except -1 nogil
    @cython.locals(main=Py_ssize_t)
    cdef int _heap2_effects(self, RecordBatch batch, Py_ssize_t i, int operation,
                            uint64_t lsn) except -1 nogil
    @cython.locals(r=Py_ssize_t)
    cdef Py_ssize_t _find_reference(self, RecordBatch batch, Py_ssize_t i,
                                    int block_id) except -2 nogil
    @cython.locals(r=Py_ssize_t)
    cdef int _clear_visible(self, RecordBatch batch, Py_ssize_t i, int block_id, uint32_t bits,
                            uint64_t lsn) except -1 nogil
    @cython.locals(new=Py_ssize_t, old=Py_ssize_t, old_block=uint32_t, new_block=uint32_t)
    cdef int _clear_visible_update(self, RecordBatch batch, Py_ssize_t i, uint32_t flags,
                                   uint64_t lsn) except -1 nogil
    @cython.locals(map_block=uint32_t, chunk=int64_t, count=Py_ssize_t, pos=Py_ssize_t)
    cdef int _clear_bits(self, RecordBatch batch, Py_ssize_t r, uint32_t heap_block,
                         uint32_t bits, uint64_t second_plus_1, uint64_t lsn) except -1 nogil
