cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.record_batch cimport RecordBatch
from engine.wal_buffer cimport WalBuffer
from formats cimport coding, wal_page, wal_record
from formats.wal_page cimport PageHeader

cdef Py_ssize_t PAGE_BYTES, HEADER_BYTES, RECORDS_ALL, AHEAD
cdef uint32_t SWITCH, OVERWRITE_CONTRECORD
cdef int NOT_YET, AGAIN, WHOLE
cdef int MAGIC, FLAGS, ADDRESS, SYSTEM, SEGMENT_SIZE, PAGE_SIZE, TIMELINE_BACK, TIMELINE_AHEAD
cdef int NO_CONTINUATION, CONTINUATION, REMAINING, ZEROS, LENGTH, PREVIOUS, PREVIOUS_AHEAD
cdef int RMGR, OVERWRITTEN, VERSION, RECORD


@cython.final
cdef class WalReader:
    cdef readonly uint64_t segment_size, system_identifier, end_lsn
    cdef public uint32_t timeline
    cdef readonly int version
    cdef readonly bint at_end
    cdef WalBuffer wal
    cdef PageHeader header
    cdef Py_ssize_t head, page, checked, rest_to_skip
    cdef bint zeros_end, in_step, behind_switch
    cdef uint64_t previous_lsn, dropped_lsn
    cdef uint32_t page_timeline
    cdef int fault
    cdef uint64_t fault_lsn, fault_expected, fault_found

    cpdef feed(self, uint64_t lsn, const uint8_t[::1] data)
    cdef _make_room(self, Py_ssize_t length)
    @cython.locals(is_full=bint)
    cpdef Py_ssize_t decode(self, RecordBatch batch, Py_ssize_t records_max=*) except -1
    cdef _error(self)
    cdef bint _decode(self, RecordBatch batch, Py_ssize_t records_max) except -1 nogil
    cdef int _fault(self, int fault, uint64_t lsn, uint64_t expected,
                    uint64_t found) noexcept nogil
    cdef int _end_or_fault(self, uint64_t lsn) noexcept nogil
    @cython.locals(length=Py_ssize_t, lsn=uint64_t, end=Py_ssize_t, framed=int)
    cdef int _frame(self) except -1 nogil
    @cython.locals(page=Py_ssize_t, flags=uint32_t)
    cdef int _enter_page(self) except -1 nogil
    @cython.locals(begin=Py_ssize_t, lsn=uint64_t, rest=Py_ssize_t, end=Py_ssize_t)
    cdef int _skip_rest(self, Py_ssize_t page, uint32_t flags) except -1 nogil
    @cython.locals(opcode=uint32_t)
    cdef bint _ends_switch(self, Py_ssize_t begin, Py_ssize_t rest) except -1 nogil
    @cython.locals(end=uint64_t)
    cdef uint64_t _skip_segment(self, uint64_t lsn) except? 0 nogil
    @cython.locals(page=Py_ssize_t, flags=uint32_t, lsn=uint64_t, start=uint64_t,
                   rest=Py_ssize_t)
    cdef int _follow(self, Py_ssize_t end) except -1 nogil
    @cython.locals(lsn=uint64_t, is_long=bint)
    cdef int _check_page(self, Py_ssize_t page) except -1 nogil
    cdef int _check_long_header(self, uint64_t lsn) except -1 nogil
    @cython.locals(row=Py_ssize_t, length=Py_ssize_t, previous=uint64_t, opcode=uint32_t,
                   rmgr=uint32_t, lsn=uint64_t, fault=int, end=uint64_t)
    cdef int _take(self, RecordBatch batch) except -1 nogil
    @cython.locals(row=Py_ssize_t, about=uint64_t)
    cdef int _check_replacement(self, RecordBatch batch, uint64_t lsn) except -1 nogil
    cdef uint64_t _lsn_at(self, Py_ssize_t pos, Py_ssize_t page) except? 0 nogil
    cdef int _end_at(self, uint64_t lsn) noexcept nogil
