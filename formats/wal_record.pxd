cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from formats cimport coding, crc

cdef Py_ssize_t HEADER_BYTES, CRC_POS, LENGTH_MAX, REFERENCES_MAX, PAGE_BYTES
cdef uint32_t FORK_MASK, IMAGE, DATA, WILL_INIT, SAME_RELATION, FORK_MAX
cdef uint32_t HAS_HOLE, APPLY, PGLZ, LZ4, ZSTD, COMPRESSED
cdef int CHECKSUM, CUT_OFF, LEFT_OVER, FRAGMENT, ORDER, FORK, DATA_FLAG, RELATION
cdef int IMAGE_INFO, IMAGE_LENGTH, HOLE


cdef class RecordColumns:
    cdef public const uint8_t[::1] data, soon
    cdef public Py_ssize_t soon_pos
    cdef readonly Py_ssize_t records_max, references_max
    cdef readonly Py_ssize_t count, reference_count
    cdef readonly uint32_t fault_about
    cdef readonly int64_t fault_found
    cdef readonly uint32_t[::1] record_pos, record_length, xid, main_pos, main_length
    cdef readonly uint32_t[::1] first_reference
    cdef readonly uint8_t[::1] rmgr, info
    cdef readonly uint16_t[::1] origin
    cdef readonly uint8_t[::1] ref_id, ref_flags, ref_image_info
    cdef readonly uint32_t[::1] ref_spc, ref_db, ref_rel, ref_block
    cdef readonly uint32_t[::1] ref_data_pos, ref_data_length, ref_image_pos, ref_image_length
    cdef readonly uint16_t[::1] ref_hole_offset, ref_hole_length


cdef int _header(RecordColumns columns, Py_ssize_t record, Py_ssize_t pos,
                 Py_ssize_t length) except -1 nogil
@cython.locals(record=Py_ssize_t, end=Py_ssize_t, reference=Py_ssize_t, main_length=Py_ssize_t,
               fragments=Py_ssize_t, fragment=uint32_t, size=Py_ssize_t, stored=uint32_t,
               computed=uint32_t, fault=int)
cpdef int parse(RecordColumns columns, Py_ssize_t pos, Py_ssize_t length,
                int version) except -1 nogil

@cython.locals(reference=Py_ssize_t)
cdef int _place_fragments(RecordColumns columns, Py_ssize_t first, Py_ssize_t end,
                          Py_ssize_t pos) except -1 nogil

# These return a size, or minus a fault; -1000 is the exception's alone.
@cython.locals(first=Py_ssize_t, start=Py_ssize_t, size=Py_ssize_t, block_id=uint32_t,
               flags=uint32_t, data_length=uint32_t)
cdef Py_ssize_t _reference(RecordColumns columns, Py_ssize_t reference, Py_ssize_t pos,
                           Py_ssize_t end, int version) except? -1000 nogil

@cython.locals(block_id=uint32_t, length=uint32_t, hole_offset=uint32_t, hole_length=uint32_t,
               info=uint32_t, compression=uint32_t, size=Py_ssize_t)
cdef Py_ssize_t _image(RecordColumns columns, Py_ssize_t reference, Py_ssize_t pos,
                       Py_ssize_t end, int version) except? -1000 nogil

cdef Py_ssize_t _fault(RecordColumns columns, uint32_t about, int fault,
                       int64_t found) noexcept nogil
