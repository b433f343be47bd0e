"""The disk of the tests keeps what was synced, may lose anything else, and fails on call."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from engine.storage import PoisonedFileError
from tests.fixtures.faulty_storage import CrashError, FaultyStorage

SEEDS = range(400)
CALL_SECONDS_MAX = 0.001


def outcomes(root: Path, act: Callable[[FaultyStorage, Path], None]) -> set[tuple[object, ...]]:
    """What a crash may leave after `act`: (name, content) of each file, for many seeds."""
    found = set()
    for seed in SEEDS:
        directory = root / str(seed)
        directory.mkdir()
        storage = FaultyStorage()
        act(storage, directory)
        storage.crash(Random(seed))
        found.add(tuple((p.name, p.read_bytes()) for p in sorted(directory.iterdir())))
    return found


def synced_file(storage: FaultyStorage, path: Path, content: bytes) -> None:
    file = storage.create(path)
    storage.append(file, [content])
    storage.sync(file)
    storage.sync_directory(path.parent)


def test_bytes(fast_directory: Path) -> None:
    def act(storage: FaultyStorage, directory: Path) -> None:
        synced_file(storage, directory / "a", b"x" * 508)
        file = storage.open(directory / "a", writable=True)
        storage.append(file, [b"12345", b"6789"])  # the first four in a sector of their own

    left = {content[508:] for ((_, content),) in outcomes(fast_directory, act)}
    both, first, second = b"123456789", b"1234" + bytes(5), bytes(4) + b"56789"
    assert {b"", both, first, second, bytes(9), b"1234", b"123456"} <= left
    assert any(rest[4:5] == b"5" and rest.endswith(b"\0") for rest in left)
    for rest in left:
        assert all(byte in (0, right) for byte, right in zip(rest, both, strict=False))


def test_a_truncation_is_there_after_its_sync_only(fast_directory: Path) -> None:
    def act(storage: FaultyStorage, directory: Path) -> None:
        synced_file(storage, directory / "a", b"123456")
        storage.truncate(storage.open(directory / "a", writable=True), 2)

    assert outcomes(fast_directory, act) == {(("a", b"123456"),), (("a", b"12"),)}


def test_names(fast_directory: Path) -> None:
    def act(storage: FaultyStorage, directory: Path) -> None:
        synced_file(storage, directory / "old", b"old")
        synced_file(storage, directory / "gone", b"gone")
        file = storage.create(directory / "new")
        storage.append(file, [b"new"])
        storage.sync(file)
        storage.rename(directory / "new", directory / "old")
        storage.remove(directory / "gone")
        assert storage.read_all(directory / "old") == b"new"

    gone, old = ("gone", b"gone"), ("old", b"old")
    new, renamed = ("new", b"new"), ("old", b"new")
    files = [(old,), (new, old), (renamed,)]
    either = {tuple(sorted((gone, *rest))) for rest in files} | {tuple(rest) for rest in files}
    assert outcomes(fast_directory, act) == either


def test_what_is_open_outlives_its_name(fast_directory: Path) -> None:
    storage = FaultyStorage()
    synced_file(storage, fast_directory / "a", b"content")
    file = storage.open(fast_directory / "a")
    storage.remove(fast_directory / "a")
    assert storage.pread(file, 0, 99) == b"content"


def test_calls_that_fail(fast_directory: Path) -> None:
    storage = FaultyStorage()
    file = storage.create(fast_directory / "a")
    storage.fail("append", call=2)
    for _ in range(2):
        storage.append(file, [b"1234"])
    assert (file.size, storage.read_all(file.path)) == (8, b"12341234")
    storage.fail("append", errno.ENOSPC, name="other")
    storage.append(file, [b"5"])
    storage.fail("append", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        storage.append(file, [b"6789"])
    assert storage.read_all(file.path) == b"12341234567"
    with pytest.raises(PoisonedFileError):
        storage.append(file, [b"8"])
    storage.fail("create", errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        storage.create(fast_directory / "b")
    assert not (fast_directory / "b").exists()


def test_a_full_disk(fast_directory: Path) -> None:
    storage = FaultyStorage()
    storage.room = 6
    file = storage.create(fast_directory / "a")
    with pytest.raises(OSError, match="No space left"):
        storage.append(file, [b"1234", b"5678"])
    assert storage.read_all(file.path) == b"123456"
    storage.remove(file.path)
    other = storage.create(fast_directory / "b")
    storage.append(other, [b"123456"])
    assert storage.room == 0
    storage.room = None
    storage.append(other, [b"789"])


def test_nothing_happens_after_the_machine_is_gone(fast_directory: Path) -> None:
    storage = FaultyStorage()
    synced_file(storage, fast_directory / "a", b"1")
    storage.crash_at = storage.calls
    with pytest.raises(CrashError):
        storage.sync(storage.open(fast_directory / "a", writable=True))
    with pytest.raises(CrashError):
        storage.remove(fast_directory / "a")
    storage.crash(Random(1))
    storage.remove(fast_directory / "a")


def test_it_is_fast(fast_directory: Path) -> None:
    storage = FaultyStorage()
    begin = time.thread_time()
    for number in range(200):
        synced_file(storage, fast_directory / str(number), b"content")
    assert (time.thread_time() - begin) / storage.calls < CALL_SECONDS_MAX


def test_a_second_name_that_was_not_synced_may_be_lost(fast_directory: Path) -> None:
    def act(storage: FaultyStorage, directory: Path) -> None:
        synced_file(storage, directory / "a", b"1")
        storage.link(directory / "a", directory / "b")

    first, second = ("a", b"1"), ("b", b"1")
    assert outcomes(fast_directory, act) == {(first,), (first, second)}


def test_a_scratch_file_fails_where_it_is_told_to(tmp_path):
    storage = FaultyStorage()
    storage.fail("write_at", errno.EIO)
    file = storage.scratch(tmp_path / "cache", 10)
    with pytest.raises(OSError, match="cache"):
        storage.write_at(file, 0, b"x")
    storage.write_at(file, 0, b"x")
    assert storage.pread(file, 0, 2) == b"x\0"
    assert storage.counts["write_at"] == 2
