"""Oracle B: everything a page server answers, at random LSNs, against a standby's own files.

A primary whose counters are near their wrap gets a page server and the load of tools/sql_fuzzer, in
three parts with restarts between them: one after which its OIDs begin again (relfilenumbers come
twice) and commit timestamps are switched off, and one that is a crash. Then a standby replays its
WAL to one random LSN after another (tools/standby_replay.py), and at each every block of every
fork, every SLRU page, relation map, prepared transaction and size must be the same
(tools/compare.py). At last come the primary's own files, at its shutdown checkpoint.

    python -m tools.standby_oracle [--pg 18] [--seed N] [--lsns 20] [--seconds 30] [--json]

Exit code 1 if anything differs.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random, SystemRandom

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from formats import lsn as lsn_text
from formats.control_file import parse_control_file
from tools.compare import Comparison, compare
from tools.excuses import Rules
from tools.forged_checkpoint import near_wrap, set_counters
from tools.page_server import PageServer
from tools.postgres import Server, Workspace
from tools.sql_fuzzer import SETTINGS, run
from tools.sql_fuzzer.databases import COPIED_THROUGH_WAL
from tools.sql_fuzzer.runner import prepare
from tools.standby_replay import ReplayingStandby
from tools.wal_positions import read_positions

PRIMARY_SETTINGS = {**SETTINGS, "fsync": "off", "wal_keep_size": "20GB"}
"""Kept WAL is the archive: nothing of it is recycled before the standby has it."""
WRAP_XIDS, WRAP_MULTIXACTS, WRAP_MEMBERS = 2000, 700, 4000
"""How many of each there are until the wrap: few enough to be used up in the first part."""
FIRST_OID = 20_000
DIFFERENCES_SHOWN_MAX = 20


@dataclass
class Outcome:
    """What a run compared, and what went wrong besides."""

    seed: int
    major: int
    results: list[tuple[str, Comparison]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    actions: int = 0
    counters: str = ""
    """Where the load left what it began near its wrap."""

    @property
    def blocks(self) -> int:
        return sum(result.blocks_compared.total() for _, result in self.results)

    @property
    def random_lsns(self) -> int:
        return sum(against == "standby" for against, _ in self.results)

    @property
    def differences(self) -> int:
        return sum(result.difference_count for _, result in self.results)


class StandbyOracle:
    """One run; what it starts is stopped by `resources`."""

    def __init__(self, workspace: Workspace, resources: ExitStack, major: int, seed: int) -> None:
        self.workspace, self.resources = workspace, resources
        self.major, self.seed = major, seed
        self.outcome = Outcome(seed, major)

    def run(
        self, lsn_count: int, seconds: float, step: Callable[[str], None] = lambda what: None
    ) -> Outcome:
        """Load for `seconds`, then compare at `lsn_count` LSNs; `step` hears what comes next."""
        step("a primary near the wrap of its counters")
        primary = self.workspace.cluster(self.major, PRIMARY_SETTINGS)
        self._begin(primary)
        start = primary.shutdown_checkpoint_end()
        standby_dir = self.workspace.copy(primary.data_dir, "standby")
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
            f"next xid {control.next_xid >> 32}:{control.next_xid & 0xFFFFFFFF}, multixact "
            f"{control.next_multixact}, member {control.next_multixact_offset}"
        )
        wal_dir = primary.data_dir / "pg_wal"
        positions = read_positions(wal_dir, control.timeline, start, self.major)
        # When commit timestamps are switched off, PostgreSQL removes their files and keeps its
        # buffers: dirty ones would come back as files. A restartpoint just before leaves none.
        fixed = positions.before_parameter_changes(readable_from)
        targets = positions.targets(Random(f"{self.seed} targets"), lsn_count, readable_from, fixed)
        standby = ReplayingStandby(
            self.workspace, self.major, standby_dir, wal_dir, PRIMARY_SETTINGS, start
        )
        with page_server.client() as client:
            for target in targets:
                step(f"standby at {lsn_text.show(target)}")
                standby.replay_to(target)
                result = compare(standby_dir, client, target, Rules("standby"))
                against = "standby, restart" if target in fixed else "standby"
                self.outcome.results.append((against, result))
            step(f"primary at {lsn_text.show(end)}")
            rules = Rules("primary", copied_databases=copied, crashed=True)
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
                primary.start()
        _freeze(primary)
        copied = primary.sql(
            f"SELECT oid::bigint FROM pg_database WHERE datname LIKE '%{COPIED_THROUGH_WAL}'"
        )
        (flushed,) = primary.sql("SELECT pg_current_wal_flush_lsn()")[0]
        # A primary sends what is left of its WAL at a stop to those who are connected.
        page_server.wait_until_ready(lsn_text.parse(flushed))
        primary.stop()
        return frozenset(oid for (oid,) in copied)


def _freeze(primary: Server) -> None:
    """With no prepared transaction left, so that the oldest segments of SLRUs can go."""
    prepared = primary.sql("SELECT gid, database FROM pg_prepared_xacts")
    for gid, database in prepared:
        primary.sql(f"ROLLBACK PREPARED '{gid}'", database)
    for (name,) in primary.sql("SELECT datname FROM pg_database WHERE datallowconn"):
        primary.sql("VACUUM (FREEZE)", name)


def show(console: Console, outcome: Outcome) -> None:
    table = Table("against", "LSN", title=f"PostgreSQL {outcome.major}, seed {outcome.seed}")
    for name in ("relation forks", "blocks", "SLRU pages", "files", "differences"):
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
    with Workspace() as workspace, ExitStack() as resources:
        oracle = StandbyOracle(workspace, resources, options.pg, options.seed)
        silent = not console.is_terminal
        with Progress(*columns, console=console, transient=True, disable=silent) as progress:
            task = progress.add_task("", total=options.lsns + 6)
            outcome = oracle.run(
                options.lsns,
                options.seconds,
                lambda what: progress.update(task, description=what, advance=1),
            )
    if options.json:
        print(as_json(outcome))
    else:
        show(Console(), outcome)
        print(f"{time.monotonic() - begin:.0f} s in all")
    return 1 if outcome.differences or outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
