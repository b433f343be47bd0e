"""The WAL that the benchmarks read: pgbench's, with rare and with frequent full-page images.

Each comes with the state before it in both forms: a page server's directory, which has the base
backup and in its journal the WAL, and a base backup as PostgreSQL makes it. Both begin with a
checkpoint, so the first change of each page is an image. For frequent images there are checkpoints
all the time.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.backup_identity import BackupIdentity
from engine.journal import Journal
from engine.page_store import PageStore
from engine.recovery import Paths
from engine.storage import Storage
from formats import lsn, wal_page
from server.base_backup import take_base_backup
from server.replication import StopSignal
from tools.postgres import Server, Workspace

SETTINGS = {
    "wal_keep_size": "64GB",
    "max_wal_size": "64GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "512MB",
    "synchronous_commit": "off",
}
"""The primary keeps all of its WAL, and makes checkpoints when it is told to."""

CHECKPOINT_SECONDS = 1.5
RANDOM_TEXT = (
    "encode(sha256(random()::text::bytea), 'base64') || encode(sha256(random()::text::bytea), "
    "'base64')::char(40)"
)
"""84 characters of six bits each: no compression gets below three quarters of it."""
RANDOM_PAYLOAD = f"""
\\set aid random(1, {{accounts}})
\\set bid random(1, {{branches}})
\\set tid random(1, {{tellers}})
\\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta, filler = {RANDOM_TEXT} where aid = :aid;
select abalance from pgbench_accounts where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = :tid;
update pgbench_branches set bbalance = bbalance + :delta where bid = :bid;
insert into pgbench_history (tid, bid, aid, delta, mtime, filler)
values (:tid, :bid, :aid, :delta, current_timestamp, left({RANDOM_TEXT}, 22));
end;
"""
"""pgbench's own transaction, with random text where it has blanks."""
MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class GeneratedWal:
    """`name` says what it is; `segments` are whole, the last one ends with a switch."""

    name: str
    segments: list[Path]
    segment_bytes: int
    start_lsn: int
    end_lsn: int
    page_store: Path
    base_backup: Path

    @property
    def size_bytes(self) -> int:
        return self.end_lsn - self.start_lsn


def generate(workspace: Workspace, seconds: float, scale: int) -> list[GeneratedWal]:
    primary = workspace.cluster(settings=SETTINGS).start()
    primary.pgbench("-i", "-q", "-s", str(scale))
    wals = [
        capture(workspace, primary, name, _load(primary, seconds, checkpoint_seconds))
        for name, checkpoint_seconds in (
            ("rare images", None),
            ("frequent images", CHECKPOINT_SECONDS),
        )
    ]
    primary.stop()
    return wals


def generate_payloads(workspace: Workspace, seconds: float, scale: int) -> list[GeneratedWal]:
    """Both with frequent images: pgbench's blank columns, and random text in their place."""
    primary = workspace.cluster(settings=SETTINGS).start()
    primary.pgbench("-i", "-q", "-s", str(scale))
    blank = _load(primary, seconds, CHECKPOINT_SECONDS)
    wals = [capture(workspace, primary, "frequent images", blank)]
    primary.psql(f"update pgbench_accounts set filler = {RANDOM_TEXT};")
    primary.psql("vacuum full pgbench_accounts;")
    script = workspace.new_path("random-payload.sql")
    script.write_text(RANDOM_PAYLOAD.format(accounts=scale * 100_000, branches=scale,
                                            tellers=10 * scale))  # fmt: skip
    filled = _load(primary, seconds, CHECKPOINT_SECONDS, "-f", str(script))
    wals.append(capture(workspace, primary, "frequent images, random payload", filled))
    primary.stop()
    return wals


def capture(
    workspace: Workspace, primary: Server, name: str, load: Callable[[], None]
) -> GeneratedWal:
    """The WAL that `load` makes on a primary, and both forms of the state before it."""
    page_store = workspace.new_path("page-store")
    identity = take_into(page_store, primary, MEMORY_BYTES)
    base_backup = primary.base_backup(workspace.new_path("base"))
    load()
    ((end_text,),) = primary.sql("select pg_switch_wal()::text")
    size = identity.wal_segment_size
    first = lsn.segment_number(identity.start_lsn, size)
    last = lsn.segment_number(lsn.parse(end_text) - 1, size)
    directory = workspace.new_path("wal")
    directory.mkdir()
    segments = []
    for number in range(first, last + 1):
        file = wal_page.file_name(identity.timeline, number, size)
        shutil.copyfile(primary.data_dir / "pg_wal" / file, directory / file)
        segments.append(directory / file)
    start, end = (lsn.segment_start(number, size) for number in (first, last + 1))
    tail = _first_bytes_after(primary, identity.timeline, end, size)
    _fill_journal(page_store, start, identity.timeline, segments, tail)
    return GeneratedWal(name, segments, size, start, end, page_store, base_backup)


def take_into(directory: Path, primary: Server, memory_bytes_max: int) -> BackupIdentity:
    """A base backup into a new page store, which is then closed again."""
    directory.mkdir()
    began: list[BackupIdentity] = []
    store = PageStore(directory, memory_bytes_max)
    try:
        take_base_backup(primary.conninfo(), "bench", store, StopSignal(), on_begin=began.append)
    finally:
        store.close()
    return began[0]


def _load(
    primary: Server, seconds: float, checkpoint_seconds: float | None, *pgbench_options: str
) -> Callable[[], None]:
    """pgbench by two clients, with checkpoints all the time if wanted."""

    def load() -> None:
        words = ("-T", str(round(seconds)), "-c", "2", "-n", *pgbench_options)
        process = primary.start_pgbench(*words)
        try:
            while checkpoint_seconds is not None and process.poll() is None:
                time.sleep(checkpoint_seconds)
                primary.sql("checkpoint")
            process.communicate()
        finally:
            process.kill()
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, "pgbench")

    return load


def _first_bytes_after(primary: Server, timeline: int, start: int, segment_bytes: int) -> bytes:
    """A record behind the last segment: only the next record tells that a switch is over."""
    primary.sql("select pg_logical_emit_message(false, 'bench', '', true)")
    ((end_text,),) = primary.sql("select pg_current_wal_flush_lsn()::text")
    name = wal_page.file_name(timeline, lsn.segment_number(start, segment_bytes), segment_bytes)
    data = (primary.data_dir / "pg_wal" / name).read_bytes()
    return data[: lsn.parse(end_text) - start]


def _fill_journal(
    directory: Path, start: int, timeline: int, segments: list[Path], tail: bytes
) -> None:
    """The WAL into a page store's journal, as a receiver would; nothing is ingested."""
    segment_bytes = segments[0].stat().st_size
    journal = Journal(Storage(), Paths(directory).journal, segment_bytes)
    journal.begin(start, timeline)
    for data in (*(segment.read_bytes() for segment in segments), tail):
        journal.append(journal.received_lsn, data)
    journal.close()
