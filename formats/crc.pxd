cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from formats cimport coding

# One CRC instruction each. Inline assembler and not the compiler's intrinsics: those are only to
# be had in functions compiled for a CPU that has them (a target attribute), and such a function is
# not expanded into one compiled for any CPU; a call per 8 bytes is three times slower.
cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__x86_64__)
    static int has_instruction(void) { return __builtin_cpu_supports("sse4.2") != 0; }
    static inline uint64_t step_u64(uint64_t crc, uint64_t value)
    { __asm__("crc32q %1, %0" : "+r"(crc) : "rm"(value)); return crc; }
    static inline uint64_t step_u8(uint64_t crc, uint8_t value)
    { uint32_t c = (uint32_t) crc; __asm__("crc32b %1, %0" : "+r"(c) : "rm"(value)); return c; }
    #elif defined(__aarch64__) && defined(__linux__)
    #include <sys/auxv.h>
    static int has_instruction(void) { return (getauxval(AT_HWCAP) >> 7) & 1; }
    static inline uint64_t step_u64(uint64_t crc, uint64_t value)
    { uint32_t c = (uint32_t) crc; __asm__(".arch_extension crc\\n\\tcrc32cx %w0, %w0, %x1"
                                           : "+r"(c) : "r"(value)); return c; }
    static inline uint64_t step_u8(uint64_t crc, uint8_t value)
    { uint32_t c = (uint32_t) crc; __asm__(".arch_extension crc\\n\\tcrc32cb %w0, %w0, %w1"
                                           : "+r"(c) : "r"(value)); return c; }
    #else
    static int has_instruction(void) { return 0; }
    static inline uint64_t step_u64(uint64_t crc, uint64_t value) { (void) value; return crc; }
    static inline uint64_t step_u8(uint64_t crc, uint8_t value) { (void) value; return crc; }
    #endif
    """
    bint has_instruction()
    uint64_t step_u64(uint64_t crc, uint64_t value) noexcept nogil
    uint64_t step_u8(uint64_t crc, uint8_t value) noexcept nogil

cdef bint HAS_INSTRUCTION
cdef Py_ssize_t LONG_RUN, SHORT_RUN
cdef uint32_t INVERT
cdef uint32_t[256] TABLE
cdef uint32_t[1024] LONG_SHIFT, SHORT_SHIFT

@cython.locals(i=Py_ssize_t)
cpdef uint32_t by_table(uint32_t crc, const uint8_t[::1] data, Py_ssize_t pos,
                        Py_ssize_t length) except? 0xFFFFFFFF nogil
cpdef uint32_t update(uint32_t crc, const uint8_t[::1] data, Py_ssize_t pos,
                      Py_ssize_t length) except? 0xFFFFFFFF nogil
@cython.locals(a=uint64_t, b=uint64_t, c=uint64_t, i=Py_ssize_t, end=Py_ssize_t)
cdef uint32_t by_instruction(uint32_t crc, const uint8_t[::1] data, Py_ssize_t pos,
                             Py_ssize_t length) except? 0xFFFFFFFF nogil
cdef uint64_t shift(const uint32_t *table, uint64_t crc) noexcept nogil
