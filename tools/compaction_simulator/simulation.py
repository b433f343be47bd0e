"""One strategy under one load: the compactor's steps beside the flushes, on a clock of its own.

The compactor does one thing at a time, at so many bytes written a second: L0 first, then images,
then files that are less than half live. A merge runs to its end; images and rewriting are let lie
when L0 calls. What a step does is decided at its start and counts from its end: so the moment just
before is the worst to read in, and is always among those that are looked at.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.compaction_simulator.measured import Measured
from tools.compaction_simulator.plane import START, File, Layer, Plane, Stripe
from tools.compaction_simulator.strategy import Strategy
from tools.compaction_simulator.workload import DAY, Flush, Workload

COMPACTOR_BYTES_PER_SECOND = 50 << 20
RETENTION_DAYS = 7.0
IMAGE_STEP_BYTES = 8 << 20
"""Stripes smaller than this are materialised several at a time, into one file."""

SAMPLES = 400  # moments that are looked at
READS_PER_SAMPLE = 24
COLLECTIONS = 400


@dataclass(frozen=True)
class L0:
    """A flushed bundle."""

    lsn: int
    stored: int
    stripes: dict[int, tuple[int, int]]


@dataclass
class Merge:
    """L0 bundles to L1: for each stripe how many of its layers go along, and what comes."""

    bundles: list[L0]
    parts: list[tuple[Stripe, int, int, int]]
    """Stripe, layers, incoming bytes, incoming versions."""
    bytes_left: float


@dataclass
class Slow:
    """Work that waits when L0 calls: images of stripes, or the copy of a file's live layers."""

    bytes_left: float
    stripes: list[Stripe] = field(default_factory=list)
    lsn: int | None = None
    file: File | None = None


