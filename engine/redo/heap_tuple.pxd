cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t

from engine.redo.part cimport Part
from formats cimport coding
from formats cimport page as layout

cdef int KEYS_UPDATED, HOT_UPDATED
cdef int XMAX_KEY_SHARE_LOCK, COMBO_COMMAND, XMAX_EXCLUSIVE_LOCK, XMAX_LOCK_ONLY
cdef int XMAX_IS_MULTIXACT, XMAX_AND_MOVED, ALL_VISIBLE

cdef int check_lengths(Part part, Py_ssize_t main_length, Py_ssize_t data_length) except -1 nogil
@cython.locals(number=int64_t)
cdef int64_t block_number(Part part, int block_id) except -1 nogil
cdef int position(const uint8_t[::1] page, int n) except -1 nogil
cdef int put_ctid(uint8_t[::1] view, int tuple_pos, uint32_t block, int n) except -1 nogil
@cython.locals(infomask=int, infomask2=int)
cdef int set_infobits(uint8_t[::1] page, int tuple_pos, int infobits) except -1 nogil
@cython.locals(infomask2=int)
cdef int set_hot_updated(uint8_t[::1] page, int tuple_pos, bint hot) except -1 nogil
@cython.locals(infomask=int)
cdef int clear_command(uint8_t[::1] page, int tuple_pos) except -1 nogil
@cython.locals(present=uint32_t, difference=uint32_t)
cdef int set_prunable(uint8_t[::1] page, uint32_t xid) except -1 nogil
@cython.locals(flags=int)
cdef int set_all_visible(uint8_t[::1] page, bint all_visible) except -1 nogil
@cython.locals(tuple_=uint8_t[::1], source="const uint8_t[::1]")
cdef int start(Part part, Py_ssize_t header_pos, uint32_t xmax, int n) except -1 nogil
cdef int add(Part part, int length, int n) except -1 nogil
