"""`memory`: resident memory under load, beside the budget plus 200 MB.

The budget is small, so that a short load fills it many times: pgbench writes, and pages are read
at the newest LSN and at older ones.
"""

from pathlib import Path

from tools.bench.attached import (
    LATEST_LSN,
    address_of,
    attached,
    catch_up,
    frame,
    insert_lsn,
    page_query,
    primary_of,
    relation_of,
    write_frames,
)
from tools.bench.bench import MIB, Bench
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server

NAME = "memory"
BUDGET_BYTES = 128 * MIB
ALLOWED_BYTES = 200_000_000
SECONDS = 20.0
PAGES = 4000
BAR = Bar(1.0, is_most=True)


def run(bench: Bench) -> list[Row]:
    options = ("--set", f"memory_bytes_max={BUDGET_BYTES}", "--set", "flush_seconds_max=5")
    with (
        bench.step(NAME),
        primary_of(bench, bench.scale, {"synchronous_commit": "off"}) as primary,
        attached(bench, primary, *options) as server,
    ):
        _load(bench, primary, server)
        catch_up(primary, server)
        peak = peak_bytes(address_of(server)[0])
        server.stop()
    limit = BUDGET_BYTES + ALLOWED_BYTES
    peer = f"budget of {BUDGET_BYTES // MIB} MiB + 200 MB"
    return [Row(NAME, "", peak / 1e6, "MB", peer, limit / 1e6, peak / limit, BAR)]


def _load(bench: Bench, primary: Server, server: PageServer) -> None:
    """pgbench writes while pages are read, every other one as it was before."""
    begin = insert_lsn(primary)
    seconds = round(bench.seconds(SECONDS))
    writing = primary.start_pgbench("-n", "-T", str(seconds), "-c", "2")
    try:
        relation = relation_of(primary, "pgbench_accounts")
        lsns = (begin, LATEST_LSN)
        frames = [frame(relation, block, lsns[block % 2], begin) for block in range(PAGES)]
        bench.programs.load(
            address_of(server),
            write_frames(bench, frames),
            page_query(server),
            seconds=seconds,
            connections=4,
            depth=8,
        )
        writing.communicate()
    finally:
        writing.kill()


def peak_bytes(pid: int) -> int:
    """The most memory that was resident at any time."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"process {pid} says nothing of its memory")
