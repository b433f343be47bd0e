"""A flush that fails at any call: nothing is reported durable, reads go on, a start is sound."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.storage import Bytes, File, Storage
from formats.chunk import relation as relation_key
from tests.fixtures.small_store import REL, SmallStore, create, drop, heap_page, image, truncate

OTHER = (1663, 5, 16385)


class FailingStorage(Storage):
    """The call numbered `fail_at` that changes the disk does half of its work and fails."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at = -1

    def _count(self, path: Path, number: int) -> None:
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise OSError(number, os.strerror(number), str(path))

    def create(self, path: Path) -> File:
        self._count(path, errno.ENOSPC)
        return super().create(path)

    def append(self, file: File, parts: Sequence[Bytes]) -> None:
        try:
            self._count(file.path, errno.ENOSPC)
        except OSError:
            half = b"".join(parts)
            super().append(file, [half[: len(half) // 2]])
            file.is_poisoned = True
            raise
        super().append(file, parts)

    def sync(self, file: File) -> None:
        try:
            self._count(file.path, errno.EIO)
        except OSError:
            file.is_poisoned = True
            raise
        super().sync(file)

    def sync_directory(self, path: Path) -> None:
        self._count(path, errno.EIO)
        super().sync_directory(path)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: None)


def fill(directory: Path, storage: Storage) -> tuple[SmallStore, list[int]]:
    """A store with one flush behind it and WAL for the next in memory; the LSNs to read at."""
    pages = [(relation_key(*REL, 0), [heap_page(1), heap_page(2)])]
    small = SmallStore(directory, pages, storage=storage)
    lsns = [small.put(image(0, 10), create(OTHER), image(3, 13, OTHER))]
    assert small.flush() == lsns[0]
    lsns.append(small.put(truncate(1), image(5, 15), image(0, 20, OTHER)))
    lsns.append(small.put(drop(OTHER), image(0, 30)))
    return small, lsns


def check(small: SmallStore, lsns: list[int]) -> None:
    first, second, third = lsns
    assert [small.mark(0, lsn) for lsn in lsns] == [10, 10, 30]
    assert [small.store.nblocks(*REL, 0, lsn) for lsn in lsns] == [2, 6, 6]
    assert small.mark(5, third) == 15
    assert small.page(1, second) == bytes(8192)
    assert [small.mark(3, lsn, OTHER) for lsn in (first, second)] == [13, 13]
    assert not small.store.exists(*OTHER, 0, third)


def fails_at(directory: Path, call: int) -> bool:
    """Whether the flush has so many calls; what must hold if it fails there."""
    directory.mkdir()
    storage = FailingStorage()
    small, lsns = fill(directory, storage)
    storage.fail_at = storage.calls + call
    journal_start = small.store.journal.start_lsn
    try:
        small.flush()
    except OSError:
        pass
    else:
        storage.fail_at = -1
        small.let_go()
        return False
    assert small.store.durable_lsn == lsns[0], call
    assert small.store.journal.start_lsn == journal_start
    check(small, lsns)
    small.reopen()
    check(small, lsns)
    assert small.flush() == lsns[2]
    small.reopen()
    check(small, lsns)
    assert len(list((directory / "layers").iterdir())) == len(small.store.manifest.state.files)
    small.let_go()
    return True


def test_a_failure_at_every_call(tmp_path):
    calls = 0
    while fails_at(tmp_path / str(calls), calls):
        calls += 1
    assert calls >= 6  # create, append, sync, directory; append and sync of the manifest


@pytest.mark.parametrize("again", [False, True])
def test_an_index_that_cannot_commit(tmp_path, monkeypatch, again):
    """The manifest has the bundle by then; a start catches the index up."""
    small, lsns = fill(tmp_path, Storage())
    with monkeypatch.context() as patch:
        patch.setattr(small.store._index, "commit", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            small.flush()
    assert small.store.durable_lsn == lsns[0]
    check(small, lsns)
    if again:  # as the close of a server does
        assert small.flush() == lsns[2]
        check(small, lsns)
    small.reopen()
    assert small.store.durable_lsn == lsns[2]
    check(small, lsns)
    small.let_go()
