from engine.redo cimport btree, gist, heap, heap2, sequence, spgist
from engine.redo.part cimport Part


cpdef bint is_supported(int rmgr) except -1 nogil
cpdef int redo(Part part) except -1 nogil
