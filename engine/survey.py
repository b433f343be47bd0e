"""A look at all stripes below L0: which layers nobody needs, and which are to be written anew.

What it decides depends on what is stored alone: on the index, and on what must stay readable. So it
does not matter where a process ended between two surveys. One that found no room on the disk goes
on with the batch that was not done.
"""

from collections.abc import Sequence
from typing import NamedTuple

from engine.compaction_policy import Policy
from engine.garbage import Askers
from engine.held_space import Space, SpaceCount
from engine.layer_store import LayerStore
from engine.pruning import is_history_of_nothing, is_worth_pruning
from engine.stripe_image import WITH_IMAGES
from engine.stripe_layers import Stripe, asked_for
from formats.chunk import SEGMENT_BLOCKS, STRIPE_BLOCKS, ChunkKey, ChunkKind
from formats.index_value import LayerEntry

BATCH_STRIPES = 256


class Found(NamedTuple):
    """What is said of one stripe."""

    stripe: Stripe
    layers: Sequence[LayerEntry]  # all of them, newest first
    gone: list[LayerEntry]  # which nobody needs
    is_forgotten: bool  # the history of what exists nowhere; all of it is gone
    is_worth_pruning: bool
    asked: list[tuple[LayerEntry, Askers]]


class Survey:
    """From the first stripe to the last, at one horizon."""

    def __init__(
        self, store: LayerStore, policy: Policy, retained: Sequence[int], horizon: int
    ) -> None:
        """`retained`: LSNs below the horizon that must stay readable, rising."""
        self.retained = tuple(retained)
        self.horizon = horizon
        self._store = store
        self._policy = policy
        self._count = SpaceCount(retained, horizon)
        self._place: Stripe | None = None  # all up to here are done

    def look(self) -> list[Found]:
        """The next batch, the same one until it is `done`; nothing behind the last."""
        stripes = self._store.index.stripes_after(self._place, BATCH_STRIPES)
        return [self._look_at(stripe, layers) for stripe, layers in stripes]

    def done(self, batch: Sequence[Found]) -> None:
        for found in batch:
            self._count.add(found.asked)
            if found.stripe[0][0] in WITH_IMAGES:
                self._count.add_debt([one for one in found.layers if one not in found.gone])
        self._place = batch[-1].stripe

    def space(self) -> Space:
        return self._count.result()

    def _look_at(self, stripe: Stripe, layers: Sequence[LayerEntry]) -> Found:
        if is_history_of_nothing(self._store, stripe, layers, self.retained, self.horizon):
            return Found(stripe, layers, list(layers), True, False, [])
        asked = asked_for(layers, self.retained, self.horizon, self._cuts(stripe))
        gone = [layer for layer, askers in asked if askers is None]
        is_pruned = not gone and is_worth_pruning(
            self._policy, self._store.index, stripe, layers, self.retained, self.horizon
        )
        return Found(stripe, layers, gone, False, is_pruned, asked)

    def _cuts(self, stripe: Stripe) -> list[int]:
        """LSNs at which no block of a stripe was left; histories and times have no such.

        A file that is replaced is cut just before the record that does it, and until that record
        ends it reads as it was: who may ask for just that LSN needs what is under the cut.
        What the index does not know exists at no LSN up to its own: at none of those asked for,
        but one that is higher, as a base backup's end is at first.
        """
        key = ChunkKey.unpack(stripe[0])
        if key.is_history or key.kind == ChunkKind.TIME:
            return []
        index = self._store.index
        state = index.relation(key.subject().pack())
        if state is None:
            durable = index.state.durable_lsn
            return [min(lsn, durable) for lsn in (*self.retained, self.horizon)]
        first = stripe[1] * STRIPE_BLOCKS
        if key.kind == ChunkKind.REL:
            first += key.seg * SEGMENT_BLOCKS
        spared = (*self.retained, self.horizon) if key.kind == ChunkKind.FILE else ()
        return [cut.lsn for cut in state.cuts if cut.n_blocks <= first and cut.lsn not in spared]
