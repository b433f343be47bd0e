cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from engine.redo cimport spgist_page as pages
from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int ADD_LEAF, MOVE_LEAFS, ADD_NODE, SPLIT_TUPLE, PICK_SPLIT
cdef int VACUUM_LEAF, VACUUM_ROOT, VACUUM_REDIRECT

@cython.locals(info=int)
cpdef int redo(Part part) except -1 nogil
cdef Py_ssize_t _main_data(Part part, int length) except -1 nogil
cdef Py_ssize_t _main_end(Part part) except -1 nogil
cdef int _unexpected_block() except -1 nogil
cdef int _open(Part part, bint is_made_anew, int flags) except -1 nogil
@cython.locals(number=int64_t)
cdef int64_t _block(Part part, int block_id) except -1 nogil
cdef int _leaf_flags(bint stores_nulls) except -1 nogil

@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, number=int,
               head=int, parent=int, length=Py_ssize_t)
cdef int _add_leaf(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, moved=int,
               inserted=int, numbers=Py_ssize_t, leaf=Py_ssize_t, end=Py_ssize_t, last=int,
               i=int, length=Py_ssize_t, target=uint32_t, xid=uint32_t, first_state=int,
               parent=int)
cdef int _move_leafs(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t,
               length=Py_ssize_t, number=int, new_number=int, moves=bint, is_parent=bint,
               state=int, xid=uint32_t, parent=int, node=int)
cdef int _add_node(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, end=Py_ssize_t,
               length=Py_ssize_t, second=Py_ssize_t, second_length=Py_ssize_t,
               second_number=int, stays=bint)
cdef int _split_tuple(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, deleted=int,
               inserted=int, inner=Py_ssize_t, length=Py_ssize_t, number=int, nulls=int,
               parent=int, node=int, state=int, xid=uint32_t, target=uint32_t)
cdef int _pick_split(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", end=Py_ssize_t,
               goes_to=Py_ssize_t, i=int, length=Py_ssize_t)
cdef int _insert_leafs(Part part, Py_ssize_t numbers, int count, Py_ssize_t leaf) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", main=Py_ssize_t, dead=int,
               deleted=int, moved=int, chained=int, at=Py_ssize_t, i=int, following=int)
cdef int _vacuum_leaf(Part part) except -1 nogil
@cython.locals(source="const uint8_t[::1]", numbers=uint16_t[::1], main=Py_ssize_t, count=int,
               i=int)
cdef int _vacuum_root(Part part) except -1 nogil
@cython.locals(page=uint8_t[::1], source="const uint8_t[::1]", head=int, main=Py_ssize_t,
               count=int, first=int, i=int)
cdef int _vacuum_redirect(Part part) except -1 nogil
