"""Runs a target in a child process, and finds out what a child that died or hangs was doing.

The child shares the index of the input that runs (tools/fuzz/worker.py). A child that ends with an
error, by a signal, or spends HANG_SECONDS on one input has *failed* with that input.
"""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tools.fuzz.targets import build

HANG_SECONDS = 30.0  # of the child's own time, so that a busy machine makes nobody hang
WAIT_SECONDS = 300.0  # whatever it does meanwhile
POLL_SECONDS = 0.2
SHRINK_TRIES = 200
Report = dict[str, Any]


class Failure(NamedTuple):
    """What a child did not survive."""

    target: str
    seed: int
    number: int
    reason: str  # exit code, signal or "hangs"
    text: str  # the end of its error output

    @property
    def command(self) -> str:
        """Runs the one input."""
        place = f"--seed {self.seed} --first {self.number} --inputs 1"
        return f"python -m tools.fuzz {self.target} {place}"

    def input(self) -> bytes:
        """Its bytes."""
        target, _ = build(self.target, memoryview(bytearray(8)).cast("Q"))
        content: bytes = target.input(self.seed, self.number)
        return content


def run(
    name: str, seed: int, first: int, inputs: int, seconds: float, tell: Callable[[Report], None]
) -> Failure | None:
    """One child; `tell` gets each report, counted from this child's start."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "place")
        place.write_bytes(bytes(mmap.PAGESIZE))
        order = {
            "seed": seed, "first": first, "inputs": inputs, "seconds": seconds, "place": str(place),
        }  # fmt: skip
        errors = Path(directory, "errors")
        with open(place, "r+b") as file, open(errors, "wb") as error_output:
            shared = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
            child = subprocess.Popen(
                [sys.executable, "-m", "tools.fuzz.worker", name, json.dumps(order)],
                stdout=subprocess.PIPE, stderr=error_output,
            )  # fmt: skip
            try:
                reason = _watch(child, shared, tell)
            finally:
                child.kill()
                child.wait()
        text = errors.read_text(errors="replace")[-4000:]
        return Failure(name, seed, shared[0], reason, text) if reason else None


def _watch(
    child: "subprocess.Popen[bytes]", shared: memoryview, tell: Callable[[Report], None]
) -> str:
    """Until the child ends or hangs; what was wrong, empty if nothing."""
    assert child.stdout is not None
    reader = _Lines(child.stdout.fileno())
    last, since, spent = -1, time.monotonic(), 0.0
    while True:
        for line in reader.lines():
            tell(json.loads(line))
        if child.poll() is not None:
            for line in reader.lines():
                tell(json.loads(line))
            return _explain(child.returncode)
        if shared[0] != last:
            last, since, spent = shared[0], time.monotonic(), _cpu_seconds(child.pid)
        elif time.monotonic() - since > WAIT_SECONDS:
            return f"waits for {WAIT_SECONDS:.0f} s"
        elif _cpu_seconds(child.pid) - spent > HANG_SECONDS:
            return f"hangs for {HANG_SECONDS:.0f} s"
        time.sleep(POLL_SECONDS)


def _cpu_seconds(pid: int) -> float:
    """What a process has spent; 0 if it is no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Lines:
    """Whole lines of what a pipe has now, never waiting."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def lines(self) -> list[bytes]:
        while True:
            try:
                data = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        *whole, self._rest = self._rest.split(b"\n")
        return whole


def _explain(code: int) -> str:
    if code == 0:
        return ""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


# Shrinking ----------------------------------------------------------------------------------------


def fails(name: str, content: bytes, directory: Path) -> bool:
    """Whether a child does not survive this input."""
    path = directory / "candidate.input"
    path.write_bytes(content)
    command = [sys.executable, "-m", "tools.fuzz.worker", name, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=WAIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def shrink(name: str, content: bytes, directory: Path) -> bytes:
    """A shorter or emptier input that fails, too: pieces are cut off or zeroed, half, then less."""
    if not fails(name, content, directory):
        return content  # only after what ran before it: the command reproduces that
    tries = 0
    size = len(content) // 2
    while size >= 1 and tries < SHRINK_TRIES:
        pos = len(content) - size
        while pos >= 0 and tries < SHRINK_TRIES:
            cut = content[:pos] + content[pos + size :]
            zeroed = content[:pos] + bytes(size) + content[pos + size :]
            for candidate in (cut, zeroed):
                tries += candidate != content
                if candidate != content and fails(name, candidate, directory):
                    content = candidate
                    break
            pos -= size
        size //= 2
    return content
