"""What nobody needs goes: layers from their bundles, versions from chains, files from the disk.

Layers go whole, when nobody reads who may have seen what was there before; versions, where there
are no images, when their stripes are written anew; and a file that is mostly dead when what is live
in it was copied. Each part is a job, a generator that yields whether it did anything.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from engine.bundle_merge import Retained, merge_bundles
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.errors import UnreachableError
from engine.layer_damage import Damage
from engine.layer_store import LayerStore
from engine.merge_plan import MergeInput
from engine.pruning import in_l0, prune
from engine.relation_history import RelationHistory
from engine.stripe_image import WITH_IMAGES
from engine.stripe_layers import Stripe
from engine.survey import Found
from formats import layer_bits
from formats.chunk import HISTORY, ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.index_value import LayerEntry

Job = Iterator[bool]
_log = logging.getLogger("pageserver.compactor")


class Collection:
    """Used by the thread that compacts."""

    def __init__(
        self,
        layers: LayerStore,
        history: RelationHistory,
        create_bundle: Callable[[FileKind], BundleWriter],
        damage: Damage,
    ) -> None:
        self.shrunk = set(layers.state.removed)  # files that lost layers, to be looked at
        self.is_copying = False  # layers below L0, which nobody else may merge meanwhile
        self._layers = layers
        self._history = history
        self._create_bundle = create_bundle
        self._damage = damage

    def look_anew(self) -> None:
        """At all that may have lost layers, as what a commit did that failed is not known."""
        self.shrunk.update(self._layers.state.removed)

    # layers and versions

    def remove(self, gone: Mapping[Stripe, Sequence[LayerEntry]]) -> Job:
        """Layers that nobody needs, when nobody reads who may have."""
        if not any(gone.values()):
            return
        yield from self._until_quiet()
        # Only now: some may have been merged in the meantime, and their bundles be gone.
        there = {
            stripe: sorted(set(layers).intersection(self._layers.index.stripe(*stripe)))
            for stripe, layers in gone.items()
        }
        rows, sound = self._rows({stripe: layers for stripe, layers in there.items() if layers})
        removed = {name: layer_bits.of_rows(numbers) for name, numbers in rows.items()}
        histories = {key for key, _ in sound if key[0] & HISTORY}
        self._layers.commit(removed=removed, pruned=histories)
        self.shrunk.update(removed)

    def prune(self, stripes: Iterable[Stripe], retained: Retained) -> Job:
        """Stripes without images anew, without the versions that nobody needs."""
        sound = (stripe for stripe in stripes if stripe not in self._damage.stripes)
        rows, whole = self._rows({one: self._layers.index.stripe(*one) for one in sound})
        names = sorted(rows, key=lambda name: name[1:], reverse=True)
        inputs = [MergeInput(self._layers.map.reader(name), sorted(rows[name])) for name in names]
        if inputs:
            create = partial(self._create_bundle, FileKind.L1)
            outputs = prune(self._layers, inputs, retained, create)
            yield from self._copy([*inputs, *in_l0(self._layers, whole)], outputs)

    def forget_cuts(self, batch: Sequence[Found], retained: Retained) -> None:
        """In memory, those of the histories in a batch that no read can ask for any more."""
        durable = self._layers.index.state.durable_lsn
        for found in batch:
            key = found.stripe[0]
            if key[0] & HISTORY:
                past = min(retained.horizon, durable) if found.is_forgotten else 0
                self._history.forget(ChunkKey.unpack(key).subject(), retained, past)

    def _rows(
        self, stripes: Mapping[Stripe, Sequence[LayerEntry]]
    ) -> tuple[dict[FileName, list[int]], list[Stripe]]:
        """Where layers stand in their bundles' directories, and the stripes of which they do.

        Those that cannot be read are not there, and their stripes damaged; of a stripe without
        images none is then, as it can only be written anew whole.
        """
        rows: dict[FileName, list[int]] = {}
        sound = []
        for stripe, layers in stripes.items():
            found = list(self._find(stripe, layers))
            is_whole = len(found) == len(layers) and self._is_sound_in_l0(stripe)
            if is_whole or stripe[0][0] in WITH_IMAGES:
                sound.append(stripe)
                for name, row in found:
                    rows.setdefault(name, []).append(row)
        return rows, sound

    def _find(self, stripe: Stripe, layers: Sequence[LayerEntry]) -> Iterator[tuple[FileName, int]]:
        for layer in layers:
            try:
                yield layer.file, self._layers.row(layer.file, stripe)
            except UnreachableError:
                raise
            except (CorruptionError, OSError) as error:
                self._damage.report(stripe, error)

    def _is_sound_in_l0(self, stripe: Stripe) -> bool:
        """Whether all can be read that L0 has of a history: the commit that prunes it does."""
        if not stripe[0][0] & HISTORY:
            return True
        return self._damage.is_sound(in_l0(self._layers, [stripe]))

    def _until_quiet(self) -> Job:
        """Until nobody reads who may have seen what was there before the last commits."""
        epoch = self._layers.map.advance()
        while not self._layers.map.is_quiet(epoch):
            yield False

    # files

    def rewrite_files(self, policy: Policy) -> Job:
        """Copy what is live in files that are mostly dead, so that they can go."""
        while self.shrunk:
            name = self.shrunk.pop()
            if name.kind == FileKind.L0 or name not in self._layers.state.files:
                continue
            file = self._layers.index.file(name)
            if policy.is_worth_rewriting(file.bytes_live, file.bytes_total):
                yield from self._rewrite(name)

    def _rewrite(self, name: FileName) -> Job:
        try:
            reader = self._layers.map.reader(name)
            rows = list(layer_bits.rows(self._layers.live_rows(reader)))
        except UnreachableError:
            raise
        except (CorruptionError, OSError) as error:
            _log.error("%s is damaged and not rewritten: %s", name.text, error)
            return
        if not any((name, row) in self._damage.layers for row in rows):
            source = MergeInput(reader, rows)
            yield from self._copy([source], self._rewritten(source))

    def _rewritten(self, source: MergeInput) -> Iterator[set[FileName]]:
        name = source.reader.name
        for output in merge_bundles([source], lambda: self._create_bundle(name.kind)):
            assert output.info is not None, "nothing is pruned"
            self._layers.commit([output.info], {name: output.rows[0]}, is_merged=True)
            yield set()

    def _copy(self, inputs: Sequence[MergeInput], outputs: Iterator[set[FileName]]) -> Job:
        """Write layers anew, those that can be read; nobody merges them until it is done."""
        self.is_copying = True
        try:
            for shrunk in outputs:
                self.shrunk.update(shrunk)
                yield True
        except (CorruptionError, OSError) as error:
            if not self._damage.explains(error, inputs):
                raise
        finally:
            self.is_copying = False
