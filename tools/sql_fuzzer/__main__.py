"""The fuzzer alone, against a server of its own: does every statement do what it should?

    python -m tools.sql_fuzzer [--pg 18] [--seed N] [--seconds S] [--json]

Exit code 1 if a statement ended with an error that none may end with.
"""

import argparse
import json
import sys
from random import SystemRandom

from rich.console import Console
from rich.table import Table

from tools.postgres import Workspace
from tools.sql_fuzzer import SETTINGS, Report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="sql_fuzzer", description=__doc__.partition("\n")[0])
    parser.add_argument("--pg", type=int, choices=range(14, 19), default=18, help="major version")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true", help="counts as JSON instead of a table")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    with Workspace() as workspace:
        server = workspace.cluster(options.pg, {"fsync": "off", **SETTINGS}).start()
        report = run(server, options.seed, options.seconds)
        server.stop()
    if options.json:
        errors: dict[str, dict[str, int]] = {}
        for (action, state), count in sorted(report.errors.items()):
            errors.setdefault(action, {})[state] = count
        counts = {"seed": report.seed, "runs": report.runs, "errors": errors}
        print(json.dumps({**counts, "failures": report.failures}))
    else:
        show(Console(), report)
    return 1 if report.failures else 0


def show(console: Console, report: Report) -> None:
    table = Table("action", "runs", "errors that may be, by SQLSTATE")
    for action, runs in sorted(report.runs.items()):
        errors = sorted((state, n) for (name, state), n in report.errors.items() if name == action)
        table.add_row(action, str(runs), ", ".join(f"{state}: {n}" for state, n in errors))
    console.print(table)
    for failure in report.failures:
        print(failure)
    print(
        f"sql_fuzzer: seed {report.seed}: {report.runs.total()} actions, {report.statements} "
        f"statements, {report.errors.total()} errors that may be, {len(report.failures)} failures"
    )


if __name__ == "__main__":
    sys.exit(main())
