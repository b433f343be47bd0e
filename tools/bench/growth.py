"""`growth`: the same load at 1, 4 and 16 GB of history: does it cost more as the store grows?

A PostgreSQL makes WAL by bulk updates of a table, with full-page images; the page store takes it
segment by segment while the primary goes on, flushes and compacts. At each size the rate of the
next 512 MB is measured, all in layers and nothing left to compact, and how long a page takes that
no cache has. Pages are read as of any LSN in that portion: how many deltas a page has above its
image goes up and down all the time, and at one LSN alone it would be chance what is met. They are
read in turns from the store and from a copy of what it was at 1 GB. It takes minutes and 20 GB of
disk: a command of its own, not among the others.
"""

import random
import shutil
import time
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from engine.page_store import PageStore
from engine.retention import KEEP_ALL
from formats import lsn, wal_page
from formats.chunk import Fork
from server.background import Background
from tools.bench.attached import relation_of
from tools.bench.bench import MEMORY_BYTES_MAX, Bench
from tools.bench.generated_wal import SETTINGS, take_into
from tools.bench.row import Bar, Row
from tools.bench.settled_store import NEVER_SECONDS, settle, wait_until_durable
from tools.postgres import Server

NAME = "growth"
SIZES_GB = (1, 4, 16)
GB_BYTES = 1 << 30
QUICK_GB_BYTES = 64 << 20
LOADS_PER_GB = 2
ROWS = 150_000
ROUNDS, PAGES_PER_ROUND = 50, 40
RATE_BAR = Bar(0.8)
LATENCY_BAR = Bar(1.2, is_most=True)
_RECORD_BYTES = 64  # the last record's; what is behind it has not come


class Measured(NamedTuple):
    """Of one size of history."""

    directory: Path
    begin_lsn: int  # of the portion that was measured
    megabytes_per_second: float
    open_seconds: float


class History:
    """A primary, and a page store that takes its WAL in portions."""

    def __init__(self, primary: Server, directory: Path) -> None:
        identity = take_into(directory, primary, MEMORY_BYTES_MAX)
        self.primary = primary
        self.directory = directory
        self.begin_lsn = identity.start_lsn
        self.end_lsn = identity.start_lsn
        self._segment_bytes = identity.wal_segment_size
        self._timeline = identity.timeline
        self._updates = 0

    def make_wal(self, end_lsn: int) -> None:
        """Let the primary write until its WAL ends there or later."""
        while self.end_lsn < end_lsn:
            self._updates += 1
            self.primary.psql("checkpoint;")
            self.primary.psql(f"update growing set value = {self._updates};")
            self.primary.psql("vacuum growing;")
            self.primary.sql("select pg_logical_emit_message(false, 'bench', '', true)")
            ((text,),) = self.primary.sql("select pg_current_wal_flush_lsn()::text")
            self.end_lsn = lsn.parse(text)

    def take(self, store: PageStore) -> float:
        """Put what there is into the journal; seconds then, until all is in layers, compacted."""
        if store.journal.received_lsn == 0:  # nothing was received yet
            number = lsn.segment_number(self.begin_lsn, self._segment_bytes)
            store.journal.begin(lsn.segment_start(number, self._segment_bytes), self._timeline)
        while store.journal.received_lsn < self.end_lsn:
            start = store.journal.received_lsn
            number = lsn.segment_number(start, self._segment_bytes)
            name = wal_page.file_name(self._timeline, number, self._segment_bytes)
            data = (self.primary.data_dir / "pg_wal" / name).read_bytes()
            offset = start - lsn.segment_start(number, self._segment_bytes)
            store.journal.append(start, data[offset : offset + self.end_lsn - start])
        store.journal.sync()
        background = Background(store, NEVER_SECONDS, KEEP_ALL)
        began = time.perf_counter()
        background.start()
        try:
            wait_until_durable(store, background, self.end_lsn - _RECORD_BYTES)
            settle(store, background)
        finally:
            background.stop()
        return time.perf_counter() - began


