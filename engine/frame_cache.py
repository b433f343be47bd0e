"""Frames that were read, checked and decompressed, bounded by bytes; the one used longest ago goes.

A frame is an immutable `bytes` object: whoever holds it keeps it, evicted or not.
"""

import threading
from collections import OrderedDict

FrameKey = tuple[int, int]  # identity of the bundle's reader, number of the frame
_ENTRY_BYTES = 200  # of Python objects beside the frame itself


class FrameCache:
    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes_used = 0
        self.hits = 0
        self.misses = 0
        self._frames: OrderedDict[FrameKey, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: FrameKey) -> bytes | None:
        with self._lock:
            raw = self._frames.get(key)
            if raw is None:
                self.misses += 1
            else:
                self.hits += 1
                self._frames.move_to_end(key)
            return raw

    def put(self, key: FrameKey, raw: bytes) -> None:
        """Keep a frame, unless it alone is more than all that may be kept."""
        size = len(raw) + _ENTRY_BYTES
        if size > self.bytes_max:
            return
        with self._lock:
            if key in self._frames:
                return
            self._frames[key] = raw
            self.bytes_used += size
            while self.bytes_used > self.bytes_max:
                _, evicted = self._frames.popitem(last=False)
                self.bytes_used -= len(evicted) + _ENTRY_BYTES

    def __len__(self) -> int:
        return len(self._frames)
