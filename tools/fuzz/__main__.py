"""Gives targets made-up inputs until they had enough, and keeps count in build/fuzz.json.

    python -m tools.fuzz [TARGET ...] --inputs 100000000 --seconds 3600 --seed 1

A target has had enough after so many inputs or so many seconds of the processor, whichever comes
first, summed over all runs with the same seed: what is interrupted goes on where it was. `--first`
runs single inputs, uncounted: so an input that failed is run again. `--forget` starts anew.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.fuzz import corpus, watch
from tools.fuzz.targets import TARGETS

STATE = Path("build/fuzz.json")
FAILURES = Path("build/fuzz-failures")
STRETCH_SECONDS = 60.0
TEXTS_SHOWN = 400


class Progress:
    """What a target has done, in build/fuzz.json: inputs, seconds, outcomes."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.seed = seed
        every: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}
        found = every.get(name, {})
        if found.get("seed") != seed:
            found = {}
        self.inputs: int = found.get("inputs", 0)
        self.seconds: float = found.get("seconds", 0.0)
        self.accepted = Counter[str](found.get("accepted", {}))
        self.errors = Counter[str](found.get("errors", {}))

    def add(self, report: watch.Report) -> None:
        """What one child did."""
        self.inputs += report["inputs"]
        self.seconds += report["seconds"]
        self.accepted.update(report["accepted"])
        self.errors.update(report["errors"])

    def save(self) -> None:
        """Other targets' counts are kept: they may run beside this one."""
        every: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}
        every[self.name] = {
            "seed": self.seed,
            "inputs": self.inputs,
            "seconds": round(self.seconds, 1),
            "accepted": dict(self.accepted.most_common()),
            "errors": dict(self.errors.most_common(TEXTS_SHOWN)),
        }
        STATE.parent.mkdir(exist_ok=True)
        beside = STATE.with_suffix(".new")
        beside.write_text(json.dumps(every, indent=1))
        beside.replace(STATE)

    @property
    def share_accepted(self) -> float:
        return self.accepted.total() / self.inputs if self.inputs else 0.0


def fuzz(
    name: str, seed: int, inputs: int, seconds: float, console: Console
) -> watch.Failure | None:
    """One target until it had enough or fails."""
    progress = Progress(name, seed)
    last: watch.Report = {}
    with console.status(name) as status:

        def tell(report: watch.Report) -> None:
            last.update(report)
            done = progress.inputs + report["inputs"]
            status.update(f"{name}: {done:,} inputs of {inputs:,}")

        while progress.inputs < inputs and progress.seconds < seconds:
            rest = min(STRETCH_SECONDS, seconds - progress.seconds)
            failure = watch.run(name, seed, progress.inputs, inputs - progress.inputs, rest, tell)
            if failure:
                return failure
            progress.add(last)
            progress.save()
    return None


def keep(failure: watch.Failure, console: Console) -> None:
    """Say what failed, how to see it again, and where its smallest form is."""
    console.print(failure.text, highlight=False, markup=False)
    console.print(f"{failure.target}: {failure.reason}; again with\n    {failure.command}")
    FAILURES.mkdir(parents=True, exist_ok=True)
    path = FAILURES / f"{failure.target}-{failure.seed}-{failure.number}.input"
    path.write_bytes(failure.input())
    console.print(f"shrinking {path}")
    with tempfile.TemporaryDirectory() as directory:
        path.write_bytes(watch.shrink(failure.target, path.read_bytes(), Path(directory)))
    place = corpus.DIRECTORY.relative_to(Path.cwd()) / failure.target
    console.print(f"{path}: mend it, then keep it as {place}/WHAT_IT_DID.input")


def show(names: list[str], seed: int, console: Console) -> None:
    table = Table("target", box=None)
    for title in ("inputs", "seconds", "accepted", "kinds of error"):
        table.add_column(title, justify="right")
    for name in names:
        done = Progress(name, seed)
        table.add_row(name, f"{done.inputs:,}", f"{done.seconds:,.0f}",
                      f"{done.share_accepted:.1%}", str(len(done.errors)))  # fmt: skip
    console.print(table)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=100_000_000)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, help="run --inputs inputs from this one on, uncounted")
    parser.add_argument("--forget", action="store_true", help="start the count anew")
    options = parser.parse_args(arguments)
    names = options.targets or list(TARGETS)
    console = Console(stderr=True)
    if options.forget:
        for name in names:
            Progress(name, -1).save()
    for name in names:
        if options.first is not None:
            failure = watch.run(name, options.seed, options.first, options.inputs,
                                options.seconds, lambda report: None)  # fmt: skip
        else:
            failure = fuzz(name, options.seed, options.inputs, options.seconds, console)
        if failure:
            keep(failure, console)
            return 1
    if options.first is None:
        show(names, options.seed, Console())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
