cimport cython
from libc.stdint cimport uint64_t

from formats.wal_record cimport RecordColumns


@cython.final
cdef class RecordBatch(RecordColumns):
    cdef readonly uint64_t[::1] lsn_start, lsn_end
