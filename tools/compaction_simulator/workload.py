"""Loads, as what each flush brings to which stripe: seeded, months long, without pages.

To simulate 80,000 stripes that all fare alike would say the same again and again: a workload has
`stripes` of them, each of which stands for `stands_for`, and the simulator divides by that what
belongs to the whole server (the size of a flush, the compactor's bytes per second). What a policy
sees of a stripe is of full size. Bytes are stored ones, after compression.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
STRIPE_BLOCKS = 16384
IMAGE_BYTES_PER_BLOCK = 2730
"""Of a page in an image layer, where nothing else is said: compressed to a third."""
DAY = 86_400
PATTERNS = 256
"""How many different flushes a load has; they come in random order."""


@dataclass(frozen=True)
class Flush:
    """What a flush brings: stripe → (bytes, versions), and seconds since the one before."""

    seconds: float
    stripes: Mapping[int, tuple[int, int]]
    blocks: Mapping[int, int]
    """Stripes that were extended: blocks written so far."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Updates all over a database that a base backup brought."""

    name: str
    says: str
    stripes: int
    stands_for: int
    days: float
    bytes_per_second: float
    version_bytes: int
    flush_bytes: int = 64 * MIB
    n_blocks: int = STRIPE_BLOCKS
    image_bytes_per_block: int = IMAGE_BYTES_PER_BLOCK
    zipf: float = 0.0
    """Exponent: the stripe of rank r is written 1 / r ** zipf times as often as the first."""

    @property
    def flushes(self) -> int:
        return int(self.days * DAY * self.bytes_per_second / self.flush_bytes)

    @property
    def image_bytes(self) -> int:
        """Of a whole stripe."""
        return self.n_blocks * self.image_bytes_per_block

    @property
    def database_bytes(self) -> int:
        return self.stripes * self.stands_for * self.n_blocks * 8192

    def load(self, seed: int) -> Iterator[Flush]:
        generator = random.Random(seed)
        order = list(range(self.stripes))
        generator.shuffle(order)
        weights = [1 / (rank + 1) ** self.zipf for rank in range(self.stripes)]
        versions = self.flush_bytes / self.stands_for / self.version_bytes / sum(weights)
        means = [(stripe, versions * weight) for stripe, weight in zip(order, weights, strict=True)]
        seconds = self.flush_bytes / self.bytes_per_second
        patterns = [self._updates(generator, means) for _ in range(PATTERNS)]
        for _ in range(self.flushes):
            yield Flush(seconds, generator.choice(patterns), {})

    def _updates(
        self, generator: random.Random, means: list[tuple[int, float]]
    ) -> dict[int, tuple[int, int]]:
        counts = ((stripe, poisson(generator, mean)) for stripe, mean in means)
        return {stripe: (n * self.version_bytes, n) for stripe, n in counts if n}


@dataclass(frozen=True, kw_only=True)
class Appends(Workload):
    """Tables that only grow, then `quiet_days` of updates all over what has come."""

    stripes: int = 0
    """At the start: none."""
    versions_per_block: int = 60
    quiet_days: float = 0.0
    quiet_bytes_per_second: float = 1.0

    @property
    def database_bytes(self) -> int:
        """At the end."""
        loaded = self.flushes * self.flush_bytes
        return loaded // (self.versions_per_block * self.version_bytes) * 8192

    def load(self, seed: int) -> Iterator[Flush]:
        block_bytes = self.versions_per_block * self.version_bytes
        blocks = self.flush_bytes // self.stands_for // block_bytes
        seconds = self.flush_bytes / self.bytes_per_second
        end = 0
        for _ in range(self.flushes):
            stripes, written = {}, {}
            for stripe, first, last in pieces(end, end + blocks):
                count = (last - first) * self.versions_per_block
                stripes[stripe] = (count * self.version_bytes, count)
                written[stripe] = last
            end += blocks
            yield Flush(seconds, stripes, written)
        if self.quiet_days:
            yield from self._quiet(seed, end // STRIPE_BLOCKS)

    def _quiet(self, seed: int, stripes: int) -> Iterator[Flush]:
        generator = random.Random(seed)
        seconds = self.flush_bytes / self.quiet_bytes_per_second
        mean = self.flush_bytes / self.stands_for / self.version_bytes / max(stripes, 1)
        means = [(stripe, mean) for stripe in range(stripes)]
        patterns = [self._updates(generator, means) for _ in range(PATTERNS)]
        for _ in range(int(self.quiet_days * DAY / seconds)):
            yield Flush(seconds, generator.choice(patterns), {})


def pieces(start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """A range of blocks by stripe: stripe, first block in it, and the block behind its last."""
    while start < end:
        stripe, first = divmod(start, STRIPE_BLOCKS)
        last = min(STRIPE_BLOCKS, first + end - start)
        yield stripe, first, last
        start += last - first


def poisson(generator: random.Random, mean: float) -> int:
    """How often something happens that happens `mean` times on average."""
    if mean > 50:
        return max(0, round(generator.gauss(mean, math.sqrt(mean))))
    product, limit = 1.0, math.exp(-mean)
    for count in itertools.count():
        product *= generator.random()
        if product < limit:
            return count
    raise AssertionError


UNIFORM = Workload(
    name="uniform", says="100 GB, updated all over",
    stripes=32, stands_for=25, days=60, bytes_per_second=0.5 * MIB, version_bytes=100,
)  # fmt: skip

TINY_TABLES = Workload(
    name="tiny-tables", says="100,000 tables of 64 KiB, updated all over",
    stripes=100, stands_for=1000, days=60, bytes_per_second=0.1 * MIB, version_bytes=60,
    n_blocks=8,
)  # fmt: skip

WORKLOADS = (
    UNIFORM,
    Workload(
        name="zipf", says="100 GB, few stripes get most of the updates",
        stripes=64, stands_for=12, days=60, bytes_per_second=0.25 * MIB, version_bytes=100,
        zipf=1.0,
    ),
    Appends(
        name="append-only", says="rows are inserted, nothing else",
        stands_for=1, days=60, bytes_per_second=0.5 * MIB, version_bytes=40,
    ),
    Appends(
        name="bulk-load", says="500 GB loaded in five hours, then a month of updates all over it",
        stands_for=20, days=0.2, bytes_per_second=10 * MIB, version_bytes=300, versions_per_block=8,
        quiet_days=30, quiet_bytes_per_second=0.25 * MIB,
    ),
    TINY_TABLES,
    Workload(
        name="sparse-10TB", says="10 TB, updated all over, full-page images for the most part",
        stripes=200, stands_for=400, days=120, bytes_per_second=0.75 * MIB, version_bytes=2000,
        flush_bytes=256 * MIB,
    ),
)  # fmt: skip

GROWTH = tuple(
    Workload(
        name=f"uniform {name}", says="the same load over more and more",
        stripes=stripes, stands_for=stands_for, days=days, bytes_per_second=1 * MIB,
        version_bytes=100,
    )
    for name, stripes, stands_for, days in (
        ("10 GB", 16, 5, 10), ("100 GB", 32, 25, 10), ("1 TB", 64, 125, 20)
    )
)  # fmt: skip
