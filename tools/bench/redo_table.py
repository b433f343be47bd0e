"""`redo-table`: nanoseconds of redo for each kind of record and each PostgreSQL version.

A server of each version runs pgbench and what the tests have to make every kind of index write its
records. Of each kind some versions are kept, with their pages as they were before; they are redone
again and again on copies, and the copies' time is taken off. Everything is in the processor's cache
then, so it is the work that is compared and not the memory. What has most effect on the whole is
the product of `ns` and `count`; a kind that is slow by itself stands out in the table.
"""

import json
import random
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from engine.chunk_table import ChunkTable
from engine.memtable import Memtable
from engine.wal_reader import WalReader
from formats import lsn, rmgr, version, wal_page
from formats.chunk import BLOCK_BYTES
from formats.postgres_versions import VERSIONS
from tools.bench.bench import Bench
from tools.bench.current_pages import CurrentPages
from tools.bench.redo_run import RedoRun
from tools.bench.redo_timer import RedoTimer
from tools.bench.row import Row
from tools.postgres_binaries import MissingPostgres

NAME = "redo-table"
ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "redo-table.json"
LOADS = ROOT / "tests" / "fixtures"
SETTINGS = {"max_wal_size": "64GB", "wal_keep_size": "64GB", "autovacuum": "off", "fsync": "off"}
TRANSACTIONS = 4000
CASES_MAX = 64  # of a kind: with their pages they stay in the cache
REDOES = 1500  # between two looks at the clock: seldom interrupted
REPEATS = 25
SEED = 27
SLOW_NS = 1000
SEGMENT_BYTES = 16 << 20
ZEROS = bytes(BLOCK_BYTES)
EFFECTS = {
    version.VM_CLEAR: "map bits cleared",
    version.VM_TRUNCATE: "map truncated",
    version.CLOG_SET: "transaction status",
    version.MULTIXACT_OFFSET: "multixact offset",
    version.MULTIXACT_MEMBER: "multixact member",
    version.COMMIT_TIMESTAMP: "commit timestamp",
}


@dataclass(frozen=True)
class Kind:
    """`count`: block references in the load, or pages that records change without naming them."""

    major: int
    name: str
    count: int
    ns: float


class SampledRun(RedoRun):
    """Redo that keeps some versions of each kind, and the pages before them."""

    def __init__(self, major: int) -> None:
        super().__init__(ChunkTable(), major, {}, lambda chunk, block: None)
        self.counts: dict[str, int] = defaultdict(int)
        self.samples: dict[str, list[tuple[bytes, bytes, int]]] = defaultdict(list)
        self._random = random.Random(SEED)

    def apply(self, shard: CurrentPages, memtable: Memtable) -> None:
        data, positions, lengths = memtable.data, memtable.entry_pos, memtable.entry_length
        chunks, blocks, lsns = memtable.entry_chunk, memtable.entry_block, memtable.entry_lsn
        for entry in range(1, memtable.entry_count + 1):
            payload = data[positions[entry] : positions[entry] + lengths[entry]]
            name = self._name(payload)
            if name:
                place = self._place(name)
                if place < CASES_MAX:
                    page = shard.page(chunks[entry], blocks[entry]) or ZEROS
                    self.samples[name][place : place + 1] = [(page, bytes(payload), lsns[entry])]
            shard.redo(memtable, entry, entry + 1)

    def _name(self, payload: memoryview) -> str:
        """What the table calls a version's kind; empty if it is no page's."""
        kind = payload[0]
        if kind == version.RECORD:
            return rmgr.show(self.major, payload[1], payload[2])
        if kind == version.EFFECT:
            return f"effect/{EFFECTS[payload[1]]}"
        return "page image" if kind in (version.IMAGE_WAL, version.IMAGE_EXACT) else ""

    def _place(self, name: str) -> int:
        """Where among its kind's samples the next version goes: each has the same chance."""
        self.counts[name] += 1
        seen = self.counts[name]
        return seen - 1 if seen <= CASES_MAX else self._random.randrange(seen)


