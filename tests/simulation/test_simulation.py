"""Ten thousand small worlds, and that enough happened in them; the same seed is the same world."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import simulation

ROOT = Path(__file__).parents[2]
SEEDS = 10_000
AT_LEAST = {
    "lives": 12_000, "power failures": 1_500, "kills": 1_500, "errors of the disk": 300,
    "bundles flushed": 10_000, "bundles merged": 15_000, "image bundles": 5_000,
    "L0 layers removed": 50_000, "L1 layers removed": 5_000, "IMAGE layers removed": 1_200,
    "garbage commits": 2_000, "prunings": 200, "files unlinked": 15_000,
    "points": 1_500, "leases": 5_000, "renewals": 500, "drops": 700,
    "pages read": 350_000, "sizes read": 25_000, "times read": 2_000, "unreadable pages": 1_000,
    "reads refused": 500, "reads across a commit": 3_000, "reads across an unlink": 1_000,
    "reads across garbage": 300, "bytes damaged": 400, "damage found by reads": 800,
    "directories verified": 1_000, "pauses": 600_000,
    "worlds with a bucket": 180, "acknowledgements": 250, "entries in the bucket": 1_300,
    "machines lost": 90, "takeovers": 30, "restored lazily": 60, "restored whole": 50,
    "restores cut off": 30, "promises kept by the bucket": 50, "files evicted": 40,
    "deeds of former servers": 150, "lives of uploaders": 700,
}  # fmt: skip
"""What so many seeds do, and somewhat less: a simulation in which nothing happens shows nothing."""


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.simulation", *arguments]


@pytest.mark.timeout(1500)
def test_worlds() -> None:
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
    few = {what: count for what, count in few.items() if count < AT_LEAST[what]}
    assert not few, few


@pytest.mark.parametrize("seed", [17, 84])
def test_a_seed_is_always_the_same_world(seed: int) -> None:
    """In any process: nothing depends on the order of a set, a clock or a thread."""
    traces = [
        subprocess.run(
            command("--seeds", f"{seed}..{seed + 1}", "--trace"),
            cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert len(traces[0].splitlines()) > 20
    assert traces[0] == traces[1]


def test_a_failing_seed_says_how_it_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulation() as worlds:
        monkeypatch.setattr("engine.relation_history.RelationHistory.floor", lambda *_: 0)
        with pytest.raises(AssertionError) as failure:  # truncated blocks come back
            all(worlds.run(seed) for seed in range(100))
    assert any("python -m tests.simulation --seeds" in note for note in failure.value.__notes__)
