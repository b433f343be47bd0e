"""What the compaction policy does in months: `python -m tools.compaction_simulator`.

    python -m tools.compaction_simulator [--json] [--document FILE] [TABLE ...]

TABLE is a workload (uniform, zipf, append-only, bulk-load, tiny-tables, sparse-10TB), `growth` (one
load over databases of several sizes) or `parameters` (ours with one number changed); without any,
all. `--document` puts the tables in their places in docs/compaction.md, which says what they mean.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from tools.compaction_simulator import report


def replaced(document: str, tables: dict[str, list[report.Row]]) -> str:
    """A document with each table between its marks anew."""
    for name, rows in tables.items():
        place = re.search(rf"<!-- table: {name} -->\n((?:\|.*\n)*)", document)
        if not place:
            raise ValueError(f"the document has no place for the table {name}")
        table = report.markdown(rows) + "\n"
        document = document[: place.start(1)] + table + document[place.end(1) :]
    return document


def simulate(names: list[str], advance: Callable[[], None]) -> dict[str, list[report.Row]]:
    tables: dict[str, list[report.Row]] = {}
    for name in names:
        tables[name] = []
        for run in report.runs(name):
            tables[name].append(report.row(run))
            advance()
    return tables


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="compaction_simulator", description="What the compaction policy does in months."
    )
    parser.add_argument("tables", metavar="TABLE", nargs="*", help=", ".join(report.TABLES))
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--document", type=Path, metavar="FILE", help="put the tables in there")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.tables) - set(report.TABLES))
    if unknown:
        parser.error(f"no such table: {', '.join(unknown)}; there are {', '.join(report.TABLES)}")
    names = arguments.tables or list(report.TABLES)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("simulating", total=sum(len(report.runs(name)) for name in names))
        tables = simulate(names, lambda: progress.advance(task))
    if arguments.json:
        print(json.dumps(tables, indent=2))
    else:
        print("\n\n".join(f"{name}\n\n{report.markdown(rows)}" for name, rows in tables.items()))
    if arguments.document:
        text = arguments.document.read_text(encoding="utf-8")
        arguments.document.write_text(replaced(text, tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
