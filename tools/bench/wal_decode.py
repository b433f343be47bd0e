"""`wal-decode`: records a second of WAL in memory, beside pg_waldump --stats on the same WAL."""

import re
import time

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from tools.bench.bench import MIB, Bench
from tools.bench.generated_wal import GeneratedWal
from tools.bench.row import Bar, Row
from tools.postgres_binaries import WHEEL_MAJOR

NAME = "wal-decode"
ROUNDS = 7
RECORDS_MAX = 16384
BAR = Bar(2.0)
_TOTAL = re.compile(r"^Total\s+(\d+)", re.MULTILINE)


def run(bench: Bench) -> list[Row]:
    return [_run(bench, wal) for wal in bench.wals]


def _run(bench: Bench, wal: GeneratedWal) -> Row:
    chunks = [
        memoryview(data)[pos : pos + MIB]
        for data in (segment.read_bytes() for segment in wal.segments)
        for pos in range(0, len(data), MIB)
    ]
    batch = RecordBatch(RECORDS_MAX, 4 * RECORDS_MAX)
    with bench.step(f"decode {wal.size_bytes / MIB:.0f} MiB of WAL with {wal.name}"):
        counts: set[int] = set()

        def ours() -> float:
            began = time.perf_counter()
            records = _decode(wal, chunks, batch)
            counts.add(records)
            return records / (time.perf_counter() - began)

        def peer() -> float:
            began = time.perf_counter()
            records = _waldump(bench, wal)
            counts.add(records)
            return records / (time.perf_counter() - began)

        pairs = bench.in_turns(ROUNDS, ours, peer)
    same = "the same" if len(counts) == 1 else "NOT THE SAME"
    note = f"records: {', '.join(f'{count:,}' for count in sorted(counts))}, {same} in both"
    unit, program = "records/s", "pg_waldump --stats, whole process"
    return Row.of_pairs(NAME, wal.name, unit, program, pairs, BAR, [note])


def _decode(wal: GeneratedWal, chunks: list[memoryview], batch: RecordBatch) -> int:
    reader = WalReader(wal.start_lsn, wal.segment_bytes, version=WHEEL_MAJOR)
    records = 0
    for chunk in chunks:
        reader.feed(reader.lsn, chunk)
        while count := reader.decode(batch):
            records += count
    return records


def _waldump(bench: Bench, wal: GeneratedWal) -> int:
    first, last = wal.segments[0], wal.segments[-1]
    installation = bench.workspace.installation(WHEEL_MAJOR)
    output = installation.run(
        "pg_waldump", "--stats", "-p", str(first.parent), first.name, last.name
    )
    total = _TOTAL.search(output)
    if total is None:
        raise ValueError(f"pg_waldump counted nothing:\n{output[-2000:]}")
    return int(total.group(1))
