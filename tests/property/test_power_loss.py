"""The machine dies at any call that changes the disk, which keeps what it likes of what was not
synced: all that was reported is there, and life goes on; then it dies again.

A test run takes a sample of the calls. `make power-loss SEEDS=n` takes all of them n times.
"""

import os
import shutil
from pathlib import Path
from random import Random

import pytest

from engine.directory_check import check_directory
from engine.storage import Storage
from tests.fixtures import kernel_modes
from tests.fixtures.crash_workload import Life, Story, make_small
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.kernel_modes import Mode

SEEDS = int(os.environ.get("POWER_LOSS_SEEDS", "0"))
SAMPLE, INTERPRETED_SAMPLE = 40, 1  # without kernels a life takes seconds
INDEX = ("last", "last", "earlier", "lost")
STORY = Story()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr)


def live_until(directory: Path, storage: FaultyStorage, crash_at: int) -> dict[str, int]:
    """Until the call numbered so, or to the end; what was reported."""
    storage.crash_at = crash_at
    life, reported = Life(directory, STORY), {}
    try:
        life.run(storage, reported.__setitem__)
    except CrashError:
        pass
    finally:
        life.die()
    return reported


def crash(directory: Path, crash_at: int, seed: int) -> None:
    random = Random(f"{seed} {crash_at}")
    storage = FaultyStorage(keep_index=True)
    reported = live_until(directory, storage, crash_at)
    storage.crash(random, random.choice(INDEX))
    life = Life(directory, STORY)
    life.check(storage, reported)
    again = live_until(directory, storage, storage.calls + random.randrange(60))
    storage.crash(random, random.choice(INDEX))
    again = {what: max(reported.get(what, 0), lsn) for what, lsn in again.items()}
    life.check(storage, reported | again)
    life.run(storage)
    life.check(storage, {"durable": STORY.parts[-1]})


def test_a_crash_at_any_call(fast_directory: Path, tmp_path: Path) -> None:
    storage = FaultyStorage()
    whole = fast_directory / "whole"
    whole.mkdir()
    live_until(whole, storage, -1)
    calls = range(storage.calls)
    assert len(calls) > 200
    is_slow = kernel_modes.mode("engine.wal_reader") is Mode.INTERPRETED
    sample = INTERPRETED_SAMPLE if is_slow else SAMPLE
    assert list(check_directory(Storage(), whole, tmp_path)) == []
    crashes = [(call, seed) for seed in range(SEEDS) for call in calls]
    for call, seed in crashes or [(call, 0) for call in Random(1).sample(calls, sample)]:
        directory = fast_directory / "crashed"
        directory.mkdir()
        try:
            crash(directory, call, seed)
        except BaseException as error:
            error.add_note(f"call {call}, seed {seed}")
            raise
        shutil.rmtree(directory)
