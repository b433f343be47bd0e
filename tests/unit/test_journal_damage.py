"""The journal after kills, power loss and failing disks: what was flushed survives, and damage is
told apart from a torn end.
"""

import errno
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.journal import JournalFailedError
from engine.journal_directory import verify_journal
from engine.storage import Bytes, File, Storage
from formats.errors import CorruptionError
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.journals import (
    FIRST,
    SEGMENT,
    START,
    begun,
    open_journal,
    read_all,
    wal_of,
    write,
)
from tests.fixtures.small_wal import SmallWal


def test_killed_at_any_byte_of_the_last_pages(tmp_path: Path) -> None:
    """What lies in the file and was not synced: whole records stay, the cut one goes."""
    wal = wal_of(SEGMENT + 30_000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    last = tmp_path / "journal" / (FIRST[:-1] + "6")
    content = last.read_bytes()
    for length in [*range(0, 60, 3), *range(len(content) - 3000, len(content), 41), len(content)]:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "journal", tmp_path / "copy" / "journal")
        (tmp_path / "copy" / "journal" / last.name).write_bytes(content[:length])
        reopened = open_journal(tmp_path / "copy")
        assert reopened.received_lsn == reopened.flushed_lsn
        expected = max(wal.whole_end(START + SEGMENT + length), START + SEGMENT)
        assert reopened.received_lsn == expected
        assert read_all(reopened, START) == wal.data[: expected - START]
        reopened.close()


def test_sums_vouch_for_a_record_that_is_not_whole(tmp_path: Path) -> None:
    """Its bytes were reported as flushed, so the source may not have them any more."""
    wal = SmallWal(START, SEGMENT)
    wal.add(500_000)
    journal = begun(tmp_path)
    write(journal, wal, START, START + 200_000)
    journal.sync()
    reopened = open_journal(tmp_path)
    assert reopened.received_lsn == START + 200_000
    assert reopened.last_record_end() == START


