"""Worlds with a bucket, and the faults that they would find; tests/simulation/test_simulation.py
runs many."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.planted_with_bucket import PLANTED, Planted
from tests.simulation.run import simulation

ROOT = Path(__file__).parents[2]
SEEDS_TO_FIND = 400  # most are found by the first few
BEGIN_AT = {"lets_the_journal_go": 530}
"""One of 250 seeds finds it: that saves its search most of a minute."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Callable[[], Planted]) -> None:
    begin = BEGIN_AT.get(plant.__name__, 0)
    found = pytest.raises((AssertionError, OSError), match=PLANTED[plant])
    with simulation(bucket_share=1) as worlds, plant(), found as failure:
        all(worlds.run(seed) for seed in range(begin, begin + SEEDS_TO_FIND))
    assert any(note.endswith(" --bucket") for note in failure.value.__notes__)


@pytest.mark.parametrize("seed", [8, 22])
def test_a_seed_is_always_the_same_world(seed: int) -> None:
    """In any process, and whatever it did before."""
    command = [sys.executable, "-m", "tests.simulation", "--bucket", "--trace", "--seeds"]
    traces = [
        subprocess.run(
            [*command, f"{seed}..{seed + 1}"],
            cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert len(traces[0].splitlines()) > 100
    assert traces[0] == traces[1]
