"""`make demo`: the main job on a real PostgreSQL, and the proof that every page is right.

A primary gets pgbench's tables, a page server is attached to it, and pgbench runs for ten seconds.
Then the primary stops, and every block of every relation fork and every SLRU page that the page
server answers at the end of the shutdown checkpoint is compared with the primary's own files. For
history, the same at two LSNs noted during the run, with standbys recovered to them.

    python -m tools.demo [--pg 18|15]

Exit code 0 if nothing differs. Nothing is left behind: no process and no directory.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from formats import lsn as lsn_text
from formats.postgres_versions import VERSIONS
from server.client import PageClient
from tools.compare import Comparison, compare
from tools.excuses import Rules
from tools.oracle_standby import NoOracle, recover
from tools.page_server import PageServer, PageServerFailed
from tools.postgres import Server, Workspace
from tools.postgres_binaries import MissingPostgres, ProgramFailed
from tools.primary_wal import PrimaryWal

SCALE = 5
RUN_SECONDS = 10
WARM_UP_SECONDS = 3
NOTED_AT_SECONDS = (4.0, 7.0)
STOP_LONGER_SECONDS_MAX = 5.0
DIFFERENCES_SHOWN_MAX = 20

SETTINGS = {"wal_keep_size": "4GB"}
"""The standbys, recovered when the primary has stopped, take their WAL from its directory."""

FAILURES = (NoOracle, PageServerFailed, MissingPostgres, ProgramFailed)


@dataclass
class Outcome:
    """One comparison, as the table shows it."""

    against: str
    result: Comparison
    seconds: float


class Demo:
    """The run; what it starts is stopped by `resources`."""

    def __init__(self, major: int, console: Console, resources: ExitStack) -> None:
        self.major = major
        self.console = console
        self.workspace = resources.enter_context(Workspace())
        self.resources = resources
        self.complaints: list[str] = []

    def run(self) -> list[Outcome]:
        primary = self.start_primary()
        stop_seconds = self.time_a_stop(primary)
        with self.step("base backup for the standbys, then CHECKPOINT"):
            base_backup = primary.base_backup(self.workspace.new_path("base"))
            primary.sql("checkpoint")
        page_server = self.attach(primary)
        noted = self.load(primary)
        self.stop_attached(primary, stop_seconds)
        final = primary.shutdown_checkpoint_end()
        with self.step(f"wait until {lsn_text.show(final)} is ready"):
            page_server.wait_until_ready(final)
        with page_server.client() as client:
            wal = PrimaryWal(primary.data_dir / "pg_wal")
            primary_rules, standby_rules = Rules("primary", wal=wal), Rules("standby")
            outcomes = [self.compare("the primary", primary.data_dir, client, final, primary_rules)]
            for number, lsn in enumerate(noted, 1):
                with self.step(f"recover standby {number} to {lsn_text.show(lsn)}"):
                    wal_dir = primary.data_dir / "pg_wal"
                    standby = recover(self.workspace, self.major, base_backup, wal_dir, lsn)
                at = standby.lsn_boundary
                outcomes.append(
                    self.compare(f"standby {number}", standby.data_dir, client, at, standby_rules)
                )
        with self.step("stop the page server"):
            code = page_server.stop()
        if code != 0:
            self.complaints.append(f"the page server ended with {code}:\n{page_server.log_tail()}")
        return outcomes

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Say what is done while it is done, and how long it took."""
        begin = time.monotonic()
        with self.console.status(what):
            yield
        self.console.print(f"{time.monotonic() - begin:6.1f} s  {what}", highlight=False)

    def start_primary(self) -> Server:
        with self.step(f"initdb and start of PostgreSQL {self.major}"):
            primary = self.workspace.cluster(self.major, SETTINGS).start()
        with self.step(f"pgbench -i -s {SCALE}"):
            primary.pgbench("-i", "-q", "-s", str(SCALE))
        return primary

    def time_a_stop(self, primary: Server) -> float:
        """How long a fast stop takes after some load without a page server."""
        with self.step(f"pgbench for {WARM_UP_SECONDS} s, and a fast stop without page server"):
            primary.pgbench("-T", str(WARM_UP_SECONDS), "-c", "2")
            seconds = primary.stop()
            primary.start()
        return seconds

    def attach(self, primary: Server) -> PageServer:
        data_dir = self.workspace.new_path("pages")
        page_server = PageServer(data_dir, primary.conninfo())
        self.resources.callback(page_server.kill)
        with self.step("pageserver serve: base backup, then WAL"):
            page_server.start()
            page_server.wait_until_ready()
        return page_server

    def load(self, primary: Server) -> list[int]:
        """Run pgbench, and note an LSN twice meanwhile."""
        noted = []
        begin = time.monotonic()
        with self.step(f"pgbench for {RUN_SECONDS} s"):
            process = primary.start_pgbench("-T", str(RUN_SECONDS), "-c", "4", "-j", "2")
            self.resources.callback(process.kill)
            for seconds in NOTED_AT_SECONDS:
                time.sleep(max(0.0, begin + seconds - time.monotonic()))
                ((text,),) = primary.sql("select pg_current_wal_insert_lsn()::text")
                noted.append(lsn_text.parse(text))
            output, _ = process.communicate()
        if process.returncode != 0:
            raise ProgramFailed(f"pgbench ended with {process.returncode}:\n{output}")
        tps = next(line for line in output.splitlines() if line.startswith("tps"))
        self.console.print(f"          {tps}", highlight=False)
        return noted

    def stop_attached(self, primary: Server, stop_seconds: float) -> None:
        with self.step("fast stop with the page server attached"):
            attached_seconds = primary.stop()
        self.console.print(
            f"          fast stop: {attached_seconds:.2f} s with the page server, "
            f"{stop_seconds:.2f} s without",
            highlight=False,
        )
        if attached_seconds > stop_seconds + STOP_LONGER_SECONDS_MAX:
            self.complaints.append(
                f"the fast stop took {attached_seconds:.1f} s, {stop_seconds:.1f} s without us"
            )

    def compare(
        self, against: str, data_dir: Path, client: PageClient, lsn: int, rules: Rules
    ) -> Outcome:
        begin = time.monotonic()
        silent = not self.console.is_terminal
        columns = (TextColumn("compare with {task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=silent) as progress:
            task = progress.add_task(f"{against} at {lsn_text.show(lsn)}")
            result = compare(
                data_dir,
                client,
                lsn,
                rules,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        seconds = time.monotonic() - begin
        self.console.print(
            f"{seconds:6.1f} s  compare with {against} at {lsn_text.show(lsn)}", highlight=False
        )
        return Outcome(against, result, seconds)


def show_outcomes(console: Console, outcomes: list[Outcome]) -> None:
    """What was compared, and what was masked or excused, in a column for each comparison."""
    table = Table(title="Pages answered over the network, and PostgreSQL's own files")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(f"{outcome.against}\n{lsn_text.show(outcome.result.lsn)}", justify="right")
    rows: dict[str, list[int]] = {"relation forks": [o.result.relation_forks for o in outcomes]}
    for kind in ("main", "vm", "init", "slru", "relation map"):
        name = kind if kind == "relation map" else f"{kind} blocks"
        rows[name] = [outcome.result.blocks_compared[kind] for outcome in outcomes]
    rows["differences"] = [outcome.result.difference_count for outcome in outcomes]
    for name, counts in rows.items():
        table.add_row(name, *(str(count) for count in counts))
    table.add_section()
    table.add_row("masked or excused, in pages")
    used: set[StrEnum] = {name for o in outcomes for name, n in o.result.excuses.items() if n}
    for excuse in sorted(used):
        counts = [outcome.result.excuses[excuse] for outcome in outcomes]
        table.add_row(f"  {excuse}", *(str(count) for count in counts))
    console.print(table)
    for outcome in outcomes:
        for difference in outcome.result.differences[:DIFFERENCES_SHOWN_MAX]:
            print(f"differs from {outcome.against}: {difference}")
        hidden = outcome.result.difference_count - DIFFERENCES_SHOWN_MAX
        if hidden > 0:
            print(f"… and {hidden} more from {outcome.against}")


def interrupt(number: int, frame: FrameType | None) -> None:
    """Both signals end us through the clean-up, also where a shell has us ignore one."""
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo", description="The page server, on a real server.")
    parser.add_argument("--pg", type=int, choices=VERSIONS, default=18, help="major version")
    major = parser.parse_args().pg
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    begin = time.monotonic()
    resources = ExitStack()
    try:
        demo = Demo(major, console, resources)
        outcomes = demo.run()
    except FAILURES as failure:
        print(f"demo: {failure}")
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted")
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        resources.close()
    show_outcomes(console, outcomes)
    for complaint in demo.complaints:
        print(f"demo: {complaint}")
    blocks = sum(outcome.result.blocks_compared.total() for outcome in outcomes)
    differences = sum(outcome.result.difference_count for outcome in outcomes)
    console.print(f"{time.monotonic() - begin:.0f} s in all", highlight=False)
    print(f"demo: {blocks} blocks compared, {differences} differences")
    return 1 if differences or demo.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
