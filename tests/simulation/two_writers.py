"""Two writers, sometimes more, on one bucket: every seed another interleaving of what they do.

    python -m tests.simulation.two_writers --seeds 0..100000    exit code 1: a seed failed
    python -m tests.simulation.two_writers --seeds 17..18 --trace

tests/simulation/bucket_world.py has what happens and what must hold.
"""

import argparse
import contextlib
import gc
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from unittest.mock import patch

from rich.console import Console
from rich.progress import Progress

from formats.bucket import ENTRIES
from server.backup import bucket_manifest
from server.backup.bucket_manifest import BucketManifest
from tests.simulation.__main__ import CHUNK, Result, parse_seeds, print_result
from tests.simulation.bucket_world import World
from tests.simulation.scheduler import Scheduler
from tests.simulation.small_writer import RECORD, SmallWriter

STEPS = 130
LONG_ONES = 0.35  # the part of all worlds that live on after a takeover
TRACE_SHOWN = 60


class Simulation:
    """Runs seeds one after the other."""

    def __init__(
        self,
        bucket_type: type[BucketManifest] = BucketManifest,
        writer_type: type[SmallWriter] = SmallWriter,
    ) -> None:
        self.types = bucket_type, writer_type
        self.scheduler = Scheduler()

    def run(self, seed: int) -> Counter[str]:
        """Live through a seed's world; what happened. A failure has notes that say how to repeat
        it, and what came before."""
        with often_snapshots():
            world = World(seed, self.scheduler, *self.types)
            try:
                world.run(STEPS)
                if world.random.random() < LONG_ONES:
                    world.do_takeover()
                    world.run(2 * STEPS)
                world.totals["pauses"] = self.scheduler.pauses
                world.totals["entries"] = world.state().serial
                world.totals["records"] = world.acknowledged // RECORD
                world.totals["entries deleted"] = world.totals["entries"] - sum(
                    name.startswith(ENTRIES) for name in world.contents.objects
                )
                world.totals["entry names created anew"] = len(world.contents.twice)
                return world.totals
            except BaseException as error:
                error.add_note("\n".join(self.scheduler.trace[-TRACE_SHOWN:]))
                error.add_note(f"python -m tests.simulation.two_writers --seeds {seed}..{seed + 1}")
                raise
            finally:
                self.scheduler.kill()


@contextlib.contextmanager
def often_snapshots() -> Iterator[None]:
    with (
        patch.object(bucket_manifest, "SNAPSHOT_ENTRIES_MIN", 2),
        patch.object(bucket_manifest, "SNAPSHOT_ENTRIES_MAX", 4),
    ):
        yield


_of_process: list[Simulation] = []


def _begin() -> None:
    gc.disable()
    _of_process[:] = [Simulation()]


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
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    result, task = Result(), progress.add_task("seeds", total=len(seeds))
    with get_context("fork").Pool(workers, _begin) as pool:
        for chunk, found in zip(chunks, pool.imap(_run, chunks), strict=True):
            result.add(found)
            progress.advance(task, len(chunk))
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.two_writers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--seeds", type=parse_seeds, default=range(1000), metavar="A..B")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="totals and failures, for a machine")
    parser.add_argument("--trace", action="store_true", help="print what happens in the first seed")
    arguments = parser.parse_args()
    if arguments.trace:
        simulation = Simulation()
        simulation.scheduler.on_event = print
        print(dict(simulation.run(arguments.seeds[0])))
        return 0
    begin = time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        result = run_seeds(arguments.seeds, arguments.workers, progress)
    seconds = time.monotonic() - begin
    if arguments.json:
        print(json.dumps({"seconds": seconds, "totals": result.totals,
                          "failures": result.failures}))  # fmt: skip
    else:
        print_result(result, len(arguments.seeds), seconds)
    return bool(result.failures)


if __name__ == "__main__":
    sys.exit(main())
