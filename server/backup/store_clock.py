"""The store's clock, as some answers have it that lie apart: a single wrong one does no harm.

Ages decide about deletion, and the store says how old an object is. Our clock need not be right,
only go on; what the store's is ahead of it is the median of the last observations.
"""

from collections import deque
from collections.abc import Callable
from statistics import median_low

from server.backup.object_store import ObjectStore

OBSERVATIONS = 9
APART_SECONDS = 8.0  # a heartbeat's: so most of them take more than half a minute


class StoreClock:
    """Used by one thread."""

    def __init__(self, store: ObjectStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._ahead: deque[float] = deque(maxlen=OBSERVATIONS)
        self._observed_at = 0.0

    def observe(self) -> None:
        """The store has answered a moment ago, or somewhat longer: then what is there seems younger
        than it is."""
        now = self._clock()
        if now - self._observed_at >= APART_SECONDS or len(self._ahead) < OBSERVATIONS:
            self._ahead.append(self._store.now() - now)
            self._observed_at = now

    def now(self) -> float:
        """Seconds since 1970."""
        if not self._ahead:
            return self._store.now()
        return self._clock() + median_low(self._ahead)
