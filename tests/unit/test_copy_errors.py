"""CREATE DATABASE by file copy on a disk that fails for a moment, or in one place for good.

What is unreadable in a copy is so for good: no error that passes may make it.
"""

import errno
import os
from pathlib import Path
from random import Random

import pytest

from engine import database_copy, index_rebuild
from engine.errors import IngestStopped
from engine.storage import File, Storage
from formats.chunk import relation as relation_key
from tests.fixtures.lazy_store import forget_frames
from tests.fixtures.small_store import REL, SmallStore, heap_page, mark_of
from tests.unit.test_wal_ingest import copy_database

BLOCKS = 40
THERE = (REL[0], 9, REL[2])
SHORTAGES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Failing(Storage):
    """Reads of bundles fail with `number`, the next `times`, and those of an open file at
    `offset`, for good."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.times, self.offset = 0, 0, -1
        self.refused = 0

    def pread(self, file: File, offset: int, length: int) -> bytes:
        if file.path.suffix == ".bundle":
            self.times -= 1
            if self.times >= 0 or offset <= self.offset < offset + length:
                self.refused += 1
                raise OSError(self.number, os.strerror(self.number), str(file.path))
        return super().pread(file, offset, length)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def storage() -> Failing:
    return Failing()


@pytest.fixture
def small(tmp_path: Path, storage: Failing) -> SmallStore:
    """A database whose pages are all in one bundle, in several frames."""
    random = Random(1)
    pages = [heap_page(mark)[:24] + random.randbytes(8076) + heap_page(mark)[8100:]
             for mark in range(BLOCKS)]  # fmt: skip
    small = SmallStore(tmp_path, [(relation_key(*REL, 0), pages)], storage=storage)
    small.ingest()
    forget_frames(small.store.frames)
    return small


def marks(small: SmallStore, lsn: int, relation: tuple[int, int, int]) -> list[int | str]:
    """What each page says, or why it cannot be read."""
    found: list[int | str] = []
    for block in range(BLOCKS):
        try:
            found.append(mark_of(small.page(block, lsn, relation)))
        except LookupError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("number", [errno.EIO, *SHORTAGES], ids=os.strerror)
def test_an_error_that_passes_leaves_no_trace(
    small: SmallStore, storage: Failing, number: int, times: int
) -> None:
    storage.number, storage.times = number, times
    copied = small.put(copy_database(5, 9))
    assert storage.refused == times
    assert marks(small, copied, THERE) == list(range(BLOCKS))


@pytest.mark.parametrize("number", SHORTAGES, ids=os.strerror)
def test_a_shortage_that_lasts_ends_ingest_and_no_page(
    small: SmallStore, storage: Failing, number: int
) -> None:
    """After the next start the copy is made anew."""
    storage.number, storage.times = number, 10_000
    bundles = list(small.store.paths.layers.iterdir())
    small.add(copy_database(5, 9))
    with pytest.raises(OSError, match=os.strerror(number)):
        small.ingest()
    assert list(small.store.paths.layers.iterdir()) == bundles
    storage.times = 0
    small.reopen()
    assert marks(small, small.store.ready_lsn, THERE) == list(range(BLOCKS))


def test_a_place_that_cannot_be_read_for_good_is_unreadable_in_the_copy(
    small: SmallStore, storage: Failing
) -> None:
    """The rest is copied; it was asked for often enough."""
    storage.number = errno.EIO
    storage.offset = max(path.stat().st_size for path in small.store.paths.layers.iterdir()) // 2
    copied = small.put(copy_database(5, 9))
    assert storage.refused > database_copy.READ_ATTEMPTS
    storage.offset = -1
    assert marks(small, copied, REL) == list(range(BLOCKS))
    there = marks(small, copied, THERE)
    failed = [block for block, mark in enumerate(there) if mark != block]
    assert 0 < len(failed) < BLOCKS // 2
    assert all("this server has no redo" in str(there[block]) for block in failed)


def test_a_stop_does_not_wait_for_the_disk(small: SmallStore, storage: Failing) -> None:
    storage.number, storage.times = errno.EIO, 10_000
    small.add(copy_database(5, 9))
    small.store.end_flush()
    with pytest.raises(IngestStopped):
        small.ingest()
    assert storage.refused < database_copy.READ_ATTEMPTS
