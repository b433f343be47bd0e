"""Ingest must not run away from compaction: L0 bundles slow it down, and stop it in the end.

Every read looks into all of them, so their number is what a compactor that falls behind costs. Up
to `behind` ingest is free; from there on each step is followed by a pause in proportion to how far
it is on the way to `wait`, where no more bundles are made until some have been merged. Memtables
then fill, ingest stops, the journal grows to its own bound, and then the source keeps its WAL.
"""

from collections.abc import Callable

from engine.compaction_policy import Policy

PAUSE_SECONDS_MAX = 1.0


class Backpressure:
    """Asked by ingest and flush; `l0_count` answers for the compactor."""

    def __init__(self, l0_count: Callable[[], int], policy: Policy | None = None) -> None:
        self.l0_count = l0_count
        self._policy = policy or Policy()

    @property
    def is_behind(self) -> bool:
        return self._policy.is_behind(self.l0_count())

    @property
    def must_wait(self) -> bool:
        """Whether nothing may be flushed."""
        return self._policy.must_wait(self.l0_count())

    @property
    def has_room(self) -> bool:
        """Whether another bundle would not be one more than the compactor waits for."""
        return self.l0_count() < self._policy.l0_bundles_merged_min

    def pause_seconds(self, step_seconds: float) -> float:
        """How long to rest after a step of ingest that took so long.

        At the first bundle too many of n it goes at n/(n+1) of its speed, at the last at 1/(n+1).
        """
        behind, wait = self._policy.l0_bundles_behind, self._policy.l0_bundles_wait
        excess = min(self.l0_count(), wait - 1) - behind + 1
        if excess <= 0:
            return 0.0
        return min(PAUSE_SECONDS_MAX, step_seconds * excess / (wait - behind + 1 - excess))

    def describe(self) -> str:
        count, policy = self.l0_count(), self._policy
        return (
            f"{count} L0 bundles wait to be merged: ingest is slowed from "
            f"{policy.l0_bundles_behind} on and stops at {policy.l0_bundles_wait}"
        )


def nothing_to_merge() -> int:
    """The L0 bundles of a store that nobody compacts: ingest is never held up for it."""
    return 0
