"""Merging the oldest L0 bundles, whole, into L1 bundles partitioned by chunk key.

With the versions of a stripe come those of its newest delta layers that the policy names, so that
they stay few. Nothing is dropped but what is there twice: a reader may see the merge done in part.
Outputs count one by one, and what they have of L0 counts there no more, whatever is left of its
bundle (LayerMap): else a newer bundle might be gone before an older one, and hidden by it.

A layer that is damaged is never merged. Of a stripe that has one in these bundles nothing is: what
is older and what is newer than it must not become one layer. What is left of the bundles then is
settled, and lies below L0 as it is; the others go on.
"""

from collections.abc import Callable, Iterator, Set

from engine.bundle_merge import Images, merge_bundles
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.errors import UnreachableError
from engine.layer_damage import Layer
from engine.layer_store import LayerStore
from engine.merge_plan import MergeInput
from engine.stripe_layers import Stripe, newest_generation
from formats import layer_bits
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.layer_directory import LayerDirectory


class L0Merge:
    """One job."""

    def __init__(
        self, layers: LayerStore, policy: Policy, bundle_count: int, damaged: Set[Layer]
    ) -> None:
        """Of the `bundle_count` oldest L0 bundles; `damaged`: layers that are known to be."""
        self._layers = layers
        self._policy = policy
        self._damaged = damaged
        oldest = layers.map.l0[-bundle_count:]  # newest first
        self._bundles = [bundle.reader for bundle in oldest]
        self.inputs: list[MergeInput] = []
        self.stripes: set[Stripe] = set()
        self.unreadable: dict[Stripe, Exception] = {}  # by the directory of a bundle below L0
        self._own_files: set[Stripe] = set()

    def run(
        self, create_bundle: Callable[[FileKind], BundleWriter], images: Images
    ) -> Iterator[set[FileName]]:
        """Merge; yields, whenever an output counts, the bundles that lost layers to it.

        CorruptionError: some of `inputs` are damaged; what was merged before counts.
        """
        inputs = self.inputs = self._plan()
        outputs = merge_bundles(
            inputs, lambda: create_bundle(FileKind.L1), images=images, own_files=self._own_files
        )
        for output in outputs:
            done = zip(inputs, output.rows, strict=True)
            rows = {source.reader.name: taken for source, taken in done if any(taken)}
            assert output.info is not None, "nothing is pruned"
            self._layers.commit([output.info], rows, is_merged=True)
            yield set(rows)
        # The oldest first: reads look into L0 before what lies below it.
        for bundle in reversed(self._bundles):
            if any(self._layers.live_rows(bundle)):
                self._layers.settle(bundle.name)
                yield set()

    def _plan(self) -> list[MergeInput]:
        """The L0 bundles, and of L1 bundles the layers that are merged with them, newest first."""
        incoming: dict[Stripe, int] = {}
        avoided = {
            _stripe(reader.directory, row)
            for reader in self._bundles
            for name, row in self._damaged
            if name == reader.name
        }
        inputs = []
        for reader in self._bundles:
            directory, stored = reader.directory, reader.stored_bytes_if_readable()
            rows = layer_bits.rows(self._layers.live_rows(reader))
            wanted = [row for row in rows if _stripe(directory, row) not in avoided]
            for row in wanted:
                stripe = _stripe(directory, row)
                incoming[stripe] = incoming.get(stripe, 0) + stored[row]
            inputs.append(MergeInput(reader, wanted))
        self.stripes = set(incoming)
        below = self._layers_below(incoming)
        for name in sorted(below, key=lambda name: name[1:], reverse=True):
            inputs.append(MergeInput(self._layers.map.reader(name), sorted(below[name])))
        return inputs

    def _layers_below(self, incoming: dict[Stripe, int]) -> dict[FileName, set[int]]:
        """Rows of bundles that the policy wants merged; notes who gets a file of its own."""
        found: dict[FileName, set[int]] = {}
        for stripe, size in incoming.items():
            layers = list(self._newest_sound(stripe))
            count = self._policy.layers_to_merge([layer[2] for layer in layers], size)
            for name, row, stored in layers[:count]:
                found.setdefault(name, set()).add(row)
                size += stored
            if self._policy.wants_own_file(size):
                self._own_files.add(stripe)
        return found

    def _newest_sound(self, stripe: Stripe) -> Iterator[tuple[FileName, int, int]]:
        """Bundle, row and bytes of a stripe's newest delta layers, down to a damaged one."""
        for layer in newest_generation(self._layers.index.stripe(*stripe)).deltas:
            try:
                row = self._layers.row(layer.file, stripe)
            except UnreachableError:
                raise
            except (CorruptionError, OSError) as error:
                self.unreadable[stripe] = error
                return
            if (layer.file, row) in self._damaged:
                return
            yield layer.file, row, layer.bytes_stored


def _stripe(directory: LayerDirectory, row: int) -> Stripe:
    return directory.key(row), directory.stripe(row)
