cimport cython
from libc.stdint cimport uint64_t

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
