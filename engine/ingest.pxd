cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.chunk_table cimport ChunkTable
from engine.memtable cimport Memtable
from engine.record_batch cimport RecordBatch
from engine.redo cimport dispatch, gist
from formats cimport coding, pglz


@cython.final
cdef class Ingest:
    cdef public ChunkTable chunks
    cdef public Memtable memtable
    cdef public object decompress
    cdef public dict cuts
    cdef public uint8_t[::1] image
    cdef public uint64_t records, images, unreadable
    cdef public int reason
    cdef public uint32_t xinfo
    cdef public Py_ssize_t sub_pos, sub_count
    cdef public bint hint_bits_logged

    @cython.locals(i=Py_ssize_t)
    cpdef Py_ssize_t run(self, RecordBatch batch, Py_ssize_t start, Py_ssize_t end) except -1
    @cython.locals(i=Py_ssize_t, lsn=uint64_t, r=Py_ssize_t)
    cdef Py_ssize_t run_records(self, RecordBatch batch, Py_ssize_t start,
                                Py_ssize_t end) except -1 nogil
    @cython.locals(references=Py_ssize_t, entries=Py_ssize_t, payload=Py_ssize_t)
    cdef bint _fits(self, RecordBatch batch, Py_ssize_t i) except -1 nogil
    @cython.locals(pages=Py_ssize_t, previous=uint32_t, page=uint32_t, k=Py_ssize_t)
    cdef Py_ssize_t _status_pages(self, RecordBatch batch, Py_ssize_t i) except -1 nogil
    @cython.locals(fork=uint32_t, chunk=int64_t, block=uint32_t, rmgr=int, pos=Py_ssize_t)
    cdef int _reference(self, RecordBatch batch, Py_ssize_t i, Py_ssize_t r,
                        uint64_t lsn) except -1 nogil
    @cython.locals(chunk=int64_t, root=uint32_t)
    cpdef int64_t touch(self, uint32_t spc, uint32_t db, uint32_t rel, uint32_t fork,
                        uint32_t block, uint64_t lsn) except -1 nogil
    @cython.locals(word=uint64_t)
    cdef int _extend(self, uint32_t root, uint32_t blocks, uint64_t lsn) except -1 nogil
    @cython.locals(history=uint32_t, word=uint64_t)
    cpdef int cut(self, uint32_t root, uint32_t exists, uint32_t blocks, uint32_t cut_blocks,
                  uint64_t lsn, uint64_t cut_lsn) except -1 nogil
    cdef int _note_cut(self, uint32_t root, uint32_t cut_blocks, uint64_t lsn) except -1 with gil
    @cython.locals(target=uint8_t[::1], hole_offset=Py_ssize_t, hole_length=Py_ssize_t,
                   length=Py_ssize_t, pos=Py_ssize_t, source_pos=Py_ssize_t,
                   source_length=Py_ssize_t, codec=int)
    cdef int _image(self, Memtable memtable, RecordBatch batch, Py_ssize_t i, Py_ssize_t r,
                    uint32_t chunk, uint32_t block, uint64_t lsn) except -1 nogil
    cdef int _decompress(self, int codec, RecordBatch batch, Py_ssize_t source_pos,
                         Py_ssize_t source_length, Py_ssize_t length,
                         Py_ssize_t pos) except -1 with gil
    @cython.locals(target=uint8_t[::1], first=Py_ssize_t, count=Py_ssize_t,
                   main_length=Py_ssize_t, data_length=Py_ssize_t, length=Py_ssize_t,
                   pos=Py_ssize_t, init=uint32_t, flags=uint32_t, at=Py_ssize_t)
    cdef int _part(self, Memtable memtable, RecordBatch batch, Py_ssize_t i, Py_ssize_t r,
                   uint32_t chunk, uint32_t block, uint64_t lsn) except -1 nogil
    @cython.locals(rmgr=int, info=int)
    cdef int _effects(self, RecordBatch batch, Py_ssize_t i, uint64_t lsn) except -1 nogil
    @cython.locals(main=Py_ssize_t)
    cdef int _heap_effects(self, RecordBatch batch, Py_ssize_t i, int operation,
                           uint64_t lsn) except -1 nogil
    @cython.locals(main=Py_ssize_t)
    cdef int _heap2_effects(self, RecordBatch batch, Py_ssize_t i, int operation,
                            uint64_t lsn) except -1 nogil
    @cython.locals(r=Py_ssize_t)
    cdef Py_ssize_t _find_reference(self, RecordBatch batch, Py_ssize_t i,
                                    int block_id) except -2 nogil
    @cython.locals(r=Py_ssize_t)
    cdef int _clear_visible(self, RecordBatch batch, Py_ssize_t i, int block_id, uint32_t bits,
                            uint64_t lsn) except -1 nogil
    @cython.locals(new=Py_ssize_t, old=Py_ssize_t, old_block=uint32_t, new_block=uint32_t)
    cdef int _clear_visible_update(self, RecordBatch batch, Py_ssize_t i, uint32_t flags,
                                   uint64_t lsn) except -1 nogil
    @cython.locals(map_block=uint32_t, chunk=int64_t, count=Py_ssize_t, pos=Py_ssize_t)
    cdef int _clear_bits(self, RecordBatch batch, Py_ssize_t r, uint32_t heap_block,
                         uint32_t bits, uint64_t second_plus_1, uint64_t lsn) except -1 nogil
    @cython.locals(pos=Py_ssize_t)
    cdef Py_ssize_t _begin_effect(self, int effect_class, Py_ssize_t count) except -1 nogil
    @cython.locals(at=Py_ssize_t)
    cdef int _effect_item(self, Py_ssize_t pos, Py_ssize_t item, uint32_t index,
                          uint32_t argument, uint32_t value) except -1 nogil
    @cython.locals(pos=Py_ssize_t, end=Py_ssize_t, operation=int)
    cdef int _find_subtransactions(self, RecordBatch batch, Py_ssize_t i) except -1 nogil
    @cython.locals(operation=int, status=uint32_t)
    cdef int _transaction(self, RecordBatch batch, Py_ssize_t i, int info,
                          uint64_t lsn) except -1 nogil
    @cython.locals(done=Py_ssize_t, first=uint32_t, page=uint32_t, run=Py_ssize_t)
    cpdef int set_status(self, uint32_t xid, const uint8_t[::1] data, Py_ssize_t pos,
                         Py_ssize_t count, uint32_t status, uint64_t lsn) except -1 nogil
    @cython.locals(chunk=int64_t, effect=Py_ssize_t, item=Py_ssize_t)
    cdef int _set_status_page(self, uint32_t page, uint32_t first, const uint8_t[::1] data,
                              Py_ssize_t pos, Py_ssize_t run, uint32_t status,
                              uint64_t lsn) except -1 nogil
    @cython.locals(chunk=int64_t)
    cpdef int64_t touch_slru(self, uint32_t slru, uint32_t page, uint64_t lsn) except -1 nogil
