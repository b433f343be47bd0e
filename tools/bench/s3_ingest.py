"""`s3-ingest`: what backup to S3 costs: pgbench's rate, the server's lag, the latency of reads.

Three primaries, each with a page server, one of them with `--s3` and the first upload of all that
it has behind it; the other two are equal, and what one of them differs from the other is as fine as
this can tell. pgbench runs on all as fast as it goes, but a quarter of a second on one and the next
on another, while all processes of the others stand still (tools/bench/time_slices.py says why). The
S3 server would be another machine: it has slices of its own, in which all others stand still, and
keeps its files in memory. A piece of WAL and a flush come every four seconds. Each round begins
with a checkpoint, so that all write as many full-page images, and with another side than the one
before. The lag is how much WAL is not readable yet when pgbench ends. Reads are those of one client
that asks for pages that lie in layers, in turns of some seconds, while pgbench writes at a rate
that leaves the processors time, also to the S3 server.
"""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
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
WRITE_ROUNDS, WRITE_SECONDS = 12, 8.0
READ_ROUNDS, READ_SECONDS = 12, 4.0
WRITERS = ("-c", "8", "-j", "2")  # so many that the processors have no rest
WRITERS_BESIDE_READS = ("-c", "2", "-j", "1", "-R", "500")
SIDE_SECONDS, S3_SECONDS = 0.25, 0.05  # of a slice
SIDES = 3
SHARE = SIDE_SECONDS / (SIDES * (SIDE_SECONDS + S3_SECONDS))  # of the time, for each side
SETTLE_SECONDS_MAX = 60.0
MEMORY = Path("/dev/shm")  # as files, which are written to no disk
SCALE = 10
BAR = Bar(0.95)
READ_BAR = Bar(1.25, is_most=True)
PEER = "the two without --s3, in the mean"
EQUAL = "two that are equal"
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
        ours = Side(bench, resources, "--s3", url, "--s3-endpoint", s3.endpoint)
        sides = [ours, *(Side(bench, resources) for _ in range(SIDES - 1))]
        for side in sides:
            side.start()
        ours.server.stop()  # what was sent until then is not of pgbench's WAL
        before = len(_traffic(ours.server))
        ours.start()
        lsn = insert_lsn(ours.primary)
        rounds = range(bench.rounds(WRITE_ROUNDS))
        written = [_write(_beginning_with(number, sides), s3) for number in rounds]
        rounds = range(bench.rounds(READ_ROUNDS))
        p99s = [{side: side.read() for side in _beginning_with(n, sides)} for n in rounds]
        wal_bytes = insert_lsn(ours.primary) - lsn
        ours.server.stop()
        traffic = _traffic(ours.server)[before:]
    lag_bytes = max(one.lag_bytes for each in written for one in each.values())
    notes = [
        _cost(traffic, wal_bytes),
        f"WAL not readable yet when pgbench ends, at most: {lag_bytes / 1024:.0f} KiB",
    ]
    rates = [[each[side].tps for side in sides] for each in written]
    latencies = [[each[side] for side in sides] for each in p99s]
    return [
        *_rows("pgbench", "tps", rates, BAR, notes),
        *_rows("p99 of reads", "µs", latencies, READ_BAR, []),
    ]


def _rows(
    variant: str, unit: str, rounds: Sequence[Sequence[float]], bar: Bar, notes: list[str]
) -> list[Row]:
    """Ours to the mean of the others, and one of these to the other."""
    pairs = [(ours, mean(equal)) for ours, *equal in rounds]
    equals = [(one, other) for _, one, other in rounds]
    return [
        Row.of_pairs(NAME, variant, unit, PEER, pairs, bar, [_each_round(pairs), *notes]),
        Row.of_pairs(NAME, f"{variant}, {EQUAL}", unit, EQUAL, equals, None, [_each_round(equals)]),
    ]


def _each_round(pairs: Sequence[tuple[float, float]]) -> str:
    return "each round: " + ", ".join(f"{ours / theirs:.2f}" for ours, theirs in pairs)


def _beginning_with(number: int, sides: Sequence[Side]) -> Sequence[Side]:
    """Each of the sides is first, and last, as often as any."""
    first = number % len(sides)
    return [*sides[first:], *sides[:first]]


def _write(sides: Sequence[Side], s3: S3Server) -> dict[Side, Written]:
    """Let all come to rest, and then write at the same time, a slice of it each."""
    for side in sides:
        side.settle()
        side.primary.sql("checkpoint")
    assert s3.process is not None, "it was started"
    slices = []
    try:
        for side in sides:
            side.begin()
            # After each of them, else one side would always come after a rest.
            slices += [Slice(side.processes, SIDE_SECONDS, side.load),
                       Slice([s3.process], S3_SECONDS, None)]  # fmt: skip
        ran = alternate(slices)[::2]
        return {side: side.end(seconds) for side, seconds in zip(sides, ran, strict=True)}
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
