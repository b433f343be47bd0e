"""`redo-lsn-order`: WAL files to current pages, beside PostgreSQL's recovery of the same WAL.

Ours begins with a base backup in image layers, and reads, decodes, checks, ingests and redoes the
WAL into pages in memory: once with one thread, and once with two beside that. PostgreSQL's begins
with a base backup, and shared buffers have room for all pages. Neither makes anything durable.
"""

import gc
import shutil
import time
from statistics import median

from engine import recovery
from engine.page_store import PageStore
from engine.wal_reader import WalReader
from formats.chunk import BLOCK_BYTES
from formats.errors import CorruptionError
from tools.bench.bench import MIB, Bench
from tools.bench.generated_wal import MEMORY_BYTES, GeneratedWal
from tools.bench.ingest_durable import SHARED_BUFFERS, recovery_seconds
from tools.bench.redo_run import RedoRun
from tools.bench.row import Bar, Row

NAME = "redo-lsn-order"
ROUNDS = 5
BAR = Bar(1.5)
THREADS_BAR = Bar(1.8)


def run(bench: Bench) -> list[Row]:
    return [row for wal in bench.wals for row in _run(bench, wal)]


def _run(bench: Bench, wal: GeneratedWal) -> list[Row]:
    versions: list[int] = []
    size = f"{wal.size_bytes / MIB:.0f} MiB"

    def rate(seconds: float) -> float:
        return wal.size_bytes / MIB / seconds

    def ours(thread_count: int = 1) -> float:
        seconds, applied = _redo(bench, wal, thread_count)
        versions.append(applied)
        return rate(seconds)

    with bench.step(f"redo in LSN order, and recovery, of {size} with {wal.name}"):
        beside_recovery = bench.in_turns(ROUNDS, ours, lambda: rate(recovery_seconds(bench, wal)))
    with bench.step(f"redo in LSN order by two threads and by one of {size} with {wal.name}"):
        beside_one = bench.in_turns(ROUNDS, lambda: ours(2), ours)
    seconds = median(wal.size_bytes / MIB / mine for mine, _ in beside_recovery)
    note = (
        f"{versions[0]:,} versions of pages, {seconds / versions[0] * 1e9:.0f} ns each with all "
        f"that comes before{'' if len(set(versions)) == 1 else '; NOT THE SAME each time'}"
    )
    peer = f"recovery, shared_buffers = {SHARED_BUFFERS}"
    unit = "MB/s of WAL"
    return [
        Row.of_pairs(NAME, wal.name, unit, peer, beside_recovery, BAR, [note]),
        Row.of_pairs(NAME, f"{wal.name}, two threads", unit, "one thread", beside_one, THREADS_BAR),
    ]


def _redo(bench: Bench, wal: GeneratedWal, thread_count: int) -> tuple[float, int]:
    """Seconds, and how many versions of pages were applied."""
    gc.collect()  # the pages of the last run
    directory = bench.workspace.copy(wal.page_store, "redo")
    store = PageStore(directory, MEMORY_BYTES)
    start = store.ready_lsn

    def base(chunk: int, block: int) -> bytes:
        page = bytearray(BLOCK_BYTES)
        failed = store.versions.read_blocks([(chunk, block, start)], memoryview(page), BLOCK_BYTES)
        if failed:
            raise CorruptionError("page", f"block {block}", "in the base backup", failed[0])
        return bytes(page)

    try:
        major = store.versions.major
        files = recovery.cluster_files(store.versions, start)
        began = time.perf_counter()
        redo = RedoRun(store.table, major, files, base, thread_count, store.versions.backup_end_lsn)
        redo.run(WalReader(start, wal.segment_bytes, version=major), wal.segments)
        return time.perf_counter() - began, redo.applied
    finally:
        store.close()
        shutil.rmtree(directory)
