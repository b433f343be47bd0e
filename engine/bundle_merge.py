"""Bundles -> bundles: what compaction does with layers, a stream in bounded memory.

Versions of the layers that are merged come out in the order of (chunk key, stripe, block, LSN),
each (chunk, block, LSN) once. An output ends at a stripe's end, when it is large enough, and before
and after a stripe that is to have a file of its own; each is durable when the generator yields it.

Memory: READ_BYTES_MAX of compressed frames read ahead, and one more for each source that overlaps
where the merge is; for each of these a raw frame of 64 KiB, a longer one if the longest is; a batch
of BATCH_BYTES, of the pending versions of one block if those are more, and the images of its hot
chains; what a BundleWriter holds; 32 bytes a frame of the inputs, about 200 a layer.
"""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from engine.bundle_writer import BundleInfo, BundleWriter, VersionRun
from engine.layer_merge import BATCH_IS_FULL, ENDED, NO_RANK, WANTS_FRAME, LayerMerge
from engine.merge_plan import MergeInput, MergePlan, Stripe
from engine.merged_versions import MergedVersions
from formats.errors import CorruptionError

FILE_BYTES = 64 << 20  # stored, at which an output ends with its stripe
BATCH_BYTES = 2 << 20  # raw
READ_BYTES = 512 << 10  # stored, in one read
READ_BYTES_MAX = 16 << 20  # of all sources
HOT_RECORDS = 128
HOT_BYTES = 32 << 10

HotVersion = tuple[bytes, int, int]  # packed chunk key, block, LSN
Images = Callable[[list[HotVersion]], Sequence[bytes | None]]


class Retained(NamedTuple):
    """What must stay readable: these LSNs, and everything from the horizon on."""

    lsns: Collection[int]
    horizon: int


class MergedBundle(NamedTuple):
    """A finished output, and what it stands for."""

    info: BundleInfo | None  # None if pruning left nothing
    rows: list[bytes]  # of each input, the rows that are in it: bit r & 7 of byte r >> 3


def merge_bundles(
    inputs: Sequence[MergeInput],
    create_bundle: Callable[[], BundleWriter],
    *,
    images: Images | None = None,
    retained: Retained | None = None,
    own_files: Collection[Stripe] = (),
    file_bytes: int = FILE_BYTES,
) -> Iterator[MergedBundle]:
    """Merge rows of `inputs`, the newest first, and yield each output when it is durable.

    `images` gives payloads for the versions that end a hot chain, in their places, or None to leave
    one as it is. With `retained`, versions that nobody needs are left out: the inputs must have the
    whole chain of each block. `own_files`: stripes that do not share a file. CorruptionError names
    the frame that is damaged or not sorted; whatever is raised, no unfinished file stays behind.
    """
    merge = _Merge(inputs, create_bundle, images, retained, own_files, file_bytes)
    while not merge.is_ended:
        yield merge.next_bundle()


