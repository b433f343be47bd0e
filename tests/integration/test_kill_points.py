"""A process killed at every point at which the disk changes: what it had reported is there."""

import os
import random
import shutil
from pathlib import Path

import pytest

from engine.kill_points import MIDDLE, OPERATIONS, PHASES, PLACES
from engine.storage import Storage
from tests.fixtures import deeds
from tests.fixtures.crash_workload import Life, Story, make_small
from tests.fixtures.kill_server import KillServer

SEED = 4
STORY = Story()


def kills(found: dict[str, list[str]]) -> list[str]:
    """Every point the first time, and in each work that comes to it at a time drawn by lot; but
    `after` a call is `before` the next one, so once is enough."""
    choose = random.Random(SEED)
    chosen = set()
    for point, works in sorted(found.items()):
        chosen.add((point, 1))
        for work in sorted(set(works)) if not point.endswith(".after") else ():
            times = [k for k, at_hand in enumerate(works, 1) if at_hand == work]
            chosen.add((point, choose.choice(times)))
    return [f"{point}:{k}" for point, k in sorted(chosen)]


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
    make_small(monkeypatch.setattr)
    with KillServer() as lives:
        found = lives.deeds(fast_directory / "whole")
        for point in found:
            place, operation, phase = point.split(".")
            assert place in PLACES and operation in OPERATIONS and phase in (*PHASES, MIDDLE)
        # What is fetched from a bucket dies at each call in unit/test_local_copies.py.
        assert {point.split(".")[0] for point in found} == set(PLACES) - {"fetch"}
        assert {work for works in found.values() for work in works} == deeds.ALL
        chosen = os.environ.get("PAGESERVER_KILLS")
        for kill_at in chosen.split(",") if chosen else kills(found):
            directory = fast_directory / kill_at
            try:
                end_and_go_on(lives, directory, kill_at)
            except BaseException as error:
                error.add_note(f"PAGESERVER_KILLS={kill_at}")
                raise
            shutil.rmtree(directory)
