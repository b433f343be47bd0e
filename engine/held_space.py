"""What a survey of all stripes says of their space: the debt, and what points and leases hold back.

A layer is *held* if only retained LSNs below the horizon need it, and held by one of them *alone*
if no other does: so much goes when what keeps this LSN is dropped. The first and the last LSN that
need a layer (engine/garbage.py) tell, and a survey stays linear in the layers, however many LSNs
are retained.

Whole layers below L0 are counted. What single versions take in chunks without images (relation
histories, small files, times of commits) is not.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.garbage import Askers
from engine.stripe_layers import newest_generation
from formats.index_value import LayerEntry


class Space(NamedTuple):
    """Of all stripes together; bytes are stored ones."""

    horizon_lsn: int
    debt_bytes: int  # of delta layers above their stripe's newest image
    debt_versions: int
    held_bytes: int
    held_alone: Mapping[int, int]  # retained LSN below the horizon -> bytes

    def held_by(self, lsn: int) -> int | None:
        """What an LSN alone holds back; None: it was not retained yet."""
        return 0 if lsn >= self.horizon_lsn else self.held_alone.get(lsn)


class SpaceCount:
    """Adds stripes up."""

    def __init__(self, retained: Sequence[int], horizon: int) -> None:
        self._horizon = horizon
        self._alone = {lsn: 0 for lsn in retained if lsn < horizon}
        self._held = self._debt_bytes = self._debt_versions = 0

    def add(self, layers: Iterable[tuple[LayerEntry, Askers]]) -> None:
        """A stripe's layers, and who needs each."""
        for layer, askers in layers:
            if askers is not None and askers[1] < self._horizon:
                self._held += layer.bytes_stored
                if askers[0] == askers[1]:
                    self._alone[askers[0]] += layer.bytes_stored

    def add_debt(self, layers: Sequence[LayerEntry]) -> None:
        """Of a stripe that may have images; its layers, newest first."""
        newest = newest_generation(layers)
        self._debt_bytes += newest.bytes_stored
        self._debt_versions += newest.versions

    def result(self) -> Space:
        return Space(self._horizon, self._debt_bytes, self._debt_versions, self._held, self._alone)
