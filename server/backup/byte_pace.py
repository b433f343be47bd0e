"""A bound on bytes per second that all uploads and downloads of a store share.

A bucket of tokens fills at the rate, up to what a second brings. Who moves bytes takes as many, and
waits while the bucket is in debt: so pieces larger than the bucket pass as well, and are paid for.
"""

import threading
import time
from collections.abc import Callable


class BytePace:
    """Used by any thread. 0 bytes a second set no bound."""

    def __init__(
        self,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tokens = float(bytes_per_second)
        self._filled = clock()

    def take(self, count: int) -> None:
        """Wait until `count` bytes may be moved."""
        if not self._bytes_per_second:
            return
        with self._lock:
            now = self._clock()
            filled = self._tokens + (now - self._filled) * self._bytes_per_second
            self._tokens = min(filled, float(self._bytes_per_second)) - count
            self._filled = now
            debt = -self._tokens
        if debt > 0:
            self._sleep(debt / self._bytes_per_second)
