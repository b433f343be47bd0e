"""Run seeds of the simulation, in several processes: `make simulate SEEDS=n`.

    python -m tests.simulation --seeds 0..10000 --workers 2     exit code 1: a seed failed
    python -m tests.simulation --seeds 17..18 --trace           what happens in one of them
    python -m tests.simulation --seeds 0..1000 --bucket         every world has a bucket

A failing seed's error says with which command it is repeated.
"""

import sys

from tests.simulation.many_seeds import command_line, run_command
from tests.simulation.run import BUCKET_SHARE, Simulation

SEEDS = 10_000


def main() -> int:
    parser = command_line("python -m tests.simulation", __doc__, SEEDS)
    parser.add_argument("--bucket", action="store_true", help="every world has one, not some")
    arguments = parser.parse_args()
    share = 1.0 if arguments.bucket else BUCKET_SHARE
    return run_command(arguments, lambda root: Simulation(root, share))


if __name__ == "__main__":
    sys.exit(main())