class _Merge:
    def __init__(
        self,
        inputs: Sequence[MergeInput],
        create_bundle: Callable[[], BundleWriter],
        images: Images | None,
        retained: Retained | None,
        own_files: Collection[Stripe],
        file_bytes: int,
    ) -> None:
        plan = MergePlan(inputs)
        self._plan = plan
        self._create_bundle = create_bundle
        self._images = images
        self._file_bytes = file_bytes
        alone = [rank for rank, stripe in enumerate(plan.stripes) if stripe in own_files]
        self._bounds = sorted({*alone, *(rank + 1 for rank in alone)})
        lsns = array("Q")
        if retained is not None:
            below = {lsn for lsn in retained.lsns if lsn < retained.horizon}
            lsns = array("Q", [*sorted(below), retained.horizon])
        self._out = MergedVersions(
            BATCH_BYTES, memoryview(lsns), HOT_RECORDS if images else 0, HOT_BYTES
        )
        self._kernel = _kernel(plan, self._out)
        self._writer: BundleWriter | None = None
        self._bytes_held = 0
        self._rank = 0  # all below it are in finished outputs
        self._taken = 0  # versions of these
        self.is_ended = not plan.stripes

    def next_bundle(self) -> MergedBundle:
        """Write the next output."""
        bound = bisect_left(self._bounds, self._rank + 1)
        self._kernel.cut_rank = self._bounds[bound] if bound < len(self._bounds) else NO_RANK
        try:
            while (state := self._run()) in (WANTS_FRAME, BATCH_IS_FULL):
                if state == WANTS_FRAME:
                    self._give_frame()
                else:
                    self._write_batch()
            self._write_batch()
            self.is_ended = state == ENDED
            end = len(self._plan.stripes) if self.is_ended else self._kernel.cut_rank
            self._check_taken(end)
            info = self._writer.finish() if self._writer else None
            self._writer = None
        except BaseException:
            if self._writer is not None:
                self._writer.abort()
            raise
        self._rank = end
        return MergedBundle(info, [source.finish_rows(end) for source in self._plan.sources])

    def _run(self) -> int:
        try:
            state: int = self._kernel.run()
        except (ValueError, IndexError) as error:
            raise self._bad_frame(error) from error
        return state

    def _give_frame(self) -> None:
        number = self._kernel.wanted
        source = self._plan.sources[number]
        held = source.bytes_held
        raw, next_rank = source.next_frame(min(READ_BYTES, READ_BYTES_MAX - self._bytes_held))
        self._bytes_held += source.bytes_held - held
        try:
            self._kernel.give(number, raw, next_rank)
        except (ValueError, IndexError) as error:
            raise self._bad_frame(error) from error

    def _bad_frame(self, error: Exception) -> CorruptionError:
        where = self._plan.sources[self._kernel.wanted].where
        return CorruptionError("frame", where, "sorted, whole versions", error)

    def _write_batch(self) -> None:
        out, count = self._out, self._out.count
        if count:
            if self._writer is None:
                self._writer = self._create_bundle()
            if self._images is not None and out.hot_count:
                self._replace_hot(self._images)
            self._writer.add_run(
                VersionRun(
                    memoryview(out.chunk),
                    memoryview(out.block),
                    memoryview(out.lsn),
                    memoryview(out.offset),
                    memoryview(out.length),
                    memoryview(out.data),
                    memoryview(out.order)[:count],
                    self._plan.keys,
                )
            )
            if self._writer.bytes_stored >= self._file_bytes:
                kernel = self._kernel
                kernel.cut_rank = min(kernel.cut_rank, kernel.last_rank() + 1)
        out.clear()

    def _replace_hot(self, images: Images) -> None:
        """Images in the place of the versions that end hot chains."""
        out, keys = self._out, self._plan.keys
        hot = memoryview(out.hot)[: out.hot_count].tolist()
        wanted = [(keys[out.chunk[i]], out.block[i], out.lsn[i]) for i in hot]
        for i, payload in zip(hot, images(wanted), strict=True):
            if payload is not None:
                out.replace(i, payload)

    def _check_taken(self, end: int) -> None:
        """That the frames had as many versions as the directories say: none is lost unnoticed."""
        expected = self._plan.versions_between(self._rank, end)
        taken = self._kernel.taken - self._taken
        if taken != expected:
            paths = ", ".join(str(source.reader.path) for source in self._plan.sources)
            raise CorruptionError("versions of the merged layers", paths, expected, taken)
        self._taken += taken


def _kernel(plan: MergePlan, out: MergedVersions) -> LayerMerge:
    ranks, starts = array("I"), array("Q", [0])
    for source in plan.sources:
        ranks.extend(source.ranks)
        starts.append(len(ranks))
    first_ranks = array("I", [source.next_rank for source in plan.sources])
    return LayerMerge(
        out,
        memoryview(ranks),
        memoryview(starts),
        memoryview(first_ranks),
        memoryview(plan.chunk_of_rank),
    )
