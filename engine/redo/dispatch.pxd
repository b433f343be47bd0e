from engine.redo cimport btree, gin, heap, heap2, sequence
from engine.redo.part cimport Part


cpdef bint is_supported(int rmgr) except -1 nogil
cpdef int redo(Part part) except -1 nogil
