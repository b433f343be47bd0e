"""A stripe's layers below L0 as compaction sees them: the newest image, and the debt above it."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from engine import garbage
from engine.garbage import Askers
from formats.index_value import LayerEntry
from formats.layer_file import LayerKind

Stripe = tuple[bytes, int]  # packed chunk key, stripe


class Generation(NamedTuple):
    """What came since the newest image layer, if there is one."""

    image: LayerEntry | None
    deltas: tuple[LayerEntry, ...]  # newest first

    @property
    def bytes_stored(self) -> int:
        return sum(layer.bytes_stored for layer in self.deltas)

    @property
    def versions(self) -> int:
        return sum(layer.versions for layer in self.deltas)

    @property
    def lsn_newest(self) -> int:
        """The highest LSN of a version in the deltas; there must be one."""
        return max(layer.lsn_end for layer in self.deltas) - 1

    def is_over(self, retained: Sequence[int], horizon: int) -> bool:
        """Whether an image at the horizon takes the place of all of this: nothing is newer, and no
        retained LSN, which rise, reads from it."""
        first = 0 if self.image is None else self.image.lsn_start
        at = bisect_left(retained, first)
        is_held = at < len(retained) and retained[at] < horizon
        return self.lsn_newest <= horizon and not is_held


def newest_generation(layers: Sequence[LayerEntry]) -> Generation:
    """`layers`: newest first. A delta layer counts if it has versions above the image. What it has
    below are images of hot pages with which its memtable began, made of older layers."""
    image = next((layer for layer in layers if layer.kind != LayerKind.DELTA), None)
    floor = -1 if image is None else first_lsn_above(image)
    deltas = (layer for layer in layers if layer.kind == LayerKind.DELTA)
    return Generation(image, tuple(layer for layer in deltas if layer.lsn_end > floor))


def first_lsn_above(image: LayerEntry) -> int:
    """The lowest LSN at which a delta's version counts over an image layer."""
    return image.lsn_start + (image.kind == LayerKind.IMAGE)


def asked_for(
    layers: Sequence[LayerEntry], retained: Sequence[int], horizon: int, cuts: Sequence[int]
) -> list[tuple[LayerEntry, Askers]]:
    """A stripe's layers, images first, and who needs each (engine/garbage.py)."""
    images = [layer for layer in layers if layer.kind != LayerKind.DELTA]
    deltas = [layer for layer in layers if layer.kind == LayerKind.DELTA]
    found = garbage.asked_for(
        [(layer.lsn_start, layer.kind == LayerKind.FUZZY_IMAGE) for layer in images],
        [(layer.lsn_start, layer.lsn_end) for layer in deltas],
        retained,
        horizon,
        cuts,
    )
    return list(zip(images + deltas, found.images + found.deltas, strict=True))
