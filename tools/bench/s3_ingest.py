"""`s3-ingest`: what backup to S3 costs: pgbench's rate, the server's lag, the latency of reads.

Two primaries, each with a page server, one of them with `--s3` and the first upload of all that it
has behind it. pgbench runs on both as fast as it goes, but a quarter of a second on one and the
next on the other, while all processes of the other stand still (tools/bench/time_slices.py says
why). The S3 server would be another machine: it has slices of its own, in which both stand still,
and keeps its files in memory. A piece of WAL and a flush come every four seconds. Each round begins
with a checkpoint, so that both write as many full-page images. The lag is how much WAL is not
readable yet when pgbench ends. Reads are those of one client that asks for pages that lie in
layers, in turns of some seconds, while pgbench writes at a rate that leaves the processors time,
also to the S3 server.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from formats import lsn as lsn_text
from tools.bench.attached import catch_up, insert_lsn, primary_of, relation_of
from tools.bench.bench import MIB, Bench
from tools.bench.page_latency import finish, start
from tools.bench.row import Bar, Row
from tools.bench.time_slices import Slice, alternate
from tools.page_server import PageServer
from tools.postgres_binaries import ProgramFailed
from tools.s3_server import S3Server

NAME = "s3-ingest"
WRITE_ROUNDS, WRITE_SECONDS = 6, 8.0
READ_ROUNDS, READ_SECONDS = 4, 4.0
WRITERS = ("-c", "8", "-j", "2")  # so many that the processors have no rest
WRITERS_BESIDE_READS = ("-c", "2", "-j", "1", "-R", "500")
SIDE_SECONDS, S3_SECONDS = 0.25, 0.05  # of a slice
SHARE = SIDE_SECONDS / (2 * SIDE_SECONDS + 2 * S3_SECONDS)  # of the time, for each side
SETTLE_SECONDS_MAX = 60.0
MEMORY = Path("/dev/shm")  # as files, which are written to no disk
SCALE = 10
BAR = Bar(0.95)
READ_BAR = Bar(1.25, is_most=True)
PEER = "the same without --s3"
BUSY = ("--set", "flush_seconds_max=4", "--set", "backup_journal_seconds=4")
_TRANSACTIONS = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
_TRAFFIC = re.compile(r"(\d+) requests and (\d+) bytes were sent")


class Written(NamedTuple):
    """In one round."""

    tps: float
    lag_bytes: int


class Side:
    """A primary and the page server attached to it, both running until the benchmark ends."""

    def __init__(self, bench: Bench, resources: ExitStack, *options: str) -> None:
        self.bench = bench
        self.primary = resources.enter_context(primary_of(bench, SCALE))
        self.server = PageServer(bench.workspace.new_path("pages"), self.primary.conninfo(),
                                 *BUSY, *options)  # fmt: skip
        resources.callback(self.server.kill)
        self.load: subprocess.Popen[str] | None = None
        self.relation = relation_of(self.primary, "pgbench_accounts")
        ((self.blocks,),) = self.primary.sql(
            "select pg_relation_size('pgbench_accounts') / current_setting('block_size')::int"
        )

    def start(self) -> None:
        self.server.start()
        self.server.wait_until_ready()
        self.settle()

    def begin(self) -> None:
        """Let pgbench write from now on; the rest of its time it stands still."""
        seconds = self._seconds(WRITE_SECONDS / SHARE)
        self.load = self.primary.start_pgbench("-n", "-T", seconds, *WRITERS)

    @property
    def processes(self) -> list[subprocess.Popen[Any]]:
        """Those that do all the work, or begin who does."""
        running = (self.load, self.primary.process, self.server.process)
        return [process for process in running if process is not None]

    def end(self, seconds: float) -> Written:
        """What pgbench has written, which ran for so long and has ended."""
        assert self.load is not None, "it was begun"
        lag = self._lag_bytes()
        output, _ = self.load.communicate()
        self.load = None
        found = _TRANSACTIONS.search(output)
        if found is None:
            raise ProgramFailed(f"pgbench does not say how many transactions:\n{output}")
        return Written(int(found.group(1)) / seconds, lag)

    def read(self) -> float:
        """The p99, in microseconds."""
        lsn = catch_up(self.primary, self.server)
        seconds = self._seconds(READ_SECONDS)
        load = self.primary.start_pgbench("-n", "-T", seconds, *WRITERS_BESIDE_READS)
        try:
            reader = start(
                self.server.address, float(seconds), self.relation, int(self.blocks), lsn
            )
            latency = finish(reader)
            load.communicate()
        finally:
            load.kill()
        self.settle()
        return latency.p99

    def settle(self) -> None:
        """Until all WAL is in layers, these are merged, and the bucket, if there is one, has them:
        what one side has left to do is not to meet the other."""
        lsn = catch_up(self.primary, self.server)
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        with self.server.client() as client:
            while not _is_settled(status := client.status(), lsn):
                if time.monotonic() > deadline:
                    raise ProgramFailed(f"the page server does not come to rest: {status}")
                time.sleep(0.05)

    def _lag_bytes(self) -> int:
        with self.server.client() as client:
            ready = lsn_text.parse(str(client.status()["ready_lsn"]))
        return max(0, insert_lsn(self.primary) - ready)

    def _seconds(self, full: float) -> str:
        return str(max(2, round(self.bench.seconds(full))))


def run(bench: Bench) -> list[Row]:
    with bench.step(NAME), ExitStack() as resources:
        s3 = resources.enter_context(_s3_server(bench))
        url = f"s3://{s3.new_bucket('bench')}/backup"
        theirs = Side(bench, resources)
        ours = Side(bench, resources, "--s3", url, "--s3-endpoint", s3.endpoint)
        theirs.start()
        ours.start()
        ours.server.stop()  # what was sent until then is not of pgbench's WAL
        before = len(_traffic(ours.server))
        ours.start()
        lsn = insert_lsn(ours.primary)
        written = [_write(ours, theirs, s3) for _ in range(bench.rounds(WRITE_ROUNDS))]
        p99s = bench.in_turns(READ_ROUNDS, ours.read, theirs.read)
        wal_bytes = insert_lsn(ours.primary) - lsn
        ours.server.stop()
        traffic = _traffic(ours.server)[before:]
    lags = [" and ".join(f"{side.lag_bytes / 1024:.0f}" for side in pair) for pair in written]
    notes = [
        _cost(traffic, wal_bytes),
        f"WAL not readable yet when pgbench ends, with and without: {', '.join(lags)} KiB",
    ]
    rates = [(with_it.tps, without.tps) for with_it, without in written]
    return [
        Row.of_pairs(NAME, "pgbench", "tps", PEER, rates, BAR, notes),
        Row.of_pairs(NAME, "p99 of reads", "µs", PEER, p99s, READ_BAR),
    ]


def _write(ours: Side, theirs: Side, s3: S3Server) -> tuple[Written, Written]:
    """Let both come to rest, and then write at the same time, a slice of it each."""
    sides = (ours, theirs)
    for side in sides:
        side.settle()
        side.primary.sql("checkpoint")
    assert s3.process is not None, "it was started"
    for side in sides:
        side.begin()
    slices = [
        Slice(ours.processes, SIDE_SECONDS, ours.load),
        Slice([s3.process], S3_SECONDS, None),
        Slice(theirs.processes, SIDE_SECONDS, theirs.load),
        Slice([s3.process], S3_SECONDS, None),  # else one side would always come after a rest
    ]
    try:
        ran, _, peer_ran, _ = alternate(slices)
        return ours.end(ran), theirs.end(peer_ran)
    finally:
        for side in sides:
            if side.load is not None:
                side.load.kill()


def _is_settled(status: dict[str, Any], lsn: int) -> bool:
    is_idle = status["compaction"] == "idle" and status["backup"] in (None, "idle")
    return is_idle and lsn_text.parse(status["durable_lsn"]) >= lsn


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
        f"sent, at a piece of WAL each 4 s; {wal_bytes / MIB:.0f} MiB of WAL here"
    )


@contextmanager
def _s3_server(bench: Bench) -> Iterator[S3Server]:
    """One that takes the processors when nobody wants them, and no disk of ours; the credentials in
    the environment."""
    with S3Server(MEMORY if MEMORY.is_dir() else bench.workspace.path) as server:
        os.environ.update(server.environment)
        assert server.process is not None, "it was started"
        for thread in os.listdir(f"/proc/{server.process.pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
        yield server
