"""Readers that wait for WAL which is not ready, seen from where WAL comes in.

A receiver that takes its time, for the sake of larger pieces, asks here whether anybody minds.
"""

import threading
from typing import Protocol


class ReadyLsn(Protocol):
    """What is waited for."""

    ready_lsn: int

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool: ...


class WaitingReaders:
    """Counts the threads that are in `wait_for`."""

    def __init__(self, ready: ReadyLsn) -> None:
        self._ready = ready
        self._count = 0
        self._changed = threading.Condition()

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Block until `lsn` is ready; False if the time is over before."""
        if self._ready.ready_lsn >= lsn:
            return True
        self._add(1)
        try:
            return self._ready.wait_for(lsn, timeout_seconds)
        finally:
            self._add(-1)

    def _add(self, change: int) -> None:
        with self._changed:
            self._count += change
            self._changed.notify_all()

    def wait_for_reader(self, timeout_seconds: float) -> bool:
        """Block until a thread is in `wait_for`; False if the time is over before."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count > 0, timeout_seconds)
