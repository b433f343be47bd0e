cimport cython
from libc.stdint cimport uint8_t

from formats cimport coding


@cython.locals(end=Py_ssize_t, out=Py_ssize_t, out_end=Py_ssize_t, control=int, item=int,
               run=Py_ssize_t, offset=Py_ssize_t, _=Py_ssize_t)
cpdef int decompress(const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t length,
                     uint8_t[::1] target, Py_ssize_t target_pos,
                     Py_ssize_t target_length) except -1 nogil
