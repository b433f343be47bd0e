# The inline bodies of formats/coding.py for kernels (see there). The one .pxd with code in it:
# Cython can expand a function in another module only from here, and a call instead of an
# expansion was measured at ten times the cost of the read.
#
# A caller that gets the value behind `except?` takes the GIL to see whether it stands for an error.
# Therefore it is one that no field is expected to have, and not all ones, which many have: the LSN
# of a request for the latest version, blocks and transactions that are none.
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

cdef extern from *:
    void __builtin_prefetch(const void *address) noexcept nogil

cdef inline uint32_t u8(const uint8_t[::1] view, Py_ssize_t pos) except? 0xFFFFFFFF nogil:
    if pos < 0 or pos + 1 > view.shape[0]:
        raise IndexError("read of 1 byte out of bounds")
    return view[pos]


cdef inline uint32_t u16(const uint8_t[::1] view, Py_ssize_t pos) except? 0xFFFFFFFF nogil:
    if pos < 0 or pos + 2 > view.shape[0]:
        raise IndexError("read of 2 bytes out of bounds")
    return view[pos] | <uint32_t>view[pos + 1] << 8


cdef inline uint32_t u32(const uint8_t[::1] view, Py_ssize_t pos) except? 0x6E1B35C9 nogil:
    cdef uint32_t value
    if pos < 0 or pos + 4 > view.shape[0]:
        raise IndexError("read of 4 bytes out of bounds")
    memcpy(&value, &view[pos], 4)
    return value


@cython.boundscheck(False)
cdef inline uint32_t u8_checked_before(const uint8_t[::1] view, Py_ssize_t pos) noexcept nogil:
    return (<const uint8_t *>&view[0])[pos]


@cython.boundscheck(False)
cdef inline uint32_t u16_checked_before(const uint8_t[::1] view, Py_ssize_t pos) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, <const char *>&view[0] + pos, 2)
    return value


@cython.boundscheck(False)
cdef inline uint32_t u32_checked_before(const uint8_t[::1] view, Py_ssize_t pos) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, <const char *>&view[0] + pos, 4)
    return value


cdef inline uint64_t u64(const uint8_t[::1] view, Py_ssize_t pos) except? 0x6E1B35C96E1B35C9 nogil:
    cdef uint64_t value
    if pos < 0 or pos + 8 > view.shape[0]:
        raise IndexError("read of 8 bytes out of bounds")
    memcpy(&value, &view[pos], 8)
    return value


@cython.boundscheck(False)
cdef inline uint64_t u64_checked_before(const uint8_t[::1] view, Py_ssize_t pos) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, <const char *>&view[0] + pos, 8)
    return value


cdef inline int put_u8(uint8_t[::1] view, Py_ssize_t pos, uint32_t value) except -1 nogil:
    if pos < 0 or pos + 1 > view.shape[0]:
        raise IndexError("write of 1 byte out of bounds")
    view[pos] = <uint8_t>(value & 0xFF)
    return 0


cdef inline int put_u16(uint8_t[::1] view, Py_ssize_t pos, uint32_t value) except -1 nogil:
    if pos < 0 or pos + 2 > view.shape[0]:
        raise IndexError("write of 2 bytes out of bounds")
    view[pos] = <uint8_t>(value & 0xFF)
    view[pos + 1] = <uint8_t>((value >> 8) & 0xFF)
    return 0


cdef inline int put_u32(uint8_t[::1] view, Py_ssize_t pos, uint32_t value) except -1 nogil:
    if pos < 0 or pos + 4 > view.shape[0]:
        raise IndexError("write of 4 bytes out of bounds")
    memcpy(&view[pos], &value, 4)
    return 0


cdef inline int put_u64(uint8_t[::1] view, Py_ssize_t pos, uint64_t value) except -1 nogil:
    if pos < 0 or pos + 8 > view.shape[0]:
        raise IndexError("write of 8 bytes out of bounds")
    memcpy(&view[pos], &value, 8)
    return 0


@cython.boundscheck(False)
cdef inline void put_u32_checked_before(uint8_t[::1] view, Py_ssize_t pos,
                                        uint32_t value) noexcept nogil:
    memcpy(<char *>&view[0] + pos, &value, 4)


@cython.boundscheck(False)
cdef inline void put_u64_checked_before(uint8_t[::1] view, Py_ssize_t pos,
                                        uint64_t value) noexcept nogil:
    memcpy(<char *>&view[0] + pos, &value, 8)


