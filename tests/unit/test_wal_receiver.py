"""One connection's stream of WAL, from a scripted source: what is written, synced and reported."""

import errno
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.journal import JournalFailedError
from engine.journal_directory import verify_journal
from engine.remote_wal import RemoteWal
from engine.wal_intake import DISK_FULL, JOURNAL_FULL, Hold
from formats import lsn
from server.read_pace import PAUSE_SECONDS, ReadPace
from server.replication import NextTimeline, SourceIdentity, Stopped, checked_slot, describe_source
from server.source_errors import SourceError, source_error
from server.wal_stream import GROUP_SECONDS, OVERLAP_BYTES, WalStream
from tests.fixtures.fake_ingest import FakeIngest
from tests.fixtures.fake_source import SYSTEM_IDENTIFIER, FakeSource
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.small_wal import SmallWal

SEGMENT = 1 << 20
START = 3 * SEGMENT


def wal_message(start: int, data: bytes) -> bytes:
    return b"w" + struct.pack(">QQQ", start, start + len(data), 0) + data


def keepalive(*, reply: bool) -> bytes:
    return b"k" + struct.pack(">QQB", 0, 0, reply)


def _nothing() -> None:
    """For a stream that nobody watches."""


class Script:
    """A store with an empty journal, WAL to send, and the source that sends it."""

    def __init__(self, directory: Path, records: int = 400) -> None:
        self.storage = FaultyStorage()
        self.store = FakeIngest(directory, self.storage)
        self.journal = self.store.open_journal(SEGMENT)
        self.journal.begin(START, 1)
        self.wal = SmallWal(START, SEGMENT)
        for _ in range(records):
            self.wal.add(1000)
        self.source = FakeSource()

    def piece(self, begin: int, end: int) -> bytes:
        """The message with the WAL from `begin` to `end`, counted from its start."""
        return wal_message(START + begin, bytes(self.wal.data[begin:end]))

    def run(self, *messages: bytes | Callable[[], None] | None) -> None:
        self.source.messages = list(messages)
        stream = WalStream(self.source, self.store, SYSTEM_IDENTIFIER, "slot")
        stream.run(_nothing)

    @property
    def flushed(self) -> list[int]:
        return [status[1] - START for status in self.source.statuses]


