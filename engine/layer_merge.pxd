cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.merged_versions cimport MergedVersions
from formats cimport coding


@cython.final
cdef class LayerMerge:
    cdef MergedVersions out
    cdef const uint32_t[::1] ranks, chunk_of_rank
    cdef const uint64_t[::1] rank_starts
    cdef uint32_t no_rank, no_slot
    cdef uint64_t[::1] place, lsn
    cdef uint32_t[::1] next_rank, slot, position, length, heap, free
    cdef uint8_t[::1] arena
    cdef public Py_ssize_t slot_count
    cdef Py_ssize_t heap_count, slot_bytes, free_count
    cdef Py_ssize_t payload_start, payload_length
    cdef uint64_t last_place, last_lsn
    cdef uint32_t last_source
    cdef public uint32_t cut_rank, wanted
    cdef public uint64_t taken

    cpdef int run(self) except -1
    cpdef uint32_t last_rank(self)
    @cython.locals(source=uint32_t, place=uint64_t, lsn=uint64_t)
    cdef int _run(self) except -1 nogil
    @cython.locals(place=uint64_t)
    cdef int _take(self, uint32_t source) except -1 nogil
    cdef int _take_equal(self, uint32_t source) except -1 nogil
    @cython.locals(base=Py_ssize_t, count=Py_ssize_t, payloads=Py_ssize_t, end_at=Py_ssize_t,
                   start=Py_ssize_t, end=Py_ssize_t)
    cdef int _find_payload(self, uint32_t source) except -1 nogil
    @cython.locals(count=Py_ssize_t, slot=Py_ssize_t)
    cpdef int give(self, uint32_t source, const uint8_t[::1] raw, uint32_t next_rank) except -1
    cdef Py_ssize_t _take_slot(self, Py_ssize_t length) except -1
    cdef int _advance(self, uint32_t source) except -1 nogil
    @cython.locals(base=Py_ssize_t, count=Py_ssize_t, first=Py_ssize_t, layers=Py_ssize_t,
                   position=Py_ssize_t, layer=uint32_t, rank=uint32_t)
    cdef int _seek(self, uint32_t source) except -1 nogil
    cdef int _wait(self, uint32_t source) except -1 nogil
    cdef uint64_t _place(self, uint64_t rank, uint64_t block) noexcept nogil
    @cython.locals(source=uint32_t, child=Py_ssize_t)
    cdef int _sift_down(self, Py_ssize_t at) except -1 nogil
    cdef bint _before(self, uint32_t a, uint32_t b) except -1 nogil
