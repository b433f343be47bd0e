cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding
from formats.frame cimport LayerColumns


@cython.final
cdef class FrameEncoder:
    cdef public uint8_t[::1] out
    cdef public LayerColumns layers
    cdef public const uint32_t[::1] chunk, block, offset, payload_length, order
    cdef public const uint32_t[::1] chunk_numbers
    cdef public const uint64_t[::1] lsn
    cdef public const uint8_t[::1] data
    cdef public Py_ssize_t frame_bytes, batch_bytes, frames, start, length, count, position
    cdef public uint64_t versions
    cdef public uint64_t[::1] places, first_lsn
    cdef public uint32_t[::1] first_layer, first_block

    @cython.locals(this=uint32_t, that=uint32_t)
    cdef bint _is_replaced(self, Py_ssize_t i) except -1 nogil
    @cython.locals(i=Py_ssize_t, count=Py_ssize_t, length=Py_ssize_t, version=uint32_t)
    cdef Py_ssize_t _choose(self) except -1 nogil
    @cython.locals(end=Py_ssize_t, count=Py_ssize_t, payload=Py_ssize_t,
                   used=Py_ssize_t, slot=Py_ssize_t, i=Py_ssize_t, version=uint32_t,
                   length=Py_ssize_t)
    cdef Py_ssize_t _encode_run(self, uint32_t frame) except -1 nogil
    @cython.locals(pages=Py_ssize_t, most=Py_ssize_t, payload=Py_ssize_t,
                   used=Py_ssize_t, slot=Py_ssize_t, hole=uint32_t, hole_length=uint32_t)
    cdef Py_ssize_t _encode_pages(self, uint32_t frame, uint32_t chunk, uint32_t block,
                                  uint64_t lsn, uint32_t kind, const uint8_t[::1] data,
                                  Py_ssize_t pos) except -1 nogil
    @cython.locals(lower=uint32_t, upper=uint32_t, i=uint32_t)
    cdef uint32_t _hole(self, const uint8_t[::1] data, Py_ssize_t pos) except? 0xFFFFFFFF nogil
    cdef int _begin_batch(self) except -1 nogil
    cdef bint _has_room(self, Py_ssize_t length) except -1 nogil
    cdef int _begin(self) except -1 nogil
    cdef int _end_frame(self) except -1 nogil
    cpdef Py_ssize_t encode_run(self, uint32_t frame) except -1
    @cython.locals(done=Py_ssize_t)
    cpdef Py_ssize_t encode_pages(self, uint32_t frame, uint32_t chunk, uint32_t block,
                                  uint64_t lsn, uint32_t kind, const uint8_t[::1] data,
                                  Py_ssize_t pos) except -1
    cdef int _grow(self) except -1 with gil
    @cython.locals(start=Py_ssize_t, count=Py_ssize_t, layer=Py_ssize_t)
    cdef int _put(self, Py_ssize_t slot, uint32_t chunk, uint32_t block, uint64_t lsn,
                  Py_ssize_t end, uint32_t frame, uint32_t kind) except -1 nogil
