"""`primary-cost`: pgbench's tps on a primary with the page server attached, and without it."""

import re

from tools.bench.attached import insert_lsn, primary_of
from tools.bench.bench import Bench
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server
from tools.postgres_binaries import ProgramFailed

NAME = "primary-cost"
ROUNDS = 4
SECONDS = 6.0
SCALE = 10
BAR = Bar(0.95)
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def run(bench: Bench) -> list[Row]:
    with bench.step(NAME), primary_of(bench, SCALE) as primary:
        server = PageServer(bench.workspace.new_path("pages"), primary.conninfo())

        def with_us() -> float:
            server.start()
            server.wait_until_ready(insert_lsn(primary) - 64)
            try:
                return _tps(bench, primary)
            finally:
                server.stop()

        try:
            pairs = bench.in_turns(ROUNDS, with_us, lambda: _tps(bench, primary))
        finally:
            server.kill()
    note = "the page server and the primary share this machine's cores"
    return [Row.of_pairs(NAME, "", "tps", "the same without us", pairs, BAR, [note])]


def _tps(bench: Bench, primary: Server) -> float:
    seconds = max(2, round(bench.seconds(SECONDS)))
    output = primary.pgbench("-n", "-T", str(seconds), "-c", "2", "-j", "1")
    found = _TPS.search(output)
    if found is None:
        raise ProgramFailed(f"pgbench says no tps:\n{output}")
    return float(found.group(1))
