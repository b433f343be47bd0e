cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from engine.layer_query cimport LayerQuery
from engine.version_set cimport VersionSet
from formats cimport coding, frame
from formats.frame cimport LayerColumns
from formats.layer_directory cimport FrameTable, LayerDirectory
from tools.fuzz.mutator cimport Mutator
from tools.fuzz.target cimport Target

cdef Py_ssize_t HEAD, SOURCE_BYTES, DIRECTORY_ROW_BYTES, TABLE_ROW_BYTES
cdef int FRAME, DIRECTORY, TABLE, CHECKED


cdef class LayerTarget(Target):
    cdef uint8_t[::1] source
    cdef LayerColumns columns
    cdef LayerQuery query
    cdef VersionSet versions

    @cython.locals(i=Py_ssize_t)
    cdef int make(self, Mutator m) except -1 nogil
    @cython.locals(count=int64_t, columns=int64_t, kind=int, slot=int64_t, ends=int64_t,
                   start=int64_t, end=int64_t, grown=Py_ssize_t, old=uint32_t)
    cdef int _change_frame(self, Mutator m) except -1 nogil
    @cython.locals(kind=int, width=Py_ssize_t, rows=Py_ssize_t)
    cdef int _change_rows(self, Mutator m) except -1 nogil
    @cython.locals(length=Py_ssize_t, start=Py_ssize_t, kind=int)
    cdef int execute(self, Mutator m) except -1 nogil
    @cython.locals(checked=int, count=Py_ssize_t, slot=Py_ssize_t)
    cdef int _frame(self, Mutator m, const uint8_t[::1] raw) except -1 nogil
    @cython.locals(layer=uint32_t, block=uint32_t, lsn=uint64_t, found=Py_ssize_t)
    cdef int _search(self, const uint8_t[::1] raw, Py_ssize_t slot, uint32_t beside,
                     uint32_t before) except -1 nogil
    cdef int _enter(self, uint32_t layer, uint32_t frame_start, uint32_t frame_end) except -1
    cdef int _collect(self, const uint8_t[::1] raw, uint32_t layer, uint32_t block,
                      uint64_t lsn) except -1 with gil
    @cython.locals(directory=LayerDirectory, table=FrameTable, row=Py_ssize_t, last=Py_ssize_t)
    cdef int _rows(self, Mutator m, int kind, Py_ssize_t start) except -1 with gil
