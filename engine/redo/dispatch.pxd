from engine.redo cimport (
    brin, btree, generic, gin, gist, hash_index, heap, heap2, sequence, spgist
)
from engine.redo.part cimport Part


cpdef bint is_supported(int rmgr) except -1 nogil
cpdef int redo(Part part) except -1 nogil
cdef int redo_of_other_access_methods(Part part) except -1 nogil
