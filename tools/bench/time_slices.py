"""Groups of processes on one machine, of which one runs while the others stand still.

What is measured in one slice of time and what in the next meets the same machine. Its processors
may be lent to others, for a tenth of a second or for a minute, which makes two runs of the same
thing differ by a tenth when one follows the other.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle
from typing import Any

Group = Iterable[subprocess.Popen[Any]]


def alternate(slices: Sequence[tuple[Group, float]], are_done: Callable[[], bool]) -> None:
    """Let each group of processes, with all their descendants, run for so many seconds in turn
    until `are_done`; then all run."""
    groups = [group for group, _ in slices]
    try:
        for running, seconds in cycle(slices):
            for group in groups:
                _signal(group, signal.SIGCONT if group is running else signal.SIGSTOP)
            time.sleep(seconds)
            if are_done():
                return
    finally:
        for group in groups:
            _signal(group, signal.SIGCONT)


def _signal(group: Group, number: int) -> None:
    for pid in _with_descendants([process.pid for process in group]):
        try:
            os.kill(pid, number)
        except ProcessLookupError:  # it has ended
            continue


def _with_descendants(pids: list[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                parent = file.read().rpartition(")")[2].split()[1]
        except OSError:  # it has ended
            continue
        children.setdefault(int(parent), []).append(int(pid))
    found = list(pids)
    for each in found:
        found += children.get(each, [])
    return found
