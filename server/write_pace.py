"""How fast compaction may write, on average over each of its steps.

Merges and images come in bursts that would take all of a disk from the reads and the flushes that
need it. So each step is followed by a rest as long as what it wrote should have taken, less the
time that it took. While ingest is behind there is none: then what holds everything up is
compaction itself.
"""

import time
from collections.abc import Callable

SLICE_SECONDS = 0.05  # of a rest, before it is asked again whether ingest is behind


class WritePace:
    """Used by one thread."""

    def __init__(
        self,
        bytes_per_second: int,
        is_behind: Callable[[], bool],
        rest: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """0 bytes a second set no bound. `rest` sleeps for some seconds, and returns at once, and
        True, when the thread is to end."""
        self._bytes_per_second = bytes_per_second
        self._is_behind = is_behind
        self._rest = rest
        self._clock = clock

    def follow(self, begin: float, bytes_written: int) -> None:
        """Rest after a step that began at `begin`, by the clock, and wrote so much."""
        if not self._bytes_per_second:
            return
        end = begin + bytes_written / self._bytes_per_second
        while (left := end - self._clock()) > 0 and not self._is_behind():
            if self._rest(min(left, SLICE_SECONDS)):
                return

    def now(self) -> float:
        return self._clock()
