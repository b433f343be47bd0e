cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.memtable cimport Memtable
from formats cimport coding


@cython.final
cdef class IngestTarget:
    cdef public ChunkTable chunks
    cdef public Memtable memtable
    cdef public dict cuts

    @cython.locals(chunk=int64_t, root=uint32_t)
    cpdef int64_t touch(self, uint32_t spc, uint32_t db, uint32_t rel, uint32_t fork,
                        uint32_t block, uint64_t lsn) except -1 nogil
    @cython.locals(word=uint64_t)
    cdef int _extend(self, uint32_t root, uint32_t blocks, uint64_t lsn) except -1 nogil
    @cython.locals(history=uint32_t, word=uint64_t)
    cpdef int cut(self, uint32_t root, uint32_t exists, uint32_t blocks, uint32_t cut_blocks,
                  uint64_t lsn, uint64_t cut_lsn) except -1 nogil
    cdef int _note_cut(self, uint32_t root, uint32_t cut_blocks, uint64_t lsn) except -1 with gil
    @cython.locals(chunk=int64_t)
    cpdef int64_t touch_slru(self, uint32_t slru, uint32_t page, uint64_t lsn) except -1 nogil
    @cython.locals(pos=Py_ssize_t)
    cdef Py_ssize_t begin_effect(self, int effect_class, Py_ssize_t count) except -1 nogil
    @cython.locals(at=Py_ssize_t)
    cdef int effect_item(self, Py_ssize_t pos, Py_ssize_t item, uint32_t index,
                         uint32_t argument, uint32_t value) except -1 nogil
    cdef int link_effect(self, uint32_t chunk, uint32_t block, uint64_t lsn, Py_ssize_t pos,
                         Py_ssize_t count) except -1 nogil
