# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The versions that a batch of page reads needs, gathered from wherever they lie.

Each source (memtables, then layers, newest first) *pushes* what it has for one request, newest
version first, until a self-contained one comes. The bytes are copied into one buffer that belongs
to the reader: after gathering, no lock, memtable or frame is needed any more, and redo can run
over them without the GIL (engine/reconstruct.py). Versions of one request are linked from the
oldest to the newest, the order in which redo wants them.

A batch may take `bytes_max` bytes; one that needs more is an OverflowError, and is asked for again
in smaller ones. A single request gets what it needs, and memory goes back with the next `reset`.
"""

from formats import coding


class VersionSet:
    def __init__(self, bytes_initial=1 << 20, versions_initial=8192):
        self.bytes_max = 0  # none
        self.bytes_initial = bytes_initial
        self.versions_initial = versions_initial
        self._begin_small()
        self.reset()

    def _begin_small(self):
        bytes_initial = self.bytes_initial
        versions_initial = self.versions_initial
        self.data = memoryview(bytearray(bytes_initial))
        self.offset = memoryview(bytearray(8 * versions_initial)).cast("Q")
        self.lsn = memoryview(bytearray(8 * versions_initial)).cast("Q")
        self.length = memoryview(bytearray(4 * versions_initial)).cast("I")
        self.newer = memoryview(bytearray(4 * versions_initial)).cast("I")
        return 0

    def reset(self):
        """Forget everything; buffers are kept, unless they have become large."""
        if len(self.data) > 4 * self.bytes_initial or len(self.lsn) > 8 * self.versions_initial:
            self._begin_small()
        self.count = 0
        self.used = 0
        self.oldest = 0
        return 0

    def begin(self):
        """Start the versions of another request."""
        self.oldest = 0
        return 0

    def resume(self, oldest):
        """Go on with a request whose oldest version so far is `oldest` (0: none)."""
        self.oldest = oldest
        return 0

    def push(self, source, pos, length, lsn):
        """Take the next older version; returns 1 if it is self-contained, so no older is needed."""
        if pos < 0 or length < 0 or pos + length > len(source):
            raise IndexError("version out of the bounds of its frame")  # before room is made for it
        if self.bytes_max != 0 and self.used + length > self.bytes_max:
            raise OverflowError("more versions than one batch may take")
        if self.count + 1 >= len(self.offset):
            self._grow_versions()
        if self.used + length > len(self.data):
            self._grow_bytes(length)
        number = self.count + 1  # 0 says "none", so the first version is number 1
        coding.copy(self.data, self.used, source, pos, length)
        self.offset[number] = self.used
        self.length[number] = length
        self.lsn[number] = lsn
        self.newer[number] = self.oldest
        self.oldest = number
        self.count = number
        self.used += length
        kind = coding.u8(source, pos)
        if kind < 8 or kind >= 32:
            return 1
        if kind == 8:
            return coding.u8(source, pos + 5) & 1
        return 0

    def _grow_versions(self):
        for name, code, size in (
            ("offset", "Q", 8),
            ("lsn", "Q", 8),
            ("length", "I", 4),
            ("newer", "I", 4),
        ):
            old = getattr(self, name)
            wide = memoryview(bytearray(2 * size * len(old))).cast(code)
            wide[: len(old)] = old
            setattr(self, name, wide)
        return 0

    def _grow_bytes(self, length):
        old = self.data
        size = 2 * len(old) + length
        if self.used + length <= self.bytes_max < size:
            size = self.bytes_max
        wide = memoryview(bytearray(size))
        wide[: self.used] = old[: self.used]
        self.data = wide
        return 0

    def payload(self, number):
        """The bytes of one gathered version."""
        start = self.offset[number]
        return bytes(self.data[start : start + self.length[number]])
