cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from engine.redo.part cimport Part
from formats cimport coding, index_tuples
from formats cimport page as layout

cdef int SPECIAL, REDIRECTIONS, PLACEHOLDERS, PAGE_ID
cdef int LEAF, NULLS
cdef int REDIRECT, DEAD, PLACEHOLDER
cdef int FORMED, DEAD_LENGTH

cdef int check(const uint8_t[::1] page) except -1 nogil
cdef int start(uint8_t[::1] page, int flags) except -1 nogil
@cython.locals(length=Py_ssize_t)
cdef Py_ssize_t leaf_length(const uint8_t[::1] view, Py_ssize_t pos,
                            Py_ssize_t end) except -1 nogil
@cython.locals(length=Py_ssize_t)
cdef Py_ssize_t inner_length(const uint8_t[::1] view, Py_ssize_t pos,
                             Py_ssize_t end) except -1 nogil

@cython.locals(offset=int, length=int)
cdef int _find(const uint8_t[::1] page, int number, int length_min) except -1 nogil
cdef int _put(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t length,
              int number) except -1 nogil
cdef int _count(uint8_t[::1] page, int counter, int difference) except -1 nogil
cdef int replace(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos,
                 Py_ssize_t length, int number) except -1 nogil
cdef int add(uint8_t[::1] page, const uint8_t[::1] source, Py_ssize_t pos, Py_ssize_t length,
             int number) except -1 nogil
@cython.locals(pos=int)
cdef int chain(uint8_t[::1] page, int number, int following) except -1 nogil
cdef int _put_tid(uint8_t[::1] view, Py_ssize_t pos, uint32_t block, int number) except -1 nogil
@cython.locals(pos=int, end=int, word=uint32_t, length=int)
cdef int link(uint8_t[::1] page, int number, int node, uint32_t block,
              int target) except -1 nogil

cdef int _form_dead(uint8_t[::1] scratch, int state, uint32_t block, int target,
                    uint32_t xid) except -1 nogil
cdef int _count_dead(uint8_t[::1] page, int state) except -1 nogil
@cython.locals(page=uint8_t[::1], scratch=uint8_t[::1])
cdef int replace_by_dead(Part part, int number, int state, uint32_t block, int target,
                         uint32_t xid) except -1 nogil
@cython.locals(source="const uint8_t[::1]", numbers=uint16_t[::1], number=int, i=int, k=int)
cdef int _sort(Part part, Py_ssize_t pos, int count) except -1 nogil
@cython.locals(page=uint8_t[::1], scratch=uint8_t[::1], numbers=uint16_t[::1], first=int,
               number=int, state=int, i=int)
cdef int delete(Part part, Py_ssize_t pos, int count, int first_state, int other_state,
                uint32_t block, int target, uint32_t xid) except -1 nogil
@cython.locals(pos=int, other_pos=int, item=uint32_t)
cdef int swap(uint8_t[::1] page, int number, int other) except -1 nogil
@cython.locals(pos=int, word=uint32_t)
cdef int end_redirection(uint8_t[::1] page, int number) except -1 nogil
@cython.locals(page=uint8_t[::1], numbers=uint16_t[::1], count=int, i=int)
cdef int cut_placeholders(Part part, int first) except -1 nogil