class Simulation:
    def __init__(self, workload: Workload, strategy: Strategy, seed: int = 1) -> None:
        self.workload = workload
        self.strategy = strategy
        self.plane = Plane(strategy.file_bytes // workload.stands_for)
        self.measured = Measured()
        self.l0: list[L0] = []
        self._rate = COMPACTOR_BYTES_PER_SECOND / workload.stands_for
        self._now = 0.0
        self._idle_since = 0.0
        self._merge: Merge | None = None
        self._slow: Slow | None = None
        self._due: dict[int, None] = {}
        self._lsn = 0
        self._history: list[tuple[float, int]] = []
        """Of each flush: when, and its bytes."""
        self._horizon = START
        self._bottom_bytes = 0
        self._random = random.Random(seed)
        self._seed = seed
        self._numbers: list[int] = []
        self._blocks = 0
        for number in range(workload.stripes):
            stripe = self._stripe(number)
            image = Layer(workload.image_bytes, 0, START, START + 1)
            self.plane.write([(image, True)], "image")
            self.plane.place_image(stripe, image)
        self.plane.written["image"] = 0

    def run(self) -> Measured:
        flushes = list(self.workload.load(self._seed))
        every = max(1, len(flushes) // SAMPLES)
        quarter = -(-len(flushes) // 4)
        measured = self.measured
        for number, flush in enumerate(flushes):
            if number % every == every // 2:
                before = self._random.random() * flush.seconds
                self._wait(before)
                self._look(self.measured.layers)
                self._wait(flush.seconds - before)
            else:
                self._wait(flush.seconds)
            self._take(flush)
            if number % max(1, len(flushes) // COLLECTIONS) == 0:
                self._collect()
            if (number + 1) % quarter == 0 or number + 1 == len(flushes):
                measured.flushed_by_quarter.append(measured.flushed)
                measured.written_by_quarter.append(sum(self.plane.written.values()))
        measured.written = dict(self.plane.written)
        return measured

    # The flush ------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> None:
        """Until the next flush: longer where the policy holds ingest back."""
        if self.strategy.policy.is_behind(len(self.l0)):
            self.measured.seconds_slowed += seconds
            seconds *= 2
        self._work(self._now + seconds)
        while self.strategy.policy.must_wait(len(self.l0)):
            self.measured.seconds_slowed += seconds
            self._work(self._now + seconds)

    def _take(self, flush: Flush) -> None:
        stored = sum(size for size, _ in flush.stripes.values())
        self.l0.append(L0(self._lsn, stored, dict(flush.stripes)))
        for number, blocks in flush.blocks.items():
            stripe = self._stripe(number)
            self._blocks += blocks - stripe.n_blocks
            stripe.n_blocks = blocks
        self.plane.bytes_stored += stored
        self.measured.flushed += stored
        self._history.append((self._now, stored))
        self._lsn += 1

    def _stripe(self, number: int) -> Stripe:
        if number not in self.plane.stripes:
            blocks = self.workload.n_blocks if number < self.workload.stripes else 0
            self.plane.stripes[number] = Stripe(number, blocks)
            self._numbers.append(number)
            self._blocks += blocks
        return self.plane.stripes[number]

    def _image_bytes(self, stripe: Stripe) -> int:
        return stripe.n_blocks * self.workload.image_bytes_per_block

    # The compactor --------------------------------------------------------------------------------

    def _work(self, until: float) -> None:
        """Do what is due, up to a time."""
        while self._now < until:
            if self._merge is None:
                self._merge = self._plan_merge()
            if self._merge is None and self._slow is None:
                self._slow = self._plan_image() or self._plan_rewrite()
            job = self._merge or self._slow
            if job is None:
                self._now = self._idle_since = until
                return
            seconds = min(job.bytes_left / self._rate, until - self._now)
            self._now += seconds
            job.bytes_left -= seconds * self._rate
            self.measured.busy_seconds_max = max(
                self.measured.busy_seconds_max, self._now - self._idle_since
            )
            if job.bytes_left > 0.5:
                return
            if self._merge:
                self._finish_merge(self._merge)
                self._merge = None
            elif self._slow:
                self._finish_slow(self._slow)
                self._slow = None

    def _plan_merge(self) -> Merge | None:
        scale = self.workload.stands_for
        count = self.strategy.l0_to_merge([bundle.stored * scale for bundle in self.l0])
        if not count:
            return None
        bundles = self.l0[:count]
        incoming: dict[int, tuple[int, int]] = {}
        for bundle in bundles:
            for number, (size, versions) in bundle.stripes.items():
                before = incoming.get(number, (0, 0))
                incoming[number] = before[0] + size, before[1] + versions
        parts, total = [], 0
        for number in sorted(incoming):
            stripe = self._stripe(number)
            size, versions = incoming[number]
            sizes = stripe.newest_first
            layers = self.strategy.layers_to_merge(sizes, size)
            parts.append((stripe, layers, size, versions))
            total += size + sum(sizes[:layers])
        return Merge(bundles, parts, total)

    def _finish_merge(self, merge: Merge) -> None:
        if self._random.random() < SAMPLES / max(self.workload.flushes / 4, SAMPLES):
            self._look(self.measured.worst)
        lsn_start, lsn_end = merge.bundles[0].lsn, merge.bundles[-1].lsn + 1
        merged = []
        for stripe, layers, size, versions in merge.parts:
            old = stripe.debt[len(stripe.debt) - layers :]
            layer = Layer(
                size + sum(each.stored for each in old),
                versions + sum(each.versions for each in old),
                old[0].lsn_start if old else lsn_start,
                lsn_end,
            )
            merged.append((stripe, layers, layer))
        if self.strategy.spans_stripes:
            merged = list(self._spanned(merged, lsn_start, lsn_end))
        own = self.strategy.wants_own_file
        self.plane.write(((layer, own(layer.stored)) for _, _, layer in merged), "merge")
        for stripe, layers, layer in merged:
            self.plane.replace(stripe, layers, layer)
            if self.strategy.needs_image(stripe):
                self._due[stripe.number] = None
        del self.l0[: len(merge.bundles)]
        self.plane.bytes_stored -= sum(bundle.stored for bundle in merge.bundles)

    def _spanned(
        self, merged: list[tuple[Stripe, int, Layer]], lsn_start: int, lsn_end: int
    ) -> Iterator[tuple[Stripe, int, Layer]]:
        """With an empty layer for each stripe between: a layer of ranges does not know of gaps."""
        parts = {stripe.number: (stripe, layers, layer) for stripe, layers, layer in merged}
        for number in range(min(parts), max(parts) + 1):
            empty = Layer(0, 0, lsn_start, lsn_end)
            yield parts.get(number) or (self._stripe(number), 0, empty)

    def _plan_image(self) -> Slow | None:
        stripes: list[Stripe] = []
        total = 0
        while self._due and (not stripes or total * self.workload.stands_for < IMAGE_STEP_BYTES):
            number = next(iter(self._due))
            del self._due[number]
            stripe = self.plane.stripes[number]
            if not self.strategy.needs_image(stripe):
                continue
            stripes.append(stripe)
            total += self._image_bytes(stripe)
        return Slow(total, stripes) if stripes else None

    def _plan_rewrite(self) -> Slow | None:
        for file in self.plane.dying:
            if self.strategy.is_worth_rewriting(file.bytes_live, file.bytes_total):
                return Slow(file.bytes_live, file=file)
        return None

    def _finish_slow(self, slow: Slow) -> None:
        if slow.file is not None:
            self.plane.rewrite(slow.file)
        images = []
        for stripe in slow.stripes:
            lsn = slow.lsn if slow.lsn is not None else stripe.debt[-1].lsn_end - 1
            images.append((stripe, Layer(self._image_bytes(stripe), 0, lsn, lsn + 1)))
        own = self.strategy.wants_own_file
        self.plane.write(((image, own(image.stored)) for _, image in images), "image")
        for stripe, image in images:
            self.plane.place_image(stripe, image)

    # Retention ------------------------------------------------------------------------------------

    def _collect(self) -> None:
        oldest = self._now - RETENTION_DAYS * DAY
        while self._history[self._horizon + 1][0] < oldest:
            self._horizon += 1
            self._bottom_bytes += self._history[self._horizon][1]
        self.plane.collect(self._horizon)
        least = self.strategy.bottom_bytes_min
        if not least or self._slow is not None:
            return
        stripes = list(self.plane.stripes.values())
        images = sum(self._image_bytes(stripe) for stripe in stripes)
        below = self._bottom_bytes * self.workload.stands_for
        if below >= max(least, images * self.workload.stands_for):
            self._slow = Slow(images, stripes, self._horizon)
            self._bottom_bytes = 0

    # Looking --------------------------------------------------------------------------------------

    def _look(self, seen: list[int]) -> None:
        """Sample reads: half of them of stripes that were just written, half at older LSNs."""
        if not self._lsn:
            return
        warm = list(self.l0[-1].stripes) if self.l0 else self._numbers
        newest = self._lsn - 1
        for read in range(READS_PER_SAMPLE):
            number = self._random.choice(warm if read % 2 else self._numbers)
            is_old = read % 4 > 1
            lsn = self._random.randint(max(0, self._horizon), newest) if is_old else newest
            bundles = sum(number in bundle.stripes and bundle.lsn <= lsn for bundle in self.l0)
            seen.append(bundles + self.plane.stripes[number].layers_at(lsn))
        self.measured.l0_counts.append(len(self.l0))
        retained = sum(size for _, size in self._history[self._horizon + 1 :])
        ideal = self._blocks * self.workload.image_bytes_per_block + retained
        self.measured.space.append(self.plane.bytes_stored / ideal)
