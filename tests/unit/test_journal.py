"""The journal: what is read is what was written; trimming, leftovers, timelines."""

import errno
import random
from pathlib import Path

import pytest

from engine.journal import JournalRewoundError
from engine.journal_directory import verify_journal
from engine.journal_segment import SUM_BYTES
from engine.storage import File, Storage
from formats.journal_sums import MAGIC, Sum, parse_sums
from formats.timeline_history import HistoryEntry
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


def test_reads_what_was_written_from_memory_and_from_files(tmp_path: Path) -> None:
    wal = wal_of(5 * SEGMENT // 2)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    assert journal.received_lsn == wal.end
    assert read_all(journal, START) == wal.data
    late = wal.end - 40_000  # still in the tail
    assert read_all(journal, late) == wal.data[late - START :]
    assert journal.read(wal.end, 10) == b""
    names = sorted(path.name for path in (tmp_path / "journal").iterdir())
    assert names[::2] == [FIRST, FIRST[:-1] + "6", FIRST[:-1] + "7"]
    assert (tmp_path / "journal" / FIRST).read_bytes() == wal.data[:SEGMENT]


def test_a_reader_opens_each_segment_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wal = wal_of(7 * SEGMENT // 2)
    journal = begun(tmp_path, tail_bytes=5000)
    write(journal, wal, START, wal.end)
    opened: list[File] = []
    open_file = Storage.open

    def noting(storage: Storage, path: Path, writable: bool = False) -> File:
        opened.append(open_file(storage, path, writable))
        return opened[-1]

    monkeypatch.setattr(Storage, "open", noting)
    assert read_all(journal, START) == wal.data
    assert len(opened) == 3
    assert all(file.descriptor < 0 for file in opened)  # none held when there is no more to read


def test_tail_is_right_for_pieces_of_any_size(tmp_path: Path) -> None:
    wal = wal_of(300_000)
    journal = begun(tmp_path, tail_bytes=5000)
    sizes = random.Random(3)
    read_at = START
    while journal.received_lsn < wal.end:
        at = journal.received_lsn
        piece = wal.data[at - START : at - START + sizes.choice((1, 700, 4999, 5000, 5001, 20_000))]
        journal.append(at, piece)
        if sizes.random() < 0.7:
            while data := journal.read(read_at, sizes.randrange(1, 9000)):
                assert data == wal.data[read_at - START : read_at - START + len(data)]
                read_at += len(data)


def test_refuses_bytes_that_do_not_follow(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    with pytest.raises(ValueError, match="does not follow 0/500000"):
        journal.append(START + 8, b"x")
    with pytest.raises(ValueError, match="cannot begin at 0/500001"):
        journal.begin(START + 1, 1)


def test_clean_stop_keeps_everything_and_vouches_for_it(tmp_path: Path) -> None:
    wal = wal_of(SEGMENT + 70_000)
    journal = begun(tmp_path)
    cut = wal.end - 11  # in the middle of a record
    write(journal, wal, START, cut)
    assert journal.flushed_lsn == START + SEGMENT  # a full segment is flushed before the next
    journal.close()
    directory = tmp_path / "journal"
    assert verify_journal(Storage(), directory, SEGMENT) == []
    sums, _ = parse_sums((directory / (FIRST[:-1] + "6.sums")).read_bytes())
    assert sums[-1].end == cut - START - SEGMENT
    journal = open_journal(tmp_path)
    assert (journal.start_lsn, journal.received_lsn, journal.flushed_lsn) == (START, cut, cut)
    assert journal.timeline == 1
    write(journal, wal, cut, wal.end)
    assert read_all(journal, START) == wal.data


def test_sums_while_running(tmp_path: Path) -> None:
    wal = wal_of(3 * SUM_BYTES)
    journal = begun(tmp_path)
    sums_file = tmp_path / "journal" / (FIRST + ".sums")
    write(journal, wal, START, START + SUM_BYTES - 1)
    journal.sync()
    assert sums_file.read_bytes() == MAGIC
    write(journal, wal, START + SUM_BYTES - 1, wal.end)
    assert journal.sync() == wal.end
    assert [entry.end for entry in parse_sums(sums_file.read_bytes())[0]] == [len(wal.data)]


def test_trim(tmp_path: Path) -> None:
    wal = wal_of(3 * SEGMENT + 1000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    assert journal.trim(START + SEGMENT - 1) == 0
    assert journal.trim(START + 2 * SEGMENT) == 2
    assert journal.start_lsn == START + 2 * SEGMENT
    with pytest.raises(ValueError, match="WAL at 0/6FFFFF is gone"):
        journal.read(START + 2 * SEGMENT - 1, 10)
    assert journal.trim(wal.end + 10 * SEGMENT) == 1  # the last one stays
    journal.close()
    reopened = open_journal(tmp_path)
    assert (reopened.start_lsn, reopened.received_lsn) == (START + 3 * SEGMENT, wal.end)


def test_leftovers_are_removed(tmp_path: Path) -> None:
    wal = wal_of(1000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    journal.close()
    directory = tmp_path / "journal"
    (directory / "000000010000000000000004.sums").write_bytes(MAGIC)
    (directory / "00000002.history.new").write_bytes(b"1\t0/")
    assert open_journal(tmp_path).received_lsn == wal.end
    assert len(list(directory.iterdir())) == 2


def test_discard_and_begin_again(tmp_path: Path) -> None:
    wal = wal_of(SEGMENT + 1000)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    journal.discard()
    assert journal.is_empty
    assert list((tmp_path / "journal").iterdir()) == []
    journal.begin(START, 1)
    write(journal, wal, START, wal.end)
    assert read_all(journal, START) == wal.data


def test_last_record_end(tmp_path: Path) -> None:
    wal = wal_of(SEGMENT + 50_000)
    journal = begun(tmp_path)
    assert journal.last_record_end() == START
    sizes = random.Random(9)
    while journal.received_lsn < wal.end:
        at = journal.received_lsn
        journal.append(at, wal.data[at - START : at - START + sizes.randrange(1, 30_000)])
        assert journal.last_record_end() == wal.whole_end(journal.received_lsn)


def test_last_record_end_behind_a_switch(tmp_path: Path) -> None:
    wal = SmallWal(START, SEGMENT)
    wal.add(300)
    wal.switch_segment()
    wal.add(100)
    journal = begun(tmp_path)
    write(journal, wal, START, wal.end)
    assert journal.last_record_end() == wal.end


@pytest.mark.parametrize("switch_at_segment", [False, True])
def test_follow_a_timeline(tmp_path: Path, switch_at_segment: bool) -> None:
    old = wal_of(SEGMENT // 2)
    if switch_at_segment:
        old.switch_segment()
    switch = old.end
    old.add(20_000)
    journal = begun(tmp_path)
    partial = switch + 9000  # the start of a record that never was whole
    write(journal, old, START, partial)
    journal.sync()
    assert journal.read(partial - 100, 1000)
    history = f"1\t{switch >> 32:X}/{switch & 0xFFFFFFFF:X}\tno recovery target\n".encode()
    with pytest.raises(ValueError, match="cannot switch"):
        journal.follow(2, old.ends[-3], history)
    journal.follow(2, switch, history)
    with pytest.raises(JournalRewoundError) as rewound:
        journal.read(partial, 1000)
    assert rewound.value.lsn == switch == journal.received_lsn
    assert journal.read(switch, 10) == b""
    new = bytes(old.data[: switch - START]) + bytes(range(256)) * 100
    journal.append(switch, new[switch - START :])
    assert read_all(journal, START) == new
    journal.close()

    reopened = open_journal(tmp_path)
    assert (reopened.timeline, reopened.received_lsn) == (2, START + len(new))
    assert reopened.history() == [HistoryEntry(1, switch)]
    assert read_all(reopened, START) == new
    assert verify_journal(Storage(), tmp_path / "journal", SEGMENT) == []
    assert (tmp_path / "journal" / FIRST).exists()
    reopened.append(reopened.received_lsn, bytes(2 * SEGMENT))
    reopened.trim(START + SEGMENT)
    assert not (tmp_path / "journal" / FIRST).exists()
    assert (tmp_path / "journal" / "00000002.history").exists()


def test_follow_from_within_an_earlier_segment(tmp_path: Path) -> None:
    """The record that never was whole went over the end of a segment."""
    old = wal_of(SEGMENT - 200_000)
    switch = old.end
    old.add(400_000)
    journal = begun(tmp_path)
    write(journal, old, START, START + SEGMENT + 100_000)
    journal.sync()
    journal.follow(2, switch, b"")
    assert journal.received_lsn == switch
    names = {path.name for path in (tmp_path / "journal").iterdir()}
    second = "00000002" + FIRST[8:]
    assert names == {FIRST, FIRST + ".sums", second, second + ".sums", "00000002.history"}
    journal.append(switch, b"new" * 100_000)
    assert read_all(journal, switch) == b"new" * 100_000
    journal.close()
    assert verify_journal(Storage(), tmp_path / "journal", SEGMENT) == []
    assert open_journal(tmp_path).received_lsn == switch + 300_000


def test_sums_are_cut_before_what_they_cover(tmp_path: Path) -> None:
    """A crash in between must not look like damage."""
    wal = wal_of(200_000)
    storage = FaultyStorage()
    journal = begun(tmp_path, storage)
    partial = wal.end
    wal.add(90_000)
    write(journal, wal, START, wal.end - 10)
    journal.sync()
    storage.fail("sync", errno.EIO, name=".sums")
    with pytest.raises(OSError, match="Input/output error"):
        journal.follow(2, partial, b"")
    assert open_journal(tmp_path).received_lsn == partial


def test_many_segments_take_few_open_files(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    for index in range(20):
        journal.append(START + index * SEGMENT, bytes(SEGMENT))
    journal.sync()
    reopened = open_journal(tmp_path)
    assert len(read_all(reopened, START, SEGMENT)) == 20 * SEGMENT
    assert len(list(Path("/proc/self/fd").iterdir())) <= open_files + 4


def test_sums_stop_at_the_first_that_is_not_whole() -> None:
    sums = [Sum(100, 7), Sum(200, 8), Sum(300, 9)]
    data = MAGIC + b"".join(entry.pack() for entry in sums)
    assert parse_sums(data) == (sums, len(data))
    for length in range(len(data)):
        found, used = parse_sums(data[:length])
        assert found == sums[: max(0, length - len(MAGIC)) // 12]
        assert used <= length
    assert parse_sums(data[:20] + bytes(12) + data[32:])[0] == sums[:1]
    assert parse_sums(MAGIC + Sum(5, 1).pack() + Sum(5, 1).pack())[0] == [Sum(5, 1)]
