cimport cython
from libc.stdint cimport uint8_t

from engine.redo.part cimport Part
from formats cimport coding

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", pos=Py_ssize_t, end=Py_ssize_t,
               offset=int, length=int, lower=int, upper=int)
cpdef int redo(Part part) except -1 nogil
