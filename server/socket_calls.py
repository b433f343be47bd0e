"""send(2) and recv(2) on a file descriptor, for kernels that call them without the GIL.

The bodies that are expanded into kernels stand in `socket_calls.pxd`; these do the same for kernels
that run interpreted. A count, or the negated errno.
"""

import os


def send(descriptor: int, data: memoryview, length: int) -> int:
    """Send data[:length], or as much of it as the kernel takes within the socket's timeout."""
    try:
        return os.write(descriptor, data[:length])
    except OSError as error:
        return -(error.errno or 1)


def receive(descriptor: int, into: memoryview, pos: int) -> int:
    """Wait for bytes and receive as many as are there and fit into into[pos:]; 0 at the end."""
    try:
        return os.readv(descriptor, [into[pos:]])
    except OSError as error:
        return -(error.errno or 1)
