cimport cython
from libc.stdint cimport uint32_t

from engine.redo cimport heap_tuple, visibility
from engine.redo.part cimport Part
from formats cimport coding
from formats cimport page as layout

# except? 0x6E1B35C9: after this value, which hardly any call returns, the caller asks for an error.

cdef int INSERT, DELETE, UPDATE, TRUNCATE, HOT_UPDATE, CONFIRM, LOCK, INPLACE, INIT_PAGE
cdef int INSERT_ALL_VISIBLE_CLEARED, DELETE_ALL_VISIBLE_CLEARED, DELETE_IS_SUPER
cdef int DELETE_IS_PARTITION_MOVE, UPDATE_OLD_ALL_VISIBLE_CLEARED
cdef int UPDATE_NEW_ALL_VISIBLE_CLEARED, UPDATE_PREFIX_FROM_OLD, UPDATE_SUFFIX_FROM_OLD
cdef int LOCK_ALL_FROZEN_CLEARED

@cython.locals(opcode=int)
cpdef int redo(Part part) except -1 nogil
cdef int clear_map(Part part, int flags_offset, int condition, int bits) except -1 nogil
@cython.locals(n=int, length=int, pos=int)
cdef int _insert(Part part) except -1 nogil
@cython.locals(n=int, flags=int, pos=int)
cdef int _delete(Part part) except -1 nogil
@cython.locals(same_page=bint)
cdef int _update(Part part, bint hot) except -1 nogil
cdef uint32_t _old_block(Part part) except? 0x6E1B35C9 nogil
@cython.locals(flags=int, new_block=uint32_t, old_block=uint32_t, covers_old=bint, cleared=int)
cdef int _clear_map_of_new_version(Part part) except -1 nogil
@cython.locals(pos=int, new_block=uint32_t)
cdef int _end_old_version(Part part, bint hot) except -1 nogil
@cython.locals(flags=int, n=int, pos=Py_ssize_t, prefix=int, suffix=int, end=Py_ssize_t,
               length=Py_ssize_t, start=int)
cdef int _add_new_version(Part part, bint same_page) except -1 nogil
@cython.locals(bitmap_length=int)
cdef int _put_content(Part part, Py_ssize_t target, Py_ssize_t pos, Py_ssize_t end, int prefix,
                      int suffix) except -1 nogil
@cython.locals(item=uint32_t, old=int, old_end=int, data=int)
cdef int _copy_from_old(Part part, Py_ssize_t target, bint at_start, int length) except -1 nogil
@cython.locals(n=int)
cdef int _confirm(Part part) except -1 nogil
@cython.locals(n=int, pos=int)
cdef int _lock(Part part) except -1 nogil
@cython.locals(locks=int, bits=int)
cdef bint _is_only_locked(int infomask) noexcept nogil
@cython.locals(n=int, pos=int, start=int)
cdef int _inplace(Part part) except -1 nogil
