"""What a run of the simulator showed. Bytes are those of the simulated part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Measured:
    flushed: int = 0
    written: dict[str, int] = field(default_factory=dict)
    """Behind the flush, by reason."""
    flushed_by_quarter: list[int] = field(default_factory=list)
    """Up to the end of each quarter of the flushes; so is what was written behind them."""
    written_by_quarter: list[int] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    """That reads at random moments looked into, L0 bundles and the image among them."""
    worst: list[int] = field(default_factory=list)
    """The same just before a merge of L0 counts."""
    l0_counts: list[int] = field(default_factory=list)
    space: list[float] = field(default_factory=list)
    """Bytes stored over those of one image of everything and the retained deltas."""
    busy_seconds_max: float = 0.0
    """Longest time in which the compactor always had something due."""
    seconds_slowed: float = 0.0
    """For how long ingest was held back."""

    @property
    def amplification(self) -> float:
        """Bytes written behind the flush for each byte flushed."""
        return sum(self.written.values()) / self.flushed

    @property
    def trend(self) -> list[float]:
        """Write amplification of each quarter of the run."""
        flushed = pairwise([0, *self.flushed_by_quarter])
        written = pairwise([0, *self.written_by_quarter])
        return [
            (end - start) / (flushed_end - flushed_start)
            for (start, end), (flushed_start, flushed_end) in zip(written, flushed, strict=True)
        ]


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of the values do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
