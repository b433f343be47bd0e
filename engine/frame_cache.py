"""Frames that were read, checked and decompressed, bounded by bytes.

A frame is an immutable `bytes` object: whoever holds it keeps it, evicted or not.

What is read for the first time goes round in a short queue, and is kept only if it is asked for
again while it is there, or soon after: `_gone` remembers what has left that queue (S3-FIFO, Yang et
al., SOSP 2023, but that the short queue is short also while there is room). So reads all over a
database push out nothing, and their memory is used again and again: memory that the kernel must
give first was measured to cost as much as checking and decompressing a frame, 14 µs for 32 KiB.

Of what is kept the oldest goes, unless it was used since it last was the oldest. A hit then only
sets a mark, where moving it in a list was measured at half the cost of a whole page's lookup.
"""

import threading
from collections import OrderedDict, deque

_ENTRY_BYTES = 300  # of Python objects beside the frame itself
_NEW_BYTES_MAX = 1 << 20  # of frames that were asked for by one read only
_NEW_SHARE = 2  # at most this part of a small cache
_GONE_BYTES = 32 << 10  # of the cache, for each frame that is remembered


class FrameCache:
    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.hits = 0
        self.misses = 0
        # all by reader << 32 | frame; both queues oldest first
        self._entries: dict[int, _Entry] = {}
        self._new: deque[int] = deque()
        self._new_bytes = 0
        self._kept: deque[int] = deque()
        self._gone: OrderedDict[int, None] = OrderedDict()
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

    def has(self, reader: int, number: int) -> bool:
        """Whether a frame is here; that is no use of it."""
        return (reader << 32) + number in self._entries

    def put(self, reader: int, number: int, raw: bytes) -> None:
        """Take a frame in, unless it alone is more than all that may be kept."""
        key, size = (reader << 32) + number, len(raw) + _ENTRY_BYTES
        if size > self.bytes_max:
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = _Entry(raw)
            self.bytes_used += size
            if key in self._gone:
                del self._gone[key]
                self._kept.append(key)
            else:
                self._new.append(key)
                self._new_bytes += size
                self._bound_new(size)
            while self.bytes_used > self.bytes_max:
                self._evict()

    def _bound_new(self, size_last: int) -> None:
        """Let the oldest new frames go or stay for good; the last, of `size_last`, is still new."""
        most = max(size_last, min(_NEW_BYTES_MAX, self.bytes_max // _NEW_SHARE))
        while self._new_bytes > most:
            key = self._new.popleft()
            entry = self._entries[key]
            self._new_bytes -= len(entry.raw) + _ENTRY_BYTES
            if entry.is_used:
                entry.is_used = False
                self._kept.append(key)
            else:
                self._drop(key)
                self._gone[key] = None
                if len(self._gone) > self.bytes_max // _GONE_BYTES:
                    self._gone.popitem(last=False)

    def _evict(self) -> None:
        """Drop the oldest frame of those that are kept, or give it its second chance."""
        key = self._kept.popleft()
        entry = self._entries[key]
        if entry.is_used:
            entry.is_used = False
            self._kept.append(key)
        else:
            self._drop(key)

    def _drop(self, key: int) -> None:
        self.bytes_used -= len(self._entries.pop(key).raw) + _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._entries)


class _Entry:
    __slots__ = ("is_used", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.is_used = False
