"""Compaction and garbage collection: what is to be done next, one bounded step at a time.

    L0 bundles ──merge──> L1 bundles ──images──> image layers ──survey──> what nobody needs goes

L0 first: reads look into every L0 bundle, and ingest waits when there are too many. A job is a
generator that yields whether it did anything; between its steps, and before every other job, an
L0 merge may come first. docs/compaction.md has the policy and why it is so.

A step for which the disk has no room, or that met a bucket that does not answer, ends its job. What
is to be done is then looked for anew; on a full disk, what gives room first.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

from engine.bundle_merge import Retained
from engine.bundle_writer import BundleWriter
from engine.collection import Collection
from engine.compaction_policy import Policy
from engine.disk_room import is_full
from engine.held_space import Space
from engine.image_job import ImageJob
from engine.l0_merge import L0Merge
from engine.layer_damage import Damage
from engine.layer_store import LayerStore
from engine.stripe_layers import Stripe
from engine.survey import Survey
from engine.version_store import VersionStore
from formats.errors import CorruptionError
from formats.file_name import FileKind

JUDGED_STRIPES = 256  # a step
SURVEY_SHARE = 10  # of what there is, one part in so many is written, and there is another survey

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
        self.state = IDLE  # what the last step was for
        self.space: Space | None = None  # as the last survey found it
        self._layers = layers
        self._versions = versions
        self._create_bundle = create_bundle
        self._retained = retained
        self._damage = Damage()
        self._images = ImageJob(layers, versions, create_bundle, self._damage)
        self._collection = Collection(layers, versions.history, create_bundle, self._damage)
        self._job: tuple[str, Job] | None = None  # what for
        self._l0_job: Job | None = None
        self._survey: Survey | None = None  # that is under way
        self._surveyed: tuple[int, tuple[int, ...]] | None = None  # horizon, retained LSNs
        self._survey_at_bytes = 0  # written: time for another one
        self._is_mended = threading.Event()
        self._had_no_room = False  # on the disk, when a job was last tried

    @property
    def bytes_written(self) -> int:
        return self._layers.bytes_compacted  # since the start

    @property
    def damaged(self) -> dict[Stripe, str]:
        """Stripes that are not compacted, and why."""
        return self._damage.stripes

    @property
    def wanting(self) -> set[Stripe]:
        """Stripes that want an image."""
        return self._images.wanting

    def look_anew(self) -> None:
        """Damaged bundles were replaced by sound copies, by any thread."""
        self._is_mended.set()

    def step(self) -> bool:
        """Do a bounded piece of work; False if there is none now."""
        try:
            return self._step()
        except OSError as error:
            self._job = self._l0_job = None
            self._collection.look_anew()
            self._had_no_room = is_full(error)
            raise

    def _step(self) -> bool:
        self._versions.read_once()
        self._layers.mend()
        if self._is_mended.is_set():
            self._is_mended.clear()
            self._damage.forget()
            self._surveyed = None
        if self._layers.unlink_step():
            return True
        gives_room = self._had_no_room and self._is_survey_due()
        if self._l0_job is None and not self._collection.is_copying and not gives_room:
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
        if did is not None:
            return job, did
        self._had_no_room = False
        return None, True

    def _choose(self) -> tuple[str, Job] | None:
        is_due = self._is_survey_due()
        if self._had_no_room and is_due:
            return COLLECTING, self._collect()
        if self.wanting:
            return IMAGING, self._images.run()
        if self._collection.shrunk:
            return REWRITING, self._collection.rewrite_files(self.policy)
        return (COLLECTING, self._collect()) if is_due else None

    # L0 bundles

    def _begin_l0_merge(self) -> Job | None:
        bundles = self._layers.map.l0  # first: the manifest names them before they are here
        files = self._layers.state.files
        sizes = [files[bundle.reader.name].bytes_total for bundle in bundles]
        count = self.policy.l0_to_merge(sizes[::-1])
        return self._merge_l0(count) if count else None

    def _merge_l0(self, count: int) -> Job:
        merge = L0Merge(self._layers, self.policy, count, self._damage.layers)
        try:
            for shrunk in merge.run(self._create_bundle, self._images.pages.of_hot_versions):
                self._collection.shrunk.update(shrunk)
                yield True
        except (CorruptionError, OSError) as error:
            if not self._damage.explains(error, merge.inputs):
                raise  # nothing of what is read is damaged
        for stripe, problem in merge.unreadable.items():
            self._damage.report(stripe, problem)
        for number, stripe in enumerate(sorted(merge.stripes), 1):
            self._images.judge(self.policy, stripe, self._layers.index.stripe(*stripe))
            if number % JUDGED_STRIPES == 0:
                yield True

    # garbage

    def _is_survey_due(self) -> bool:
        """One was cut off, the horizon has come a part of the way to the newest LSN, or much was
        written."""
        lsns, horizon = self._retained()
        if self._survey is not None or self._images.is_garbage_below:
            return True
        if self._surveyed is None or self._surveyed[1] != tuple(lsns):
            return True
        way = max(0, self._versions.ready_lsn - horizon) // SURVEY_SHARE
        return horizon - self._surveyed[0] > way or self.bytes_written > self._survey_at_bytes

    def _collect(self) -> Job:
        """Look at all stripes below L0: which layers nobody needs, who wants an image."""
        if self._survey is None:
            total = sum(file.bytes_total for file in self._layers.state.files.values())
            self._survey_at_bytes = self.bytes_written + total // SURVEY_SHARE
            self._survey = Survey(self._layers, self.policy, *self._retained())
            self._images.is_garbage_below = False
        survey, collection = self._survey, self._collection
        asked = survey.retained, survey.horizon
        while batch := survey.look():
            for found in batch:
                if not found.gone:
                    self._images.judge(self.policy, found.stripe, found.layers, *asked)
            yield from collection.remove({one.stripe: one.gone for one in batch if one.gone})
            pruned = [found.stripe for found in batch if found.is_worth_pruning]
            yield from collection.prune(pruned, Retained(*asked))
            collection.forget_cuts(batch, Retained(*asked))
            survey.done(batch)
            yield True
        self.space = survey.space()
        self._surveyed = survey.horizon, survey.retained
        self._survey = None
