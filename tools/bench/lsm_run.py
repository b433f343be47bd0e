"""One WAL into the storage engine and into RocksDB, both until nothing is left to flush or merge.

What the rows `lsm-ingest-sustained`, `lsm-write-amplification`, `lsm-space` and `lsm-read` are made
of, run once for all of them. Both sides have the same memory.
"""

import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from engine.page_store import PageStore
from tools.bench.bench import MIB, Bench
from tools.bench.counting_storage import CountingStorage, bytes_on_disk, bytes_written_so_far
from tools.bench.generated_wal import GeneratedWal
from tools.bench.lsm_versions import ingest_all, versions_in
from tools.bench.rocksdb_peer import STYLES, RocksDb, Versions
from tools.bench.settled_store import load_settled

MEMORY_BYTES = 256 * MIB
MEMTABLES_SHARE = 2  # three memtables of a ninth each, and their columns
CACHE_SHARE = 8  # the frame cache's
ROUNDS = 3


class Loaded(NamedTuple):
    """What one side did with all versions."""

    seconds: float
    cpu_seconds: float
    bytes_written: int
    bytes_on_disk: int


class LsmRun(NamedTuple):
    """Pairs (ours, RocksDB's) by style of compaction; the directories are what they left."""

    wal: GeneratedWal
    versions: Versions
    pairs: dict[str, list[tuple[Loaded, Loaded]]]
    ours: Path
    peers: dict[str, Path]
    written: dict[str, int]


@cache
def lsm_runs(bench: Bench) -> list[LsmRun]:
    return [_run(bench, wal) for wal in bench.wals]


def _run(bench: Bench, wal: GeneratedWal) -> LsmRun:
    with bench.step(f"the versions of {wal.size_bytes / MIB:.0f} MiB of WAL with {wal.name}"):
        versions = _export(bench, wal)
    ours = bench.workspace.new_path("lsm-ours")
    peers = {style: bench.workspace.new_path(f"lsm-{style}") for style in STYLES}
    pairs: dict[str, list[tuple[Loaded, Loaded]]] = {}
    written: dict[str, int] = {}
    for style, directory in peers.items():
        with bench.step(f"{len(versions.keys):,} versions, beside RocksDB, {style}"):
            pairs[style] = bench.in_turns(
                ROUNDS,
                lambda: _load_ours(wal, ours, written),
                _loader(versions, directory, style),
            )
    return LsmRun(wal, versions, pairs, ours, peers, written)


def _export(bench: Bench, wal: GeneratedWal) -> Versions:
    directory = bench.workspace.copy(wal.page_store, "lsm-export")
    store = PageStore(directory, MEMORY_BYTES)
    ingest_all(store, wal.end_lsn)
    store.close()
    versions = versions_in(directory)
    shutil.rmtree(directory)
    return versions


def _load_ours(wal: GeneratedWal, directory: Path, written: dict[str, int]) -> Loaded:
    """From the first record of the WAL in the journal until nothing is left to do."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(wal.page_store, directory)
    before = layer_bytes(directory)
    storage = CountingStorage()
    os.sync()  # what the copy left must not be written at our cost
    bytes_before = bytes_written_so_far()
    seconds, cpu = load_settled(directory, wal.end_lsn, MEMORY_BYTES, storage)
    wrote = bytes_written_so_far() - bytes_before
    written.clear()
    written.update(storage.written, index=wrote - sum(storage.written.values()))
    return Loaded(seconds, cpu, wrote, layer_bytes(directory) - before)


def layer_bytes(directory: Path) -> int:
    """Of the layers and the index."""
    return bytes_on_disk(directory / "layers") + bytes_on_disk(directory / "index")


def _loader(versions: Versions, directory: Path, style: str) -> Callable[[], Loaded]:
    return lambda: _load_peer(versions, directory, style)


def _load_peer(versions: Versions, directory: Path, style: str) -> Loaded:
    shutil.rmtree(directory, ignore_errors=True)
    os.sync()
    peer = open_peer(directory, style)
    began, cpu_began = time.perf_counter(), time.process_time()
    peer.load(versions)
    peer.settle()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    loaded = Loaded(seconds, cpu, peer.bytes_written(), peer.bytes_on_disk())
    peer.close()
    return loaded


def open_peer(directory: Path, style: str) -> RocksDb:
    """With the memory that the storage engine has for the same."""
    return RocksDb(directory, style, MEMORY_BYTES // MEMTABLES_SHARE, MEMORY_BYTES // CACHE_SHARE)
