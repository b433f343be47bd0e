"""Many seeds in several processes, and what came of them: the commands of the simulations.

worlds(root)     makes, in each process, what runs seeds, with a directory for its files
worlds.run(seed) what happened how often; an error is a failure of the seed
"""

import argparse
import gc
import json
import logging
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tests.fixtures.fast_directory import IN_MEMORY

CHUNK = 20  # seeds that a process takes at once
FAILURES_SHOWN = 5


class Worlds(Protocol):
    on_event: Callable[[str], object]

    def run(self, seed: int) -> Counter[str]: ...


Make = Callable[[Path], Worlds]


@dataclass
class Result:
    totals: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)  # by seed

    def add(self, other: "Result") -> None:
        self.totals.update(other.totals)
        self.failures.update(other.failures)


_of_process: list[Worlds] = []


def _begin(make: Make, root: Path) -> None:
    logging.disable(logging.ERROR)  # the engine's, of what is done to it on purpose
    gc.disable()  # once a chunk instead, which is a sixth of the time less
    _of_process[:] = [make(Path(tempfile.mkdtemp(dir=root)))]


def _run(seeds: range) -> Result:
    result = Result()
    for seed in seeds:
        try:
            result.totals.update(_of_process[0].run(seed))
        except Exception as error:
            result.failures[seed] = "".join(traceback.format_exception(error))
    gc.collect()
    return result


def _run_all(make: Make, root: Path, seeds: range, workers: int, progress: Progress) -> Result:
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    result, task = Result(), progress.add_task("seeds", total=len(seeds))
    with get_context("fork").Pool(workers, _begin, (make, root)) as pool:
        for chunk, found in zip(chunks, pool.imap(_run, chunks), strict=True):
            result.add(found)
            progress.advance(task, len(chunk))
    return result


@contextmanager
def _directory() -> Iterator[Path]:
    """In memory, where there is room for files."""
    root = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _parse_seeds(text: str) -> range:
    first, dots, end = text.partition("..")
    if not (dots and first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise argparse.ArgumentTypeError(f"{text}: expected A..B, from A on and before B")
    return range(int(first), int(end))


def command_line(program: str, description: str | None, seeds: int) -> argparse.ArgumentParser:
    """The options that all simulations have; so many seeds unless they are said."""
    parser = argparse.ArgumentParser(
        prog=program, description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seeds", type=_parse_seeds, default=range(seeds), metavar="A..B")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="totals and failures, for a machine")
    parser.add_argument("--trace", action="store_true", help="print what happens in the first seed")
    return parser


def run_command(arguments: argparse.Namespace, make: Make) -> int:
    """Do what a command line says; the exit code."""
    with _directory() as root:
        if arguments.trace:
            return _trace(arguments.seeds[0], make, root)
        begin = time.monotonic()
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            result = _run_all(make, root, arguments.seeds, arguments.workers, progress)
    seconds = time.monotonic() - begin
    if arguments.json:
        print(json.dumps({"seconds": seconds, "totals": result.totals,
                          "failures": result.failures}))  # fmt: skip
    else:
        _print_result(result, len(arguments.seeds), seconds)
    return bool(result.failures)


def _trace(seed: int, make: Make, root: Path) -> int:
    _begin(make, root)
    worlds = _of_process[0]
    worlds.on_event = print
    print(dict(worlds.run(seed)))
    return 0


def _print_result(result: Result, seeds: int, seconds: float) -> None:
    """Some failures, and what happened how often."""
    for text in list(result.failures.values())[:FAILURES_SHOWN]:
        print(text)
    table = Table(title=f"{seeds:,} seeds in {seconds:.0f} s")
    table.add_column("what happened")
    table.add_column("times", justify="right")
    for name, count in sorted(result.totals.items()):
        table.add_row(name, f"{count:,}")
    Console().print(table)
    print(f"{len(result.failures)} seeds failed: {sorted(result.failures)[:20]}")
