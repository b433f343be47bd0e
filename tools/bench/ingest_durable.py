"""`ingest-durable`: WAL segments to durable layers, beside PostgreSQL's recovery of the same WAL.

Ours is a restart that finds all of the WAL in its journal: from the first record decoded until the
last bundle, the manifest and the index are on disk. PostgreSQL's is a base backup with the same WAL
in pg_wal: from `redo starts at` to `redo done at`, as its log says; the checkpoint that makes its
pages durable is not counted. Each round has its own copy of both.
"""

import re
import shutil
import subprocess
import time
from pathlib import Path

from engine.page_store import PageStore
from engine.retention import KEEP_ALL
from formats import lsn
from server.background import Background
from tools.bench.bench import MEMORY_BYTES_MAX, MIB, Bench
from tools.bench.generated_wal import GeneratedWal
from tools.bench.row import Bar, Row
from tools.postgres_binaries import WHEEL_MAJOR, ProgramFailed, unprivileged_user

NAME = "ingest-durable"
ROUNDS = 3
BAR = Bar(1.5)
SHARED_BUFFERS = "4GB"
NEVER_SECONDS = 3600.0
SECONDS_MAX = 120.0
_POLL_SECONDS = 0.005
_REDO = re.compile(r"redo done at .* elapsed: ([0-9.]+) s")


def run(bench: Bench) -> list[Row]:
    return [_run(bench, wal) for wal in bench.wals]


def _run(bench: Bench, wal: GeneratedWal) -> Row:
    cpu: list[float] = []
    with bench.step(f"ingest, and recovery, of {wal.size_bytes / MIB:.0f} MiB with {wal.name}"):
        pairs = bench.in_turns(
            ROUNDS,
            lambda: _rate(wal, _ingest(bench, wal, cpu)),
            lambda: _rate(wal, recovery_seconds(bench, wal)),
        )
    note = f"CPU time of ours: {wal.size_bytes / MIB / min(cpu):.0f} MB of WAL a CPU second at best"
    peer = f"recovery, shared_buffers = {SHARED_BUFFERS}"
    return Row.of_pairs(NAME, wal.name, "MB/s of WAL", peer, pairs, BAR, [note])


def _rate(wal: GeneratedWal, seconds: float) -> float:
    return wal.size_bytes / MIB / seconds


def _ingest(bench: Bench, wal: GeneratedWal, cpu: list[float]) -> float:
    """Seconds from the first step of ingest to the commit of all."""
    directory = bench.workspace.copy(wal.page_store, "ingest")
    store = PageStore(directory, MEMORY_BYTES_MAX)
    background = Background(store, NEVER_SECONDS, KEEP_ALL)
    began, cpu_began = time.perf_counter(), time.process_time()
    background.start()
    try:
        while store.durable_lsn < wal.end_lsn:
            for worker in (background.ingest, background.flush):
                if worker.error is not None:
                    raise worker.error
            if store.ready_lsn >= wal.end_lsn:
                store.freeze()
            if time.perf_counter() - began > SECONDS_MAX:
                raise TimeoutError(f"durable only to {lsn.show(store.durable_lsn)}")
            time.sleep(_POLL_SECONDS)
        seconds = time.perf_counter() - began
        cpu.append(time.process_time() - cpu_began)
    finally:
        background.stop()
        store.close()
    shutil.rmtree(directory)
    return seconds


def recovery_seconds(bench: Bench, wal: GeneratedWal) -> float:
    """Seconds of redo in a copy of the base backup, as PostgreSQL's log has them."""
    data_dir = bench.workspace.copy(wal.base_backup, "recovery")
    _give_wal(wal, data_dir / "pg_wal")
    server = bench.workspace.server(
        WHEEL_MAJOR, data_dir, {"shared_buffers": SHARED_BUFFERS, "max_wal_size": "64GB"}
    )
    server.start()
    found = _REDO.search(server.log_path.read_text())
    server.stop("immediate")
    if found is None:
        raise ProgramFailed(f"no redo in the log:\n{server.log_tail()}")
    shutil.rmtree(data_dir)
    return float(found.group(1))


def _give_wal(wal: GeneratedWal, directory: Path) -> None:
    subprocess.run(["cp", "--reflink=auto", *map(str, wal.segments), str(directory)], check=True)
    user = unprivileged_user()
    if user is not None:
        for segment in wal.segments:
            shutil.chown(directory / segment.name, user.pw_uid, user.pw_gid)
