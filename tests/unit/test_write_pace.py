"""How long compaction rests after a step, by a clock that only rests and steps move."""

import threading
import time
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.retention import KEEP_ALL
from server.background import Background
from server.write_pace import SLICE_SECONDS, WritePace
from tests.fixtures.small_store import SmallStore

MIB = 1 << 20


class Machine:
    """Time, whether ingest is behind, and whether the thread is to end: each from a moment on."""

    def __init__(self, behind_from: float = 1e9, ends_at: float = 1e9) -> None:
        self.time = 100.0
        self.begin = self.time
        self.behind_from, self.ends_at = behind_from, ends_at

    def rest(self, seconds: float) -> bool:
        assert 0 < seconds <= SLICE_SECONDS
        self.time += seconds
        return self.time - self.begin >= self.ends_at

    def rested(self, bytes_per_second: int, step_seconds: float, bytes_written: int) -> float:
        pace = WritePace(
            bytes_per_second,
            lambda: self.time - self.begin >= self.behind_from,
            self.rest,
            lambda: self.time,
        )
        begin = pace.now()
        self.time += step_seconds
        pace.follow(begin, bytes_written)
        return self.time - begin - step_seconds


@pytest.mark.parametrize(
    ("bytes_per_second", "step_seconds", "bytes_written", "rest"),
    [
        (10 * MIB, 0.5, 20 * MIB, 1.5),  # two seconds' worth in half a second
        (10 * MIB, 2.0, 20 * MIB, 0.0),  # as fast as it may be
        (10 * MIB, 9.0, 20 * MIB, 0.0),
        (10 * MIB, 0.5, 0, 0.0),
        (0, 0.5, 1 << 50, 0.0),  # no bound
    ],
)
def test_a_step_and_its_rest_take_what_the_bytes_may(
    bytes_per_second: int, step_seconds: float, bytes_written: int, rest: float
) -> None:
    assert Machine().rested(bytes_per_second, step_seconds, bytes_written) == pytest.approx(rest)


def test_no_rest_while_ingest_is_behind() -> None:
    assert Machine(behind_from=0).rested(MIB, 0.5, 100 * MIB) == 0
    rested = Machine(behind_from=10).rested(MIB, 0.5, 100 * MIB)  # it falls behind meanwhile
    assert 9.5 <= rested <= 9.5 + SLICE_SECONDS


def test_a_rest_ends_with_the_thread() -> None:
    rested = Machine(ends_at=3).rested(MIB, 0.5, 100 * MIB)
    assert 2.5 <= rested <= 2.5 + SLICE_SECONDS


def test_compaction_rests_for_what_it_wrote_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for what a flush committed meanwhile; a stop does not wait for the rest's end."""
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    small = SmallStore(tmp_path)
    layers, followed = small.store.layers, []
    background = Background(small.store, 3600, KEEP_ALL, compaction_bytes_per_second=1000)
    steps = iter([(0, 7000), (5000, 800), (0, 0)])

    def step() -> bool:
        written, flushed = next(steps, (10**9, 0))
        layers.bytes_compacted += written
        layers.bytes_written += written + flushed
        return bool(written or flushed)

    monkeypatch.setattr(small.store.compactor, "step", step)
    with monkeypatch.context() as context:
        context.setattr(
            background.write_pace, "follow", lambda begin, written: followed.append(written)
        )
        assert [background._compaction_step() for _ in range(3)] == [True, True, False]
    assert followed == [0, 5000, 0]
    background.start()
    deadline = time.monotonic() + 20
    while layers.bytes_compacted < 10**9 and time.monotonic() < deadline:
        time.sleep(0.01)
    stopping = threading.Thread(target=background.stop, daemon=True)
    stopping.start()
    stopping.join(5)  # the rest would take eleven days
    assert not stopping.is_alive()
    assert layers.bytes_compacted < 2 * 10**9 + 10_000  # one step, then the rest
    small.let_go()
