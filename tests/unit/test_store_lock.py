"""The store's lock: one at a time, whoever waits without the GIL, and what a Condition needs."""

import threading
import time

import pytest

from engine.store_lock import StoreLock

THREADS = 4
ROUNDS = 2000


def together(*targets) -> None:
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("way", ["with", "acquire", "enter"])
def test_one_thread_at_a_time(way):
    lock = StoreLock()
    take = lock.acquire if way == "acquire" else lock.enter
    give = lock.release if way == "acquire" else lock.leave
    inside = 0
    count = 0

    def step() -> None:
        nonlocal inside, count
        inside += 1
        seen = count
        if seen % 100 == 0:
            time.sleep(0)  # another thread may run, and finds the lock taken
        assert inside == 1
        count = seen + 1
        inside -= 1

    def work() -> None:
        for _ in range(ROUNDS):
            if way == "with":
                with lock:
                    step()
            else:
                take()
                step()
                give()

    together(*[work] * THREADS)
    assert count == THREADS * ROUNDS


@pytest.mark.parametrize("way", ["acquire", "enter"])
def test_who_waits_does_not_keep_the_gil(way):
    """Else the holder, which needs it to go on, would never give the lock back."""
    lock = StoreLock()
    waits = threading.Event()
    order = []

    def wait() -> None:
        waits.set()
        (lock.acquire if way == "acquire" else lock.enter)()
        order.append("waited")
        lock.release()

    def hold() -> None:
        with lock:
            threading.Thread(target=wait, daemon=True).start()
            assert waits.wait(10)
            time.sleep(0.05)
            order.append("held")

    together(hold)
    with lock:
        assert order[0] == "held"


def test_an_exception_gives_it_back():
    lock = StoreLock()
    with pytest.raises(LookupError), lock:
        raise LookupError
    with lock:
        pass


def test_a_condition_can_be_made_of_it():
    lock = StoreLock()
    changed = threading.Condition(lock)
    values = []

    def write() -> None:
        for value in range(3):
            with changed:
                values.append(value)
                changed.notify_all()

    def wait() -> None:
        with changed:
            assert changed.wait_for(lambda: len(values) == 3, 10)

    together(wait, wait, write)
    with changed:
        begin = time.monotonic()
        assert not changed.wait_for(lambda: len(values) == 4, 0.05)
        assert time.monotonic() - begin >= 0.05
    with pytest.raises(RuntimeError, match="un-acquired"):
        changed.notify_all()
