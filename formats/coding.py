"""Numbers and runs of bytes in buffers: the only place where bytes become numbers.

PostgreSQL's files and ours are little-endian (`u16`, `put_u32`, ...); PostgreSQL's network protocol
is big-endian (`be16`, `put_be32`, ...). Buffers are memoryviews of unsigned bytes. Every function
checks its bounds and raises IndexError outside of them: the bytes come from outside.

Kernels write `from formats cimport coding` in their `.pxd` and call the same names; the bodies that
are expanded into them stand in `coding.pxd`, and `tests/unit/test_coding.py` holds both together.
"""

import struct


def _check(view: memoryview, pos: int, length: int, verb: str) -> None:
    if length < 0 or pos < 0 or pos + length > len(view):
        plural = "" if length == 1 else "s"
        raise IndexError(f"{verb} of {length} byte{plural} out of bounds")


def _get(view: memoryview, pos: int, length: int, order: str) -> int:
    _check(view, pos, length, "read")
    return int.from_bytes(view[pos : pos + length], order)  # type: ignore[arg-type]


def _put(view: memoryview, pos: int, length: int, value: int, order: str) -> int:
    _check(view, pos, length, "write")
    masked = value & ((1 << 8 * length) - 1)
    view[pos : pos + length] = masked.to_bytes(length, order)  # type: ignore[arg-type]
    return 0


def u8(view: memoryview, pos: int) -> int:
    return _get(view, pos, 1, "little")


def u16(view: memoryview, pos: int) -> int:
    return _get(view, pos, 2, "little")


def u32(view: memoryview, pos: int) -> int:
    return _get(view, pos, 4, "little")


def u8_checked_before(view: memoryview, pos: int) -> int:
    """Like the two that follow without a check when compiled, where bounds were checked before."""
    return _get(view, pos, 1, "little")


def u16_checked_before(view: memoryview, pos: int) -> int:
    return _get(view, pos, 2, "little")


def u32_checked_before(view: memoryview, pos: int) -> int:
    return _get(view, pos, 4, "little")


def u64(view: memoryview, pos: int) -> int:
    return _get(view, pos, 8, "little")


def u64_checked_before(view: memoryview, pos: int) -> int:
    """The same for eight bytes."""
    return _get(view, pos, 8, "little")


def put_u8(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 1, value, "little")


def put_u16(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 2, value, "little")


def put_u32(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 4, value, "little")


def put_u64(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 8, value, "little")


def put_u32_checked_before(view: memoryview, pos: int, value: int) -> None:
    """`put_u32` without a check when compiled, where the bounds were checked before."""
    _put(view, pos, 4, value, "little")


def put_u64_checked_before(view: memoryview, pos: int, value: int) -> None:
    _put(view, pos, 8, value, "little")


def f64(view: memoryview, pos: int) -> float:
    _check(view, pos, 8, "read")
    value: float = struct.unpack_from("<d", view, pos)[0]
    return value


def put_f64(view: memoryview, pos: int, value: float) -> int:
    _check(view, pos, 8, "write")
    struct.pack_into("<d", view, pos, value)
    return 0


def be16(view: memoryview, pos: int) -> int:
    return _get(view, pos, 2, "big")


def be32(view: memoryview, pos: int) -> int:
    return _get(view, pos, 4, "big")


def be64(view: memoryview, pos: int) -> int:
    return _get(view, pos, 8, "big")


def put_be16(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 2, value, "big")


def put_be32(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 4, value, "big")


def put_be64(view: memoryview, pos: int, value: int) -> int:
    return _put(view, pos, 8, value, "big")


def copy(
    target: memoryview, target_pos: int, source: memoryview, source_pos: int, length: int
) -> int:
    """Copy `length` bytes between two buffers that do not overlap."""
    _check(target, target_pos, length, "copy")
    _check(source, source_pos, length, "copy")
    target[target_pos : target_pos + length] = source[source_pos : source_pos + length]
    return 0


def move(view: memoryview, target_pos: int, source_pos: int, length: int) -> int:
    """Move `length` bytes inside one buffer; the ranges may overlap."""
    _check(view, target_pos, length, "move")
    _check(view, source_pos, length, "move")
    view[target_pos : target_pos + length] = bytes(view[source_pos : source_pos + length])
    return 0


def fill(view: memoryview, pos: int, length: int, value: int) -> int:
    _check(view, pos, length, "fill")
    view[pos : pos + length] = bytes([value]) * length
    return 0


def equal(a: memoryview, a_pos: int, b: memoryview, b_pos: int, length: int) -> bool:
    """Whether two runs of `length` bytes are the same."""
    _check(a, a_pos, length, "comparison")
    _check(b, b_pos, length, "comparison")
    return bytes(a[a_pos : a_pos + length]) == bytes(b[b_pos : b_pos + length])


def prefetch(view: memoryview, pos: int) -> int:
    """Tell the processor that the bytes at `pos` are wanted soon; it does nothing else."""
    return 0
