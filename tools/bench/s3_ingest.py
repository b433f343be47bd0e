"""`s3-ingest`: what backup to S3 costs: pgbench's rate, the server's lag, the latency of reads.

The same page server with `--s3` and without, started in turns, each on a directory of its own, the
first upload of all that it has behind it. The S3 server would be another machine: here it has the
processors when nobody else wants them. The rate is that of pgbench on the primary, as fast as it
goes; the lag is how much WAL is not readable yet when it ends. Reads are those of one client that
asks for pages that lie in layers, while pgbench writes at a rate that leaves the processors time.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from formats import lsn as lsn_text
from tools.bench.attached import catch_up, insert_lsn, primary_of, relation_of
from tools.bench.bench import MIB, Bench
from tools.bench.page_latency import finish, start
from tools.bench.row import Bar, Row
from tools.page_server import PageServer
from tools.postgres import Server
from tools.postgres_binaries import ProgramFailed
from tools.s3_server import S3Server

NAME = "s3-ingest"
ROUNDS = 4
SECONDS = 6.0
UPLOAD_SECONDS_MAX = 60.0
READ_RATE = 500
SCALE = 10
BAR = Bar(0.95)
READ_BAR = Bar(1.25, is_most=True)
PEER = "the same without --s3"
BUSY = ("--set", "flush_seconds_max=2", "--set", "backup_journal_seconds=2")
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_TRAFFIC = re.compile(r"(\d+) requests and (\d+) bytes were sent")


class Measured(NamedTuple):
    tps: float
    lag_bytes: int
    p99: float
    wal_bytes: int


class Side:
    """A page server that is started for each measurement."""

    def __init__(self, bench: Bench, primary: Server, *options: str) -> None:
        self.bench = bench
        self.primary = primary
        self.server = PageServer(bench.workspace.new_path("pages"), primary.conninfo(), *BUSY,
                                 *options)  # fmt: skip
        self.relation = relation_of(primary, "pgbench_accounts")
        ((self.blocks,),) = primary.sql(
            "select pg_relation_size('pgbench_accounts') / current_setting('block_size')::int"
        )

    def measure(self) -> Measured:
        self.server.start()
        try:
            self.server.wait_until_ready()
            lsn = catch_up(self.primary, self.server)
            self._wait_for_backup()
            tps = self._tps()
            lag = self._lag_bytes()
            catch_up(self.primary, self.server)
            p99 = self._p99(lsn)
            return Measured(tps, lag, p99, insert_lsn(self.primary) - lsn)
        finally:
            self.server.stop()

    def _wait_for_backup(self) -> None:
        """Until the bucket has all that is in layers, if there is a bucket."""
        deadline = time.monotonic() + UPLOAD_SECONDS_MAX
        with self.server.client() as client:
            while (status := client.status())["backup"] not in (None, "idle"):
                if time.monotonic() > deadline:
                    raise ProgramFailed(f"the bucket lacks layers still: {status['backup']}")
                time.sleep(0.1)

    def _tps(self) -> float:
        output = self.primary.pgbench("-n", "-T", self._seconds(), "-c", "2", "-j", "1")
        found = _TPS.search(output)
        if found is None:
            raise ProgramFailed(f"pgbench says no tps:\n{output}")
        return float(found.group(1))

    def _lag_bytes(self) -> int:
        with self.server.client() as client:
            ready = lsn_text.parse(str(client.status()["ready_lsn"]))
        return max(0, insert_lsn(self.primary) - ready)

    def _p99(self, lsn: int) -> float:
        words = ("-n", "-c", "2", "-R", str(READ_RATE), "-T", self._seconds())
        load = self.primary.start_pgbench(*words)
        try:
            seconds = self.bench.seconds(SECONDS)
            reader = start(self.server.address, seconds, self.relation, int(self.blocks), lsn)
            latency = finish(reader)
            load.communicate()
        finally:
            load.kill()
        return latency.p99

    def _seconds(self) -> str:
        return str(max(2, round(self.bench.seconds(SECONDS))))


def run(bench: Bench) -> list[Row]:
    with bench.step(NAME), primary_of(bench, SCALE) as primary, _bucket(bench) as (url, endpoint):
        ours = Side(bench, primary, "--s3", url, "--s3-endpoint", endpoint)
        theirs = Side(bench, primary)
        try:
            ours.measure()  # all that was there before is in the bucket by then
            before = _traffic(ours.server)
            pairs = bench.in_turns(ROUNDS, ours.measure, theirs.measure)
        finally:
            for side in (ours, theirs):
                side.server.kill()
    lags = [" and ".join(f"{side.lag_bytes / 1024:.0f}" for side in pair) for pair in pairs]
    notes = [
        _cost(_traffic(ours.server)[len(before) :], sum(pair[0].wal_bytes for pair in pairs)),
        f"WAL not readable yet when pgbench ends, with and without: {', '.join(lags)} KiB",
    ]
    rates = [(with_it.tps, without.tps) for with_it, without in pairs]
    p99s = [(with_it.p99, without.p99) for with_it, without in pairs]
    return [
        Row.of_pairs(NAME, "pgbench", "tps", PEER, rates, BAR, notes),
        Row.of_pairs(NAME, "p99 of reads", "µs", PEER, p99s, READ_BAR),
    ]


def _traffic(server: PageServer) -> list[tuple[int, int]]:
    """Requests and bytes that each uploader so far has sent, as it said in the end."""
    found = _TRAFFIC.findall(server.log_path.read_text())
    return [(int(requests), int(size)) for requests, size in found]


def _cost(traffic: list[tuple[int, int]], wal_bytes: int) -> str:
    """What users pay for."""
    requests, size = (sum(column) for column in zip(*traffic, strict=True))
    per_gib = wal_bytes / 2**30
    return (
        f"for each GiB of WAL {requests / per_gib:.0f} requests and {size / per_gib / MIB:.0f} MiB "
        f"sent, at a piece of WAL each 2 s; {wal_bytes / MIB:.0f} MiB of WAL here"
    )


@contextmanager
def _bucket(bench: Bench) -> Iterator[tuple[str, str]]:
    """URL and endpoint of an empty one, and the credentials in the environment."""
    with S3Server(bench.workspace.path) as server:
        os.environ.update(server.environment)
        assert server.process is not None, "it was started"
        for thread in os.listdir(f"/proc/{server.process.pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
        yield f"s3://{server.new_bucket('bench')}/backup", server.endpoint
