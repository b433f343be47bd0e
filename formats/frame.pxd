cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding


# except? 0x6E1B35C9: after this value, which hardly any call returns, the caller asks for an error.

@cython.final
cdef class LayerColumns:
    cdef public uint32_t[::1] chunk, stripe, frame_start, frame_end, block_start, block_end
    cdef public uint32_t[::1] versions
    cdef public uint64_t[::1] lsn_start, lsn_end
    cdef public uint8_t[::1] fuzzy
    cdef public Py_ssize_t count, capacity
    cdef public uint64_t last_lsn

    cdef int _grow(self) except -1 with gil
    @cython.locals(stripe=uint32_t, row=Py_ssize_t)
    cpdef Py_ssize_t note(self, uint32_t chunk, uint32_t block, uint64_t lsn, uint32_t frame,
                          uint32_t kind) except -1 nogil


@cython.locals(count=Py_ssize_t, low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t,
               at_layer=uint32_t, at_block=uint32_t, after=bint)
cpdef Py_ssize_t last_version(const uint8_t[::1] raw, uint32_t layer, uint32_t block,
                              uint64_t lsn) except? -2 nogil
@cython.locals(count=Py_ssize_t)
cpdef bint is_of_block(const uint8_t[::1] raw, Py_ssize_t slot, uint32_t layer,
                       uint32_t block) except -1 nogil
cpdef uint32_t version_count(const uint8_t[::1] raw) except? 0x6E1B35C9 nogil
cpdef uint32_t version_layer(const uint8_t[::1] raw, Py_ssize_t slot) except? 0x6E1B35C9 nogil
cpdef uint32_t version_block(const uint8_t[::1] raw, Py_ssize_t slot) except? 0x6E1B35C9 nogil
cpdef uint64_t version_lsn(const uint8_t[::1] raw, Py_ssize_t slot) except? 0x6E1B35C96E1B35C9 nogil
@cython.locals(count=Py_ssize_t)
cpdef Py_ssize_t version_start(const uint8_t[::1] raw, Py_ssize_t slot) except -1 nogil
@cython.locals(count=Py_ssize_t)
cpdef Py_ssize_t version_end(const uint8_t[::1] raw, Py_ssize_t slot) except -1 nogil
@cython.locals(count=Py_ssize_t, slot=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t,
               layer=uint32_t, block=uint32_t, kind=uint32_t)
cdef Py_ssize_t _check(const uint8_t[::1] raw, uint32_t frame,
                       LayerColumns layers) except -1 nogil
cpdef Py_ssize_t check(const uint8_t[::1] raw, uint32_t frame, LayerColumns layers) except -1
