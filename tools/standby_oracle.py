"""Oracle B: everything a page server answers, at random LSNs, against a standby's own files.

A primary whose counters are near their wrap gets a page server and the load of tools/sql_fuzzer, in
three parts with restarts between them: one after which its OIDs begin again (relfilenumbers come
twice) and commit timestamps are switched off, and one that is a crash. Then standbys replay its WAL
to random LSNs (tools/oracle_standby.py), and at each every block of every fork, every SLRU page,
relation map, prepared transaction and size must be the same (tools/compare.py). At last come the
primary's own files, at its shutdown checkpoint.

What the seed says besides: whether the cluster has checksums and logs hint bits, and its wal_level.

A standby does not go on from one LSN to the next: PostgreSQL would replay from its last
restartpoint again, and over pages that are newer already its redo is not exact (bits of visibility
maps get lost, for one). At the restarts it can: a shutdown checkpoint is its own redo LSN, so
nothing is replayed twice. A standby stopped there is where those of the next part begin. It is
compared, too, and one thing depends on it: when commit timestamps are switched off PostgreSQL
removes their files and keeps its buffers, and a dirty one would come back as a file.

    python -m tools.standby_oracle [--pg 18] [--seed N] [--lsns 20] [--seconds 30] [--json]

Exit code 1 if anything differs. In two ways PostgreSQL's redo gives a page another pd_lsn than the
primary did (tools/excuses.py, `_explain_lsn`); that is excused where the record says so.
"""

import argparse
import json
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random, SystemRandom

import psycopg
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from formats import lsn as lsn_text
from formats.control_file import parse_control_file
from tools.compare import Comparison, compare
from tools.excuses import Rules
from tools.forged_checkpoint import near_wrap, set_counters
from tools.oracle_standby import NoOracle, recover
from tools.page_server import PageServer, PageServerFailed
from tools.postgres import Server, Workspace
from tools.postgres_binaries import MissingPostgres, ProgramFailed
from tools.primary_wal import PrimaryWal
from tools.sql_fuzzer import SETTINGS, run
from tools.sql_fuzzer.databases import COPIED_THROUGH_WAL
from tools.sql_fuzzer.errors import is_expected
from tools.sql_fuzzer.runner import prepare
from tools.wal_positions import TooFewCheckpoints, read_positions

PRIMARY_SETTINGS = {**SETTINGS, "fsync": "off", "wal_keep_size": "20GB"}
"""Kept WAL is the archive: nothing of it is recycled before the standby has it."""
WRAP_XIDS, WRAP_MULTIXACTS, WRAP_MEMBERS = 1200, 50, 300
"""How many of each there are until the wrap: few enough to be used up in the first part."""
FIRST_OID = 20_000
DIFFERENCES_SHOWN_MAX = 20
_UNLOGGED_FILES_MAX = 20
_IN_THE_WAY = re.compile(r'FATAL:  could not create file "([^"]+)": File exists')
FAILURES = (NoOracle, PageServerFailed, MissingPostgres, ProgramFailed, TooFewCheckpoints)


