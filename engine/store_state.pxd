cimport cython
from libc.stdint cimport uint8_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.ingest cimport Ingest
from engine.memtable cimport Memtable
from engine.page_cache cimport PageCache
from engine.store_lock cimport StoreLock


cdef class StoreState:
    cdef public StoreLock lock
    cdef public ChunkTable table
    cdef public Ingest ingest
    cdef public PageCache cache
    cdef public Memtable frozen_newer, frozen_older
    cdef public int major
    cdef public uint64_t ready_lsn, layers_lsn, horizon_lsn, backup_end_lsn, pages_read
    cdef public bint checksums
    cdef public const uint64_t[::1] retained

    cdef bint retains(self, uint64_t lsn) except -1 nogil
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t)
    cdef bint _find(self, const uint64_t[::1] rising, uint64_t lsn) except -1 nogil
    @cython.locals(i=Py_ssize_t, refused=Py_ssize_t)
    cpdef Py_ssize_t expire(self, const uint64_t[::1] lsns, const uint8_t[::1] status,
                            uint8_t[::1] states, int expired, Py_ssize_t count) except -1
