"""The bound on bytes per second, against a clock of ours."""

import random

from server.backup.byte_pace import BytePace


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def test_never_more_than_the_rate_and_a_second_of_it() -> None:
    for seed in range(20):
        numbers, time = random.Random(seed), Time()
        pace = BytePace(1000, time.clock, time.sleep)
        taken, moved = 0, []
        for _ in range(200):
            time.now += numbers.choice([0.0, 0.01, 0.5, 3.0])
            count = numbers.choice([1, 100, 2500])
            pace.take(count)
            taken += count
            moved.append((time.now, taken))
        for begin, before in [(0.0, 0), *moved]:
            for end, after in moved:
                if end > begin:
                    assert after - before <= 1000 * (end - begin) + 1000 + 2500


def test_the_rate_is_reached() -> None:
    time = Time()
    pace = BytePace(1000, time.clock, time.sleep)
    for _ in range(500):
        pace.take(100)
    assert 48.0 < time.now <= 50.0


def test_no_bound() -> None:
    time = Time()
    BytePace(0, time.clock, time.sleep).take(1 << 40)
    assert time.now == 0.0
