"""A process killed at every point at which the disk changes: what it had reported is there."""

import os
import random
import shutil
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.kill_points import MIDDLE, OPERATIONS, PHASES, PLACES
from engine.storage import Storage
from tests.fixtures.crash_workload import Life, Story
from tests.fixtures.kill_server import KillServer

SEED = 4
STORY = Story()


def kills(counts: dict[str, int]) -> list[str]:
    """Every point, the first time and a later one."""
    choose = random.Random(SEED)
    found = []
    for point, times in sorted(counts.items()):
        found.append(f"{point}:1")
        if times > 1:
            found.append(f"{point}:{choose.randint(2, times)}")
    return found


def end_and_go_on(lives: KillServer, directory: Path, kill_at: str) -> None:
    life = Life(directory, STORY)
    life.check(Storage(), lives.run(directory, kill_at))
    life.run(Storage())
    life.check(Storage(), {"durable": STORY.parts[-1]})


@pytest.mark.timeout(600)
def test_killed_at_every_point(fast_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reopened, all that was reported is there, and it goes on to the end as if nothing had been.

    PAGESERVER_KILLS=name:k,... runs these alone.
    """
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    with KillServer() as lives:
        counts = lives.counts(fast_directory / "whole")
        for point in counts:
            place, operation, phase = point.split(".")
            assert place in PLACES and operation in OPERATIONS and phase in (*PHASES, MIDDLE)
        assert {point.split(".")[0] for point in counts} == set(PLACES)
        chosen = os.environ.get("PAGESERVER_KILLS")
        for kill_at in chosen.split(",") if chosen else kills(counts):
            directory = fast_directory / kill_at
            try:
                end_and_go_on(lives, directory, kill_at)
            except BaseException as error:
                error.add_note(f"PAGESERVER_KILLS={kill_at}")
                raise
            shutil.rmtree(directory)
