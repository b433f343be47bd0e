"""The manifest on disk: append, replay, torn tails, compaction, and I/O that fails."""

import errno
from pathlib import Path

import pytest

from engine.manifest_log import ManifestLog
from engine.storage import PoisonedFileError, Storage
from formats.errors import CorruptionError
from formats.manifest_record import FileAdded, FileRemoved, Identity, Opened, Progress
from tests.fixtures.faulty_storage import FaultyStorage

IDENTITY = Identity("a" * 32, "b" * 32, 7, 180006, 16 << 20)


def added(sequence: int) -> FileAdded:
    return FileAdded(f"l0-00000000-00000001-{sequence:08x}.bundle", 4096, 1, 2, 3)


def test_what_was_appended_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    log = ManifestLog.create(Storage(), path, IDENTITY, Opened(1))
    log.append(added(1), Progress(durable_lsn=10))
    before = log.state
    log.append(added(2), FileRemoved(added(1).name), Progress(durable_lsn=20))
    assert list(before.files.values()) == [added(1)], "a state that was taken does not change"
    again = ManifestLog.open(Storage(), path)
    assert again.state == log.state
    assert (again.state.serial, again.state.durable_lsn) == (3, 20)


def test_a_torn_tail_is_cut_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    log = ManifestLog.create(Storage(), path, IDENTITY, Opened(1))
    log.append(added(1))
    whole = path.read_bytes()
    log.append(added(2))
    path.write_bytes(path.read_bytes()[:-7])
    log = ManifestLog.open(Storage(), path)
    assert path.read_bytes() == whole
    log.append(Opened(2))
    assert ManifestLog.open(Storage(), path).state.run == 2


def test_a_last_byte_that_never_came_is_put_there(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    log = ManifestLog.create(Storage(), path, IDENTITY, Opened(1))
    log.append(added(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"\0")
    assert ManifestLog.open(Storage(), path).state == log.state
    assert path.read_bytes() == whole


def test_a_record_that_cannot_follow_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    log = ManifestLog.create(Storage(), path, IDENTITY, Opened(1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="never added"):
        log.append(Progress(durable_lsn=5), FileRemoved(added(1).name))
    assert path.read_bytes() == before
    assert log.state.durable_lsn == 0


@pytest.mark.parametrize("call", ["append", "sync"])
def test_after_a_failed_append_the_log_must_be_opened_anew(tmp_path: Path, call: str) -> None:
    path = tmp_path / "manifest"
    storage = FaultyStorage()
    log = ManifestLog.create(storage, path, IDENTITY, Opened(1))
    storage.fail(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        log.append(added(1))
    with pytest.raises(PoisonedFileError):
        log.append(added(2))
    assert log.state.files == {}
    reopened = ManifestLog.open(storage, path)
    assert len(reopened.state.files) == (call == "sync")
    reopened.append(added(3))
    assert ManifestLog.open(storage, path).state == reopened.state


def test_compaction_keeps_the_state_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "manifest"
    log = ManifestLog.create(Storage(), path, IDENTITY, Opened(1))
    for i in range(20):
        log.append(added(i), Progress(durable_lsn=i + 1))
        log.append(FileRemoved(added(i).name))
    log.append(added(99))
    size, state = path.stat().st_size, log.state
    assert not log.compact_if_worthwhile()
    log.compact()
    assert path.stat().st_size < size / 5
    log.append(Opened(2))
    again = ManifestLog.open(Storage(), path).state
    assert again == log.state
    assert (again.files, again.durable_lsn) == (state.files, 20)
    assert again.serial == state.serial + 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["manifest"]


@pytest.mark.parametrize("call", ["append", "sync", "sync_directory"])
def test_compaction_that_fails_loses_nothing(tmp_path: Path, call: str) -> None:
    path = tmp_path / "manifest"
    storage = FaultyStorage()
    log = ManifestLog.create(storage, path, IDENTITY, Opened(1))
    log.append(added(1))
    storage.fail(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        log.compact()
    if call == "sync_directory":  # the new file may have taken the name: appending is refused
        with pytest.raises(PoisonedFileError):
            log.append(added(2))
    else:
        log.append(added(2))
    state = ManifestLog.open(storage, path).state
    assert state.files == log.state.files
    reopened = ManifestLog.open(storage, path)
    reopened.compact()
    assert ManifestLog.open(storage, path).state == reopened.state


def test_a_manifest_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ManifestLog.open(Storage(), tmp_path / "manifest")
    (tmp_path / "manifest").write_bytes(b"")
    with pytest.raises(CorruptionError, match="manifest header"):
        ManifestLog.open(Storage(), tmp_path / "manifest")
