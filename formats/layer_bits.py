"""Sets of rows of a bundle's layer directory, as the manifest has them: bitmaps, lowest bit first.

Trailing zero bytes mean nothing, so an empty set may be no bytes at all.
"""

from collections.abc import Iterable, Iterator


def of_rows(rows: Iterable[int]) -> bytes:
    bitmap = bytearray()
    for row in rows:
        missing = (row >> 3) + 1 - len(bitmap)
        if missing > 0:
            bitmap.extend(bytes(missing))
        bitmap[row >> 3] |= 1 << (row & 7)
    return bytes(bitmap)


def everything(count: int) -> bytes:
    """Rows 0 to `count`."""
    return _pack((1 << count) - 1)


def rows(bitmap: bytes) -> Iterator[int]:
    """The rows of a set, rising."""
    for index, byte in enumerate(bitmap):
        while byte:
            lowest = byte & -byte
            yield 8 * index + lowest.bit_length() - 1
            byte ^= lowest


def has(bitmap: bytes, row: int) -> bool:
    return row >> 3 < len(bitmap) and bool(bitmap[row >> 3] >> (row & 7) & 1)


def count(bitmap: bytes) -> int:
    return int.from_bytes(bitmap, "little").bit_count()


def union(a: bytes, b: bytes) -> bytes:
    return _pack(int.from_bytes(a, "little") | int.from_bytes(b, "little"))


def without(a: bytes, b: bytes) -> bytes:
    """The rows of `a` that are not in `b`."""
    return _pack(int.from_bytes(a, "little") & ~int.from_bytes(b, "little"))


def _pack(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")
