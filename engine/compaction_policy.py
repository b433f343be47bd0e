"""When to merge, to materialise, to rewrite, and when ingest must wait: numbers, nothing else.

Pure: no files, no clock, no state. The compactor asks it, and so does the simulator
(tools/compaction_simulator), whose tables justify the numbers (docs/compaction.md).

    L0 bundles, oldest first    [ ][ ][ ] [ ]                from the flush, each over all stripes
                                 \\merged/
    delta layers of a stripe    [ ] [  ] [    ] [         ]  newest first; at most six, the older
                                                             the larger
    its newest image layer      [============]               anew when the debt is twice its size

Sizes are stored bytes, after compression, unless a name says otherwise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Policy:
    """All numbers of the policy. The defaults are the server's."""

    l0_bundles_merged_min: int = 3
    """Bundles. Fewer merge each stripe's layers more often; more are looked into by each read."""
    l0_bundles_merged_max: int = 10
    """Bundles. What a compactor that fell behind takes at once: fewer passes over the stripes."""
    l0_bytes_merged_max: int = 1024 * MIB
    """Bytes of L0 in one job, if that is more than one bundle: a job ends in bounded time."""
    l0_bundles_behind: int = 16
    """Bundles. From here on ingest is slowed: twice a job waits or is under way."""
    l0_bundles_wait: int = 24
    """Bundles. From here on nothing is flushed: each read looks into all of them."""
    layers_max: int = 6
    """Delta layers of a stripe above its newest image. Nothing is merged before there are more."""
    debt_per_image_byte: float = 2.0
    """Bytes of delta layers for each byte of the image layer that is to replace them. Images are
    one part in this many of what is written; what a read may have to go through is in proportion
    to the page, not to the table."""
    debt_versions_per_block: int = 128
    """Versions. What redo of a page costs on average, where versions are too small to count."""
    image_bytes_per_block: int = 2 * KIB
    """Bytes of a page in an image layer, where there is none to measure."""
    debt_bytes_min: int = 64 * KIB
    """Bytes. A debt below this is one frame's, and is no reason for an image."""
    own_file_bytes_min: int = 1 * MIB
    """Bytes of a stripe in one merge. In a file of its own it dies without being rewritten."""

    def l0_to_merge(self, l0_bytes: Sequence[int]) -> int:
        """How many of the oldest L0 bundles to merge now; 0: none yet.

        l0_bytes: sizes of all L0 bundles, oldest first.
        """
        if len(l0_bytes) < self.l0_bundles_merged_min:
            return 0
        count, total = 0, 0
        for size in l0_bytes[: self.l0_bundles_merged_max]:
            total += size
            if count and total > self.l0_bytes_merged_max:
                break
            count += 1
        return count

    def layers_to_merge(self, newest_first: Sequence[int], incoming: int) -> int:
        """How many of a stripe's newest delta layers to merge with `incoming` bytes from L0.

        newest_first: sizes of its delta layers above its newest image. The result is one layer in
        place of those and of the incoming versions. 0 while there is room for one more layer.
        """
        room = self.layers_max - len(newest_first)
        count, merged = 0, incoming
        for size in newest_first:
            place = room + count
            if place > 0 and (count == 0 or size > merged * _ratio(merged, incoming, place)):
                break
            merged += size
            count += 1
        return count

    def needs_image(
        self, debt_bytes: int, debt_versions: int, image_bytes: int, n_blocks: int
    ) -> bool:
        """Whether a stripe's debt, its delta layers above its newest image, calls for a new one.

        image_bytes: size of the newest image layer; 0: there is none. n_blocks: of the stripe, as
        far as they are written.
        """
        expected = image_bytes or n_blocks * self.image_bytes_per_block
        if debt_bytes >= max(self.debt_per_image_byte * expected, self.debt_bytes_min):
            return True
        return debt_versions >= self.debt_versions_per_block * max(n_blocks, 1)

    def is_worth_ending(
        self, debt_bytes: int, image_bytes: int, image_blocks: int, n_blocks: int
    ) -> bool:
        """Whether an image takes the place of an image and debt that nobody needs beside it.

        As for files: when less than half of it would be left. image_blocks: of the newest image
        layer, 0 if there is none; n_blocks: of the one that is to come.
        """
        expected = n_blocks * self.image_bytes_per_block
        if image_blocks:
            expected = image_bytes * n_blocks // image_blocks
        total = debt_bytes + image_bytes
        return debt_bytes >= self.debt_bytes_min and self.is_worth_rewriting(expected, total)

    def wants_own_file(self, stripe_bytes: int) -> bool:
        """Whether what a merge writes of one stripe goes into a file of its own."""
        return stripe_bytes >= self.own_file_bytes_min

    def is_worth_rewriting(self, bytes_live: int, bytes_total: int) -> bool:
        """Whether a file's live layers are copied, so that the file can go."""
        return 0 < bytes_live < bytes_total / 2

    def is_worth_pruning(self, bytes_dead: int, bytes_total: int) -> bool:
        """Whether a layer without images (relation history, small files, commit times) is
        rewritten without the versions that nobody can ask for any more."""
        return bytes_total > 0 and bytes_dead >= bytes_total / 2

    def is_behind(self, l0_count: int) -> bool:
        """Whether ingest is to be slowed."""
        return l0_count >= self.l0_bundles_behind

    def must_wait(self, l0_count: int) -> bool:
        """Whether flushes, and with them ingest, wait for the compactor."""
        return l0_count >= self.l0_bundles_wait


def _ratio(merged: int, incoming: int, place: int) -> float:
    """How many times as large as `merged` the next older layer may be, to be merged with it.

    place: that of what is merged, counted from the newest, 1 …. Binomial merging (Bentley and
    Saxe's k-binomial transform): a layer in place i that was merged x times has C(x + i - 1, i)
    times the size of what comes in, and when the one in place i + 1 was merged no more often, both
    become one. Of all ways to keep at most k layers it writes least, whatever their sizes become;
    here x is told from the sizes, nearly.
    """
    units = merged / max(incoming, 1)
    times = math.pow(math.factorial(place) * units, 1 / place) - (place - 1) / 2
    return (times - 1) / (place + 1)
