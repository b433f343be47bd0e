cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.memtable cimport Memtable
from engine.page_cache cimport PageCache
from engine.reconstruct cimport Reconstruct
from engine.store_state cimport StoreState
from engine.version_set cimport VersionSet
from formats cimport page_checksum
from formats.pagestream cimport PageBatch


@cython.final
cdef class PageReader:
    cdef public StoreState store
    cdef public VersionSet versions
    cdef public Reconstruct reconstruct
    cdef public uint32_t[::1] chunk, block, oldest, slot, relation_block
    cdef public uint64_t[::1] floor, lsn, lsn_from, out_pos
    cdef public uint8_t[::1] state, has_base, is_relation
    cdef public object problem
    cdef public Py_ssize_t asking, still_open, refused, unbuilt, pinned, rebuilding
    cdef public bint checksums

    @cython.locals(done=bint)
    cpdef bint answer(self, PageBatch batch, Py_ssize_t count, uint8_t[::1] out,
                     bint pinning) except -1 nogil
    @cython.locals(done=bint)
    cpdef bint read(self, PageBatch batch, Py_ssize_t count, uint8_t[::1] out) except -1
    cpdef int release(self) except -1 nogil
    cdef int _unpin(self, PageCache cache) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cpdef int fetch(self, Py_ssize_t first, uint8_t[::1] out) except -1 nogil
    cdef bint _look_up(self, PageBatch batch, Py_ssize_t count) except -1 nogil
    cdef int _prepare(self, Py_ssize_t count) except -1 nogil
    cdef int _search(self, Py_ssize_t count) except -1 nogil
    cdef int _gather_all(self, Py_ssize_t count) except -1 nogil
    cpdef int resume(self, Py_ssize_t count, uint8_t[::1] out) except -1 nogil
    cpdef int collect(self, Py_ssize_t count) except -1 nogil
    @cython.locals(asking=Py_ssize_t, i=Py_ssize_t)
    cdef Py_ssize_t _locate_all(self, PageBatch batch, Py_ssize_t count) except -1 nogil
    @cython.locals(block=uint32_t, root=int64_t, chunk=int64_t)
    cdef int _locate(self, ChunkTable chunks, PageBatch batch, Py_ssize_t i) except -1 nogil
    cpdef int refuse(self, Py_ssize_t i, int state) except -1 nogil
    @cython.locals(remaining=Py_ssize_t, i=Py_ssize_t, found=int)
    cdef Py_ssize_t _recall(self, PageCache cache, Py_ssize_t count) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cdef int _hand_over(self, PageCache cache, Py_ssize_t count, uint8_t[::1] out,
                        bint pinning) except -1 nogil
    cpdef int ask(self, Py_ssize_t i, uint32_t chunk, uint32_t block, uint64_t floor,
                  uint64_t lsn, Py_ssize_t out_pos) except -1 nogil
    @cython.locals(remaining=Py_ssize_t, i=Py_ssize_t)
    cdef Py_ssize_t _gather(self, Memtable memtable, Py_ssize_t count) except -1 nogil
    @cython.locals(remaining=Py_ssize_t, i=Py_ssize_t)
    cdef Py_ssize_t _settle(self, Py_ssize_t count, uint64_t layers_lsn) except -1 nogil
    cpdef Py_ssize_t rebuild(self, Py_ssize_t start, Py_ssize_t count,
                             uint8_t[::1] out) except -1
    cdef object _blame(self, object error)
    @cython.locals(i=Py_ssize_t)
    cdef int _rebuild(self, Py_ssize_t start, Py_ssize_t count, uint8_t[::1] out) except -1 nogil
    cpdef int remember(self, Py_ssize_t count, uint8_t[::1] out) except -1 nogil
    @cython.locals(i=Py_ssize_t, newest=uint32_t)
    cdef int _put(self, PageCache cache, Py_ssize_t count, uint8_t[::1] out) except -1 nogil
