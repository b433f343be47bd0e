"""A thousand interleavings of writers of one bucket, and the faults that they would find."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.backup.bucket_manifest import BucketManifest
from tests.simulation.planted_in_backup import PLANTED
from tests.simulation.small_writer import SmallCast
from tests.simulation.two_writers import Simulation

ROOT = Path(__file__).parents[2]
SEEDS = 1000
SEEDS_TO_FIND = 2000
BEGIN_AT = {"BelievesLateAnswers": 250, "TellsOfAnyTimeline": 60}
"""The first seeds that find these come late; which saves their search some seconds."""
AT_LEAST = {
    "acknowledgements": 6_000, "entries": 11_000, "entries deleted": 2_500, "pauses": 100_000,
    "writers fenced off": 450, "writers killed": 600, "directories refused": 500,
    "directories restored": 1_500, "directories copied": 180, "points acknowledged": 350,
    "faults: before": 600, "faults: after": 600, "faults: late": 600, "faults: twice": 600,
    "faults: short": 600, "requests that came late": 80, "entry names created anew": 3,
    "objects deleted": 1_000,
    "timelines left": 300, "acknowledged across timelines": 7_000,
}  # fmt: skip
"""What so many seeds do, and somewhat less."""
REAL_SEEDS = 40
REAL_AT_LEAST = {
    "acknowledgements": 130, "entries": 300, "entries deleted": 60, "objects deleted": 10,
    "writers fenced off": 12, "directories refused": 12, "directories restored": 45,
    "timelines left": 10, "acknowledged across timelines": 200,
}  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.simulation.two_writers", *arguments]


def run(seeds: int, *arguments: str) -> dict[str, int]:
    """What happened; it fails if a seed does."""
    workers = str(min(2, os.cpu_count() or 1))
    child = subprocess.run(
        command("--seeds", f"0..{seeds}", "--workers", workers, "--json", *arguments),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.stdout, child.stderr
    found = json.loads(child.stdout)
    failures = found["failures"]
    assert not failures, f"{len(failures)} seeds failed, one so:\n{next(iter(failures.values()))}"
    totals: dict[str, int] = found["totals"]
    return totals


def too_few(totals: dict[str, int], least: dict[str, int]) -> dict[str, int]:
    counts = {what: totals.get(what, 0) for what in least}
    return {what: times for what, times in counts.items() if times < least[what]}


@pytest.mark.timeout(300)
def test_interleavings() -> None:
    assert not too_few(run(SEEDS), AT_LEAST)


@pytest.mark.timeout(300)
def test_interleavings_of_the_real_uploader() -> None:
    assert not too_few(run(REAL_SEEDS, "--real"), REAL_AT_LEAST)


@pytest.mark.parametrize("real", [[], ["--real"]], ids=["small", "real"])
def test_a_seed_is_always_the_same(real: list[str]) -> None:
    """In any process: nothing depends on the order of a set, a clock or a thread."""
    traces = [
        subprocess.run(
            command("--seeds", "25..26", "--trace", *real),
            cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert len(traces[0].splitlines()) > 50
    assert traces[0] == traces[1]


@pytest.mark.parametrize("kind", PLANTED, ids=lambda kind: kind.__name__)
def test_a_planted_fault_is_found(kind: type) -> None:
    is_bucket = issubclass(kind, BucketManifest)
    cast = SmallCast(bucket_type=kind) if is_bucket else SmallCast(writer_type=kind)
    simulation = Simulation(cast)
    begin = BEGIN_AT.get(kind.__name__, 0)
    with pytest.raises(Exception, match=r".") as failure:  # whatever it does first
        all(simulation.run(seed) for seed in range(begin, begin + SEEDS_TO_FIND))
    assert any("two_writers --seeds" in note for note in failure.value.__notes__)
