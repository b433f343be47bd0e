"""`s3-lazy-first-page`: from the start of `pageserver serve --s3` on an empty directory to a page
as of the newest LSN that the bucket has, with 1 GB and 5 GB of layers there, on a real S3 server.

The page server that made them is killed before, as the machine that is lost would be: at rest, when
all WAL is in layers; or under load, and then what came since the last flush is ingested first, so
it is bounded by flush_seconds_max and by the memtables. Not in the default run: to make the layers
takes minutes.
"""

import os
import shutil
import time
from pathlib import Path
from statistics import median

from formats import lsn as lsn_text
from server.client import ConnectError, PageServerError
from tools.bench.attached import attached, catch_up, primary_of, relation_of
from tools.bench.bench import Bench
from tools.bench.restart import INSERT, SETTINGS
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server
from tools.s3_server import S3Server

NAME = "s3-lazy-first-page"
LAYER_BYTES = (1_000_000_000, 5_000_000_000)
ROUNDS = 5
BAR = Bar(1.0, is_most=True)
UPLOAD_SECONDS_MAX = 600.0
SECONDS_MAX = 60.0
_POLL_SECONDS = 0.005


def run(bench: Bench) -> list[Row]:
    rows: list[Row] = []
    with S3Server() as s3, primary_of(bench, 1, SETTINGS) as primary:
        os.environ.update(s3.environment)
        url = f"s3://{s3.new_bucket('bench')}/lazy"
        options = (
            "--s3",
            url,
            "--s3-endpoint",
            s3.endpoint,
            "--set",
            "journal_bytes_max=64000000000",
        )
        with attached(bench, primary, *options) as server:
            primary.sql("CREATE TABLE wide(a int, b text STORAGE PLAIN)")
            for size in LAYER_BYTES:
                target = size // 20 if bench.quick else size
                with bench.step(f"{NAME}: {target / 1e9:.2g} GB of layers in the bucket"):
                    lsn = _fill(primary, server, target)
                    _wait_for_bucket(server, 0)
                rows.append(_measure(bench, primary, server, lsn, "under load", None))
                with bench.step(f"{NAME}: until all WAL is in layers"):
                    _wait_for_bucket(server, lsn)
                rows.append(_measure(bench, primary, server, lsn, "at rest", BAR))
    return rows


def _fill(primary: Server, server: PageServer, target: int) -> int:
    """Until that many bytes of layers are there; the LSN."""
    while True:
        primary.sql(INSERT)
        catch_up(primary, server)
        with server.client() as client:
            if int(str(client.status()["layer_bytes"])) >= target:
                break
    primary.sql("UPDATE wide SET a = a + 1 WHERE a < 2000")
    return catch_up(primary, server)


def _wait_for_bucket(server: PageServer, durable_lsn: int) -> None:
    """Until the bucket has all, and layers all up to an LSN."""
    deadline = time.monotonic() + UPLOAD_SECONDS_MAX
    while time.monotonic() < deadline:
        with server.client() as client:
            status = client.status()
        lag, pending = status["backup_lag_bytes"], status["backup_pending_bytes"]
        durable = lsn_text.parse(str(status["durable_lsn"]))
        if status["backup"] == "idle" and not lag and not pending and durable >= durable_lsn:
            return
        time.sleep(1.0)
    raise TimeoutError(f"the bucket lacks {pending} bytes after {UPLOAD_SECONDS_MAX:g} s")


def _measure(
    bench: Bench, primary: Server, server: PageServer, lsn: int, when: str, bar: Bar | None
) -> Row:
    """The server is killed, and goes on from the bucket."""
    server.kill()
    seconds, cpu, layer_bytes, notes = [], [], 0, ""
    for _ in range(bench.rounds(ROUNDS)):
        shutil.rmtree(server.data_dir)
        server.data_dir.mkdir()
        begin = time.monotonic()
        server.start()
        _wait_for_page(primary, server, lsn, begin)
        seconds.append(time.monotonic() - begin)
        cpu.append(_cpu_seconds(server))
        with server.client() as client:
            status = client.status()
        notes = (
            f"{status['remote_read_requests']} requests for layers, "
            f"{int(str(status['remote_read_bytes'])) / 1e6:.1f} MB; {status['layer_count']} files; "
            f"{int(str(status['journal_bytes'])) / 1e6:.0f} MB of journal; "
            f"{median(cpu):.2f} s of the server's CPU; "
            f"rounds {', '.join(f'{one:.2f}' for one in sorted(seconds))} s"
        )
        _settle(server)
        layer_bytes = int(str(status["layer_bytes"]))
        server.kill()
    server.start()  # goes on where the last one was
    server.wait_until_ready(lsn)
    middle = median(seconds)
    variant = f"{layer_bytes / 1e9:.2g} GB of layers, lost {when}"
    return Row(NAME, variant, middle, "s", "1 s", 1.0, middle, bar, (notes,))


def _wait_for_page(primary: Server, server: PageServer, lsn: int, begin: float) -> None:
    relation = relation_of(primary, "wide")
    while True:
        try:
            with server.client() as client:
                client.get_page(*relation, 0, 0, lsn)
            return
        except (ConnectError, PageServerError):
            if time.monotonic() - begin > SECONDS_MAX:
                raise
            time.sleep(_POLL_SECONDS)


def _cpu_seconds(server: PageServer) -> float:
    """Of the process so far, user and system."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _settle(server: PageServer) -> None:
    """Until the uploader has its epoch, so that the next round's is not disturbed by its death."""
    deadline = time.monotonic() + SECONDS_MAX
    while time.monotonic() < deadline:
        with server.client() as client:
            if client.status()["epoch"] is not None:
                return
        time.sleep(0.1)
