"""`relations`: 100,000 real ones; how long their WAL, their flush and an open take, and the memory.

Tables are made in a PostgreSQL, one row in each, while nobody listens; their WAL is put into the
journal of a page store that has the base backup from before. There is no peer: the bounds are
what this was found to need, doubled.
"""

import time

from engine.page_store import PageStore
from tools.bench.bench import MEMORY_BYTES_MAX, MIB, Bench
from tools.bench.generated_wal import SETTINGS, GeneratedWal, capture
from tools.bench.lsm_versions import ingest_all
from tools.bench.memory import peak_bytes
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server

NAME = "relations"
RELATIONS = 100_000
TABLES_PER_TRANSACTION = 1000
INGEST_SECONDS_MAX = 60.0
OPEN_SECONDS_MAX = 15.0
MEMORY_BYTES_PEAK_MAX = 400_000_000
BAR = Bar(1.0, is_most=True)
ALLOWED = "what is allowed"


def run(bench: Bench) -> list[Row]:
    count = RELATIONS // 100 if bench.quick else RELATIONS
    primary = bench.workspace.cluster(settings={**SETTINGS, "fsync": "off"}).start()
    with bench.step(f"{count:,} tables in PostgreSQL"):
        wal = capture(bench.workspace, primary, NAME, lambda: _create(primary, count))
    with bench.step(f"{count:,} relations: ingest, flush, compaction, open"):
        rows = _engine_rows(wal, count)
        rows.append(_memory_row(wal, primary))
    primary.stop("immediate")
    return rows


def _create(primary: Server, count: int) -> None:
    """Tables of one row; many in a transaction, but no more than there are locks for."""
    for first in range(0, count, TABLES_PER_TRANSACTION):
        primary.psql(
            f"do $$ begin for i in {first}..{min(first + TABLES_PER_TRANSACTION, count) - 1} loop "
            "execute format('create table relation_%s as select 1 as a', i); "
            "end loop; end $$;"
        )


def _engine_rows(wal: GeneratedWal, count: int) -> list[Row]:
    """One thread, so that each step has a time of its own."""
    store = PageStore(wal.page_store, MEMORY_BYTES_MAX)
    began = time.perf_counter()
    ingest_all(store, wal.end_lsn)
    ingested = time.perf_counter() - began
    began = time.perf_counter()
    while store.compact_step():
        pass
    compacted = time.perf_counter() - began
    existing = sum(relation[3] == 0 for relation in store.relations(wal.end_lsn))
    if existing < count:
        raise ValueError(f"{existing} relations, not {count}")
    store.close()
    began = time.perf_counter()
    store = PageStore(wal.page_store, MEMORY_BYTES_MAX)
    opened = time.perf_counter() - began
    store.close()
    note = (
        f"{wal.size_bytes / MIB:.0f} MiB of WAL, {existing:,} main forks; the compaction of what "
        f"was flushed took {compacted:.1f} s"
    )
    return [
        _row("ingest and flush", ingested, INGEST_SECONDS_MAX, note),
        _row("open", opened, OPEN_SECONDS_MAX, "the index read and checked by a child, loaded"),
    ]


def _row(variant: str, seconds: float, most: float, note: str) -> Row:
    return Row(NAME, variant, seconds, "s", ALLOWED, most, seconds / most, BAR, (note,))


def _memory_row(wal: GeneratedWal, primary: Server) -> Row:
    """Of a server that opens the directory and answers."""
    server = PageServer(wal.page_store, primary.conninfo())
    server.start()
    try:
        server.wait_until_ready(wal.end_lsn)
        with server.client() as client:
            client.relations()
        assert server.process is not None, "it was started"
        peak = peak_bytes(server.process.pid)
    finally:
        server.stop()
    most = MEMORY_BYTES_PEAK_MAX
    return Row(NAME, "memory of a server without load", peak / 1e6, "MB", ALLOWED, most / 1e6,
               peak / most, BAR)  # fmt: skip