def test_what_comes_is_written_synced_and_reported(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.run(script.piece(0, 5000), script.piece(5000, 9000), None, script.piece(9000, 9100))
    assert script.journal.received_lsn == script.journal.flushed_lsn == START + 9100
    assert script.store.read_wal(START) == script.wal.data[:9100]
    # At the start, and when nothing more was there after two messages.
    assert script.flushed == [0, 9000]
    assert script.source.started == [("slot", START, 1)]


def test_a_keepalive_that_asks_is_answered_with_all_before_it_flushed(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.run(
        script.piece(0, 5000), keepalive(reply=False), keepalive(reply=True),
        script.piece(5000, 6000), keepalive(reply=True), None,
    )  # fmt: skip
    assert script.flushed == [0, 5000, 6000]
    assert [status[0] - START for status in script.source.statuses] == [0, 5000, 6000]


def test_one_fsync_for_many_messages(tmp_path: Path) -> None:
    script = Script(tmp_path)
    pieces = [script.piece(at, at + 100) for at in range(0, 40_000, 100)]
    script.run(*pieces, None)
    assert script.storage.counts["sync"] == 1
    assert script.flushed == [0, 40_000]


def test_durable_is_reported_as_applied_but_never_above_flushed(tmp_path: Path) -> None:
    script = Script(tmp_path)

    def flush(position: int) -> Callable[[], None]:
        return lambda: setattr(script.store, "durable_lsn", START + position)

    script.run(script.piece(0, 5000), None, flush(3000), None, flush(9999), None)
    applied = [status[2] - START for status in script.source.statuses[1:]]
    assert applied == [-START, 3000, 5000]


def test_with_durability_s3_what_the_bucket_has_is_reported_as_applied(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.store.remote = RemoteWal(is_waited_for=True)
    script.store.durable_lsn = START + 4000

    def hear(position: int) -> Callable[[], None]:
        return lambda: script.store.remote.move(START + position, 1)

    script.run(script.piece(0, 5000), None, hear(3000), None, hear(9999), None)
    applied = [status[2] for status in script.source.statuses[1:]]
    assert applied == [0, START + 3000, START + 5000]


def test_nothing_is_acknowledged_once_another_server_has_the_bucket(tmp_path: Path) -> None:
    script = Script(tmp_path)

    def lose() -> None:
        script.store.remote.is_fenced = True

    with pytest.raises(Stopped):
        script.run(
            script.piece(0, 5000), None, lose,
            script.piece(5000, 6000), keepalive(reply=True), None,
        )  # fmt: skip
    assert script.flushed == [0, 5000]
    assert script.journal.flushed_lsn == START + 6000  # what came is kept


def test_a_gap_is_refused(tmp_path: Path) -> None:
    script = Script(tmp_path)
    with pytest.raises(SourceError, match="sent WAL from 0/301389 where 0/301388 was due"):
        script.run(script.piece(0, 5000), script.piece(5001, 6000))
    assert script.journal.flushed_lsn == START + 5000  # what came is kept


def test_begins_a_little_before_the_end_and_compares(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.run(script.piece(0, 200_000))
    overlap = 200_000 - OVERLAP_BYTES
    script.run(script.piece(overlap, 150_000), script.piece(150_000, 250_000), None)
    assert script.source.started[1] == ("slot", START + overlap, 1)
    assert script.store.read_wal(START) == script.wal.data[:250_000]

    damaged = bytearray(script.wal.data[250_000 - OVERLAP_BYTES : 251_000])
    damaged[100] ^= 1
    with pytest.raises(SourceError, match="differs.*from what was received before") as refused:
        script.run(wal_message(START + 250_000 - OVERLAP_BYTES, bytes(damaged)))
    assert refused.value.permanent
    assert script.store.read_wal(START) == script.wal.data[:250_000]


def test_never_begins_before_the_segment(tmp_path: Path) -> None:
    """The source was told that the segments before are flushed here, and may have removed them."""
    script = Script(tmp_path, records=1100)
    script.run(script.piece(0, SEGMENT + 5000))
    script.run(None)
    assert script.source.started[1] == ("slot", START + SEGMENT, 1)


def test_nothing_is_reported_after_a_failed_fsync(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.run(script.piece(0, 5000), None)
    script.source.statuses.clear()
    script.storage.fail("sync", errno.EIO, name="3")
    with pytest.raises(JournalFailedError):  # from the attempt to keep what came
        script.run(script.piece(0, 5000), script.piece(5000, 6000), None)
    assert script.flushed == [5000]  # what was flushed before, as the stream starts
    with pytest.raises(JournalFailedError):
        script.run(script.piece(0, 5000), None)
    assert set(script.flushed) == {5000}


def test_while_the_journal_must_not_grow_nothing_is_read_and_reports_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.wal_stream.HELD_STATUS_SECONDS", 0.0)
    script = Script(tmp_path)
    held: list[Hold | None] = []
    full = Hold(JOURNAL_FULL, "much WAL")

    def hold(count: int) -> Callable[[], None]:
        return lambda: script.store.holds.extend([full] * count)

    script.source.messages = [script.piece(0, 5000), None, hold(5), script.piece(5000, 9000), None]
    stream = WalStream(script.source, script.store, SYSTEM_IDENTIFIER, "slot", held.append)
    stream.run(_nothing)
    assert script.source.paused == 5
    assert held == [full] * 5 + [None]
    assert script.flushed[:7] == [0, 5000, *[5000] * 5]
    assert script.store.read_wal(START) == script.wal.data[:9000]


@pytest.mark.parametrize("suffix", ["3", "3.sums"])
def test_a_full_disk_costs_nothing_that_came(tmp_path: Path, suffix: str) -> None:
    """The connection lasts, and what was taken from it is written as soon as there is room."""
    script = Script(tmp_path)
    held: list[Hold | None] = []
    pieces = [script.piece(at, at + 1000) for at in range(0, 200_000, 1000)]

    def fill() -> None:
        script.storage.fail("append", errno.ENOSPC, name=suffix)

    script.source.messages = [script.piece(0, 1000), None, fill, *pieces[1:], None]
    stream = WalStream(script.source, script.store, SYSTEM_IDENTIFIER, "slot", held.append)
    stream.run(_nothing)
    assert script.source.paused == 1
    assert [hold.state if hold else None for hold in held] == [DISK_FULL, None]
    assert script.store.read_wal(START) == script.wal.data[:200_000]
    assert script.journal.flushed_lsn == START + 200_000
    script.journal.close()
    assert verify_journal(script.storage, tmp_path / "journal", SEGMENT) == []


def test_a_stream_that_ends_while_it_is_held_keeps_the_journal_sound(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.source.ends_with = SourceError("gone")
    script.source.messages = [script.piece(0, 5000), None, script.piece(5000, 9000)]
    script.store.holds = [None, Hold(DISK_FULL, "no room")]
    with pytest.raises(SourceError, match="gone"):
        WalStream(script.source, script.store, SYSTEM_IDENTIFIER, "slot").run(_nothing)
    assert script.journal.received_lsn == script.journal.flushed_lsn == START + 5000
    script.source.ends_with = []
    script.run(script.piece(0, 5000), script.piece(5000, 9000), None)
    assert script.store.read_wal(START) == script.wal.data[:9000]


def test_stopping_keeps_and_reports_what_came(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.source.ends_with = Stopped()
    with pytest.raises(Stopped):
        script.run(script.piece(0, 5000))
    assert script.flushed == [0, 5000]


def test_other_clusters_and_timelines_are_refused(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.source.identity = SourceIdentity(77, 1, 0)
    with pytest.raises(SourceError, match="its system identifier is 77"):
        script.run()
    script.source.identity = SourceIdentity(SYSTEM_IDENTIFIER, 3, 0)
    script.source.histories[3] = b"2\t0/310000\tsome reason\n"
    with pytest.raises(SourceError, match="timelines are 2 up to 0/310000; timeline 1 is not in"):
        script.run()
    script.source.identity = SourceIdentity(SYSTEM_IDENTIFIER, 2, 0)
    script.source.histories[2] = b"1\t0/301000\tsome reason\n"
    script.journal.append(START, script.wal.data[:6000])
    whole = lsn.show(script.wal.whole_end(START + 6000))
    with pytest.raises(SourceError, match=f"at 0/301000, but WAL up to {whole} was received"):
        script.run()
    assert script.journal.received_lsn == START + 6000
    assert script.journal.timeline == 1


@pytest.mark.parametrize(("durable", "timeline"), [(5000, 1), (250_000, 2), (400_000, 3)])
def test_a_journal_that_is_gone_begins_at_the_durable_lsn(
    tmp_path: Path, durable: int, timeline: int
) -> None:
    store = FakeIngest(tmp_path)
    store.open_journal(SEGMENT)
    store.durable_lsn = START + durable
    source = FakeSource()
    source.identity = SourceIdentity(SYSTEM_IDENTIFIER, 3, 0)
    ends = [lsn.show(START + end) for end in (200_000, 300_000)]
    source.histories[3] = f"1\t{ends[0]}\tx\n2\t{ends[1]}\tx\n".encode()
    WalStream(source, store, SYSTEM_IDENTIFIER, "slot").run(_nothing)
    assert source.started == [("slot", START, timeline)]


def test_the_source_takes_part_of_a_record_to_the_new_timeline(tmp_path: Path) -> None:
    """The half of a record that had come is void; the new timeline goes on before it."""
    script = Script(tmp_path)
    switch = script.wal.whole_end(START + 6000)
    script.run(script.piece(0, 6000))
    script.source.identity = SourceIdentity(SYSTEM_IDENTIFIER, 2, 0)
    script.source.histories[2] = f"1\t{lsn.show(switch)}\tno target\n".encode()
    script.source.following = [NextTimeline(2, switch)]
    script.store.remote.move(START + 6000, 1)
    new = bytes(script.wal.data[: switch - START]) + b"\1" * 500
    script.run(wal_message(START, new), None)
    assert script.source.started[1:] == [("slot", START, 1), ("slot", START, 2)]
    assert script.journal.timeline == 2
    assert script.store.read_wal(START) == new
    assert script.store.remote.lsn == switch, "of what came above it the bucket has nothing"


@pytest.mark.parametrize("slot", ["", "Upper", "a-b", 'a"b', "x" * 64])
def test_slot_names(slot: str) -> None:
    with pytest.raises(SourceError, match="cannot be the name of a replication slot"):
        checked_slot(slot)


def test_descriptions_hide_passwords() -> None:
    assert describe_source("host=db port=5433 password=secret") == "db:5433"
    assert describe_source("postgresql://me:secret@db/x") == "db:5432"
    assert describe_source("user=x") == "the local socket:5432"
    assert "secret" not in describe_source("password=secret =")


@pytest.mark.parametrize(
    ("message", "advice", "permanent"),
    [
        (
            "ERROR:  requested WAL segment 000000010000000000000001 has already been removed",
            "empty data directory",
            True,
        ),
        (
            'FATAL:  number of requested standby connections exceeds "max_wal_senders" '
            "(currently 0)",
            "wal_level = replica",
            True,
        ),
        (
            "FATAL:  number of requested standby connections exceeds max_wal_senders "
            "(currently 10)",
            "raise max_wal_senders",
            False,
        ),
        ('ERROR:  replication slot "x" is active for PID 7', "must not share one", False),
        ("ERROR:  all replication slots are in use", "max_replication_slots", True),
        (
            'ERROR:  replication slots can only be used if "wal_level" >= "replica"',
            "wal_level = replica",
            True,
        ),
        (
            'ERROR:  can no longer access replication slot "x"\nDETAIL:  This replication slot has '
            'been invalidated due to "wal_removed".',
            "pageserver detach",
            True,
        ),
        ("FATAL:  permission denied to start WAL sender", "REPLICATION", True),
        ("FATAL:  must be superuser or replication role to start walsender", "REPLICATION", True),
        ('FATAL:  password authentication failed for user "x"', "user and password", True),
        ("FATAL:  the database system is starting up", "", False),
    ],
)
def test_errors_say_what_to_do(message: str, advice: str, permanent: bool) -> None:
    error = source_error(message)
    assert error.permanent is permanent
    assert advice in error.advice
    assert "ERROR" not in str(error)


@pytest.mark.parametrize(("standbys", "seconds"), [("", GROUP_SECONDS), ("*", 0.0)])
def test_fsyncs_are_grouped_only_where_no_commit_waits(
    tmp_path: Path, standbys: str, seconds: float
) -> None:
    script = Script(tmp_path)
    script.source.shown["synchronous_standby_names"] = standbys
    stream = WalStream(script.source, script.store, SYSTEM_IDENTIFIER, "slot")
    assert stream._ask_group_seconds() == seconds


@pytest.mark.parametrize("standbys", ["", "*"])
def test_no_pause_where_commits_wait(
    tmp_path: Path, standbys: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tmp_path)
    script.source.shown["synchronous_standby_names"] = standbys
    monkeypatch.setattr(ReadPace, "is_pause_due", lambda self: True)
    script.run(script.piece(0, 100), None, script.piece(100, 200), None)
    assert (set(script.store.pauses) == {PAUSE_SECONDS}) == (standbys == "")
    assert script.journal.flushed_lsn == script.journal.received_lsn


def test_each_message_of_wal_counts_for_the_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tmp_path)
    noted: list[int] = []
    monkeypatch.setattr(ReadPace, "note", lambda self, length: noted.append(length))
    script.run(script.piece(0, 100), keepalive(reply=False), script.piece(100, 250), None)
    assert noted == [100, 150]
