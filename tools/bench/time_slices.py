"""Groups of processes on one machine, of which one runs while the others stand still.

What is measured in one slice of time and what in the next meets the same machine. Its processors
may be lent to others, for a tenth of a second or for a minute, which makes two runs of the same
thing differ by a tenth when one follows the other.
"""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

LOOK_SECONDS = 0.01
Process = subprocess.Popen[Any]


class Slice(NamedTuple):
    """What runs together, for how long at a time, and until which of these processes has ended."""

    processes: Sequence[Process]
    seconds: float
    until_end_of: Process | None


def alternate(slices: Sequence[Slice]) -> list[float]:
    """Let each run in turn, with all descendants, until all that end have ended; then what is left
    runs on. For how many seconds each ran."""
    ran = [0.0] * len(slices)
    try:
        for one in slices:
            _signal(one, signal.SIGSTOP)
        while any(_has_ended(one) is False for one in slices):
            for number, one in enumerate(slices):
                if not _has_ended(one):
                    ran[number] += _run(one)
    finally:
        for one in slices:
            _signal(one, signal.SIGCONT)
    return ran


def _has_ended(one: Slice) -> bool | None:
    """None: it is not waited for."""
    return None if one.until_end_of is None else one.until_end_of.poll() is not None


def _run(one: Slice) -> float:
    """From the first signal to the last, and no longer: who is not seen to run has no time."""
    begin = time.monotonic()
    _signal(one, signal.SIGCONT)
    while (passed := time.monotonic() - begin) < one.seconds and not _has_ended(one):
        time.sleep(min(LOOK_SECONDS, one.seconds - passed))
    _signal(one, signal.SIGSTOP)
    return time.monotonic() - begin


def _signal(one: Slice, number: int) -> None:
    for pid in _with_descendants([process.pid for process in one.processes]):
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