def run(bench: Bench) -> list[Row]:
    kinds: list[Kind] = []
    rows = []
    for major in VERSIONS:
        try:
            bench.workspace.installation(major)
        except MissingPostgres as missing:
            bench.console.print(f"{NAME}: no figures of PostgreSQL {major}: {missing}")
            continue
        with bench.step(f"{NAME}: PostgreSQL {major}"):
            found = kinds_of(bench, major)
        kinds += found
        count = sum(kind.count for kind in found)
        mean = sum(kind.ns * kind.count for kind in found) / count
        rows.append(Row(NAME, f"PostgreSQL {major}, mean of {count:,}", mean, "ns", "", None, None))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(kind) for kind in kinds], indent=1) + "\n", encoding="utf-8")
    show(kinds, bench.console)
    return rows


def kinds_of(bench: Bench, major: int) -> list[Kind]:
    """The load on a new server, and what redo of it costs."""
    primary = bench.workspace.cluster(major, SETTINGS).start()
    try:
        primary.sql("checkpoint")
        ((text,),) = primary.sql("select redo_lsn::text from pg_control_checkpoint()")
        primary.pgbench("-i", "-q", "-s", "1")
        primary.pgbench("-n", "-t", str(round(bench.seconds(TRANSACTIONS))), "-c", "2")
        for load in (*sorted(LOADS.glob("*_load.sql")), LOADS / "churn.sql"):
            names = f"create schema {load.stem}; set search_path = {load.stem};"
            primary.psql(f"{names}\n{load.read_text(encoding='utf-8')}")
        primary.psql("vacuum freeze;")
    finally:
        primary.stop()
    sampled = SampledRun(major)
    start = lsn.parse(text)
    reader = WalReader(start, SEGMENT_BYTES, version=major, zeros_end=True)
    sampled.run(reader, segments_from(primary.data_dir / "pg_wal", start))
    return [
        Kind(major, name, sampled.counts[name], nanoseconds(bench, major, cases))
        for name, cases in sorted(sampled.samples.items())
    ]


def segments_from(directory: Path, start: int) -> list[Path]:
    """The WAL files of a directory, from the one on that has this LSN."""
    first = lsn.segment_number(start, SEGMENT_BYTES)
    paths = [path for path in sorted(directory.iterdir()) if wal_page.is_file_name(path.name)]
    return [
        path for path in paths if wal_page.parse_file_name(path.name, SEGMENT_BYTES)[1] >= first
    ]


def nanoseconds(bench: Bench, major: int, cases: list[tuple[bytes, bytes, int]]) -> float:
    """One redo, the best of some repetitions."""
    pages, payloads, lsns = zip(*cases, strict=True)
    timer = RedoTimer(major, pages, payloads, lsns)
    rounds = max(1, round(bench.seconds(REDOES)) // len(cases))
    best = [1.0, 1.0]
    for redoes in (False, True) * bench.rounds(REPEATS):
        began = time.thread_time()
        timer.run(rounds, redoes)
        best[redoes] = min(best[redoes], time.thread_time() - began)
    return (best[True] - best[False]) / (rounds * len(cases)) * 1e9


def show(kinds: list[Kind], console: Console) -> None:
    """A line for each kind, a column for each version; slow ones stand out."""
    majors = sorted({kind.major for kind in kinds})
    table = Table(title="Redo, ns each, and how many the load has of them in the newest version")
    table.add_column("kind")
    for major in majors:
        table.add_column(str(major), justify="right")
    table.add_column("count", justify="right")
    by_name: dict[str, dict[int, Kind]] = defaultdict(dict)
    for kind in kinds:
        by_name[kind.name][kind.major] = kind
    for name, found in sorted(by_name.items()):
        figures = ["-" if major not in found else styled(found[major].ns) for major in majors]
        table.add_row(name, *figures, f"{found[max(found)].count:,}")
    console.print(table)


def styled(ns: float) -> str:
    return f"[bold red]{ns:,.0f}[/bold red]" if ns >= SLOW_NS else f"{ns:,.0f}"