@pytest.mark.parametrize("seed", range(40))
def test_power_loss(tmp_path: Path, seed: int) -> None:
    """Nothing that was flushed is lost, whatever of the rest came to the disk."""
    rng = random.Random(seed)
    wal = wal_of(rng.randrange(100_000, 5 * SEGMENT // 2), seed)
    storage = FaultyStorage()
    journal = begun(tmp_path, storage)
    while journal.received_lsn < wal.end and rng.random() < 0.98:
        at = journal.received_lsn
        write(journal, wal, at, min(at + rng.randrange(1, 100_000), wal.end))
        if rng.random() < 0.4:
            journal.sync()
    storage.crash(rng)
    flushed, received = journal.flushed_lsn, journal.received_lsn
    reopened = open_journal(tmp_path)
    # Synced bytes of a record that was cut off, and that no sum covers, are asked for again.
    assert reopened.received_lsn >= wal.whole_end(flushed)
    assert reopened.received_lsn // SEGMENT >= flushed // SEGMENT or flushed % SEGMENT == 0
    assert reopened.received_lsn <= received
    at = reopened.received_lsn
    assert read_all(reopened, START) == wal.data[: at - START]
    write(reopened, wal, at, wal.end)
    reopened.close()
    assert verify_journal(Storage(), tmp_path / "journal", SEGMENT) == []
    assert read_all(open_journal(tmp_path), START) == wal.data


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    wal = wal_of(SEGMENT + 200_000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    journal.close()
    rng = random.Random(5)
    for path in sorted((tmp_path / "journal").iterdir()):
        content = path.read_bytes()
        for at in {0, 7, 8, len(content) - 1, *(rng.randrange(len(content)) for _ in range(8))}:
            damaged = bytearray(content)
            damaged[at] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            assert verify_journal(Storage(), tmp_path / "journal", SEGMENT), (path.name, at)
        path.write_bytes(content)
    assert verify_journal(Storage(), tmp_path / "journal", SEGMENT) == []


def test_damage_below_the_flushed_lsn_is_refused_not_cut(tmp_path: Path) -> None:
    wal = wal_of(200_000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    journal.sync()
    path = tmp_path / "journal" / FIRST
    damaged = bytearray(path.read_bytes())
    damaged[150_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptionError, match="journal segment at .*offset 0: expected CRC"):
        open_journal(tmp_path)
    path.write_bytes(damaged[:100_000])
    with pytest.raises(CorruptionError, match="expected at least .* bytes, found 100000 bytes"):
        open_journal(tmp_path)


def test_missing_and_short_segments_are_refused(tmp_path: Path) -> None:
    wal = wal_of(2 * SEGMENT + 1000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    journal.close()
    middle = tmp_path / "journal" / (FIRST[:-1] + "6")
    content = middle.read_bytes()
    middle.write_bytes(content[:-1])
    with pytest.raises(CorruptionError, match="expected 1048576 bytes, found 1048575"):
        open_journal(tmp_path)
    middle.unlink()
    with pytest.raises(CorruptionError, match=f"expected {middle.name}, found no such file"):
        open_journal(tmp_path)
    assert "missing" in " ".join(verify_journal(Storage(), tmp_path / "journal", SEGMENT))


def test_failed_fsync_is_the_last_word(tmp_path: Path) -> None:
    wal = wal_of(100_000)
    storage = FaultyStorage()
    journal = begun(tmp_path, storage)
    write(journal, wal, START, START + 50_000)
    flushed = journal.sync()
    write(journal, wal, START + 50_000, wal.end)
    storage.fail("sync", errno.EIO, name=FIRST)
    with pytest.raises(OSError, match="Input/output error"):
        journal.sync()
    for _ in range(2):
        with pytest.raises(JournalFailedError, match="start the page server again"):
            journal.sync()
    with pytest.raises(JournalFailedError):
        journal.append(wal.end, b"more")
    assert journal.flushed_lsn == flushed
    journal.close()
    assert read_all(open_journal(tmp_path), START)[: flushed - START] == wal.data[: flushed - START]


@pytest.mark.parametrize("suffix", [FIRST, FIRST + ".sums"])
def test_a_full_disk_changes_nothing(tmp_path: Path, suffix: str) -> None:
    wal = wal_of(200_000)
    storage = FaultyStorage()
    journal = begun(tmp_path, storage)
    write(journal, wal, START, START + 100_000)
    storage.fail("append", errno.ENOSPC, name=suffix)

    def write_and_sync() -> None:
        write(journal, wal, journal.received_lsn, wal.end, piece=200_000)
        journal.sync()

    with pytest.raises(OSError, match="No space left"):
        write_and_sync()
    write(journal, wal, journal.received_lsn, wal.end)
    assert journal.sync() == wal.end
    journal.close()
    assert verify_journal(Storage(), tmp_path / "journal", SEGMENT) == []
    assert read_all(open_journal(tmp_path), START) == wal.data


def test_a_write_that_fails_for_another_reason_is_the_last_word(tmp_path: Path) -> None:
    class Broken(Storage):
        def append(self, file: File, parts: Sequence[Bytes]) -> None:
            if file.size > 10_000:
                file.is_poisoned = True
                raise OSError(errno.EIO, "Input/output error", str(file.path))
            super().append(file, parts)

    wal = wal_of(100_000)
    journal = begun(tmp_path, Broken())
    write(journal, wal, START, START + 10_001, piece=10_001)
    flushed = journal.sync()
    with pytest.raises(OSError, match="Input/output error"):
        journal.append(flushed, b"more")
    assert journal.has_failed
    with pytest.raises(JournalFailedError, match="start the page server again"):
        journal.append(flushed, b"more")
    whole = wal.whole_end(flushed) - START
    assert read_all(open_journal(tmp_path), START)[:whole] == wal.data[:whole]
