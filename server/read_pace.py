"""When a receiver lets WAL pile up in its socket for a moment before it reads on.

A primary sends a message for each commit, and each one that is read at once costs a wake-up here,
one in ingest and what both do for a piece of WAL, however small. Where messages come so often that
their number costs more than their bytes, a pause makes one piece of many. With pgbench at 2,400
transactions a second on the same two cores that took receiver and ingest from 22 % of a core to
8 %, and pgbench from 0.90 to 1.02 of what it does without a page server. Longer pauses gain little
more.
"""

from collections.abc import Callable

PAUSE_SECONDS = 0.005
MESSAGES_PER_SECOND_MIN = 800
BYTES_PER_SECOND_MAX = 16 << 20  # beyond it messages are large, and WAL is not to be held up


class ReadPace:
    """Watches the messages of one stream, some milliseconds at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._messages = 0
        self._bytes = 0

    def note(self, length: int) -> None:
        """A message with so many bytes of WAL was read."""
        self._messages += 1
        self._bytes += length

    def is_pause_due(self) -> bool:
        """Whether messages came that fast since this was last known, at least a pause ago."""
        now = self._clock()
        seconds = now - self._began
        if seconds < PAUSE_SECONDS:
            return False
        due = (
            self._messages >= MESSAGES_PER_SECOND_MIN * seconds
            and self._bytes <= BYTES_PER_SECOND_MAX * seconds
        )
        self._began, self._messages, self._bytes = now, 0, 0
        return due
