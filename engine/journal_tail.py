"""The newest WAL bytes of the journal, in memory, for the reader that keeps up."""


class Tail:
    """The newest bytes of the WAL, in a ring: byte `x` of the WAL is at `x % size`."""

    def __init__(self, size: int, position: int) -> None:
        self._ring = bytearray(size)
        self.start = position
        self.end = position

    def append(self, data: bytes | memoryview) -> None:
        size = len(self._ring)
        kept = memoryview(data)[-size:]
        at = (self.end + len(data) - len(kept)) % size
        first = min(len(kept), size - at)
        self._ring[at : at + first] = kept[:first]
        self._ring[: len(kept) - first] = kept[first:]
        self.end += len(data)
        self.start = max(self.start, self.end - size)

    def read(self, position: int, length: int) -> bytes:
        at = position % len(self._ring)
        with memoryview(self._ring) as ring:
            first = bytes(ring[at : at + length])
            return first if len(first) == length else first + bytes(ring[: length - len(first)])

    def reset(self, position: int) -> None:
        self.start = self.end = position
