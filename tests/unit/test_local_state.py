"""What the uploader sees of a directory that another process writes."""

import errno
from pathlib import Path

import pytest

from engine.manifest_log import ManifestLog
from engine.storage import Storage
from formats.errors import CorruptionError
from formats.manifest_record import Identity, Opened, PointSet, Progress
from formats.timeline_history import HistoryEntry
from server.backup.local_state import LocalJournal, LocalManifest, WalGoneError
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.journals import SEGMENT, START, begun, open_journal, wal_of, write

HISTORY = b"1\t0/580000\tpromoted\n"


def log_of(path: Path, storage: Storage) -> ManifestLog:
    identity = Identity("a" * 32, "b" * 32, 7, 180006, SEGMENT)
    return ManifestLog.create(storage, path, identity, Opened(1))


def test_the_manifest_is_followed_to_the_announced_serial(tmp_path: Path) -> None:
    log = log_of(tmp_path / "manifest", Storage())
    follower = LocalManifest(Storage(), tmp_path / "manifest")
    states = [log.state]
    for number in range(20):
        log.append(PointSet(f"p{number}", number))
        states.append(log.state)
        assert follower.at(states[number // 2].serial) == states[number // 2]
    assert follower.at(log.state.serial) == log.state


def test_it_survives_compaction(tmp_path: Path) -> None:
    log = log_of(tmp_path / "manifest", Storage())
    follower = LocalManifest(Storage(), tmp_path / "manifest")
    for number in range(30):
        if number % 7 == 3:
            before = log.state
            log.compact()
            assert follower.at(before.serial).points == before.points  # the file may be gone
        else:
            log.append(Progress(durable_lsn=number))
        if number % 4:
            assert follower.at(log.state.serial) == log.state


def test_it_survives_mending_after_a_full_disk(tmp_path: Path) -> None:
    storage = FaultyStorage()
    log = log_of(tmp_path / "manifest", storage)
    follower = LocalManifest(Storage(), tmp_path / "manifest")
    announced = follower.at(log.state.serial)
    storage.fail("sync", errno.ENOSPC, name="manifest")
    with pytest.raises(OSError, match="manifest"):
        log.append(PointSet("never", 1))  # its entry is in the file, whole
    assert follower.at(log.state.serial) is announced
    log.mend()
    log.append(PointSet("true", 2))
    assert follower.at(log.state.serial) == log.state
    assert list(log.state.points) == ["true"]


def test_a_serial_that_is_not_there_is_damage_until_it_is(tmp_path: Path) -> None:
    log = log_of(tmp_path / "manifest", Storage())
    follower = LocalManifest(Storage(), tmp_path / "manifest")
    follower.at(1)
    with pytest.raises(CorruptionError, match="expected serial 2"):
        follower.at(2)
    log.append(PointSet("p", 1))
    assert follower.at(2) == log.state


def test_a_damaged_manifest_is_found(tmp_path: Path) -> None:
    log = log_of(tmp_path / "manifest", Storage())
    log.append(PointSet("p", 1))
    path = tmp_path / "manifest"
    content = bytearray(path.read_bytes())
    content[60] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match="checksum"):
        LocalManifest(Storage(), path).at(2)


def reader(tmp_path: Path) -> LocalJournal:
    return LocalJournal(Storage(), tmp_path / "journal", SEGMENT)


def test_the_journal_is_read_while_it_is_written(tmp_path: Path) -> None:
    journal, wal = begun(tmp_path), wal_of(3 * SEGMENT)
    local, at, piece = reader(tmp_path), START, 130_001
    while at < wal.end:
        end = min(at + piece, wal.end)
        write(journal, wal, at, end)
        journal.sync()
        for begin in (at, max(START, at - 70_000), max(START, end - 1)):
            assert local.read(begin, end) == wal.data[begin - START : end - START]
        at = end


def test_wal_that_was_trimmed_is_gone(tmp_path: Path) -> None:
    journal, wal = begun(tmp_path), wal_of(3 * SEGMENT)
    write(journal, wal, START, wal.end)
    journal.sync()
    journal.trim(START + SEGMENT)
    local = reader(tmp_path)
    assert local.read(START + SEGMENT, wal.end) == wal.data[SEGMENT:]
    with pytest.raises(WalGoneError):
        local.read(START + SEGMENT - 1, wal.end)


@pytest.mark.parametrize("offset", [0, 100_000, SEGMENT - 1, SEGMENT + 5])
def test_a_flipped_bit_that_a_sum_covers_is_found(tmp_path: Path, offset: int) -> None:
    journal, wal = begun(tmp_path), wal_of(2 * SEGMENT)
    write(journal, wal, START, wal.end)
    journal.close()
    path = sorted((tmp_path / "journal").iterdir())[2 * (offset // SEGMENT)]
    content = bytearray(path.read_bytes())
    content[offset % SEGMENT] ^= 1
    path.write_bytes(content)
    local, at = reader(tmp_path), START + offset
    with pytest.raises(CorruptionError, match="journal segment"):
        local.read(at, at + 1)


def test_timelines(tmp_path: Path) -> None:
    journal, wal = begun(tmp_path), wal_of(SEGMENT)
    switch = wal.whole_end(START + SEGMENT // 2)
    write(journal, wal, START, switch + 40)
    journal.sync()
    local = reader(tmp_path)
    assert local.history_content(2) is None and local.history(1) == []
    journal.follow(2, switch, HISTORY)
    assert journal.flushed_lsn == switch
    assert local.history_content(2) == HISTORY
    assert local.history(2) == [HistoryEntry(1, 0x580000)]
    assert local.read(START, switch) == wal.data[: switch - START]
    journal.append(switch, b"second")
    journal.sync()
    assert local.read(switch - 3, switch + 6) == wal.data[switch - START - 3 :][:3] + b"second"
    journal.close()
    assert open_journal(tmp_path).timeline == 2
