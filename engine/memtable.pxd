cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.version_set cimport VersionSet
from formats cimport coding


@cython.final
cdef class Memtable:
    cdef public uint8_t[::1] data, slot_bytes
    cdef public uint64_t[::1] entry_lsn, slot_counts
    cdef public uint32_t[::1] entry_chunk, entry_block, entry_older, entry_image
    cdef public uint32_t[::1] entry_pos, entry_length
    cdef public uint32_t[::1] page_chunk, page_block, page_newest, page_records, page_bytes
    cdef public uint32_t[::1] slots, hot
    cdef public uint64_t slot_mask, lsn_end
    cdef public uint32_t hot_records, hot_bytes, hot_count
    cdef public Py_ssize_t entries_max, pages_max, entry_count, page_count, used

    cpdef int clear(self) except -1 nogil
    cpdef bint has_room(self, Py_ssize_t entries, Py_ssize_t payload_bytes) except -1 nogil
    @cython.locals(h=uint64_t, slot=uint64_t, page=uint32_t)
    cpdef uint32_t find(self, uint32_t chunk, uint32_t block) noexcept nogil
    @cython.locals(h=uint64_t, slot=uint64_t, page=uint32_t)
    cdef uint32_t _add_page(self, uint32_t chunk, uint32_t block) noexcept nogil
    @cython.locals(pos=Py_ssize_t)
    cpdef Py_ssize_t reserve(self, Py_ssize_t length) except -1 nogil
    @cython.locals(page=uint32_t, newest=uint32_t, entry=uint32_t)
    cpdef int link(self, uint32_t chunk, uint32_t block, uint64_t lsn, Py_ssize_t pos,
                   Py_ssize_t length, bint self_contained) except -1 nogil
    cdef int _note_hot(self, uint32_t page) except -1 nogil
    @cython.locals(length=Py_ssize_t, pos=Py_ssize_t)
    cpdef int put(self, uint32_t chunk, uint32_t block, uint64_t lsn, const uint8_t[::1] source,
                  bint self_contained) except -1 nogil
    @cython.locals(pos=Py_ssize_t)
    cpdef int put_word(self, uint32_t chunk, uint32_t block, uint64_t lsn,
                       uint64_t word) except -1 nogil
    @cython.locals(page=uint32_t, entry=uint32_t, image=uint32_t, lsn=uint64_t)
    cpdef int collect(self, uint32_t chunk, uint32_t block, uint64_t lsn_floor, uint64_t lsn_max,
                      VersionSet into) except -1 nogil
    @cython.locals(page=uint32_t)
    cpdef uint64_t newest_lsn(self, uint32_t chunk, uint32_t block) except? 1 nogil
    @cython.locals(count=Py_ssize_t, source=Py_ssize_t, digit=int, out=Py_ssize_t, i=Py_ssize_t)
    cpdef Py_ssize_t sort(self, uint32_t[::1] ranks, uint32_t[::1] order,
                          uint32_t[::1] scratch) except -1 nogil
    @cython.locals(i=Py_ssize_t, page=uint32_t, d=uint32_t)
    cdef int _radix_pass(self, uint32_t[::1] ranks, uint32_t[::1] scratch, Py_ssize_t source,
                         Py_ssize_t target, Py_ssize_t count, int digit) except -1 nogil
    cdef uint32_t _digit(self, uint32_t[::1] ranks, uint32_t page, int digit) except? 256 nogil
    @cython.locals(first=Py_ssize_t, last=Py_ssize_t, entry=uint32_t)
    cdef Py_ssize_t _unchain(self, uint32_t page, uint32_t[::1] order,
                             Py_ssize_t out) except -1 nogil
