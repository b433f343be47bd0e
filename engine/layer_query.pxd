cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from engine.version_set cimport VersionSet
from formats cimport coding, frame
from formats.layer_directory cimport FrameTable, LayerDirectory


# except? 0x6E1B35C9: after this value, which hardly any call returns, the caller asks for an error.

@cython.final
cdef class LayerQuery:
    cdef public VersionSet versions
    cdef const uint8_t[::1] dead
    cdef public uint8_t[::1] keys, complete, group_done, is_based
    cdef public uint32_t[::1] block, oldest, layer, first, end, frame, hits, group, visited
    cdef public uint64_t[::1] lsn_floor, lsn_max, delta_floor, floor
    cdef public Py_ssize_t capacity, count, open, hit_count, group_count
    cdef public bint keeps_frames
    cdef public dict errors
    cdef public set passed

    cpdef int begin(self, VersionSet versions) except -1
    @cython.locals(i=Py_ssize_t)
    cpdef Py_ssize_t add(self, const uint8_t[::1] key, uint32_t block, uint64_t lsn_floor,
                         uint64_t lsn_max, uint32_t oldest) except -1 nogil
    @cython.locals(i=Py_ssize_t)
    cpdef int foresee(self, LayerQuery query) except -1
    @cython.locals(hit=Py_ssize_t, i=Py_ssize_t)
    cpdef int end_hits(self) except -1
    cpdef int fail(self, Py_ssize_t i, object error) except -1
    @cython.locals(i=Py_ssize_t)
    cpdef int fail_all(self, object error) except -1
    @cython.locals(place=Py_ssize_t)
    cpdef int fail_group(self, object error) except -1
    @cython.locals(i=Py_ssize_t)
    cpdef bint wants(self, uint64_t lsn_start, uint64_t lsn_end) except -1 nogil
    cpdef bint wants_of(self, Py_ssize_t i, uint64_t lsn_start, uint64_t lsn_end) except -1 nogil
    cpdef uint32_t block_of(self, Py_ssize_t i) except? 0x6E1B35C9 nogil
    cpdef uint32_t oldest_of(self, Py_ssize_t i) except? 0x6E1B35C9 nogil
    cpdef Py_ssize_t locate(self, LayerDirectory directory, const uint8_t[::1] dead) except -1
    cdef bint _is_dead(self, Py_ssize_t row) except -1 nogil
    @cython.locals(hits=Py_ssize_t, i=Py_ssize_t, row=Py_ssize_t)
    cdef Py_ssize_t _locate(self, LayerDirectory directory) except -1 nogil
    @cython.locals(first=Py_ssize_t, i=Py_ssize_t, place=Py_ssize_t)
    cpdef Py_ssize_t next_group(self) except -2
    @cython.locals(at=Py_ssize_t, other=Py_ssize_t)
    cdef bint _has_key_of(self, Py_ssize_t i, Py_ssize_t j) except -1 nogil
    @cython.locals(place=Py_ssize_t, i=Py_ssize_t)
    cpdef int start_at(self, uint64_t lsn, bint is_fuzzy) except -1
    @cython.locals(hits=Py_ssize_t, place=Py_ssize_t, i=Py_ssize_t, floor=uint64_t)
    cpdef Py_ssize_t enter(self, bint is_image, uint64_t lsn_start, uint64_t lsn_end,
                           uint32_t block_start, uint32_t block_end, uint32_t layer,
                           uint32_t frame_start, uint32_t frame_end) except -1
    cdef int _hit(self, Py_ssize_t hit, Py_ssize_t i, uint64_t floor, uint32_t layer,
                  uint32_t frame_start, uint32_t frame_end) except -1 nogil
    @cython.locals(most=Py_ssize_t, i=Py_ssize_t)
    cpdef int count_visits(self, uint64_t[::1] histogram) except -1
    @cython.locals(wanted=list, kept=Py_ssize_t, hit=Py_ssize_t, i=Py_ssize_t, last=Py_ssize_t)
    cpdef list aim(self, FrameTable table)
    cpdef int fail_hit(self, Py_ssize_t hit, object error) except -1
    @cython.locals(wanted=list, kept=Py_ssize_t, hit=Py_ssize_t, i=Py_ssize_t)
    cpdef list push(self, list frames)
    @cython.locals(layer=uint32_t, block=uint32_t, slot=Py_ssize_t, lsn=uint64_t,
                   start=Py_ssize_t)
    cdef bint _push(self, Py_ssize_t i, const uint8_t[::1] raw) except -1 nogil
    cdef int _finish(self, Py_ssize_t i) except -1 nogil
    cpdef bint is_complete(self, Py_ssize_t i) except -1 nogil
