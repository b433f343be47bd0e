"""What the uploader cannot do for now, how often it tries, and what it says about that.

Each kind of work that failed is tried again after a pause, with jitter, twice as long each time up
to half a minute, for ever. The log has a line when the first trouble begins and one when the last
is over, however many attempts lie between; `text` is for the status.
"""

import logging
from collections.abc import Callable
from random import Random

from server.backup.object_store import RefusedError

PAUSE_SECONDS_MIN = 0.2
PAUSE_SECONDS_MAX = 30.0
_log = logging.getLogger("pageserver.backup")


class _Trouble:
    def __init__(self) -> None:
        self.error: Exception | None = None
        self.attempts = 0
        self.until = 0.0


class Troubles:
    """By the name of what fails; used by one thread."""

    def __init__(self, clock: Callable[[], float], random: Random) -> None:
        self._clock = clock
        self._random = random
        self._troubles: dict[str, _Trouble] = {}

    def failed(self, work: str, error: Exception) -> None:
        if not self._troubles:
            _log.warning("the backup waits, and tries again: %s", error)
        trouble = self._troubles.setdefault(work, _Trouble())
        trouble.error = error
        trouble.attempts += 1
        pause = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN * 2 ** min(trouble.attempts, 20))
        trouble.until = self._clock() + pause * self._random.uniform(0.5, 1.0)

    def succeeded(self, work: str) -> None:
        if self._troubles.pop(work, None) is not None and not self._troubles:
            _log.info("the backup goes on")

    def may_try(self, work: str) -> bool:
        return work not in self._troubles or self._troubles[work].until <= self._clock()

    @property
    def text(self) -> str | None:
        """The first reason; None if nothing is wrong."""
        return next((str(trouble.error) for trouble in self._troubles.values()), None)

    @property
    def is_refused(self) -> bool:
        """Whether the store will not have it, however often it is asked."""
        return any(isinstance(trouble.error, RefusedError) for trouble in self._troubles.values())
