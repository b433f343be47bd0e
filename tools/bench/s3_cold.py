"""`s3-cold-batch`: how often one waits for a bucket that answers after 30 ms, for pages of which
nothing is here: one page at the newest LSN, 32 pages at any LSN in one batch, and 1,000 blocks of a
table one after the other.

The layers of pgbench's WAL, from many small memtables, are on a real S3 server; each request to it
waits LATENCY_SECONDS first. The bundles are open, as after the first reads of each. The unit is a
wait: seconds over that latency, so what the processor does counts, too.

The peer of a batch is what it needs, all of it known beforehand: the requests of the same reads
without foresight (each frame when its turn has come), PARALLEL_REQUESTS at a time. A bar of 2
leaves as much again for what cannot be foreseen (the size of a relation at an older LSN, a chain
that goes on in the frame before), for layers that a page does not reach, and for the processor. The
peer of the scan are plain pages in blocks of 64 KiB.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from engine.block_cache import BLOCK_BYTES
from engine.lazy_storage import LazyStorage
from engine.manifest_log import ManifestLog
from engine.page_store import PageStore
from engine.storage import Storage
from formats.bucket import LayerObject
from formats.manifest_record import FileUploaded
from server.backup.bucket_files import PARALLEL_REQUESTS, BucketFiles
from server.backup.s3_store import S3Store
from tools.bench.bench import MIB, Bench
from tools.bench.generated_wal import GeneratedWal
from tools.bench.page_batches import PAGE_BYTES, Page, random_pages, read_together
from tools.bench.row import Bar, Row
from tools.bench.settled_store import load_settled
from tools.s3_server import S3Server

NAME = "s3-cold-batch"
LATENCY_SECONDS = 0.03
MEMORY_BYTES = 64 * MIB
CACHE_BYTES = 1 << 30
BATCH_PAGES = 32
SINGLE_PAGES = 10
ROUNDS = 4
SCAN_BLOCKS = 1000
BAR = Bar(2.0, is_most=True)
SCAN_BAR = Bar(1.0, is_most=True)
EPOCH = 1


class LateStore(S3Store):
    """Each GET waits first."""

    late_seconds = 0.0

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        time.sleep(self.late_seconds)
        return super().get(name, start, length)


class Cost(NamedTuple):
    """Of reads: waits of LATENCY_SECONDS, requests, bytes that came."""

    waits: float
    requests: int
    size: int


def run(bench: Bench) -> list[Row]:
    wal = bench.wals[0]
    directory = bench.workspace.copy(wal.page_store, "cold-batch")
    with bench.step(f"{NAME}: layers of {wal.name}, onto an S3 server"):
        load_settled(directory, wal.end_lsn, MEMORY_BYTES)
        server = bench.resources.enter_context(S3Server(bench.workspace.path))
        os.environ.update(server.environment)
        url = f"s3://{server.new_bucket('bench')}/cold"
        store = LateStore(url, server.endpoint, parallelism=PARALLEL_REQUESTS)
        _move_away(directory, store)
    cold = Cold(directory, store, wal)
    with bench.step(f"{NAME}: cold pages, {1000 * LATENCY_SECONDS:g} ms a request"):
        rounds = bench.rounds(ROUNDS)
        return [
            cold.row("a page", 1, bench.rounds(SINGLE_PAGES)),
            cold.row(f"{BATCH_PAGES} pages", BATCH_PAGES, rounds),
            cold.scan(SCAN_BLOCKS // 10 if bench.quick else SCAN_BLOCKS),
        ]


def _move_away(directory: Path, store: S3Store) -> None:
    """All bundles of a closed directory are in the bucket, and there alone."""
    manifest = ManifestLog.open(Storage(), directory / "manifest")
    for name in manifest.state.files:
        path = directory / "layers" / name.text
        data = path.read_bytes()
        store.put_stream(LayerObject(EPOCH, name).text, iter([data]), len(data))
        path.unlink()
    manifest.append(*(FileUploaded(name.text, EPOCH) for name in manifest.state.files))
    manifest.close()


class Cold:
    """A directory whose bundles are in a bucket."""

    def __init__(self, directory: Path, store: LateStore, wal: GeneratedWal) -> None:
        self._directory = directory
        self._store = store
        self._wal = wal
        with self._opened() as (pages, _):
            self._pages = random_pages(pages, wal, BATCH_PAGES * ROUNDS)
            main = [found for found in pages.relations(wal.end_lsn) if found[3] == 0]
            self._largest = max(main, key=lambda found: found[4])

    @contextmanager
    def _opened(self) -> Iterator[tuple[PageStore, LazyStorage]]:
        """With nothing but the ends of bundles; these come without delay."""
        self._store.late_seconds = 0.0
        storage = LazyStorage(self._directory, BucketFiles(self._store), CACHE_BYTES)
        store = PageStore(self._directory, MEMORY_BYTES, storage)
        try:
            for name in store.layers.state.files:
                assert store.layers.map.reader(name).is_open
            for bundle in store.layers.map.l0:
                assert bundle.reader.table
            yield store, storage
        finally:
            self._store.late_seconds = 0.0
            store.close()

    def row(self, variant: str, count: int, rounds: int) -> Row:
        """`count` pages in one batch, once a round."""
        batches = [self._pages[count * n : count * (n + 1)] for n in range(rounds)]
        if count == 1:  # else half of them wait for the relation's size at that LSN first
            batches = [[(*page[:4], self._wal.end_lsn)] for (page,) in batches]
        ours = [self._cost([batch], is_lazy=True) for batch in batches]
        needed = [self._cost([batch], is_lazy=False) for batch in batches]
        pairs = [
            (one.waits, float(ceil(other.requests / PARALLEL_REQUESTS)))
            for one, other in zip(ours, needed, strict=True)
            if other.requests
        ]
        came, used = sum(one.size for one in ours), sum(one.size for one in needed)
        note = (
            f"{mean(one.requests for one in ours):.1f} requests and "
            f"{came / rounds / 1024:.0f} KiB a batch, {came / used:.2f} times what is used; one "
            f"after the other {mean(one.requests for one in needed):.1f} requests and as many waits"
        )
        peer = f"what is used, {PARALLEL_REQUESTS} requests at a time"
        return Row.of_pairs(NAME, variant, "waits", peer, pairs, BAR, [note])

    def scan(self, count: int) -> Row:
        """Blocks of the largest table, one request after the other."""
        spc, db, rel, _, blocks = self._largest
        count = min(count, blocks)
        asked = [[(spc, db, rel, block, self._wal.end_lsn)] for block in range(count)]
        ours = self._cost(asked, is_lazy=True)
        plain = count * PAGE_BYTES / BLOCK_BYTES
        note = f"{ours.requests} requests, {ours.size / 1024:.0f} KiB"
        return Row(NAME, f"a scan of {count} blocks", ours.waits, "waits", "plain pages",
                   plain, ours.waits / plain, SCAN_BAR, (note,))  # fmt: skip

    def _cost(self, batches: Sequence[Sequence[Page]], *, is_lazy: bool) -> Cost:
        """Of reading them; without foresight for its requests only, so without delay."""
        with self._opened() as (store, storage):
            storage.is_lazy = is_lazy
            self._store.late_seconds = LATENCY_SECONDS if is_lazy else 0.0
            before = storage.blocks.requests, storage.blocks.bytes_fetched
            began = time.perf_counter()
            for pages in batches:
                for page in read_together(store, pages):
                    if isinstance(page, str):
                        raise ValueError(page)
            waits = (time.perf_counter() - began) / LATENCY_SECONDS
            after = storage.blocks.requests, storage.blocks.bytes_fetched
        return Cost(waits, after[0] - before[0], after[1] - before[1])
