"""Run seeds of the simulation, in several processes: `make simulate SEEDS=n`.

    python -m tests.simulation --seeds 0..10000 --workers 2     exit code 1: a seed failed
    python -m tests.simulation --seeds 17..18 --trace           what happens in one of them

A failing seed's error says with which command it is repeated.
"""

import argparse
import gc
import json
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.fixtures.fast_directory import IN_MEMORY
from tests.simulation.run import Simulation

CHUNK = 20  # seeds that a process takes at once
FAILURES_SHOWN = 5


@dataclass
class Result:
    totals: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)  # by seed

    def add(self, other: "Result") -> None:
        self.totals.update(other.totals)
        self.failures.update(other.failures)


_of_process: list[Simulation] = []


def _begin(root: Path) -> None:
    logging.disable(logging.ERROR)  # the compactor's, of damage that was done on purpose
    gc.disable()  # once a chunk instead, which is a sixth of the time less
    _of_process[:] = [Simulation(Path(tempfile.mkdtemp(dir=root)))]


def _run(seeds: range) -> Result:
    result = Result()
    for seed in seeds:
        try:
            result.totals.update(_of_process[0].run(seed))
        except Exception as error:
            result.failures[seed] = "".join(traceback.format_exception(error))
    gc.collect()
    return result


def run_seeds(seeds: range, workers: int, progress: Progress) -> Result:
    """All seeds, in `workers` processes."""
    root = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    result, task = Result(), progress.add_task("seeds", total=len(seeds))
    try:
        with get_context("fork").Pool(workers, _begin, (root,)) as pool:
            for chunk, found in zip(chunks, pool.imap(_run, chunks), strict=True):
                result.add(found)
                progress.advance(task, len(chunk))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return result


def parse_seeds(text: str) -> range:
    first, dots, end = text.partition("..")
    if not (dots and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise argparse.ArgumentTypeError(f"{text}: expected A..B, from A on and before B")
    return range(int(first), int(end))


def _print_trace(seed: int) -> int:
    root = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    try:
        _begin(root)
        simulation = _of_process[0]
        simulation.on_event = print
        print(dict(simulation.run(seed)))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


def _rows(result: Result) -> Iterator[tuple[str, str]]:
    for name, count in sorted(result.totals.items()):
        yield name, f"{count:,}"


def print_result(result: Result, seeds: int, seconds: float) -> None:
    """Some failures, and what happened how often."""
    for text in list(result.failures.values())[:FAILURES_SHOWN]:
        print(text)
    table = Table(title=f"{seeds:,} seeds in {seconds:.0f} s")
    table.add_column("what happened")
    table.add_column("times", justify="right")
    for row in _rows(result):
        table.add_row(*row)
    Console().print(table)
    print(f"{len(result.failures)} seeds failed: {sorted(result.failures)[:20]}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seeds", type=parse_seeds, default=range(10_000), metavar="A..B")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="totals and failures, for a machine")
    parser.add_argument("--trace", action="store_true", help="print what happens in the first seed")
    arguments = parser.parse_args()
    if arguments.trace:
        return _print_trace(arguments.seeds[0])
    begin = time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        result = run_seeds(arguments.seeds, arguments.workers, progress)
    seconds = time.monotonic() - begin
    if arguments.json:
        print(json.dumps({"seconds": seconds, "totals": result.totals,
                          "failures": result.failures}))  # fmt: skip
        return bool(result.failures)
    print_result(result, len(arguments.seeds), seconds)
    return bool(result.failures)


if __name__ == "__main__":
    sys.exit(main())
