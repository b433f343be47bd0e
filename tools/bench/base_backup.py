"""`base-backup`: MB/s from a primary into image layers, beside pg_basebackup into a directory.

Both end with everything fsynced, and take the primary's data directory without WAL.
"""

import shutil
import time
from pathlib import Path

from tools.bench.bench import MEMORY_BYTES_MAX, MIB, Bench
from tools.bench.generated_wal import SETTINGS, take_into
from tools.bench.row import Bar, Row
from tools.postgres import Server

NAME = "base-backup"
ROUNDS = 4
SCALE = 30
BAR = Bar(0.7)


def run(bench: Bench) -> list[Row]:
    with bench.step("a primary for base backups"):
        primary = bench.workspace.cluster(settings=SETTINGS).start()
        primary.pgbench("-i", "-q", "-s", str(bench.scale if bench.quick else SCALE))
        primary.sql("checkpoint")
    size = data_bytes(primary.data_dir) / MIB
    layer_bytes: list[int] = []
    with bench.step(f"base backups of {size:.0f} MB"):
        pairs = bench.in_turns(
            ROUNDS,
            lambda: size / _take(bench, primary, layer_bytes),
            lambda: size / _pg_basebackup(bench, primary),
        )
    primary.stop()
    note = f"layers: {layer_bytes[0] / MIB:.0f} MB of {size:.0f} MB"
    return [Row.of_pairs(NAME, "", "MB/s", "pg_basebackup -X none", pairs, BAR, [note])]


def data_bytes(data_dir: Path) -> int:
    """What a base backup copies: everything but WAL."""
    files = (path for path in data_dir.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if "pg_wal" not in path.parts)


def _take(bench: Bench, primary: Server, layer_bytes: list[int]) -> float:
    directory = bench.workspace.new_path("page-store")
    began = time.perf_counter()
    take_into(directory, primary, MEMORY_BYTES_MAX)
    seconds = time.perf_counter() - began
    layer_bytes.append(sum(path.stat().st_size for path in (directory / "layers").iterdir()))
    shutil.rmtree(directory)
    return seconds


def _pg_basebackup(bench: Bench, primary: Server) -> float:
    directory = bench.workspace.new_path("base")
    began = time.perf_counter()
    primary.base_backup(directory)
    seconds = time.perf_counter() - began
    shutil.rmtree(directory)
    return seconds
