"""`make soak MINUTES=n`: a primary at full rate, a page server that is killed again and again.

pgbench writes as fast as it can; the page server flushes often, keeps little history, and gets
kill -9 at random moments, the primary now and then. Meanwhile must hold:

    memory      what is the server's own stays under `memory_bytes_max` and a constant beside it
    reads       look into at most ten layers, for 99 of 100 blocks (tools/layer_stat.py)
    restart     everything that was reported as flushed is readable soon after each kill
    history     a page at an LSN is answered as it was before, until the horizon passes; those at
                LSNs that points keep are answered to the end

At the end the primary stops, and every block is compared with its files, as `make demo` does.

With --s3 it is backed up to a real S3 server, which is killed now and then as well, and every third
kill of the page server takes its directory too: it goes on with what the bucket has, and catches up
from the primary. Only points that were made just before may be lost then.

    python -m tools.soak [--minutes 30] [--seed N] [--pg 18] [--scale 10] [--s3]

Exit code 1 if anything of this was broken. Nothing is left behind.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from random import Random, SystemRandom

import psycopg
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engine.storage import Storage
from formats import lsn as lsn_text
from formats.postgres_versions import VERSIONS
from server.client import ConnectError, PageServerError
from tools.compare import Comparison, compare
from tools.excuses import Rules
from tools.layer_stat import read_directory
from tools.page_server import PageServer, PageServerFailed
from tools.postgres import Workspace
from tools.postgres_binaries import MissingPostgres, ProgramFailed
from tools.primary_wal import PrimaryWal
from tools.s3_server import S3Server
from tools.soak_history import PageHistory
from tools.soak_samples import MIB, Samples, resident_bytes

MEMORY_BYTES_MAX = 256 * MIB
SETTINGS = {
    "memory_bytes_max": MEMORY_BYTES_MAX,
    "flush_seconds_max": 10,
    "retention_seconds": 60,
    "retention_wal_bytes": 16 * MIB,
}
PRIMARY_SETTINGS = {"fsync": "off", "max_wal_size": "1GB", "checkpoint_timeout": "60s",
                    "wal_keep_size": "20GB"}  # fmt: skip
"""Without fsync the primary writes faster, and a killed process loses nothing. Its WAL is kept for
the comparison, as tools/excuses.py excuses some pd_lsn by their records alone."""
CLIENTS = 4
KILL_AFTER_SECONDS = (8.0, 40.0)
PRIMARY_KILLED = 1 / 6  # of kills
S3_KILLED = 1 / 8
MACHINE_LOST = 1 / 3  # of kills of the page server
POINT_SECONDS = 30.0  # within which one is in the bucket
TICK_SECONDS = 0.5
STATUS_SECONDS, LAYERS_SECONDS, HISTORY_SECONDS = 2.0, 10.0, 15.0
DIFFERENCES_SHOWN_MAX = 20
TABLE_WIDTH = 160  # where no terminal shows it
FAILURES = (PageServerFailed, MissingPostgres, ProgramFailed)
GONE = (ConnectError, PageServerError, OSError)


class Soak:
    """One run; what it starts is stopped by `resources`."""

    def __init__(
        self, resources: ExitStack, major: int, seed: int, scale: int, with_bucket: bool
    ) -> None:
        self.workspace = resources.enter_context(Workspace())
        self.resources = resources
        self.major, self.seed, self.scale = major, seed, scale
        self.random = Random(seed)
        self.samples = Samples(MEMORY_BYTES_MAX)
        self.history = PageHistory(Random(f"{seed} history"))
        self.begin = 0.0
        self.begin_lsn = self.ready_lsn = self.flushed_lsn = 0
        self.transactions = 0
        self.pgbench: subprocess.Popen[str] | None = None
        self.bucket = resources.enter_context(S3Server()) if with_bucket else None
        self.remote_lsn = 0
        self.is_lazy = False  # layers may be in the bucket alone

    @property
    def seconds(self) -> float:
        """Since the load began."""
        return time.monotonic() - self.begin

    def run(self, seconds: float, progress: Progress) -> Comparison:
        """Load for so long, then the comparison."""
        task = progress.add_task("set up", total=seconds)
        self.primary = self.workspace.cluster(self.major, PRIMARY_SETTINGS).start()
        self.primary.pgbench("-i", "-q", "-s", str(self.scale))
        self.page_server = self._attach()
        self.begin, self.begin_lsn = time.monotonic(), self.page_server.wait_until_ready()
        self.deadline = self.begin + seconds
        due = dict.fromkeys((self._status, self._layers, self._history), 0.0)
        every = {self._status: STATUS_SECONDS, self._layers: LAYERS_SECONDS,
                 self._history: HISTORY_SECONDS}  # fmt: skip
        next_kill = self.random.uniform(*KILL_AFTER_SECONDS)
        while time.monotonic() < self.deadline:
            self._keep_load()
            self._memory()
            for measure, at in due.items():
                if self.seconds >= at:
                    measure()
                    due[measure] = self.seconds + every[measure]
            if self.seconds >= next_kill:
                self._kill()
                next_kill = self.seconds + self.random.uniform(*KILL_AFTER_SECONDS)
            progress.update(task, completed=min(self.seconds, seconds),
                            description=f"load, {len(self.samples.kills)} kills")  # fmt: skip
            time.sleep(TICK_SECONDS)
        return self._finish(progress)

    def _attach(self) -> PageServer:
        options = [
            word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")
        ]
        if self.bucket is not None:
            os.environ.update(self.bucket.environment)
            url = f"s3://{self.bucket.new_bucket('soak')}/pages"
            options += ["--s3", url, "--s3-endpoint", self.bucket.endpoint]
        server = PageServer(self.workspace.new_path("pages"), self.primary.conninfo(), *options)
        self.resources.callback(server.kill)
        server.start()
        return server

    # The load and the kills ----------------------------------------------------------------------

    def _keep_load(self) -> None:
        """Start pgbench if it does not run: at the beginning, and after the primary was killed."""
        if self.pgbench is None or self.pgbench.poll() is not None:
            self._end_load()
            left = max(1, round(self.deadline - time.monotonic()))
            self.pgbench = self.primary.start_pgbench(
                "-n", "-T", str(left), "-c", str(CLIENTS), "-j", "2"
            )
            self.resources.callback(self.pgbench.kill)

    def _end_load(self) -> None:
        """Wait for pgbench's end, and count what it did."""
        if self.pgbench is not None:
            output, _ = self.pgbench.communicate()
            done = re.search(r"transactions actually processed: (\d+)", output)
            self.transactions += int(done[1]) if done else 0
            self.pgbench = None

    def _kill(self) -> None:
        chance = self.random.random() if self.samples.kills else 1.0
        if chance < PRIMARY_KILLED:
            self.samples.kills.append((self.seconds, "primary"))
            self.primary.kill()
            self._end_load()
            self.primary.start()
        elif self.bucket is not None and chance < PRIMARY_KILLED + S3_KILLED:
            self.samples.kills.append((self.seconds, "S3 server"))
            self.bucket.kill()
            self.bucket.start()
        else:
            self._kill_page_server()

    def _kill_page_server(self) -> None:
        self._status()
        is_lost = bool(self.remote_lsn) and self.random.random() < MACHINE_LOST
        self.samples.kills.append((self.seconds, "machine" if is_lost else "page server"))
        self.page_server.kill()
        if is_lost:
            shutil.rmtree(self.page_server.data_dir)
            self.is_lazy = True
        lost_at, begin = self.seconds, time.monotonic()
        self.page_server.start()
        try:
            self.page_server.wait_until_ready(self.flushed_lsn)
        except PageServerFailed as failure:
            self.samples.breaks(self.seconds, f"after kill -9: {failure}")
            raise
        self.samples.restart_seconds.append(time.monotonic() - begin)
        if is_lost:
            with self.page_server.client() as client:
                self.history.check_points(client, lost_at - POINT_SECONDS)

    # Measuring -----------------------------------------------------------------------------------

    def _memory(self) -> None:
        if self.page_server.process is not None and self.page_server.running:
            self.samples.add_memory(self.seconds, resident_bytes(self.page_server.process.pid))
        else:
            raise PageServerFailed(f"the page server ended:\n{self.page_server.log_tail()}")

    def _status(self) -> None:
        with self.page_server.client() as client:
            status = client.status()
        self.ready_lsn = lsn_text.parse(str(status["ready_lsn"]))
        self.flushed_lsn = lsn_text.parse(str(status["flushed_lsn"]))
        self.remote_lsn = lsn_text.parse(str(status["remote_lsn"] or "0/0"))
        received = lsn_text.parse(str(status["received_lsn"]))
        self.samples.lag.append((self.seconds, max(0, received - self.ready_lsn)))
        horizon = lsn_text.parse(str(status["horizon_lsn"]))
        self.samples.kept.append((self.seconds, self.ready_lsn - horizon))
        if status["state"] == "failed":
            raise PageServerFailed(f"the page server has failed: {status.get('error')}")

    def _layers(self) -> None:
        if self.is_lazy:
            return
        stat = read_directory(Storage(), self.page_server.data_dir)
        self.samples.add_layers(self.seconds, self.ready_lsn - self.begin_lsn, stat)

    def _history(self) -> None:
        with self.page_server.client() as client:
            self.history.note(client, self.ready_lsn, self.seconds)
            self.history.read_again(client)

    # The end -------------------------------------------------------------------------------------

    def _finish(self, progress: Progress) -> Comparison:
        task = progress.add_task("the end of the load", total=None)
        self._end_load()
        self.primary.stop()
        end = self.primary.shutdown_checkpoint_end()
        self.page_server.wait_until_ready(end)
        self._layers()
        crashed = any(who == "primary" for _, who in self.samples.kills)
        with self.page_server.client() as client:
            for lsn in sorted(self.history.seen):
                self.history.compare(client, lsn)
            progress.update(task, description="compare")
            wal = PrimaryWal(self.primary.data_dir / "pg_wal")
            result = compare(
                self.primary.data_dir, client, end, Rules("primary", crashed=crashed, wal=wal),
                lambda done, total: progress.update(task, completed=done, total=total),
            )  # fmt: skip
        if code := self.page_server.stop():
            self.samples.breaks(self.seconds, f"the page server ended with {code}")
        return result


