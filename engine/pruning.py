"""Versions that nobody can ask for any more, in chunks that have no images.

Relation histories, small files and commit times are chains of versions each of which is whole: of
those at or below the horizon one a block is enough, and one for each retained LSN; of the cuts in a
history those that such a read may still ask for (engine/garbage.py). Layers of such a stripe are
written anew without the others where that pays; and nothing is left of the history of a relation
that exists at no LSN that can be asked for.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

from engine.bundle_merge import Retained, merge_bundles
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.garbage import is_forgotten, needed_cuts
from engine.index import Index, subject_of
from engine.layer_store import LayerStore
from engine.merge_plan import MergeInput
from engine.stripe_image import WITH_IMAGES
from engine.stripe_layers import Stripe
from formats import layer_bits
from formats.chunk import HISTORY
from formats.file_name import FileName
from formats.index_value import LayerEntry


def is_worth_pruning(
    policy: Policy,
    index: Index,
    stripe: Stripe,
    layers: Sequence[LayerEntry],
    retained: Sequence[int],
    horizon: int,
) -> bool:
    """Whether at least half of a stripe's bytes would go; never, where there are images.

    Only what lies below the horizon as a whole counts: the layer that pruning makes does not,
    until the horizon has passed it.
    """
    below = [layer for layer in layers if layer.lsn_end <= horizon]
    if stripe[0][0] in WITH_IMAGES or not below:
        return False
    versions = sum(layer.versions for layer in below)
    blocks = max(layer.block_end for layer in below) - min(layer.block_start for layer in below)
    kept = blocks * (1 + len(retained))
    if versions > kept and stripe[0][0] & HISTORY:  # of cuts, more than one may be needed
        state = index.relation(subject_of(stripe[0]))
        cuts = [(cut.lsn, cut.n_blocks) for cut in state.cuts] if state else []
        kept += sum(needed_cuts(cuts, retained, horizon))
    dead = versions - kept
    size = sum(layer.bytes_stored for layer in below)
    total = sum(layer.bytes_stored for layer in layers)
    return dead > 0 and policy.is_worth_pruning(size * dead // versions, total)


def is_history_of_nothing(
    store: LayerStore, stripe: Stripe, layers: Sequence[LayerEntry], retained: Sequence[int],
    horizon: int,
) -> bool:  # fmt: skip
    """Whether this is the history of what exists at no LSN that can be asked for, all of it."""
    key = stripe[0]
    if not key[0] & HISTORY or in_l0(store, [stripe]):
        return False
    state = store.index.relation(subject_of(key))
    if state is None or state.exists:
        return False
    first = min(layer.lsn_start for layer in layers)
    return is_forgotten(state.cuts, first, retained, horizon)


def in_l0(store: LayerStore, stripes: Collection[Stripe]) -> list[MergeInput]:
    """The layers that stripes have in L0: a commit that prunes histories reads them as well."""
    found = []
    for bundle in store.map.l0:
        find = bundle.reader.directory.find
        rows = (find(key, 0, stripe) for key, stripe in stripes)
        live = [row for row in rows if row >= 0 and not layer_bits.has(bundle.dead, row)]
        if live:
            found.append(MergeInput(bundle.reader, live))
    return found


def prune(
    store: LayerStore,
    inputs: Sequence[MergeInput],
    retained: Retained,
    create_bundle: Callable[[], BundleWriter],
) -> Iterator[set[FileName]]:
    """Write stripes, all of whose layers are `inputs`, anew; yields, whenever an output counts,
    the bundles that lost layers."""
    for output in merge_bundles(inputs, create_bundle, retained=retained):
        removed = {
            source.reader.name: done
            for source, done in zip(inputs, output.rows, strict=True)
            if any(done)
        }
        store.commit(
            [] if output.info is None else [output.info], removed, is_merged=True,
            pruned=_histories(inputs, output.rows),
        )  # fmt: skip
        yield set(removed)


def _histories(inputs: Sequence[MergeInput], rows: Sequence[bytes]) -> set[bytes]:
    """The history chunks among rows of inputs."""
    keys = (
        source.reader.directory.key(row)
        for source, bitmap in zip(inputs, rows, strict=True)
        for row in layer_bits.rows(bitmap)
    )
    return {key for key in keys if key[0] & HISTORY}