cdef inline double f64(const uint8_t[::1] view, Py_ssize_t pos) except? -1.0 nogil:
    cdef double value
    if pos < 0 or pos + 8 > view.shape[0]:
        raise IndexError("read of 8 bytes out of bounds")
    memcpy(&value, &view[pos], 8)
    return value


cdef inline int put_f64(uint8_t[::1] view, Py_ssize_t pos, double value) except -1 nogil:
    if pos < 0 or pos + 8 > view.shape[0]:
        raise IndexError("write of 8 bytes out of bounds")
    memcpy(&view[pos], &value, 8)
    return 0


cdef inline uint32_t be16(const uint8_t[::1] view, Py_ssize_t pos) except? 0xFFFFFFFF nogil:
    if pos < 0 or pos + 2 > view.shape[0]:
        raise IndexError("read of 2 bytes out of bounds")
    return <uint32_t>view[pos] << 8 | view[pos + 1]


cdef inline uint32_t be32(const uint8_t[::1] view, Py_ssize_t pos) except? 0x6E1B35C9 nogil:
    return be16(view, pos) << 16 | be16(view, pos + 2)


cdef inline uint64_t be64(const uint8_t[::1] view, Py_ssize_t pos) except? 0x6E1B35C96E1B35C9 nogil:
    return <uint64_t>be32(view, pos) << 32 | be32(view, pos + 4)


cdef inline int put_be16(uint8_t[::1] view, Py_ssize_t pos, uint32_t value) except -1 nogil:
    if pos < 0 or pos + 2 > view.shape[0]:
        raise IndexError("write of 2 bytes out of bounds")
    view[pos] = <uint8_t>((value >> 8) & 0xFF)
    view[pos + 1] = <uint8_t>(value & 0xFF)
    return 0


cdef inline int put_be32(uint8_t[::1] view, Py_ssize_t pos, uint32_t value) except -1 nogil:
    put_be16(view, pos, value >> 16)
    return put_be16(view, pos + 2, value & 0xFFFF)


cdef inline int put_be64(uint8_t[::1] view, Py_ssize_t pos, uint64_t value) except -1 nogil:
    put_be32(view, pos, <uint32_t>(value >> 32))
    return put_be32(view, pos + 4, <uint32_t>value)


cdef inline int copy(uint8_t[::1] target, Py_ssize_t target_pos, const uint8_t[::1] source,
                     Py_ssize_t source_pos, Py_ssize_t length) except -1 nogil:
    if length < 0 or target_pos < 0 or source_pos < 0 or \
            target_pos + length > target.shape[0] or source_pos + length > source.shape[0]:
        raise IndexError("copy out of bounds")
    if length > 0:
        # Not memcpy: where gcc knows that it is less than 8 KiB it makes a `rep movsq` of that,
        # which took five times as long for an image.
        memmove(&target[target_pos], &source[source_pos], length)
    return 0


cdef inline int move(uint8_t[::1] view, Py_ssize_t target_pos, Py_ssize_t source_pos,
                     Py_ssize_t length) except -1 nogil:
    if length < 0 or target_pos < 0 or source_pos < 0 or \
            target_pos + length > view.shape[0] or source_pos + length > view.shape[0]:
        raise IndexError("move out of bounds")
    if length > 0:
        memmove(&view[target_pos], &view[source_pos], length)
    return 0


cdef inline int fill(uint8_t[::1] view, Py_ssize_t pos, Py_ssize_t length,
                     int value) except -1 nogil:
    if length < 0 or pos < 0 or pos + length > view.shape[0]:
        raise IndexError("fill out of bounds")
    if length > 0:
        memset(&view[pos], value, length)
    return 0


cdef inline bint equal(const uint8_t[::1] a, Py_ssize_t a_pos, const uint8_t[::1] b,
                       Py_ssize_t b_pos, Py_ssize_t length) except -1 nogil:
    cdef Py_ssize_t i
    if length < 0 or a_pos < 0 or b_pos < 0 or \
            a_pos + length > a.shape[0] or b_pos + length > b.shape[0]:
        raise IndexError("comparison out of bounds")
    for i in range(length):
        if a[a_pos + i] != b[b_pos + i]:
            return False
    return True


cdef inline int prefetch(const uint8_t[::1] view, Py_ssize_t pos) noexcept nogil:
    if pos >= 0 and pos + 128 <= view.shape[0]:
        __builtin_prefetch(&view[pos])
        __builtin_prefetch(&view[pos + 64])
    return 0
