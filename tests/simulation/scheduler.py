"""Tasks that take turns: threads of which only one runs, and a random number says which is next.

    scheduler.start("flush", store.flush_step)     nothing runs yet
    scheduler.resume(task)                         it runs until it pauses or ends
    scheduler.pause("pread")                       in a task, wherever others may run in between

What a task does between two pauses nobody else sees happen in part; a run is the same each time.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from random import Random
from types import SimpleNamespace
from typing import Any

from tests.fixtures.faulty_storage import CrashError

TRACE_MAX = 400
LOCK = "lock"  # where a task waits for another one that has it


class _Worker:
    """A thread that runs one task after the other."""

    def __init__(self, back: Any) -> None:
        self.go = threading.Lock()
        self.go.acquire()
        self.back = back
        self.task: Task | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            task = self.task
            assert task is not None
            try:
                task.function()
            except BaseException as error:  # noqa: BLE001  (kept for whoever resumed the task)
                task.error = error
            task.is_done = True
            del task
            self.back.release()


class Task:
    def __init__(self, name: str, function: Callable[[], object], worker: _Worker) -> None:
        self.name = name
        self.function = function
        self.worker = worker
        self.is_done = False
        self.error: BaseException | None = None
        self.where = ""  # it paused last


class Scheduler:
    """One of a process: its threads serve one world after the other."""

    def __init__(self) -> None:
        self._back = threading.Lock()
        self._back.acquire()
        self._idle: list[_Worker] = []
        self._current: Task | None = None
        self.on_event: Callable[[str], object] = lambda text: None
        self.begin(Random(0), 0.0)

    def begin(self, random: Random, rate: float) -> None:
        """For another world, whose tasks pause at one in so many places: the part `rate`."""
        self.tasks: list[Task] = []
        self.trace: list[str] = []
        self.pauses = 0
        self.is_dead = False
        self._random = random
        self._rate = rate

    def start(self, name: str, function: Callable[[], object]) -> Task:
        worker = self._idle.pop() if self._idle else _Worker(self._back)
        task = worker.task = Task(name, function, worker)
        self.tasks.append(task)
        return task

    def resume(self, task: Task) -> None:
        """Let a task run; raises what it raised."""
        self._current = task
        task.worker.go.release()
        self._back.acquire()
        self._current = None
        if task.is_done:
            self.tasks.remove(task)
            task.worker.task = None
            self._idle.append(task.worker)
            if task.error is not None:
                raise task.error

    def pause(self, where: str, weight: int = 1) -> None:
        """A place at which a task may stop for a while, `weight` times as often as at others; where
        it is cut off if all is over."""
        if self._current is not None:
            if self.is_dead:
                raise CrashError
            if self._random.random() < weight * self._rate:
                self._stop(where)

    def wait_until(self, condition: Callable[[], bool], where: str) -> None:
        """In a task: others have to run first."""
        while not condition():
            assert self._current is not None, f"{where}: nobody is there who could change it"
            self._stop(where)

    def _stop(self, where: str) -> None:
        task = self._current
        assert task is not None
        self.pauses += 1
        task.where = where
        self.note(f"{task.name} pauses: {where}")
        task.worker.back.release()
        task.worker.go.acquire()
        if self.is_dead:
            raise CrashError

    def note(self, text: str) -> None:
        self.on_event(text)
        self.trace.append(text)
        del self.trace[:-TRACE_MAX]

    def kill(self, is_doomed: Callable[[Task], bool] = lambda task: True) -> None:
        """Cut all tasks off where they are, or those that are doomed."""
        self.is_dead = True
        while doomed := [task for task in self.tasks if is_doomed(task)]:
            task = doomed[-1]
            try:
                self.resume(task)
            except CrashError:
                pass
            except Exception as error:  # noqa: BLE001  (on the way out, of a disk that is gone)
                self.note(f"{task.name} ends with {error!r}")
        self.is_dead = False

    def future(self) -> "Future[Any]":
        """In place of `Future` where a task waits for what another one does."""
        return _TurnFuture(self)

    def threading(self) -> SimpleNamespace:
        """In place of the module `threading` where a lock is held while a task may pause."""
        return SimpleNamespace(
            Lock=lambda: _TurnLock(self),
            **{name: getattr(threading, name) for name in ("local", "Event", "Condition")},
        )


class _TurnFuture(Future[Any]):
    """What another task does."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def result(self, timeout: float | None = None) -> Any:
        self._scheduler.wait_until(self.done, LOCK)
        return super().result(timeout)


class _TurnLock:
    """A lock among tasks."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_held = False

    def __enter__(self) -> None:
        self._scheduler.wait_until(lambda: not self._is_held, LOCK)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False
