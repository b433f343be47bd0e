"""`lsm-...`: the storage engine beside RocksDB that holds the same versions; docs/benchmarks.md."""

import random
import time
from statistics import median

from engine.layer_query import LayerQuery
from engine.page_store import PageStore
from engine.version_set import VersionSet
from formats.version import IMAGE_EXACT
from tools.bench.bench import Bench
from tools.bench.lsm_run import MEMORY_BYTES, LsmRun, lsm_runs, open_peer
from tools.bench.lsm_versions import Page, describe, pages_of
from tools.bench.row import Bar, Row

INGEST = "lsm-ingest-sustained"
WRITE = "lsm-write-amplification"
SPACE = "lsm-space"
READ = "lsm-read"
INGEST_BAR = Bar(4.0)
WRITE_BAR = Bar(0.5, is_most=True)
SPACE_BAR = Bar(0.7, is_most=True)
READ_BAR = Bar(2.0)
READ_ROUNDS = 5
READ_PAGES = 500
QUERY_PAGES = 32  # as pages are asked for by a pipelined client
Chain = list[tuple[int, bytes]]


def run_ingest(bench: Bench) -> list[Row]:
    rows = []
    for run in lsm_runs(bench):
        count = len(run.versions.keys)
        for style, pairs in run.pairs.items():
            rates = [(count / ours.seconds, count / peer.seconds) for ours, peer in pairs]
            cpu = [1e6 * median(side.cpu_seconds for side in sides) / count
                   for sides in zip(*pairs, strict=True)]  # fmt: skip
            note = f"{count:,} versions; CPU a version: {cpu[0]:.2f} µs, RocksDB {cpu[1]:.2f} µs"
            rows.append(_row(INGEST, run, style, "versions/s", rates, INGEST_BAR, note))
    return rows


def run_write_amplification(bench: Bench) -> list[Row]:
    rows = []
    for run in lsm_runs(bench):
        payload = run.versions.payload_bytes
        parts = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in run.written.items())
        note = f"{payload / 1e6:.0f} MB of versions; MB written: {parts}"
        for style, pairs in run.pairs.items():
            shares = [(ours.bytes_written / payload, peer.bytes_written / payload)
                      for ours, peer in pairs]  # fmt: skip
            rows.append(_row(WRITE, run, style, "bytes/byte", shares, WRITE_BAR, note))
    return rows


def run_space(bench: Bench) -> list[Row]:
    rows = []
    for run in lsm_runs(bench):
        payload = run.versions.payload_bytes
        for style, pairs in run.pairs.items():
            sizes = [(ours.bytes_on_disk / 1e6, peer.bytes_on_disk / 1e6) for ours, peer in pairs]
            note = f"of {payload / 1e6:.0f} MB of versions"
            rows.append(_row(SPACE, run, style, "MB", sizes, SPACE_BAR, note))
    return rows


def run_read(bench: Bench) -> list[Row]:
    rows = []
    for run in lsm_runs(bench):
        pages = random.Random(1).sample(pages_of(run.versions), READ_PAGES)
        _check(run, pages)
        rows += [_read_row(bench, run, style, pages) for style in run.peers]
    return rows


def _read_row(bench: Bench, run: LsmRun, style: str, pages: list[Page]) -> Row:
    with bench.step(f"{READ}, {run.wal.name}, beside {style}"):
        pairs = bench.in_turns(
            READ_ROUNDS,
            lambda: READ_PAGES / _seconds_of_ours(run, pages),
            lambda: READ_PAGES / _seconds_of_peer(run, style, pages),
        )
    return _row(READ, run, style, "pages/s", pairs, READ_BAR)


def _row(
    name: str,
    run: LsmRun,
    style: str,
    unit: str,
    pairs: list[tuple[float, float]],
    bar: Bar,
    *notes: str,
) -> Row:
    variant = f"{run.wal.name}, {style}"
    return Row.of_pairs(name, variant, unit, f"RocksDB, {style}", pairs, bar, notes)


def _seconds_of_ours(run: LsmRun, pages: list[Page]) -> float:
    """Versions of each page, gathered as for redo, by a store that has just been opened."""
    store = PageStore(run.ours, MEMORY_BYTES)
    layers, lsn = store.versions.layers, run.wal.end_lsn
    query, versions = LayerQuery(QUERY_PAGES), VersionSet()
    began = time.perf_counter()
    for start in range(0, len(pages), QUERY_PAGES):
        versions.reset()
        query.begin(versions)
        for chunk, block in pages[start : start + QUERY_PAGES]:
            query.add(chunk, block, 0, lsn, 0)
        layers.collect_batch(query)
    seconds = time.perf_counter() - began
    store.close()
    return seconds


def _seconds_of_peer(run: LsmRun, style: str, pages: list[Page]) -> float:
    peer = open_peer(run.peers[style], style)
    began = time.perf_counter()
    peer.chains(pages, run.wal.end_lsn)
    seconds = time.perf_counter() - began
    peer.close()
    return seconds


def _check(run: LsmRun, pages: list[Page]) -> None:
    """Both hold the same versions of the pages, but for what `_agree` allows."""
    style, directory = next(iter(run.peers.items()))
    peer = open_peer(directory, style)
    expected = peer.chains(pages, run.wal.end_lsn)
    peer.close()
    store = PageStore(run.ours, MEMORY_BYTES)
    for (chunk, block), theirs in zip(pages, expected, strict=True):
        if not _agree(_chain(store, chunk, block, run.wal.end_lsn), theirs):
            raise ValueError(f"block {block} of {describe(chunk)} differs from RocksDB's")
    store.close()


def _agree(ours: Chain, theirs: Chain) -> bool:
    """Whether two chains are the same down to the first image that was made, not received.

    Compaction makes images of a stripe at one LSN for all its pages; and where a page that gets
    hot has its image depends on when memtables were frozen.
    """
    for (our_lsn, our_value), (their_lsn, their_value) in zip(ours, theirs, strict=False):
        if IMAGE_EXACT in (our_value[0], their_value[0]):
            return our_lsn >= their_lsn
        if (our_lsn, our_value) != (their_lsn, their_value):
            return False
    return len(ours) == len(theirs)


def _chain(store: PageStore, chunk: bytes, block: int, lsn: int) -> Chain:
    """As `RocksDb.chains` has it."""
    versions = VersionSet()
    store.versions.layers.collect(chunk, block, lsn, 0, versions)
    chain, number = [], versions.oldest
    while number:
        chain.append((versions.lsn[number], versions.payload(number)))
        number = versions.newer[number]
    return chain[::-1]
