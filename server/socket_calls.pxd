# The inline bodies of server/socket_calls.py for kernels (see there).
from libc.errno cimport EAGAIN, EINTR, EINVAL, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset


cdef extern from "sys/uio.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len


cdef extern from "sys/socket.h" nogil:
    enum: MSG_DONTWAIT
    enum: MSG_NOSIGNAL
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    Py_ssize_t c_send "send"(int descriptor, const void *data, size_t length, int flags)
    Py_ssize_t c_sendmsg "sendmsg"(int descriptor, const msghdr *message, int flags)
    Py_ssize_t c_receive "recv"(int descriptor, void *into, size_t length, int flags)


cdef inline Py_ssize_t send(int descriptor, const uint8_t[::1] data, Py_ssize_t pos,
                            Py_ssize_t end) noexcept nogil:
    cdef Py_ssize_t count
    if pos < 0 or pos >= end or end > data.shape[0]:
        return -EINVAL
    while True:
        count = c_send(descriptor, &data[pos], end - pos, MSG_NOSIGNAL)
        if count >= 0:
            return count
        if errno != EINTR:
            return -errno


cdef inline Py_ssize_t send_pages(int descriptor, const uint8_t[::1] replies, Py_ssize_t length,
                                  const uint8_t[::1] pages,
                                  const uint32_t[::1] slots) noexcept nogil:
    cdef iovec parts[1024]
    cdef msghdr message
    cdef Py_ssize_t i, at, begin = 0, count = 0
    if length < 8239 or length > replies.shape[0] or length // 8239 > slots.shape[0]:
        return -EINVAL
    for i in range(length // 8239):
        if slots[i] != 0 and count + 3 <= 1024:
            at = slots[i]
            at *= 8192
            if at + 8192 > pages.shape[0]:
                return -EINVAL
            parts[count].iov_base = <void *>&replies[begin]
            parts[count].iov_len = i * 8239 + 47 - begin
            parts[count + 1].iov_base = <void *>&pages[at]
            parts[count + 1].iov_len = 8192
            count += 2
            begin = (i + 1) * 8239
        elif slots[i] != 0:
            length = i * 8239
            break
    if begin < length:
        parts[count].iov_base = <void *>&replies[begin]
        parts[count].iov_len = length - begin
        count += 1
    memset(&message, 0, sizeof(message))
    message.msg_iov = &parts[0]
    message.msg_iovlen = count
    while True:
        i = c_sendmsg(descriptor, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        if i >= 0:
            return i
        if errno == EAGAIN:
            return 0
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
