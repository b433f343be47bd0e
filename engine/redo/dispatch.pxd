from engine.redo cimport brin, btree, generic, hash_index, heap, heap2, sequence
from engine.redo.part cimport Part


cpdef bint is_supported(int rmgr) except -1 nogil
cpdef int redo(Part part) except -1 nogil
