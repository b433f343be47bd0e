"""Two writers, sometimes more, on one bucket: every seed another interleaving of what they do.

    python -m tests.simulation.two_writers --seeds 0..100000    exit code 1: a seed failed
    python -m tests.simulation.two_writers --seeds 0..1000 --real    with the real uploader
    python -m tests.simulation.two_writers --seeds 17..18 --trace

tests/simulation/bucket_world.py has what happens and what must hold.
"""

import argparse
import contextlib
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
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

from rich.console import Console
from rich.progress import Progress

from server.backup import bucket_manifest
from tests.fixtures.fast_directory import IN_MEMORY
from tests.simulation.__main__ import CHUNK, Result, parse_seeds, print_result
from tests.simulation.bucket_world import Cast, World
from tests.simulation.real_writer import RealCast
from tests.simulation.scheduler import Scheduler
from tests.simulation.small_writer import SmallCast

STEPS = 130
LONG_ONES = 0.35  # the part of all worlds that live on after a takeover
TRACE_SHOWN = 60


class Simulation:
    """Runs seeds one after the other."""

    def __init__(self, cast: Cast | None = None) -> None:
        self.cast = SmallCast() if cast is None else cast
        self.scheduler = Scheduler()

    def run(self, seed: int) -> Counter[str]:
        """Live through a seed's world; what happened. A failure has notes that say how to repeat
        it, and what came before."""
        with often_snapshots():
            world = World(seed, self.scheduler, self.cast)
            try:
                world.run(STEPS)
                if world.random.random() < LONG_ONES:
                    world.do_takeover()
                    world.run(2 * STEPS)
                world.count_all()
                return world.totals
            except BaseException as error:
                error.add_note("\n".join(self.scheduler.trace[-TRACE_SHOWN:]))
                real = " --real" if isinstance(self.cast, RealCast) else ""
                error.add_note(
                    f"python -m tests.simulation.two_writers --seeds {seed}..{seed + 1}{real}"
                )
                raise
            finally:
                self.scheduler.kill()
                self.cast.end()


@contextlib.contextmanager
def often_snapshots() -> Iterator[None]:
    with (
        patch.object(bucket_manifest, "SNAPSHOT_ENTRIES_MIN", 2),
        patch.object(bucket_manifest, "SNAPSHOT_ENTRIES_MAX", 4),
    ):
        yield


_of_process: list[Simulation] = []


def _begin(root: Path | None) -> None:
    logging.disable(logging.ERROR)  # the uploader's, of what is done to it on purpose
    gc.disable()
    _of_process[:] = [simulation(root)]


def simulation(root: Path | None) -> Simulation:
    """With real directories below `root` and the real uploader; None: with models of them."""
    return Simulation(None if root is None else RealCast(Path(tempfile.mkdtemp(dir=root))))


def _run(seeds: range) -> Result:
    result = Result()
    for seed in seeds:
        try:
            result.totals.update(_of_process[0].run(seed))
        except Exception as error:
            result.failures[seed] = "".join(traceback.format_exception(error))
    gc.collect()
    return result


def run_seeds(seeds: range, workers: int, root: Path | None, progress: Progress) -> Result:
    """All seeds, in `workers` processes."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    result, task = Result(), progress.add_task("seeds", total=len(seeds))
    with get_context("fork").Pool(workers, _begin, (root,)) as pool:
        for chunk, found in zip(chunks, pool.imap(_run, chunks), strict=True):
            result.add(found)
            progress.advance(task, len(chunk))
    return result


@contextlib.contextmanager
def directory(is_real: bool) -> Iterator[Path | None]:
    """For what is on disk, if anything is; in memory, where there is room for files."""
    if not is_real:
        yield None
        return
    root = Path(tempfile.mkdtemp(dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.two_writers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seeds", type=parse_seeds, default=range(1000), metavar="A..B")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="totals and failures, for a machine")
    parser.add_argument("--trace", action="store_true", help="print what happens in the first seed")
    parser.add_argument("--real", action="store_true", help="with the real uploader and its files")
    arguments = parser.parse_args()
    with directory(arguments.real) as root:
        if arguments.trace:
            worlds = simulation(root)
            worlds.scheduler.on_event = print
            print(dict(worlds.run(arguments.seeds[0])))
            return 0
        return run_and_report(arguments, root)


def run_and_report(arguments: argparse.Namespace, root: Path | None) -> int:
    begin = time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        result = run_seeds(arguments.seeds, arguments.workers, root, progress)
    seconds = time.monotonic() - begin
    if arguments.json:
        print(json.dumps({"seconds": seconds, "totals": result.totals,
                          "failures": result.failures}))  # fmt: skip
    else:
        print_result(result, len(arguments.seeds), seconds)
    return bool(result.failures)


if __name__ == "__main__":
    sys.exit(main())
