"""Kill points: the process kills itself at a named place, and a test starts it again.

    PAGESERVER_KILL_AT=layers.sync.after:3   at the third time that this point is reached, SIGKILL
    PAGESERVER_KILL_AT=count                 never; at the end each point and how often, on stderr

A point is `place.operation.phase`. The place follows from the path below the data directory, so a
new file of a known place has its points without a word; the operation is the storage's; the phase
is `before` or `after`, and for an append `middle`: half of its bytes are written. For developers
and tests: docs/kill-points.md.
"""

import atexit
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.storage import Bytes, File, Storage

VARIABLE = "PAGESERVER_KILL_AT"
COUNT = "count"
ROOT = "directory"  # the data directory itself
PLACES = (ROOT, "server_id", "manifest", "layers", "fetch", "index",
          "journal", "journal_sums", "journal_history")  # fmt: skip
OPERATIONS = ("create", "append", "sync", "truncate", "rename", "remove", "sync_directory",
              "make_directory", "remove_directory", "commit")  # fmt: skip
PHASES = ("before", "after")
MIDDLE = "middle"
_OF_THE_JOURNAL = {".sums": "journal_sums", ".history": "journal_history"}


def place_of(directory: Path, path: Path) -> str:
    """Which of `PLACES` a path of a data directory is; ValueError if it is none of these."""
    parts = path.relative_to(directory).parts
    if not parts:
        return ROOT
    place = parts[0].split(".")[0]  # manifest.new and index.old are where they belong
    if place == "journal" and len(parts) > 1:
        for ending, kind in _OF_THE_JOURNAL.items():
            if ending in Path(parts[1]).suffixes:
                place = kind
    if place not in PLACES:
        raise ValueError(f"{path} has no place among the kill points: {', '.join(PLACES)}")
    return place


def parse(text: str) -> tuple[str, int]:
    """The point, and at which time; ("", 0) for `count`. ValueError says what would be right."""
    if text == COUNT:
        return "", 0
    point, _, times = text.partition(":")
    place, _, rest = point.partition(".")
    operation, _, phase = rest.partition(".")
    is_known = place in PLACES and operation in OPERATIONS
    is_phase = phase in PHASES or (phase == MIDDLE and operation == "append")
    if not (is_known and is_phase and times.isdecimal() and times.isascii() and int(times)):
        raise ValueError(
            f"{VARIABLE}={text}: expected PLACE.OPERATION.PHASE:K, the K-th time from 1, or {COUNT}"
            f"; PLACE one of {', '.join(PLACES)}; OPERATION one of {', '.join(OPERATIONS)}; "
            f"PHASE before or after, or {MIDDLE} of an append"
        )
    return point, int(times)


class KillingStorage(Storage):
    """Counts the points of one data directory in `counts`, and kills the process at one of them."""

    def __init__(self, directory: Path, text: str) -> None:
        """`text` is the variable's value; ValueError if it says nothing."""
        self._point, self._times = parse(text)
        self._directory = directory
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        if text == COUNT:
            atexit.register(self._print)

    def _print(self) -> None:
        for point, times in sorted(self.counts.items()):
            print(f"{times:8} {point}", file=sys.stderr)

    def _is_target(self, point: str) -> bool:
        """Count it; whether this is where to die."""
        with self._lock:
            self.counts[point] += 1
            return point == self._point and self.counts[point] == self._times

    def _reach(self, point: str) -> None:
        if self._is_target(point):
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def _around(self, path: Path, operation: str) -> Iterator[str]:
        prefix = f"{place_of(self._directory, path)}.{operation}"
        self._reach(f"{prefix}.before")
        yield prefix
        self._reach(f"{prefix}.after")

    def create(self, path: Path) -> File:
        with self._around(path, "create"):
            return super().create(path)

    def append(self, file: File, parts: Sequence[Bytes]) -> None:
        with self._around(file.path, "append") as prefix:
            if self._is_target(f"{prefix}.{MIDDLE}"):
                whole = b"".join(parts)
                super().append(file, [whole[: len(whole) // 2]])
                os.kill(os.getpid(), signal.SIGKILL)
            super().append(file, parts)

    def sync(self, file: File) -> None:
        with self._around(file.path, "sync"):
            super().sync(file)

    def truncate(self, file: File, size: int) -> None:
        with self._around(file.path, "truncate"):
            super().truncate(file, size)

    def rename(self, source: Path, target: Path) -> None:
        with self._around(target, "rename"):
            super().rename(source, target)

    def remove(self, path: Path) -> None:
        with self._around(path, "remove"):
            super().remove(path)

    def sync_directory(self, path: Path) -> None:
        with self._around(path, "sync_directory"):
            super().sync_directory(path)

    def make_directory(self, path: Path) -> None:
        with self._around(path, "make_directory"):
            super().make_directory(path)

    def remove_directory(self, path: Path) -> None:
        with self._around(path, "remove_directory"):
            super().remove_directory(path)

    @contextmanager
    def committing(self, path: Path) -> Iterator[None]:
        with self._around(path, "commit"), super().committing(path):
            yield