@dataclass
class Outcome:
    """What a run compared, and what went wrong besides."""

    seed: int
    major: int
    results: list[tuple[str, Comparison]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    actions: int = 0
    counters: str = ""
    """What cluster it was, and where the load left what it began near its wrap."""

    @property
    def blocks(self) -> int:
        return sum(result.blocks_compared.total() for _, result in self.results)

    @property
    def random_lsns(self) -> int:
        return sum(against == "standby" for against, _ in self.results)

    @property
    def excuses(self) -> Counter[StrEnum]:
        """By reason, in pages."""
        return sum((result.excuses for _, result in self.results), Counter())

    @property
    def differences(self) -> int:
        return sum(result.difference_count for _, result in self.results)


class StandbyOracle:
    """One run; what it starts is stopped by `resources`."""

    def __init__(self, workspace: Workspace, resources: ExitStack, major: int, seed: int) -> None:
        self.workspace, self.resources = workspace, resources
        self.major, self.seed = major, seed
        self.outcome = Outcome(seed, major)
        random = Random(f"{seed} cluster")
        self.wal_log_hints = random.random() < 0.5
        self.settings = {
            **PRIMARY_SETTINGS,
            "wal_log_hints": "on" if self.wal_log_hints else "off",
            "wal_level": random.choice(("replica", "logical")),
        }
        checksums = "--no-data-checksums" if major >= 18 else "--data-checksums"
        self.initdb_arguments = (checksums,) if random.random() < 0.5 else ()

    def run(
        self, lsn_count: int, seconds: float, step: Callable[[str], None] = lambda what: None
    ) -> Outcome:
        """Load for `seconds`, then compare at `lsn_count` LSNs; `step` hears what comes next."""
        step("a primary near the wrap of its counters")
        primary = self.workspace.cluster(self.major, self.settings, self.initdb_arguments)
        self._begin(primary)
        start = primary.shutdown_checkpoint_end()
        base = self.workspace.copy(primary.data_dir, "standby")
        primary.start()
        step("base backup of the page server")
        page_server = self._attach(primary)
        readable_from = page_server.wait_until_ready()
        step("load")
        copied = self._load(primary, page_server, seconds, step)
        end = primary.shutdown_checkpoint_end()
        page_server.wait_until_ready(end)
        control = parse_control_file((primary.data_dir / "global/pg_control").read_bytes())
        self.outcome.counters = (
            f"checksums {control.checksums}, hints {control.wal_log_hints}, {control.wal_level}, "
            f"next xid {control.next_xid >> 32}:{control.next_xid & 0xFFFFFFFF}, multixact "
            f"{control.next_multixact}, member {control.next_multixact_offset}"
        )
        wal_dir = primary.data_dir / "pg_wal"
        positions = read_positions(wal_dir, control.timeline, start, self.major)
        restarts = positions.before_parameter_changes(readable_from)
        targets = positions.targets(
            Random(f"{self.seed} targets"), lsn_count, [readable_from, *restarts]
        )
        with page_server.client() as client:
            for target in sorted([*targets, *restarts]):
                step(f"standby at {lsn_text.show(target)}")
                standby = recover(
                    self.workspace, self.major, base, wal_dir, target,
                    wal_log_hints=self.wal_log_hints,
                )  # fmt: skip
                result = compare(standby.data_dir, client, standby.lsn_boundary, Rules("standby"))
                if target in restarts:
                    self.outcome.results.append(("standby, restart", result))
                    base = standby.data_dir
                else:
                    self.outcome.results.append(("standby", result))
                    shutil.rmtree(standby.data_dir)
            step(f"primary at {lsn_text.show(end)}")
            wal = PrimaryWal(wal_dir)
            rules = Rules("primary", copied_databases=copied, crashed=True, wal=wal)
            result = compare(primary.data_dir, client, end, rules)
            self.outcome.results.append(("primary", result))
        return self.outcome

    def _begin(self, primary: Server) -> None:
        """Everything that is to be there before the page server and the standby; stopped."""
        primary.start()
        primary.sql("ALTER SYSTEM SET autovacuum = off")  # nothing is written while we attach
        primary.stop()
        near_wrap(primary, WRAP_XIDS, WRAP_MULTIXACTS, WRAP_MEMBERS)
        set_counters(primary, next_oid=FIRST_OID)
        primary.start()
        prepare(primary, self.seed)
        primary.stop()

    def _attach(self, primary: Server) -> PageServer:
        page_server = PageServer(self.workspace.new_path("pages"), primary.conninfo())
        self.resources.callback(page_server.kill)
        page_server.start()
        page_server.wait_until_ready()
        return page_server

    def _load(
        self, primary: Server, page_server: PageServer, seconds: float, step: Callable[[str], None]
    ) -> frozenset[int]:
        """The three parts; the primary is stopped when this returns the OIDs of the databases that
        were copied through WAL."""
        primary.sql("ALTER SYSTEM RESET autovacuum")
        primary.sql("SELECT pg_reload_conf()")
        for part in range(3):
            report = run(primary, 3 * self.seed + part, seconds / 3)
            self.outcome.actions += report.runs.total()
            self.outcome.failures += report.failures
            if part == 0:
                _freeze(primary)
                primary.stop()
                set_counters(primary, next_oid=FIRST_OID + 200)
                primary.settings["track_commit_timestamp"] = "off"
            elif part == 1:
                primary.stop("immediate")
                primary.settings["track_commit_timestamp"] = "on"
            if part < 2:
                step(f"restart, part {part + 2} of the load")
                _start(primary)
        _freeze(primary)
        copied = primary.sql(
            f"SELECT oid::bigint FROM pg_database WHERE datname LIKE '%{COPIED_THROUGH_WAL}'"
        )
        (flushed,) = primary.sql("SELECT pg_current_wal_flush_lsn()")[0]
        # A primary sends what is left of its WAL at a stop to those who are connected.
        page_server.wait_until_ready(lsn_text.parse(flushed))
        primary.stop()
        return frozenset(oid for (oid,) in copied)


def _start(primary: Server) -> None:
    """Start, also where PostgreSQL's recovery from a crash ends at a file of an unlogged relation.

    It makes those anew from their init forks, and had not removed one of them before (seen with
    17.10 after a crash among SET UNLOGGED). The remedy is its administrator's: remove the file.
    """
    for _ in range(_UNLOGGED_FILES_MAX):
        try:
            primary.start()
            return
        except ProgramFailed as failure:
            in_the_way = _IN_THE_WAY.search(str(failure))
            if in_the_way is None:
                raise
            (primary.data_dir / in_the_way[1]).unlink()
    primary.start()


def _freeze(primary: Server) -> None:
    """With no prepared transaction left, so that the oldest segments of SLRUs can go."""
    prepared = primary.sql("SELECT gid, database FROM pg_prepared_xacts")
    for gid, database in prepared:
        primary.sql(f"ROLLBACK PREPARED '{gid}'", database)
    for (name,) in primary.sql("SELECT datname FROM pg_database WHERE datallowconn"):
        try:
            primary.sql("VACUUM (FREEZE)", name)
        except psycopg.Error as error:
            if not is_expected(error):
                raise


def show(console: Console, outcome: Outcome) -> None:
    table = Table(
        "against", "LSN", box=box.SIMPLE, title=f"PostgreSQL {outcome.major}, seed {outcome.seed}"
    )
    for name in ("relation forks", "blocks", "SLRU pages", "files", "differ"):
        table.add_column(name, justify="right")
    for against, result in outcome.results:
        blocks = result.blocks_compared
        files = blocks["relation map"] + blocks["prepared transaction"]
        pages = blocks.total() - blocks["slru"] - files
        counts = (result.relation_forks, pages, blocks["slru"], files, result.difference_count)
        table.add_row(against, lsn_text.show(result.lsn), *(str(count) for count in counts))
    console.print(table)
    for against, result in outcome.results:
        for difference in result.differences[:DIFFERENCES_SHOWN_MAX]:
            print(f"differs from the {against}: {difference}")
    for failure in outcome.failures:
        print(failure)
    for excuse, count in sorted(outcome.excuses.items()):
        print(f"masked or excused: {count:7,}  {excuse}")
    print(
        f"standby_oracle: PostgreSQL {outcome.major}, seed {outcome.seed}: "
        f"{outcome.actions} actions, {outcome.counters}; {outcome.random_lsns} random LSNs and "
        f"{len(outcome.results) - outcome.random_lsns} others, "
        f"{outcome.blocks} blocks compared, {outcome.differences} differences"
    )


def as_json(outcome: Outcome) -> str:
    return json.dumps(
        {
            "major": outcome.major,
            "seed": outcome.seed,
            "blocks": outcome.blocks,
            "differences": outcome.differences,
            "failures": outcome.failures,
            "excuses": dict(outcome.excuses),
            "lsns": [
                {"against": against, "lsn": lsn_text.show(result.lsn),
                 "blocks": dict(result.blocks_compared),
                 "differences": [str(difference) for difference in result.differences]}
                for against, result in outcome.results
            ],
        }
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="standby_oracle", description="A standby as an oracle.")
    parser.add_argument("--pg", type=int, choices=range(14, 19), default=18, help="major version")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--lsns", type=int, default=20, help="how many random LSNs")
    parser.add_argument("--seconds", type=float, default=30.0, help="of load")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    begin = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # through the clean-up
    try:
        with Workspace() as workspace, ExitStack() as resources:
            oracle = StandbyOracle(workspace, resources, options.pg, options.seed)
            silent = not console.is_terminal
            with Progress(*columns, console=console, transient=True, disable=silent) as progress:
                task = progress.add_task("", total=options.lsns + 6)

                def step(what: str) -> None:
                    progress.update(task, description=what, advance=1)
                    if silent:
                        print(f"{time.monotonic() - begin:6.1f} s  {what}", file=sys.stderr)

                outcome = oracle.run(options.lsns, options.seconds, step)
    except FAILURES as failure:
        print(f"standby_oracle: {failure}")
        return 1
    if options.json:
        print(as_json(outcome))
    else:
        show(Console(), outcome)
        print(f"{time.monotonic() - begin:.0f} s in all")
    return 1 if outcome.differences or outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
