"""Sending and receiving on a file descriptor, for kernels that do it without the GIL.

The bodies that are expanded into kernels stand in `socket_calls.pxd`; these do the same for kernels
that run interpreted. Each returns a count of bytes, or the negated errno.
"""

import os
import socket

HEAD, PAGE, REPLY = 47, 8192, 8239
PARTS_MAX = 1024  # of one sendmsg


def send(descriptor: int, data: memoryview, pos: int, end: int) -> int:
    """Send data[pos:end], or as much of it as the kernel takes within the socket's timeout."""
    try:
        return os.write(descriptor, data[pos:end])
    except OSError as error:
        return -(error.errno or 1)


def send_pages(
    descriptor: int, replies: memoryview, length: int, pages: memoryview, slots: memoryview
) -> int:
    """Send whole replies, or as much of them as the kernel takes without any wait, or 0.

    Reply i has its page at pages[slots[i]], counted in pages, or in its own place if that is 0.
    """
    parts: list[memoryview] = []
    begin = 0
    for i in range(length // REPLY):
        if slots[i] and len(parts) + 3 <= PARTS_MAX:
            parts.append(replies[begin : i * REPLY + HEAD])
            parts.append(pages[slots[i] * PAGE : (slots[i] + 1) * PAGE])
            begin = (i + 1) * REPLY
        elif slots[i]:
            length = i * REPLY
            break
    if begin < length:
        parts.append(replies[begin:length])
    sock = socket.socket(fileno=descriptor)
    try:
        return sock.sendmsg(parts, [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except BlockingIOError:
        return 0
    except OSError as error:
        return -(error.errno or 1)
    finally:
        sock.detach()


def receive(descriptor: int, into: memoryview, pos: int) -> int:
    """Wait for bytes and receive as many as are there and fit into into[pos:]; 0 at the end."""
    try:
        return os.readv(descriptor, [into[pos:]])
    except OSError as error:
        return -(error.errno or 1)