def show(console: Console, soak: Soak, result: Comparison | None, seconds: float) -> int:
    """The table and what was broken; how many things were."""
    samples, history = soak.samples, soak.history
    print(f"PostgreSQL {soak.major}, seed {soak.seed}, scale {soak.scale}, {seconds:.0f} s of load")
    console.print(samples.table(seconds))
    faults = [*samples.broken, *history.differences]
    faults += [str(difference) for difference in result.differences] if result else []
    for fault in faults[:DIFFERENCES_SHOWN_MAX]:
        print(fault)
    if len(faults) > DIFFERENCES_SHOWN_MAX:
        print(f"… and {len(faults) - DIFFERENCES_SHOWN_MAX} more")
    killed = [who for _, who in samples.kills]
    slowest = max(samples.restart_seconds, default=0.0)
    print(
        f"{soak.transactions:,} transactions, {soak.transactions / seconds:,.0f} a second; killed: "
        f"page server {killed.count('page server')}, primary {killed.count('primary')}, S3 server "
        f"{killed.count('S3 server')} times, directory lost {killed.count('machine')} times; "
        f"ready again within {slowest:.1f} s; "
        f"memory {decimal(max((value for _, value in samples.memory), default=0))} at most"
    )
    print(
        f"soak: {history.pages_read_again:,} pages read again, {history.lsns_expired} LSNs "
        f"expired, {len(history.points)} kept by points, {len(history.differences)} differed; "
        f"{result.blocks_compared.total() if result else 0:,} blocks compared, "
        f"{result.difference_count if result else 'no'} differences; "
        f"{len(samples.broken)} invariants broken"
    )
    return len(faults)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description="A page server under load and kills.")
    parser.add_argument("--minutes", type=float, default=30.0, help="of load")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--pg", type=int, choices=VERSIONS, default=18, help="major version")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench's tables")
    parser.add_argument("--s3", action="store_true", help="back up to S3, and lose directories")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    seconds = 60 * options.minutes
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # through the clean-up
    result, failed = None, False
    with ExitStack() as resources:
        soak = Soak(resources, options.pg, options.seed, options.scale, options.s3)
        try:
            with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
                result = soak.run(seconds, progress)
        except (*FAILURES, *GONE, psycopg.Error) as failure:
            print(f"soak: {failure}")
            failed = True
    console = Console() if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    return 1 if show(console, soak, result, seconds) or failed else 0


if __name__ == "__main__":
    sys.exit(main())
