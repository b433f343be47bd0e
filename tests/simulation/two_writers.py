"""Two writers, sometimes more, on one bucket: every seed another interleaving of what they do.

    python -m tests.simulation.two_writers --seeds 0..100000    exit code 1: a seed failed
    python -m tests.simulation.two_writers --seeds 0..1000 --real    with the real uploader
    python -m tests.simulation.two_writers --seeds 17..18 --trace

tests/simulation/bucket_world.py has what happens and what must hold.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from unittest.mock import patch

from server.backup import bucket_manifest, outline_shipping
from tests.simulation.bucket_world import World
from tests.simulation.cast import Cast
from tests.simulation.many_seeds import command_line, run_command
from tests.simulation.real_writer import RealCast
from tests.simulation.scheduler import Scheduler
from tests.simulation.small_writer import SmallCast

SEEDS = 1000
STEPS = 130
LONG_ONES = 0.35  # the part of all worlds that live on after a takeover
TRACE_SHOWN = 60


class Simulation:
    """Runs seeds one after the other."""

    def __init__(self, cast: Cast | None = None) -> None:
        self.cast = SmallCast() if cast is None else cast
        self.scheduler = Scheduler()

    @property
    def on_event(self) -> Callable[[str], object]:
        """Is told each turn."""
        return self.scheduler.on_event

    @on_event.setter
    def on_event(self, tell: Callable[[str], object]) -> None:
        self.scheduler.on_event = tell

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
        patch.object(outline_shipping, "SECONDS_MIN", 2.0),
    ):
        yield


def main() -> int:
    parser = command_line("python -m tests.simulation.two_writers", __doc__, SEEDS)
    parser.add_argument("--real", action="store_true", help="with the real uploader and its files")
    arguments = parser.parse_args()
    cast = RealCast if arguments.real else lambda root: SmallCast()
    return run_command(arguments, lambda root: Simulation(cast(root)))


if __name__ == "__main__":
    sys.exit(main())
