cimport cython
from libc.stdint cimport uint8_t

from engine.redo.part cimport Part
from formats cimport coding
from formats cimport page as layout

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", length=Py_ssize_t)
cpdef int redo(Part part) except -1 nogil
