# The inline bodies of server/socket_calls.py for kernels (see there).
from libc.errno cimport EINTR, EINVAL, errno
from libc.stdint cimport uint8_t


cdef extern from "sys/socket.h" nogil:
    enum: MSG_NOSIGNAL
    Py_ssize_t c_send "send"(int descriptor, const void *data, size_t length, int flags)
    Py_ssize_t c_receive "recv"(int descriptor, void *into, size_t length, int flags)


cdef inline Py_ssize_t send(int descriptor, const uint8_t[::1] data,
                            Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t count
    if length < 1 or length > data.shape[0]:
        return -EINVAL
    while True:
        count = c_send(descriptor, &data[0], length, MSG_NOSIGNAL)
        if count >= 0:
            return count
        if errno != EINTR:
            return -errno


cdef inline Py_ssize_t receive(int descriptor, uint8_t[::1] into, Py_ssize_t pos) noexcept nogil:
    cdef Py_ssize_t count
    if pos < 0 or pos >= into.shape[0]:
        return -EINVAL
    while True:
        count = c_receive(descriptor, &into[pos], into.shape[0] - pos, 0)
        if count >= 0:
            return count
        if errno != EINTR:
            return -errno
