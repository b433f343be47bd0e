cimport cython


@cython.final
cdef class StoreLock:
    cdef cython.pythread_type_lock mutex

    cpdef int enter(self) except -1 nogil
    cpdef int leave(self) except -1 nogil
