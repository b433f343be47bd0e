"""The file I/O module: what it promises about errors, short writes and locks."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.storage import DirectoryInUseError, PoisonedFileError, Storage

storage = Storage()


def test_append_and_pread(tmp_path: Path) -> None:
    file = storage.create(tmp_path / "a")
    storage.append(file, [b"one", bytearray(b"two"), memoryview(b"three")])
    storage.sync(file)
    assert file.size == 11
    assert storage.pread(file, 3, 3) == b"two"
    assert storage.pread(file, 6, 100) == b"three"
    assert storage.pread(file, 100, 1) == b""
    assert storage.read_all(tmp_path / "a") == b"onetwothree"


def test_more_parts_than_one_call_takes(tmp_path: Path) -> None:
    file = storage.create(tmp_path / "a")
    storage.append(file, [bytes([i % 256]) for i in range(5000)])
    assert storage.read_all(tmp_path / "a") == bytes(i % 256 for i in range(5000))


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "writev", lambda fd, parts: write(fd, b"".join(parts)[:4]))
    file = storage.create(tmp_path / "a")
    storage.append(file, [b"hello ", b"world"])
    assert storage.read_all(tmp_path / "a") == b"hello world"
    assert file.size == 11


def test_open_for_appending_and_cutting(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    file = storage.open(tmp_path / "a", writable=True)
    storage.truncate(file, 4)
    storage.append(file, [b"x"])
    assert storage.read_all(tmp_path / "a") == b"0123x"


def test_a_name_is_created_once(tmp_path: Path) -> None:
    storage.create(tmp_path / "a")
    with pytest.raises(FileExistsError):
        storage.create(tmp_path / "a")


def _fail(*_: object) -> int:
    raise OSError(errno.EIO, "Input/output error")


def test_failed_fsync_poisons_and_names_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = storage.create(tmp_path / "a")
    storage.append(file, [b"1"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fail)
        with pytest.raises(OSError, match="Input/output") as caught:
            storage.sync(file)
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(PoisonedFileError, match="opened anew"):
        storage.sync(file)
    with pytest.raises(PoisonedFileError, match="opened anew"):
        storage.append(file, [b"2"])


def test_failed_append_poisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = storage.create(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", _fail)
        with pytest.raises(OSError, match="Input/output") as caught:
            storage.append(file, [b"1"])
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(PoisonedFileError):
        storage.truncate(file, 0)


def test_errors_of_a_read_and_a_directory_name_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = storage.create(tmp_path / "a")
    monkeypatch.setattr(os, "pread", _fail)
    monkeypatch.setattr(os, "fsync", _fail)
    with pytest.raises(OSError, match="Input/output") as caught:
        storage.pread(file, 0, 1)
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="Input/output") as caught:
        storage.sync_directory(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_directories(tmp_path: Path) -> None:
    storage.make_directory(tmp_path / "d")
    storage.make_directory(tmp_path / "d")
    storage.create(tmp_path / "d" / "b")
    storage.create(tmp_path / "d" / "a")
    storage.sync_directory(tmp_path / "d")
    assert storage.list(tmp_path / "d") == ["a", "b"]
    storage.rename(tmp_path / "d" / "a", tmp_path / "d" / "c")
    storage.remove(tmp_path / "d" / "b")
    assert storage.list(tmp_path / "d") == ["c"]
    assert storage.exists(tmp_path / "d" / "c")
    assert not storage.exists(tmp_path / "d" / "b")


def test_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(DirectoryInUseError, match="in use"):
        storage.lock(path)
    other.kill()
    other.communicate()
    held = storage.lock(path)
    with pytest.raises(DirectoryInUseError):
        storage.lock(path)
    storage.close(held)
    storage.lock(path)


def test_a_file_nobody_holds_is_closed(tmp_path: Path) -> None:
    file = storage.create(tmp_path / "a")
    descriptor = file.descriptor
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_second_name_outlives_the_first(tmp_path: Path) -> None:
    file = storage.create(tmp_path / "a")
    storage.append(file, [b"content"])
    storage.link(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileExistsError):
        storage.link(tmp_path / "a", tmp_path / "b")
    storage.remove(tmp_path / "a")
    assert storage.read_all(tmp_path / "b") == b"content"
    with pytest.raises(FileNotFoundError):
        storage.link(tmp_path / "a", tmp_path / "c")


def test_whether_a_name_is_still_that_file(tmp_path: Path) -> None:
    file = storage.create(tmp_path / "a")
    assert storage.is_at(file, tmp_path / "a")
    storage.create(tmp_path / "b")
    storage.rename(tmp_path / "b", tmp_path / "a")
    assert not storage.is_at(file, tmp_path / "a")
    assert not storage.is_at(file, tmp_path / "b")


def test_a_scratch_file_has_no_name_and_is_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"of another process")
    file = storage.scratch(tmp_path / "a", 100)
    assert not list(tmp_path.iterdir())
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
    storage.write_at(file, 50, b"short writes")
    storage.write_at(file, 10, memoryview(b"before"))
    assert storage.pread(file, 50, 12) == b"short writes"
    assert storage.pread_once(file, 8, 10) == b"\0\0before\0\0"
    assert storage.pread(file, 90, 100) == bytes(10)
    assert not storage.doubt(file, 0, 100), "the disk has nothing else to give"
    storage.close(file)


def test_a_scratch_file_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    file = storage.scratch(tmp_path / "a", 100)
    storage.close(file)
    with pytest.raises(OSError, match="/a'"):
        storage.write_at(file, 0, b"x")
