"""The faulty disk of tests, at each of whose calls a task of the simulation may pause."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engine.storage import Bytes, File
from tests.fixtures.faulty_storage import FaultyStorage
from tests.simulation.scheduler import Scheduler


class Disk(FaultyStorage):
    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(keep_index=True)
        self._scheduler = scheduler
        self._files: list[File] = []

    def _pause(self, what: str, path: Path) -> None:
        self._scheduler.pause(f"{what} {path.name}")

    def create(self, path: Path) -> File:
        self._pause("create", path)
        self._files.append(super().create(path))
        return self._files[-1]

    def open(self, path: Path, writable: bool = False) -> File:
        self._scheduler.pause(f"open {path.name}", 3)
        self._files.append(super().open(path, writable))
        return self._files[-1]

    def lock(self, path: Path) -> File:
        self._files.append(super().lock(path))
        return self._files[-1]

    def pread(self, file: File, offset: int, length: int) -> bytes:
        self._pause("pread", file.path)
        return super().pread(file, offset, length)

    def append(self, file: File, parts: Sequence[Bytes]) -> None:
        self._pause("append", file.path)
        super().append(file, parts)

    def _flush(self, file: File) -> None:
        self._pause("sync", file.path)
        super()._flush(file)

    def rename(self, source: Path, target: Path) -> None:
        self._pause("rename", source)
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._pause("remove", path)
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._pause("sync_directory", path)
        super().sync_directory(path)

    @contextmanager
    def committing(self, path: Path) -> Iterator[None]:
        self._pause("begin of commit", path)
        with super().committing(path):
            yield
        self._pause("end of commit", path)

    def forget_faults(self) -> None:
        """What was to fail goes well from now on."""
        self._faults.clear()
        self.room = None

    def close_all(self) -> None:
        """What the end of a process does to its files."""
        for file in self._files:
            if file.descriptor >= 0:
                os.close(file.descriptor)
                file.descriptor = -1
        self._files.clear()