def run(bench: Bench) -> list[Row]:
    unit = QUICK_GB_BYTES if bench.quick else GB_BYTES
    load = unit // LOADS_PER_GB
    primary = bench.workspace.cluster(settings={**SETTINGS, "fsync": "off", "autovacuum": "off"})
    primary.start()
    primary.psql(
        "create table growing as select i as id, 0 as value, md5(i::text) || md5((i + 1)::text) || "
        f"md5((i + 2)::text) || md5((i + 3)::text) as payload from generate_series(1, {ROWS}) i;"
    )
    relation = relation_of(primary, "growing")
    directory = bench.new_directory("growth")
    history = History(primary, directory / "store")
    rows: list[Row] = []
    first: Measured | None = None
    for size in SIZES_GB:
        with bench.step(f"{NAME} to {size * unit >> 20:,} MB of WAL"):
            _grow(history, history.begin_lsn + size * unit - load, load)
            at = _measure(history, load)
            if first is None:
                shutil.copytree(history.directory, directory / "first")
                first = at._replace(directory=directory / "first")
            else:
                rows += _rows(size, at, first, _read_in_turns(at, first, relation))
    primary.stop("immediate")
    return rows


def _grow(history: History, end_lsn: int, portion: int) -> None:
    """In portions, so that the journal stays small."""
    while history.end_lsn < end_lsn:
        history.make_wal(min(history.end_lsn + portion, end_lsn))
        store = PageStore(history.directory, MEMORY_BYTES_MAX)
        history.take(store)
        store.close()


def _measure(history: History, load: int) -> Measured:
    """The next portion."""
    begin = history.end_lsn
    history.make_wal(begin + load)
    store = PageStore(history.directory, MEMORY_BYTES_MAX)
    seconds = history.take(store)
    store.close()
    began = time.perf_counter()
    store = PageStore(history.directory, MEMORY_BYTES_MAX)
    opened = time.perf_counter() - began
    store.close()
    rate = (history.end_lsn - begin) / 1e6 / seconds
    return Measured(history.directory, begin, rate, opened)


def _read_in_turns(
    at: Measured, first: Measured, relation: tuple[int, int, int]
) -> tuple[list[float], list[float]]:
    """Percentiles of microseconds a page, of both."""
    readers = [_Reader(one, relation) for one in (at, first)]
    for _ in range(ROUNDS):
        for reader in readers:
            reader.read(PAGES_PER_ROUND)
    return readers[0].end(), readers[1].end()


class _Reader:
    """Reads random pages of one store, as of random LSNs in its last portion."""

    def __init__(self, measured: Measured, relation: tuple[int, int, int]) -> None:
        self._store = PageStore(measured.directory, MEMORY_BYTES_MAX)
        self._store.frames.bytes_max = 0
        self._begin = measured.begin_lsn
        self._relation = relation
        self._blocks = self._store.nblocks(*relation, Fork.MAIN, self._begin)
        self._random = random.Random(1)
        self._found: list[float] = []
        self.read(PAGES_PER_ROUND)  # bundles are opened
        self._found.clear()

    def read(self, count: int) -> None:
        store = self._store
        for _ in range(count):
            block = self._random.randrange(self._blocks)
            at = self._random.randint(self._begin, store.ready_lsn)
            began = time.perf_counter()
            store.versions.read_relation(*self._relation, Fork.MAIN, block, 1, at)
            self._found.append(1e6 * (time.perf_counter() - began))

    def end(self) -> list[float]:
        self._store.close()
        return quantiles(self._found, n=100)


def _rows(
    size: int, at: Measured, first: Measured, pages: tuple[list[float], list[float]]
) -> list[Row]:
    peer = f"the same at {SIZES_GB[0]} GB"
    note = f"open: {at.open_seconds:.2f} s, {first.open_seconds:.2f} s at {SIZES_GB[0]} GB"
    ours, theirs = pages
    return [
        _row(f"{size} GB, ingest", "MB/s of WAL", peer, at.megabytes_per_second,
             first.megabytes_per_second, RATE_BAR, note),
        _row(f"{size} GB, page, median", "µs", peer, ours[49], theirs[49], LATENCY_BAR),
        _row(f"{size} GB, page, p99", "µs", peer, ours[98], theirs[98], LATENCY_BAR),
    ]  # fmt: skip


def _row(
    variant: str, unit: str, peer: str, ours: float, theirs: float, bar: Bar, *notes: str
) -> Row:
    return Row(NAME, variant, ours, unit, peer, theirs, ours / theirs, bar, notes)
