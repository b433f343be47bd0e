cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.memtable cimport Memtable
from engine.page_cache cimport PageCache
from engine.reconstruct cimport Reconstruct
from engine.version_set cimport VersionSet
from formats cimport page_checksum
from formats.pagestream cimport PageBatch


@cython.final
cdef class PageReader:
    cdef public ChunkTable chunks
    cdef public VersionSet versions
    cdef public Reconstruct reconstruct
    cdef public uint32_t[::1] chunk, block, oldest, relation_block
    cdef public uint64_t[::1] floor, lsn, lsn_from, out_pos
    cdef public uint8_t[::1] state, has_base, is_relation
    cdef public object problem
    cdef public Py_ssize_t refused, rebuilding
    cdef public bint checksums

    @cython.locals(asking=int, i=Py_ssize_t)
    cpdef int locate(self, PageBatch batch, Py_ssize_t count) except -1 nogil
    @cython.locals(block=uint32_t, root=int64_t, chunk=int64_t)
    cdef int _locate(self, ChunkTable chunks, PageBatch batch, Py_ssize_t i) except -1 nogil
    cpdef int refuse(self, Py_ssize_t i, int state) except -1 nogil
    @cython.locals(remaining=Py_ssize_t, i=Py_ssize_t, found=int)
    cpdef Py_ssize_t recall(self, PageCache cache, Py_ssize_t count,
                            uint8_t[::1] out) except -1 nogil
    cpdef int ask(self, Py_ssize_t i, uint32_t chunk, uint32_t block, uint64_t floor,
                  uint64_t lsn, Py_ssize_t out_pos) except -1 nogil
    @cython.locals(remaining=Py_ssize_t, i=Py_ssize_t)
    cpdef Py_ssize_t gather(self, Memtable memtable, Py_ssize_t count) except -1 nogil
    @cython.locals(remaining=Py_ssize_t, i=Py_ssize_t)
    cpdef Py_ssize_t settle(self, Py_ssize_t count, uint64_t layers_lsn) except -1 nogil
    cpdef Py_ssize_t rebuild(self, Py_ssize_t start, Py_ssize_t count,
                             uint8_t[::1] out) except -1
    @cython.locals(i=Py_ssize_t)
    cdef int _rebuild(self, Py_ssize_t start, Py_ssize_t count, uint8_t[::1] out) except -1 nogil
    @cython.locals(i=Py_ssize_t, newest=uint32_t)
    cpdef int remember(self, PageCache cache, Py_ssize_t count, uint8_t[::1] out) except -1 nogil
