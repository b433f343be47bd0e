"""Oracle A over all workloads on one version: how often each kind of record was compared.

    python -m tools.redo_coverage --pg 18 [--seed N] [--seconds S] [--only NAME] [--json FILE]

Each workload has a server of its own, with `wal_consistency_checking = all`. When the load is over
the server is stopped and its WAL is compared (tools/redo_oracle.py). Workloads that cannot be had
are named with the reason. `make coverage` does this for all versions and writes
docs/redo-coverage.md of it (tools/coverage_document.py). Exit status 1: pages differ.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from formats import rmgr
from formats.lsn import parse as parse_lsn
from formats.postgres_versions import VERSIONS
from tools import redo_oracle, workloads
from tools.postgres import Workspace
from tools.postgres_binaries import MissingPostgres
from tools.redo_oracle import Report
from tools.workloads.workload import Workload, WorkloadSkipped

SEED = 20_240
SECONDS = 30.0
COLUMNS = ("records", "images", "compared", "raced", "excused", "baseless")
SETTINGS = {
    "wal_consistency_checking": "all",
    "full_page_writes": "on",
    "wal_keep_size": "200GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "fsync": "off",
}
"""All WAL is kept until it was compared, and checkpoints are as far apart as memory allows: after
each one pages come as images, with which there is nothing to compare."""
WAL_COMPRESSION = {15: "lz4"}
"""Of the server that has it; pglz takes the server longer than all its other work."""


@dataclass
class Outcome:
    """One workload on one version."""

    workload: str
    seed: int
    seconds: float
    note: str = ""
    skipped: str = ""
    report: Report = field(default_factory=Report)

    def as_json(self) -> dict[str, Any]:
        return {
            "workload": self.workload,
            "seed": self.seed,
            "seconds": self.seconds,
            "note": self.note,
            "skipped": self.skipped,
            "compared": self.report.compared.total(),
            "differences": self.report.count,
        }


def run_workload(
    workspace: Workspace, major: int, workload: Workload, seed: int, seconds: float
) -> Outcome:
    """Load a new server, stop it, and compare its WAL."""
    outcome = Outcome(workload.name, seed, seconds)
    settings = {**SETTINGS, **workload.settings}
    settings["wal_compression"] = WAL_COMPRESSION.get(major, "off")
    server = workspace.cluster(major, settings, workload.initdb_arguments(major)).start()
    try:
        server.sql("CHECKPOINT")
        ((start,),) = server.sql("SELECT redo_lsn::text FROM pg_control_checkpoint()")
        outcome.note = str(workload.run(server, seed, seconds) or "")
        server.stop()
        wal = server.data_dir / "pg_wal"
        outcome.report = redo_oracle.check(wal, parse_lsn(start), major)
    except WorkloadSkipped as skipped:
        outcome.skipped = str(skipped)
    finally:
        workspace.discard(server)
    return outcome


def kinds_of(major: int, outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
    """Counts of all workloads by name of the record's kind; kinds that were not seen too."""
    kinds = set(rmgr.OPCODES[major]).union(*(outcome.report.records for outcome in outcomes))
    counts: dict[str, dict[str, int]] = {}
    for kind in sorted(kinds):  # all of Generic have one name
        row = counts.setdefault(rmgr.show(major, *kind), dict.fromkeys(COLUMNS, 0))
        for column in COLUMNS:
            row[column] += sum(getattr(outcome.report, column)[kind] for outcome in outcomes)
    return counts


def as_json(major: int, minor: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "major": major,
        "minor": minor,
        "settings": SETTINGS,
        "workloads": [outcome.as_json() for outcome in outcomes],
        "kinds": kinds_of(major, outcomes),
        "compared": sum(outcome.report.compared.total() for outcome in outcomes),
        "differences": sum(outcome.report.count for outcome in outcomes),
        "examples": [text for outcome in outcomes for text in outcome.report.differences],
    }


def show(kinds: Mapping[str, Mapping[str, int]]) -> None:
    print(f"{'':32}" + "".join(f"{column:>10}" for column in COLUMNS))
    for name, counts in kinds.items():
        if any(counts.values()):
            print(f"{name:32}" + "".join(f"{counts[column]:10}" for column in COLUMNS))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.redo_coverage", description=__doc__)
    parser.add_argument("--pg", type=int, choices=VERSIONS, required=True, metavar="MAJOR")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of loads without an end")
    names = [workload.name for workload in workloads.ALL]
    parser.add_argument("--only", choices=names, action="append", help="may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    wanted = [w for w in workloads.ALL if options.only is None or w.name in options.only]
    outcomes = []
    try:
        with Workspace() as workspace:
            minor = workspace.installation(options.pg).version()
            for workload in wanted:
                begin = time.monotonic()
                outcome = run_workload(
                    workspace, options.pg, workload, options.seed, options.seconds
                )
                outcomes.append(outcome)
                console.print(_line(outcome, time.monotonic() - begin), highlight=False)
    except MissingPostgres as missing:
        console.print(f"skipped: {missing}", highlight=False)
        return 0
    result = as_json(options.pg, minor, outcomes)
    show(result["kinds"])
    for text in result["examples"]:
        print(text)
    print(f"total {result['compared']} compared, {result['differences']} differences")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["differences"] else 0


def _line(outcome: Outcome, seconds: float) -> str:
    said = outcome.skipped and f"skipped: {outcome.skipped}"
    compared = outcome.report.compared.total()
    said = said or f"{compared} compared, {outcome.report.count} differences {outcome.note}"
    return f"{seconds:6.1f} s  {outcome.workload}: {said}"


if __name__ == "__main__":
    sys.exit(main())
