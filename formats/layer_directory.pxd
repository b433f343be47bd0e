cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding


# except? 0x6E1B35C9: after this value, which hardly any call returns, the caller asks for an error.

@cython.locals(a=uint64_t, b=uint64_t)
cdef int _key_order(const uint8_t[::1] keys, Py_ssize_t pos, const uint8_t[::1] key,
                    Py_ssize_t key_pos) except -2 nogil


@cython.final
cdef class LayerDirectory:
    cdef public const uint8_t[::1] raw
    cdef public Py_ssize_t count
    cdef Py_ssize_t stripe_at, kind_at, lsn_start_at, lsn_end_at, number_at, frame_start_at
    cdef Py_ssize_t frame_end_at, block_start_at, block_end_at, versions_at

    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t, order=int, at=uint32_t)
    cpdef Py_ssize_t find(self, const uint8_t[::1] key, Py_ssize_t key_pos,
                          uint32_t stripe) except? -2 nogil
    cpdef uint32_t stripe(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint32_t kind(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint64_t lsn_start(self, Py_ssize_t row) except? 0x6E1B35C96E1B35C9 nogil
    cpdef uint64_t lsn_end(self, Py_ssize_t row) except? 0x6E1B35C96E1B35C9 nogil
    cpdef uint32_t number(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint32_t frame_start(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint32_t frame_end(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint32_t block_start(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint32_t block_end(self, Py_ssize_t row) except? 0x6E1B35C9 nogil
    cpdef uint32_t versions(self, Py_ssize_t row) except? 0x6E1B35C9 nogil


@cython.final
cdef class FrameTable:
    cdef public const uint8_t[::1] raw
    cdef public Py_ssize_t count
    cdef Py_ssize_t stored_at, raw_at, layer_at, block_at, lsn_at

    cpdef uint64_t offset(self, Py_ssize_t frame) except? 0x6E1B35C96E1B35C9 nogil
    cpdef uint32_t stored_length(self, Py_ssize_t frame) except? 0x6E1B35C9 nogil
    cpdef uint32_t raw_length(self, Py_ssize_t frame) except? 0x6E1B35C9 nogil
    cpdef uint32_t layer(self, Py_ssize_t frame) except? 0x6E1B35C9 nogil
    cpdef uint32_t block(self, Py_ssize_t frame) except? 0x6E1B35C9 nogil
    cpdef uint64_t lsn(self, Py_ssize_t frame) except? 0x6E1B35C96E1B35C9 nogil
    @cython.locals(low=Py_ssize_t, high=Py_ssize_t, middle=Py_ssize_t, at_layer=uint32_t,
                   at_block=uint32_t, after=bint)
    cpdef Py_ssize_t last_frame(self, Py_ssize_t start, Py_ssize_t end, uint32_t layer,
                                uint32_t block, uint64_t lsn) except? -2 nogil
