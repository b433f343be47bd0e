"""`cold-getpage`: what a page costs of the disk when no cache has anything of it.

Pages of main forks at random, at LSNs all over the WAL, out of a settled store without a frame
cache and without a page cache. All reads of files are counted, those that open a bundle too; what
LMDB maps is not a read.
"""

import shutil
from pathlib import Path
from statistics import mean, quantiles

from engine.page_store import PageStore
from formats.chunk import Fork
from tools.bench.bench import MEMORY_BYTES_MAX, Bench
from tools.bench.counting_storage import CountingStorage
from tools.bench.generated_wal import GeneratedWal
from tools.bench.page_batches import random_pages
from tools.bench.row import Bar, Row
from tools.bench.settled_store import load_settled

NAME = "cold-getpage"
PAGES = 4000
READS_MAX = 5
BYTES_MAX = 256 << 10
BAR = Bar(1.0, is_most=True)


def run(bench: Bench) -> list[Row]:
    return [row for wal in bench.wals for row in _run(bench, wal)]


def _run(bench: Bench, wal: GeneratedWal) -> list[Row]:
    directory = bench.workspace.copy(wal.page_store, "cold")
    with bench.step(f"{NAME}, {wal.name}"):
        load_settled(directory, wal.end_lsn, MEMORY_BYTES_MAX)
        reads, sizes = _read(directory, wal)
    shutil.rmtree(directory)
    return [
        _row(f"{wal.name}, reads", "reads/page", reads, READS_MAX, 1),
        _row(f"{wal.name}, bytes", "KiB/page", sizes, BYTES_MAX, 1024),
    ]


def _read(directory: Path, wal: GeneratedWal) -> tuple[list[int], list[int]]:
    """Reads and bytes of each page."""
    storage = CountingStorage()
    store = PageStore(directory, MEMORY_BYTES_MAX, storage)
    store.frames.bytes_max = 0
    reads, sizes = [], []
    for spc, db, rel, block, lsn in random_pages(store, wal, PAGES):
        before = storage.reads, storage.bytes_read
        store.versions.read_relation(spc, db, rel, Fork.MAIN, block, 1, lsn)
        reads.append(storage.reads - before[0])
        sizes.append(storage.bytes_read - before[1])
    store.close()
    return reads, sizes


def _row(variant: str, unit: str, values: list[int], most: int, scale: int) -> Row:
    found = quantiles(values, n=100)
    note = (
        f"{len(values)} pages: mean {mean(values) / scale:.2f}, median {found[49] / scale:.3g}, "
        f"p99 {found[98] / scale:.3g}, most {max(values) / scale:.3g}"
    )
    return Row(NAME, variant, found[98] / scale, f"{unit}, p99", "what is allowed", most / scale,
               found[98] / most, BAR, (note,))  # fmt: skip
