"""`restart`: from the start of the process to a page at the last received LSN, with 1 GB of layers
and with 5 GB.

After SIGTERM everything is in layers. After kill -9 the journal's tail is ingested again: what came
since the last flush, so it is bounded by flush_seconds_max and by the memtables. Not in the default
run: to make the layers takes minutes.
"""

import time
from statistics import median

from server.client import ConnectError, PageServerError
from tools.bench.attached import attached, catch_up, primary_of, relation_of
from tools.bench.bench import Bench
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server

NAME = "restart"
LAYER_BYTES = (1_000_000_000, 5_000_000_000)
ROWS_PER_STATEMENT = 40_000  # some 80 MB of WAL
ROUNDS = 3
BAR = Bar(1.0, is_most=True)
SECONDS_MAX = 120.0
SETTINGS = {"synchronous_commit": "off", "autovacuum": "off", "wal_compression": "off"}
INSERT = f"""
INSERT INTO wide SELECT g,
    (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 60) WHERE g > 0)
FROM generate_series(1, {ROWS_PER_STATEMENT}) g
"""


def run(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    with primary_of(bench, 1, SETTINGS) as primary, attached(bench, primary) as server:
        primary.sql("CREATE TABLE wide(a int, b text STORAGE PLAIN)")
        for size in LAYER_BYTES:
            target = size // 20 if bench.quick else size
            with bench.step(f"{NAME} with {target / 1e9:.2g} GB of layers"):
                layer_bytes = _make_layers(primary, server, target)
                rows += [
                    _measure(bench, primary, server, layer_bytes, "SIGTERM", BAR),
                    _measure(bench, primary, server, layer_bytes, "kill -9", None),
                ]
        server.stop()
    return rows


def _make_layers(primary: Server, server: PageServer, target: int) -> int:
    """Until that many bytes of layers are there; how many there are."""
    while True:
        primary.sql(INSERT)
        catch_up(primary, server)
        with server.client() as client:
            layer_bytes = int(str(client.status()["layer_bytes"]))
        if layer_bytes >= target:
            return layer_bytes


def _measure(
    bench: Bench, primary: Server, server: PageServer, layer_bytes: int, how: str, bar: Bar | None
) -> Row:
    seconds = []
    for _ in range(bench.rounds(ROUNDS)):
        primary.sql("UPDATE wide SET a = a + 1 WHERE a < 2000")
        target = catch_up(primary, server)
        if how == "SIGTERM":
            server.stop()
        else:
            server.kill()
        begin = time.monotonic()
        server.start()
        _wait_for_page(primary, server, target, begin)
        seconds.append(time.monotonic() - begin)
    worst = median(seconds)
    variant = f"after {how}, {layer_bytes / 1e9:.2g} GB of layers"
    return Row(NAME, variant, worst, "s", "1 s", 1.0, worst, bar)


def _wait_for_page(primary: Server, server: PageServer, lsn: int, begin: float) -> None:
    """Until the server hands out a page as of `lsn`; it waits for the LSN by itself."""
    spc, db, rel = relation_of(primary, "wide")
    while True:
        try:
            with server.client() as client:
                client.get_page(spc, db, rel, 0, 0, lsn)
            return
        except (ConnectError, PageServerError):
            if time.monotonic() - begin > SECONDS_MAX:
                raise
            time.sleep(0.005)
