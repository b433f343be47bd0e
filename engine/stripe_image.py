"""Pages of a whole stripe at one LSN -> an image layer.

The pages are made as for a reader. One that cannot be, because there is no redo for a record or
the base backup tore it, is unreadable in the image as well (design invariant 10); damage ends the
image, whose stripe stays as it is.
"""

from collections.abc import Sequence

from engine.bundle_merge import HotVersion
from engine.bundle_writer import BundleWriter, run_of
from engine.page_problem import UnreadablePage, unless_unreachable
from engine.stripe_layers import Stripe
from engine.version_store import PAGE_BYTES, VersionStore
from formats import version
from formats.chunk import SEGMENT_BLOCKS, STRIPE_BLOCKS, ChunkKey, ChunkKind
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn

RUN_BLOCKS = 512
WITH_IMAGES = (ChunkKind.REL, ChunkKind.SLRU)


class StripeImages:
    """Writes image layers; used by one thread, without the store's lock."""

    def __init__(self, versions: VersionStore) -> None:
        self._versions = versions
        self._pages = memoryview(bytearray(RUN_BLOCKS * PAGE_BYTES))

    def blocks(self, stripe: Stripe, lsn: int) -> int:
        """How many blocks of a stripe there are at an LSN; 0 where images make no sense: the
        chunk is not of pages, or has been dropped since."""
        key = ChunkKey.unpack(stripe[0])
        if key.kind not in WITH_IMAGES:
            return 0
        versions = self._versions
        root = versions.history.find(*key.subject())
        if root < 0 or not versions.table.exists[root]:
            return 0
        exists, blocks = versions.history.state(root, lsn)
        if key.kind == ChunkKind.REL:
            blocks -= key.seg * SEGMENT_BLOCKS
        return max(0, min(blocks - stripe[1] * STRIPE_BLOCKS, STRIPE_BLOCKS)) if exists else 0

    def of_hot_versions(self, hot: Sequence[HotVersion]) -> list[bytes | None]:
        """Payloads of images that take the place of versions, None where there can be none."""
        payloads: list[bytes | None] = []
        for start in range(0, len(hot), RUN_BLOCKS):
            part = hot[start : start + RUN_BLOCKS]
            with self._versions.lock:
                intern = self._versions.table.intern
                asked = [(intern(*ChunkKey.unpack(key)), block, lsn) for key, block, lsn in part]
            problems = self._versions.read_blocks(asked, self._pages, PAGE_BYTES)
            for place, (_, _, lsn) in enumerate(part):
                if place in problems or lsn < self._versions.backup_end_lsn:
                    payloads.append(None)
                else:
                    page = self._pages[place * PAGE_BYTES : (place + 1) * PAGE_BYTES]
                    payloads.append(version.image_exact(bytes(page)))
        return payloads

    def write(self, writer: BundleWriter, stripe: Stripe, lsn: int, n_blocks: int) -> None:
        """Add a stripe's first `n_blocks` blocks to an image bundle; CorruptionError if one of
        them is damaged, UnreachableError."""
        key, first = stripe[0], stripe[1] * STRIPE_BLOCKS
        with self._versions.lock:
            chunk = self._versions.table.intern(*ChunkKey.unpack(key))
        for block in range(first, first + n_blocks, RUN_BLOCKS):
            count = min(RUN_BLOCKS, first + n_blocks - block)
            asked = [(chunk, block + i, lsn) for i in range(count)]
            problems = unless_unreachable(
                self._versions.read_blocks(asked, self._pages, PAGE_BYTES)
            )
            done = 0
            for place, problem in sorted(problems.items()):
                if not isinstance(problem, UnreadablePage):
                    where = f"block {block + place} of {ChunkKey.unpack(key)} at {show_lsn(lsn)}"
                    raise CorruptionError("page", where, "one that can be made", problem)
                self._add(writer, key, block, lsn, done, place)
                writer.add_run(run_of([(key, block + place, lsn, problem.payload)]))
                done = place + 1
            self._add(writer, key, block, lsn, done, count)

    def _add(
        self, writer: BundleWriter, key: bytes, block: int, lsn: int, start: int, end: int
    ) -> None:
        """The pages in places start..end of a run that begins at `block`."""
        if start < end:
            data = self._pages[start * PAGE_BYTES : end * PAGE_BYTES]
            writer.add_pages(key, block + start, lsn, version.IMAGE_EXACT, data)
