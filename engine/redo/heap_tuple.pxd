cimport cython
from libc.stdint cimport int64_t, uint32_t

from engine.redo.part cimport Part
from formats cimport coding
from formats cimport page as layout

cdef int KEYS_UPDATED, HOT_UPDATED
cdef int XMAX_KEY_SHARE_LOCK, COMBO_COMMAND, XMAX_EXCLUSIVE_LOCK, XMAX_LOCK_ONLY
cdef int XMAX_IS_MULTIXACT, XMAX_AND_MOVED, ALL_VISIBLE

cdef int check_lengths(Part part, Py_ssize_t main_length, Py_ssize_t data_length) except -1 nogil
@cython.locals(number=int64_t)
cdef int64_t block_number(Part part, int block_id) except -1 nogil
@cython.locals(item=uint32_t)
cdef int position(Part part, int n) except -1 nogil
cdef int put_ctid(Part part, int tuple_pos, uint32_t block, int n) except -1 nogil
@cython.locals(infomask=int, infomask2=int)
cdef int set_infobits(Part part, int tuple_pos, int infobits) except -1 nogil
@cython.locals(infomask2=int)
cdef int set_hot_updated(Part part, int tuple_pos, bint hot) except -1 nogil
@cython.locals(infomask=int)
cdef int clear_command(Part part, int tuple_pos) except -1 nogil
@cython.locals(xid=uint32_t, present=uint32_t, difference=uint32_t)
cdef int set_prunable(Part part) except -1 nogil
@cython.locals(flags=int)
cdef int set_all_visible(Part part, bint all_visible) except -1 nogil
@cython.locals(pos=int, infomask=int)
cdef int add(Part part, Py_ssize_t header_pos, uint32_t xmax, int n,
             Py_ssize_t length) except -1 nogil
