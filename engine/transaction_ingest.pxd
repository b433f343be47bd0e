cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.ingest_target cimport IngestTarget
from engine.record_batch cimport RecordBatch
from formats cimport coding


@cython.final
cdef class TransactionIngest:
    cdef readonly IngestTarget target
    cdef public bint tracks_timestamps
    cdef public uint32_t xinfo
    cdef public Py_ssize_t sub_pos, sub_count
    cdef public uint64_t stored_time, stored_lsn

    @cython.locals(pages=Py_ssize_t, previous=uint32_t, page=uint32_t, k=Py_ssize_t)
    cdef Py_ssize_t pages_of_transaction(self, RecordBatch batch, Py_ssize_t i) except -1 nogil
    @cython.locals(pos=Py_ssize_t, end=Py_ssize_t, operation=int)
    cdef int _find_subtransactions(self, RecordBatch batch, Py_ssize_t i) except -1 nogil
    @cython.locals(operation=int, status=uint32_t, xid=uint32_t, low=uint32_t, high=uint32_t)
    cdef int end_transaction(self, RecordBatch batch, Py_ssize_t i, int info,
                             uint64_t lsn) except -1 nogil
    @cython.locals(time=uint64_t, length=uint64_t, chunk=int64_t, pos=Py_ssize_t)
    cdef int _note_time(self, RecordBatch batch, Py_ssize_t i, uint64_t lsn) except -1 nogil
    @cython.locals(done=Py_ssize_t, first=uint32_t, run=Py_ssize_t, chunk=int64_t,
                   effect=Py_ssize_t)
    cpdef int set_status(self, uint32_t xid, const uint8_t[::1] data, Py_ssize_t pos,
                         Py_ssize_t count, uint32_t status, uint64_t lsn) except -1 nogil
    @cython.locals(done=Py_ssize_t, first=uint32_t, page=uint32_t, run=Py_ssize_t, chunk=int64_t,
                   effect=Py_ssize_t)
    cpdef int set_timestamp(self, uint32_t xid, const uint8_t[::1] data, Py_ssize_t pos,
                            Py_ssize_t count, uint32_t origin, uint32_t low,
                            uint32_t high, uint64_t lsn) except -1 nogil
    @cython.locals(run=Py_ssize_t)
    cdef Py_ssize_t _run(self, uint32_t page, uint32_t per_page, const uint8_t[::1] data,
                         Py_ssize_t pos, Py_ssize_t count) except -1 nogil
    @cython.locals(chunk=int64_t)
    cdef int64_t _page(self, uint32_t slru, uint32_t page, uint64_t lsn) except -1 nogil
    cdef int _items(self, Py_ssize_t effect, Py_ssize_t item, uint32_t per_page,
                    uint32_t argument, const uint8_t[::1] data, Py_ssize_t pos,
                    Py_ssize_t count) except -1 nogil
