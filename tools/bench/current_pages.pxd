cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.memtable cimport Memtable
from engine.reconstruct cimport Reconstruct
from engine.redo.part cimport Part
from formats cimport coding

cdef Py_ssize_t AHEAD


@cython.final
cdef class CurrentPages:
    cdef readonly ChunkTable chunks
    cdef readonly Reconstruct reconstruct
    cdef public object load
    cdef readonly uint64_t shard, shard_count
    cdef readonly uint64_t applied
    cdef readonly uint32_t pages_max, page_count, entry
    cdef readonly uint8_t[::1] data, state
    cdef readonly uint32_t[::1] page_chunk, page_block
    cdef uint32_t[::1] slots, todo_entry, todo_page
    cdef uint64_t slot_mask

    @cython.locals(page=uint32_t)
    cdef int _make_slots(self, uint64_t count) except -1 with gil
    @cython.locals(count=Py_ssize_t)
    cpdef redo(self, Memtable memtable, Py_ssize_t first=*, Py_ssize_t end=*)
    @cython.locals(h=uint64_t)
    cdef uint64_t _hash(self, uint32_t chunk, uint32_t block) noexcept nogil
    cpdef bint owns(self, uint32_t chunk, uint32_t block) except -1 nogil
    @cython.locals(slot=uint64_t, page=uint32_t)
    cdef uint32_t _find(self, uint32_t chunk, uint32_t block, uint64_t h) noexcept nogil
    cdef uint32_t _add(self, uint32_t chunk, uint32_t block, uint64_t h) except 0 nogil
    @cython.locals(slot=uint64_t)
    cdef uint32_t _enter(self, uint32_t page, uint64_t h) except 0 nogil
    @cython.locals(count=Py_ssize_t, kind=uint32_t, chunk=uint32_t,
                   block=uint32_t, h=uint64_t, page=uint32_t)
    cdef Py_ssize_t _find_all(self, Memtable memtable, Py_ssize_t entry,
                               Py_ssize_t end) except -1 nogil
    @cython.locals(later=Py_ssize_t)
    cdef bint _is_replaced(self, Memtable memtable, Py_ssize_t entry) except -1 nogil
    @cython.locals(i=Py_ssize_t, entry=uint32_t, page=Py_ssize_t, fuzzy=int)
    cdef int _apply_all(self, Part part, Memtable memtable, Py_ssize_t count) except -1 nogil
    @cython.locals(pos=Py_ssize_t, kind=uint32_t)
    cdef int _begin(self, Memtable memtable, uint32_t entry, Py_ssize_t page) except -1 nogil
    cdef int _load(self, Py_ssize_t page, uint64_t lsn) except -1 with gil
    @cython.locals(history=uint32_t, kept=uint32_t, page=Py_ssize_t, chunk=uint32_t,
                   block=uint32_t, root=uint32_t)
    cdef int _cut(self, Memtable memtable, uint32_t entry) except -1 with gil
