cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

# One instruction each. Inline assembler and not the compiler's intrinsics: those are only to be
# had in functions compiled for a CPU that has them (a target attribute), and such a function is
# not expanded into one compiled for any CPU; a call per 8 bytes was three times slower.
cdef extern from *:
    """
    #include <string.h>
    static inline void prefetch(const char *data, long i)
    { __builtin_prefetch(data + i, 0, 2); }
    static inline uint64_t load_u64(const char *data, long i)
    { uint64_t value; memcpy(&value, data + i, 8); return value; }
    #if defined(__x86_64__)
    static int has_instructions(void)
    { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }
    static inline uint64_t step_u64(uint64_t crc, const char *data, long i)
    { __asm__("crc32q %1, %0" : "+r"(crc) : "m"(*(const char (*)[8]) (data + i))); return crc; }
    static inline uint64_t reduce(uint64_t product)
    { uint64_t crc = 0; __asm__("crc32q %1, %0" : "+r"(crc) : "r"(product)); return crc; }
    static inline uint64_t multiply(uint64_t a, uint64_t b)
    { __asm__("movq %0, %%xmm0; movq %1, %%xmm1; pclmulqdq $0, %%xmm1, %%xmm0; movq %%xmm0, %0"
              : "+r"(a) : "r"(b) : "xmm0", "xmm1"); return a; }
    #elif defined(__aarch64__) && defined(__linux__)
    #include <sys/auxv.h>
    static int has_instructions(void)
    { unsigned long have = getauxval(AT_HWCAP); return (have >> 7 & 1) && (have >> 4 & 1); }
    static inline uint64_t reduce_onto(uint64_t crc, uint64_t v)
    { uint32_t c = (uint32_t) crc;
      __asm__(".arch_extension crc\\n crc32cx %w0, %w0, %x1" : "+r"(c) : "r"(v)); return c; }
    static inline uint64_t step_u64(uint64_t crc, const char *data, long i)
    { return reduce_onto(crc, load_u64(data, i)); }
    static inline uint64_t reduce(uint64_t product) { return reduce_onto(0, product); }
    static inline uint64_t multiply(uint64_t a, uint64_t b)
    { __asm__(".arch_extension crypto\\n fmov d0, %x0\\n fmov d1, %x1\\n"
              " pmull v0.1q, v0.1d, v1.1d\\n fmov %x0, d0"
              : "+r"(a) : "r"(b) : "v0", "v1"); return a; }
    #else
    static int has_instructions(void) { return 0; }
    static inline uint64_t step_u64(uint64_t crc, const char *data, long i)
    { (void) data; (void) i; return crc; }
    static inline uint64_t reduce(uint64_t product) { return product; }
    static inline uint64_t multiply(uint64_t a, uint64_t b) { (void) b; return a; }
    #endif
    """
    bint has_instructions()
    void prefetch(const char *data, Py_ssize_t i) noexcept nogil
    uint64_t load_u64(const char *data, Py_ssize_t i) noexcept nogil
    uint64_t step_u64(uint64_t crc, const char *data, Py_ssize_t i) noexcept nogil
    uint64_t reduce(uint64_t product) noexcept nogil
    uint64_t multiply(uint64_t a, uint64_t b) noexcept nogil


cdef inline const char *first(const uint8_t[::1] data) except NULL nogil:
    return <const char *>&data[0]


cdef bint HAS_INSTRUCTIONS
cdef Py_ssize_t STEPS_MAX, CUT_MIN, LINE_BYTES
cdef uint32_t INVERT
cdef uint64_t ALL_BITS
cdef uint32_t[256] TABLE
cdef uint32_t[129] ZEROS

cpdef uint32_t update(uint32_t crc, const uint8_t[::1] data, Py_ssize_t pos,
                      Py_ssize_t length) except? 0xFFFFFFFF nogil
cpdef uint32_t by_table(uint32_t crc, const uint8_t[::1] data, Py_ssize_t pos,
                        Py_ssize_t length) except? 0xFFFFFFFF nogil
@cython.locals(crc=uint64_t, start=cython.p_const_char)
cpdef uint32_t of_two(const uint8_t[::1] data, Py_ssize_t pos, Py_ssize_t length,
                      Py_ssize_t then_pos, Py_ssize_t then_length, const uint8_t[::1] soon,
                      Py_ssize_t soon_pos) except? 0xFFFFFFFF nogil
cdef int _check(Py_ssize_t size, Py_ssize_t pos, Py_ssize_t length) except -1 nogil
cdef uint64_t _advance(uint64_t crc, const char *start, Py_ssize_t pos, Py_ssize_t end,
                       const char *soon, Py_ssize_t ahead) noexcept nogil
@cython.locals(i=Py_ssize_t)
cdef uint64_t _by_table(uint64_t crc, const char *start, Py_ssize_t pos,
                        Py_ssize_t end) noexcept nogil
@cython.locals(second=uint64_t, third=uint64_t, i=Py_ssize_t, run=Py_ssize_t, steps=Py_ssize_t,
               bits=int, last=uint64_t)
cdef uint64_t _by_instructions(uint64_t crc, const char *start, Py_ssize_t pos, Py_ssize_t end,
                               const char *soon, Py_ssize_t ahead) noexcept nogil
