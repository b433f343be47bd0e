"""Compaction and garbage collection: what is to be done next, one bounded step at a time.

    L0 bundles ──merge──> L1 bundles ──images──> image layers ──survey──> what nobody needs goes

L0 first: reads look into every L0 bundle, and ingest waits when there are too many. A job is a
generator that yields whether it did anything; between its steps, and before every other job, an
L0 merge may come first. docs/compaction.md has the policy and why it is so.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial

from engine.bundle_merge import Retained, merge_bundles
from engine.bundle_writer import BundleInfo, BundleWriter
from engine.compaction_policy import Policy
from engine.errors import RequestError
from engine.held_space import Space, SpaceCount
from engine.l0_merge import L0Merge
from engine.layer_damage import Layer, find_damage
from engine.layer_store import LayerStore
from engine.merge_plan import MergeInput
from engine.pruning import in_l0, is_history_of_nothing, is_worth_pruning, prune
from engine.stripe_image import WITH_IMAGES, StripeImages
from engine.stripe_layers import Generation, Stripe, asked_for, newest_generation
from engine.version_store import VersionStore
from formats import layer_bits
from formats.chunk import HISTORY, ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.index_value import LayerEntry

IMAGE_BYTES_MAX = 128 << 20  # of pages in one image bundle, before the next stripe gets another
SURVEY_STRIPES = 256  # a step
SURVEY_SHARE = 10  # of what there is, one part in so many is written, and there is another survey
_log = logging.getLogger("pageserver.compactor")

Job = Iterator[bool]
IDLE, MERGING, IMAGING = "idle", "merging L0", "making images"
REWRITING, COLLECTING = "rewriting files", "collecting garbage"


class Compactor:
    """One of a store; one thread calls `step`."""

    def __init__(
        self,
        layers: LayerStore,
        versions: VersionStore,
        create_bundle: Callable[[FileKind], BundleWriter],
        retained: Callable[[], tuple[Sequence[int], int]],
        policy: Policy,
    ) -> None:
        """`retained`: LSNs below the horizon that must stay readable, rising, and the horizon."""
        self.policy = policy
        self.damaged: dict[Stripe, str] = {}  # not compacted, and why
        self.state = IDLE  # what the last step was for
        self.space: Space | None = None  # as the last survey found it
        self._unmergeable: set[Layer] = set()
        self._layers = layers
        self._versions = versions
        self._create_bundle = create_bundle
        self._retained = retained
        self._images = StripeImages(versions)
        self.wanting: set[Stripe] = set()  # an image
        self._kept: dict[Stripe, int] = {}  # versions that the last pruning left
        self._shrunk = set(layers.state.removed)  # files that lost layers, to be looked at
        self._is_copying = False  # layers below L0, which nobody else may merge meanwhile
        self._job: tuple[str, Job] | None = None  # what for
        self._l0_job: Job | None = None
        self._surveyed: tuple[int, tuple[int, ...]] | None = None  # horizon, retained LSNs
        self._survey_at_bytes = 0  # written: time for another one

    @property
    def bytes_written(self) -> int:
        return self._layers.bytes_compacted  # since the start

    def step(self) -> bool:
        """Do a bounded piece of work; False if there is none now."""
        self._versions.read_once()
        self._layers.mend()
        if self._layers.unlink_step():
            return True
        if self._l0_job is None and not self._is_copying:
            self._l0_job = self._begin_l0_merge()
        if self._l0_job is not None:
            self.state = MERGING
            self._l0_job, did = self._advance(self._l0_job)
            return did
        self._job = self._job or self._choose()
        if self._job is None:
            self.state = IDLE
            return False
        self.state, job = self._job
        more, did = self._advance(job)
        self._job = None if more is None else (self.state, more)
        return did

    def _advance(self, job: Job) -> tuple[Job | None, bool]:
        """The job, None if it has ended, and whether it did anything."""
        did = next(job, None)
        return (job, did) if did is not None else (None, True)

    def _choose(self) -> tuple[str, Job] | None:
        if self.wanting:
            return IMAGING, self._make_images()
        if self._shrunk:
            return REWRITING, self._rewrite_files()
        lsns, horizon = self._retained()
        asked = horizon, tuple(lsns)
        if self._is_survey_due(lsns, horizon):
            total = sum(file.bytes_total for file in self._layers.state.files.values())
            self._survey_at_bytes = self.bytes_written + total // SURVEY_SHARE
            return COLLECTING, self._survey(*asked)
        return None

    def _is_survey_due(self, lsns: Sequence[int], horizon: int) -> bool:
        """The horizon has come a part of the way to the newest LSN, or much was written."""
        if self._surveyed is None or self._surveyed[1] != tuple(lsns):
            return True
        way = max(0, self._versions.ready_lsn - horizon) // SURVEY_SHARE
        return horizon - self._surveyed[0] > way or self.bytes_written > self._survey_at_bytes

    # L0 bundles

    def _begin_l0_merge(self) -> Job | None:
        bundles = self._layers.map.l0  # first: the manifest names them before they are here
        files = self._layers.manifest.state.files
        sizes = [files[bundle.reader.name].bytes_total for bundle in bundles]
        count = self.policy.l0_to_merge(sizes[::-1])
        return self._merge_l0(count) if count else None

    def _merge_l0(self, count: int) -> Job:
        merge = L0Merge(self._layers, self.policy, count, self._unmergeable)
        try:
            for shrunk in merge.run(self._create_bundle, self._images.of_hot_versions):
                self._shrunk.update(shrunk)
                yield True
        except (CorruptionError, OSError):
            if not self._note_damage(merge.inputs):
                raise  # nothing of what is read is damaged
        for stripe, error in merge.unreadable.items():
            self._report(stripe, error)
        for number, stripe in enumerate(sorted(merge.stripes), 1):
            self._judge(stripe, self._layers.index.stripe(*stripe))
            if number % SURVEY_STRIPES == 0:
                yield True

    def _note_damage(self, inputs: Sequence[MergeInput]) -> bool:
        """Find the layers because of which a merge failed; the next one leaves them out."""
        known = len(self._unmergeable)
        for layer, stripe, error in find_damage(inputs):
            self._unmergeable.add(layer)
            self._report(stripe, error)
        return len(self._unmergeable) > known

    def _report(self, stripe: Stripe, error: Exception) -> None:
        if stripe not in self.damaged:
            self.damaged[stripe] = str(error)
            name = ChunkKey.unpack(stripe[0]).name
            _log.error("stripe %d of %s is damaged and not compacted: %s", stripe[1], name, error)

    # images

    def _judge(
        self,
        stripe: Stripe,
        layers: Sequence[LayerEntry],
        retained: Sequence[int] = (),
        horizon: int = 0,
    ) -> None:
        """Whether a stripe shall have an image: its debt calls for one, or it is all below the
        horizon, and an image would be the lesser part of what it takes."""
        newest = newest_generation(layers)
        is_over = bool(newest.deltas) and newest.is_over(retained, horizon)
        if (
            not newest.deltas
            or not (is_over or self._needs_image(newest, 1))  # nor would it with more blocks
            or stripe in self.damaged
        ):
            return
        n_blocks = self._blocks(stripe, self._image_lsn(newest))
        if n_blocks and (
            self._needs_image(newest, n_blocks)
            or (is_over and self._is_worth_ending(newest, n_blocks))
        ):
            self.wanting.add(stripe)

    def _needs_image(self, newest: Generation, n_blocks: int) -> bool:
        image_bytes = 0 if newest.image is None else newest.image.bytes_stored
        return self.policy.needs_image(newest.bytes_stored, newest.versions, image_bytes, n_blocks)

    def _is_worth_ending(self, newest: Generation, n_blocks: int) -> bool:
        image = newest.image
        image_bytes, image_blocks = (image.bytes_stored, image.versions) if image else (0, 0)
        return self.policy.is_worth_ending(newest.bytes_stored, image_bytes, image_blocks, n_blocks)

    def _image_lsn(self, newest: Generation) -> int:
        """From where on an image says the same as the deltas; below the horizon nobody reads."""
        return max(newest.lsn_newest, self._versions.horizon_lsn)

    def _blocks(self, stripe: Stripe, lsn: int) -> int:
        """How many blocks an image has; 0: none now, as L0 or memtables have versions that it would
        have in it. Reads look there first, and would pass by the image, to layers that may have
        gone; or those versions are still to come, to the end of the base backup."""
        if lsn > self._versions.durable_lsn:
            return 0
        for reader, rows in in_l0(self._layers, [stripe]):
            if any(reader.directory.lsn_start(row) <= lsn for row in rows):
                return 0  # the horizon has passed it; once it is merged, it is judged anew
        try:
            return self._images.blocks(stripe, lsn)
        except RequestError:
            return 0  # the horizon has passed `lsn` just now: the next survey judges anew
        except CorruptionError as error:  # in the relation's history
            self._report(stripe, error)
            return 0

    def _make_images(self) -> Job:
        """Image layers of the stripes that want one, in the order of their keys."""
        while self.wanting:
            done, info = self._write_images()
            if info is not None:  # a commit that fails may have made it count: it stays
                self._layers.commit([info], is_merged=True)
            self.wanting -= done
            yield True

    def _write_images(self) -> tuple[set[Stripe], BundleInfo | None]:
        """A bundle, if there is anything for one, and the stripes that are done with."""
        writer = self._create_bundle(FileKind.IMAGE)
        try:
            done, added = self._add_images(writer)
            if added:
                return done, writer.finish()
        except CorruptionError:
            done = set[Stripe]()  # what is there of a damaged stripe cannot be taken out again
        except BaseException:
            writer.abort()
            raise
        writer.abort()
        return done, None

    def _add_images(self, writer: BundleWriter) -> tuple[set[Stripe], int]:
        """Fill a bundle; returns the stripes that are done with, and the bytes of their pages."""
        done, added = set[Stripe](), 0
        for stripe in sorted(self.wanting):
            if added >= IMAGE_BYTES_MAX:
                break
            added += self._add_image(writer, stripe)
            done.add(stripe)
        return done, added

    def _add_image(self, writer: BundleWriter, stripe: Stripe) -> int:
        """Returns the bytes of pages that were added; CorruptionError if one is damaged, and the
        stripe gets no image."""
        newest = newest_generation(self._layers.index.stripe(*stripe))
        if not newest.deltas:
            return 0  # they went in the meantime, with the relation
        lsn = self._image_lsn(newest)
        n_blocks = self._blocks(stripe, lsn)
        try:
            self._images.write(writer, stripe, lsn, n_blocks)
        except CorruptionError as error:
            self.wanting.discard(stripe)
            self._report(stripe, error)
            raise
        if lsn <= self._versions.horizon_lsn:
            self._surveyed = None  # what lies below can go at once
        return n_blocks << 13

    # garbage

    def _survey(self, horizon: int, retained: Sequence[int]) -> Job:
        """Look at all stripes below L0: which layers nobody needs, who wants an image."""
        space = SpaceCount(retained, horizon)
        place: Stripe | None = None
        while stripes := self._layers.index.stripes_after(place, SURVEY_STRIPES):
            place = stripes[-1][0]
            gone: dict[Stripe, Sequence[LayerEntry]] = {}
            pruned = []
            for stripe, layers in stripes:
                if is_history_of_nothing(self._layers, stripe, layers, retained, horizon):
                    gone[stripe] = layers
                else:
                    asked = asked_for(layers, retained, horizon, self._images.cuts(stripe))
                    gone[stripe] = [layer for layer, askers in asked if askers is None]
                    space.add(asked)
                    if stripe[0][0] in WITH_IMAGES:
                        space.add_debt([layer for layer in layers if layer not in gone[stripe]])
                if gone[stripe]:
                    continue
                self._judge(stripe, layers, retained, horizon)
                kept = self._kept.get(stripe, 0)
                if is_worth_pruning(self.policy, stripe, layers, retained, horizon, kept):
                    pruned.append(stripe)
            yield from self._remove(gone)
            yield from self._prune(pruned, Retained(retained, horizon))
            yield True
        self.space = space.result()
        self._surveyed = horizon, tuple(retained)

    def _remove(self, gone: Mapping[Stripe, Sequence[LayerEntry]]) -> Job:
        """Layers that nobody needs, when nobody reads who may have."""
        if not any(gone.values()):
            return
        yield from self._until_quiet()
        # Only now: some may have been merged in the meantime, and their bundles be gone.
        there = {
            stripe: set(layers).intersection(self._layers.index.stripe(*stripe))
            for stripe, layers in gone.items()
        }
        rows = self._rows(there)
        removed = {name: layer_bits.of_rows(numbers) for name, numbers in rows.items()}
        histories = {key for (key, _), layers in there.items() if layers and key[0] & HISTORY}
        self._layers.commit(removed=removed, pruned=histories)
        self._shrunk.update(removed)

    def _rows(self, stripes: Mapping[Stripe, Iterable[LayerEntry]]) -> dict[FileName, list[int]]:
        """Where layers stand in their bundles' directories; those that cannot be read are not
        there, and their stripes damaged."""
        rows: dict[FileName, list[int]] = {}
        for stripe, layers in stripes.items():
            for layer in layers:
                try:
                    row = self._layers.row(layer.file, stripe)
                except (CorruptionError, OSError) as error:
                    self._report(stripe, error)
                else:
                    rows.setdefault(layer.file, []).append(row)
        return rows

    def _prune(self, stripes: Iterable[Stripe], retained: Retained) -> Job:
        """Stripes without images anew, without the versions that nobody needs."""
        layers = {stripe: self._layers.index.stripe(*stripe) for stripe in stripes}
        rows = self._rows(layers)
        whole = {stripe: found for stripe, found in layers.items() if stripe not in self.damaged}
        if len(whole) < len(layers):
            rows = self._rows(whole)
        names = sorted(rows, key=lambda name: name[1:], reverse=True)
        inputs = [MergeInput(self._layers.map.reader(name), sorted(rows[name])) for name in names]
        if inputs:
            create = partial(self._create_bundle, FileKind.L1)
            outputs = prune(self._layers, inputs, retained, create)
            if (yield from self._copy([*inputs, *in_l0(self._layers, whole)], outputs)):
                for stripe in whole:
                    layers_now = self._layers.index.stripe(*stripe)
                    self._kept[stripe] = sum(layer.versions for layer in layers_now)

    def _copy(
        self, inputs: Sequence[MergeInput], outputs: Iterator[set[FileName]]
    ) -> Generator[bool, None, bool]:
        """Write layers anew; nobody merges them until it is done. False: some `inputs` are bad."""
        self._is_copying = True
        try:
            for shrunk in outputs:
                self._shrunk.update(shrunk)
                yield True
        except (CorruptionError, OSError):
            if not self._note_damage(inputs):
                raise
            return False
        finally:
            self._is_copying = False
        return True

    def _until_quiet(self) -> Job:
        """Until nobody reads who may have seen what was there before the last commits."""
        epoch = self._layers.map.advance()
        while not self._layers.map.is_quiet(epoch):
            yield False

    def _rewrite_files(self) -> Job:
        """Copy what is live in files that are mostly dead, so that they can go."""
        while self._shrunk:
            name = self._shrunk.pop()
            if name.kind == FileKind.L0 or name not in self._layers.manifest.state.files:
                continue
            file = self._layers.index.file(name)
            if self.policy.is_worth_rewriting(file.bytes_live, file.bytes_total):
                yield from self._rewrite(name)

    def _rewrite(self, name: FileName) -> Job:
        try:
            reader = self._layers.map.reader(name)
            rows = list(layer_bits.rows(self._layers.live_rows(reader)))
        except (CorruptionError, OSError) as error:
            _log.error("%s is damaged and not rewritten: %s", name.text, error)
            return
        if not any((name, row) in self._unmergeable for row in rows):
            source = MergeInput(reader, rows)
            yield from self._copy([source], self._rewritten(source))

    def _rewritten(self, source: MergeInput) -> Iterator[set[FileName]]:
        name = source.reader.name
        for output in merge_bundles([source], lambda: self._create_bundle(name.kind)):
            assert output.info is not None, "nothing is pruned"
            self._layers.commit([output.info], {name: output.rows[0]}, is_merged=True)
            yield set()
