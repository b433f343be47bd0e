"""Merging the oldest L0 bundles, whole, into L1 bundles partitioned by chunk key.

With the versions of a stripe come those of its newest delta layers that the policy names, so that
they stay few. Nothing is dropped but what is there twice: a reader may see the merge done in part.
"""

from collections.abc import Callable, Iterator

from engine.bundle_merge import Images, merge_bundles
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.layer_store import LayerStore
from engine.merge_plan import MergeInput
from engine.stripe_layers import Stripe, newest_generation
from formats import layer_bits
from formats.file_name import FileKind, FileName


class L0Merge:
    """One job."""

    def __init__(self, layers: LayerStore, policy: Policy, bundle_count: int) -> None:
        """Of the `bundle_count` oldest L0 bundles."""
        self._layers = layers
        self._policy = policy
        oldest = layers.map.l0[-bundle_count:]  # newest first
        self._bundles = [bundle.reader for bundle in oldest]
        self.stripes: set[Stripe] = set()
        self._own_files: set[Stripe] = set()

    def run(
        self, create_bundle: Callable[[FileKind], BundleWriter], images: Images
    ) -> Iterator[set[FileName]]:
        """Merge; yields, whenever an output counts, the bundles that lost layers to it."""
        inputs = self._inputs()
        outputs = merge_bundles(
            inputs, lambda: create_bundle(FileKind.L1), images=images, own_files=self._own_files
        )
        for output in outputs:
            rows = {
                source.reader.name: done
                for source, done in zip(inputs, output.rows, strict=True)
                if any(done)
            }
            assert output.info is not None, "nothing is pruned"
            self._layers.commit([output.info], rows, is_merged=True)
            yield set(rows)

    def _inputs(self) -> list[MergeInput]:
        """The L0 bundles, and of L1 bundles the layers that are merged with them, newest first."""
        incoming: dict[Stripe, int] = {}
        inputs = []
        for reader in self._bundles:
            rows = list(layer_bits.rows(self._layers.live_rows(reader)))
            self._add_incoming(reader, rows, incoming)
            inputs.append(MergeInput(reader, rows))
        self.stripes = set(incoming)
        below = self._layers_below(incoming)
        for name in sorted(below, key=lambda name: name[1:], reverse=True):
            inputs.append(MergeInput(self._layers.map.reader(name), sorted(below[name])))
        return inputs

    def _add_incoming(
        self, reader: BundleReader, rows: list[int], incoming: dict[Stripe, int]
    ) -> None:
        directory, stored = reader.directory, reader.stored_bytes()
        for row in rows:
            stripe = directory.key(row), directory.stripe(row)
            incoming[stripe] = incoming.get(stripe, 0) + stored[row]

    def _layers_below(self, incoming: dict[Stripe, int]) -> dict[FileName, set[int]]:
        """Rows of L1 bundles that the policy wants merged; notes who gets a file of its own."""
        found: dict[FileName, set[int]] = {}
        for stripe, size in incoming.items():
            deltas = newest_generation(self._layers.index.stripe(*stripe)).deltas
            count = self._policy.layers_to_merge([layer.bytes_stored for layer in deltas], size)
            for layer in deltas[:count]:
                directory = self._layers.map.reader(layer.file).directory
                row = directory.find(stripe[0], 0, stripe[1])
                found.setdefault(layer.file, set()).add(row)
                size += layer.bytes_stored
            if self._policy.wants_own_file(size):
                self._own_files.add(stripe)
        return found
