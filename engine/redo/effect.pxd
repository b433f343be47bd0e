cimport cython
from libc.stdint cimport uint8_t, uint32_t

from engine.redo cimport visibility
from formats cimport coding


@cython.locals(effect_class=uint32_t, count=uint32_t, item=Py_ssize_t, i=uint32_t,
               index=uint32_t, argument=uint32_t, value=uint32_t)
cpdef int apply(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos,
                Py_ssize_t length) except -1 nogil
@cython.locals(byte=uint32_t, shift=uint32_t, value=uint32_t)
cpdef int set_transaction_status(uint8_t[::1] page, uint32_t index,
                                 uint32_t status) except -1 nogil
@cython.locals(group=uint32_t, in_group=uint32_t)
cpdef int set_multixact_member(uint8_t[::1] page, uint32_t index, uint32_t status,
                               uint32_t xid) except -1 nogil
@cython.locals(origin=uint32_t, low=uint32_t, high=uint32_t, at=Py_ssize_t)
cpdef int set_commit_timestamps(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t item,
                                uint32_t count) except -1 nogil
