"""A thousand interleavings of writers of one bucket, and the faults that they would find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.backup.bucket_manifest import BucketManifest
from tests.simulation.planted_in_backup import PLANTED
from tests.simulation.two_writers import Simulation

ROOT = Path(__file__).parents[2]
SEEDS = 1000
SEEDS_TO_FIND = 2000
AT_LEAST = {
    "acknowledgements": 6_000, "entries": 11_000, "entries deleted": 2_500, "pauses": 100_000,
    "writers fenced off": 450, "writers killed": 600, "directories refused": 500,
    "directories restored": 1_500, "directories copied": 180, "points acknowledged": 350,
    "faults: before": 600, "faults: after": 600, "faults: late": 600, "faults: twice": 600,
    "faults: short": 600, "requests that came late": 80, "entry names created anew": 3,
}  # fmt: skip
"""What so many seeds do, and somewhat less."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.simulation.two_writers", *arguments]


@pytest.mark.timeout(300)
def test_interleavings() -> None:
    workers = str(min(2, os.cpu_count() or 1))
    child = subprocess.run(
        command("--seeds", f"0..{SEEDS}", "--workers", workers, "--json"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.stdout, child.stderr
    found = json.loads(child.stdout)
    failures = found["failures"]
    assert not failures, f"{len(failures)} seeds failed, one so:\n{next(iter(failures.values()))}"
    few = {what: found["totals"].get(what, 0) for what in AT_LEAST}
    assert not {what: count for what, count in few.items() if count < AT_LEAST[what]}


def test_a_seed_is_always_the_same() -> None:
    """In any process: nothing depends on the order of a set, a clock or a thread."""
    traces = [
        subprocess.run(
            command("--seeds", "25..26", "--trace"),
            cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert len(traces[0].splitlines()) > 50
    assert traces[0] == traces[1]


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_planted_fault_is_found(kind: type) -> None:
    if issubclass(kind, BucketManifest):
        simulation = Simulation(bucket_type=kind)
    else:
        simulation = Simulation(writer_type=kind)
    with pytest.raises(Exception, match=r".") as failure:  # whatever it does first
        all(simulation.run(seed) for seed in range(SEEDS_TO_FIND))
    assert any("two_writers --seeds" in note for note in failure.value.__notes__)
