"""`growth`: the same load at 1, 4 and 16 GB of history: does it cost more as the store grows?

A PostgreSQL makes WAL by bulk updates of a table, with full-page images; the page store takes it
segment by segment while the primary goes on, flushes and compacts. At each size the rate of the
next 512 MB is measured, all in layers and nothing left to compact, and how long a page takes that
no cache has, as of any LSN in them: how many deltas a page has above its image goes up and down all
the time, and at one LSN alone it would be chance what is met. It takes minutes and 20 GB of disk: a
command of its own, not among the others.
"""

import random
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
PAGES = 2000
RATE_BAR = Bar(0.8)
LATENCY_BAR = Bar(1.2, is_most=True)
_RECORD_BYTES = 64  # the last record's; what is behind it has not come


class Measured(NamedTuple):
    """At one size of history; microseconds of a page that no cache has."""

    megabytes_per_second: float
    p50_us: float
    p99_us: float
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
    history = History(primary, bench.new_directory("growth") / "store")
    found = []
    for size in SIZES_GB:
        with bench.step(f"{NAME} to {size * unit >> 20:,} MB of WAL"):
            _grow(history, history.begin_lsn + size * unit - load, load)
            found.append(_measure(history, load))
    primary.stop("immediate")
    return [row for size, at in zip(SIZES_GB[1:], found[1:], strict=True)
            for row in _rows(size, at, found[0])]  # fmt: skip


def _grow(history: History, end_lsn: int, portion: int) -> None:
    """In portions, so that the journal stays small."""
    while history.end_lsn < end_lsn:
        history.make_wal(min(history.end_lsn + portion, end_lsn))
        store = PageStore(history.directory, MEMORY_BYTES_MAX)
        history.take(store)
        store.close()


def _measure(history: History, load: int) -> Measured:
    """The next portion, and then pages as they are after it."""
    begin = history.end_lsn
    history.make_wal(begin + load)
    store = PageStore(history.directory, MEMORY_BYTES_MAX)
    seconds = history.take(store)
    store.close()
    began = time.perf_counter()
    store = PageStore(history.directory, MEMORY_BYTES_MAX)
    opened = time.perf_counter() - began
    store.frames.bytes_max = 0
    spc, db, rel = relation_of(history.primary, "growing")
    blocks = store.nblocks(spc, db, rel, Fork.MAIN, begin)
    numbers, found = random.Random(1), []
    for _ in range(PAGES):
        block = numbers.randrange(blocks)
        at = numbers.randint(begin, store.ready_lsn)
        began = time.perf_counter()
        store.versions.read_relation(spc, db, rel, Fork.MAIN, block, 1, at)
        found.append(1e6 * (time.perf_counter() - began))
    store.close()
    cuts = quantiles(found, n=100)
    return Measured((history.end_lsn - begin) / 1e6 / seconds, cuts[49], cuts[98], opened)


def _rows(size: int, at: Measured, first: Measured) -> list[Row]:
    peer = f"the same at {SIZES_GB[0]} GB"
    note = f"open: {at.open_seconds:.2f} s, {first.open_seconds:.2f} s at {SIZES_GB[0]} GB"
    return [
        _row(f"{size} GB, ingest", "MB/s of WAL", peer, at.megabytes_per_second,
             first.megabytes_per_second, RATE_BAR, note),
        _row(f"{size} GB, page, median", "µs", peer, at.p50_us, first.p50_us, LATENCY_BAR),
        _row(f"{size} GB, page, p99", "µs", peer, at.p99_us, first.p99_us, LATENCY_BAR),
    ]  # fmt: skip


def _row(
    variant: str, unit: str, peer: str, ours: float, theirs: float, bar: Bar, *notes: str
) -> Row:
    return Row(NAME, variant, ours, unit, peer, theirs, ours / theirs, bar, notes)
