"""Frames that were read, checked and decompressed, bounded by bytes.

A frame is an immutable `bytes` object: whoever holds it keeps it, evicted or not. Which goes is
decided by second chance: the oldest, unless it was used since it last was the oldest. A hit then
only sets a mark, where moving it in a list was measured at half the cost of a whole page's lookup.
"""

import threading
from collections import OrderedDict

_ENTRY_BYTES = 300  # of Python objects beside the frame itself


class FrameCache:
    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.hits = 0
        self.misses = 0
        # by reader << 32 | frame, oldest first; a plain dict is slow to find its first entry
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get_many(self, reader: int, numbers: list[int]) -> list[bytes | None]:
        """Frames of one BundleReader, known by a number; None for each that is not here."""
        found: list[bytes | None] = []
        base = reader << 32
        entries = self._entries
        with self._lock:
            for number in numbers:
                entry = entries.get(base + number)
                if entry is None:
                    found.append(None)
                else:
                    entry.is_used = True
                    found.append(entry.raw)
            missing = found.count(None)
            self.misses += missing
            self.hits += len(found) - missing
        return found

    def put(self, reader: int, number: int, raw: bytes) -> None:
        """Keep a frame, unless it alone is more than all that may be kept."""
        key, size = (reader << 32) + number, len(raw) + _ENTRY_BYTES
        if size > self.bytes_max:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = _Entry(raw)
            self.bytes_used += size
            while self.bytes_used > self.bytes_max:
                self._evict()

    def _evict(self) -> None:
        oldest, entry = self._entries.popitem(last=False)
        if entry.is_used:
            entry.is_used = False
            self._entries[oldest] = entry
        else:
            self.bytes_used -= len(entry.raw) + _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._entries)


class _Entry:
    __slots__ = ("is_used", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.is_used = False
