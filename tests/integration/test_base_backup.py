"""Base backups of real servers: every file that counts arrives, and nothing else."""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats import lsn, page
from formats.chunk import BLOCK_BYTES, ChunkKey, ChunkKind, Fork
from formats.control_file import parse_control_file
from server.attach import Attachment, attach
from server.base_backup import BackupReport, take_base_backup
from server.replication import Stopped, StopSignal
from server.source_errors import SourceError
from tests.fixtures.fake_ingest import FakeIngest, wait_until
from tests.fixtures.postgres_servers import MAJORS, SERVED_MAJORS, PostgresFactory
from tools.postgres import Server, Workspace

SLOT = "pageserver_0badcafe"
QUIET = {"autovacuum": "off", "max_wal_size": "1GB"}
SLRUS = {
    "pg_xact": 0,
    "pg_multixact/members": 1,
    "pg_multixact/offsets": 2,
    "pg_commit_ts": 3,
}


def take(server: Server, store: FakeIngest, stop: StopSignal | None = None) -> BackupReport:
    return take_base_backup(server.conninfo(), SLOT, store, stop or StopSignal())


def chunks_on_disk(server: Server) -> dict[ChunkKey, Path]:
    """Relation and SLRU segments below a data directory, unlogged relations' init forks alone."""
    found: dict[ChunkKey, Path] = {}
    roots = [(1664, server.data_dir, "global")]
    for name in os.listdir(server.data_dir / "base"):
        roots.append((1663, server.data_dir / "base", name))
    for link in (server.data_dir / "pg_tblspc").iterdir():
        for version in link.iterdir():
            roots += [(int(link.name), version, name) for name in os.listdir(version)]
    for spc, parent, name in roots:
        if name == "pgsql_tmp":
            continue
        database = 0 if name == "global" else int(name)
        files = os.listdir(parent / name)
        for file in files:
            match = re.fullmatch(r"(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?", file)
            if match and not (f"{match[1]}_init" in files and match[2] != "init"):
                fork = {None: 0, "fsm": 1, "vm": 2, "init": 3}[match[2]]
                key = ChunkKey(1, spc, database, int(match[1]), fork, int(match[3] or 0))
                found[key] = parent / name / file
    for directory, number in SLRUS.items():
        for file in os.listdir(server.data_dir / directory):
            key = ChunkKey(2, 0, 0, number, 0, int(file, 16))
            found[key] = server.data_dir / directory / file
    return found


WORKLOAD = """
create table heap as select g as a, repeat('x', g % 300) as t from generate_series(1, 30000) g;
create index on heap(a);
create unlogged table fleeting as select generate_series(1, 1000) as a;
create table empty(a int);
create temporary table passing as select generate_series(1, 1000) as a;
vacuum heap;
delete from heap where a % 7 = 0;
begin; select * from heap for share limit 1; savepoint s; commit;
"""


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_every_file_arrives_as_it_is(
    postgres: PostgresFactory, workspace: Workspace, tmp_path: Path, major: int
) -> None:
    server = postgres(major, {**QUIET, "track_commit_timestamp": "on"})
    elsewhere = workspace.new_path("tablespace")
    server.installation.run("initdb", "-D", str(elsewhere), "-A", "trust", "--no-sync")
    space = elsewhere / "space"
    server.sql(f"copy (select 1) to program 'mkdir {space}'")
    server.sql(f"create tablespace elsewhere location '{space}'")
    server.psql(WORKLOAD)
    server.psql("create table moved tablespace elsewhere as select generate_series(1, 9000) as a")
    server.sql("create database another tablespace elsewhere")
    server.sql("checkpoint")
    before = chunks_on_disk(server)
    store = FakeIngest(tmp_path / "store")
    report = take(server, store)
    assert server.stop() < 5

    expected = {key: path.read_bytes() for key, path in before.items()}
    assert set(store.sizes) == set(expected)
    for key, content in expected.items():
        assert store.sizes[key] == len(content) // BLOCK_BYTES
        if key.kind == ChunkKind.REL:
            assert bytes(store.chunks[key]) == content, key.name
    assert {key.spc for key in expected if key.kind == ChunkKind.REL} > {1663, 1664}
    assert len([key for key in expected if key.kind == ChunkKind.SLRU]) >= 4
    assert any(key.fork == Fork.INIT for key in expected)
    assert 0 in store.sizes.values()

    small = [name for name in store.files if "/" not in name or name.startswith("global")]
    assert sorted(small) == [
        "PG_VERSION", "backup_label", "global/pg_control", "global/pg_filenode.map",
        "tablespace_map",
    ]  # fmt: skip
    assert f"/{space}" in store.files["tablespace_map"].decode().replace(" ", "/")
    databases = {name for name in store.files if name.endswith("/pg_filenode.map")}
    assert len(databases) == 1 + 4
    assert any(name.startswith("pg_tblspc/") for name in databases)
    for name, content in store.files.items():
        if name.endswith("PG_VERSION"):
            assert content == f"{major}\n".encode()

    assert store.identity is not None
    assert store.identity.pg_version_num // 10000 == major
    assert store.identity.checksums is (major == 18)
    assert (report.zeroed_pages, report.torn_pages) == (0, 0)
    label = store.files["backup_label"].decode()
    assert f"START WAL LOCATION: {lsn.show(report.start_lsn)} " in label
    assert report.start_lsn < report.end_lsn == store.end_lsn


@pytest.mark.parametrize("major", MAJORS)
def test_control_file_says_what_pg_controldata_says(postgres: PostgresFactory, major: int) -> None:
    settings = {"wal_log_hints": "on", "track_commit_timestamp": "on", "wal_level": "logical"}
    server = postgres(major, settings, ["--wal-segsize=4"])
    server.psql(WORKLOAD)
    server.stop()
    control = parse_control_file((server.data_dir / "global" / "pg_control").read_bytes())
    theirs = server.pg_controldata()

    def number(name: str) -> int:
        return int(theirs[name])

    epoch, xid = (int(part) for part in theirs["Latest checkpoint's NextXID"].split(":"))
    assert control.system_identifier == number("Database system identifier")
    assert control.control_version == number("pg_control version number")
    assert control.catalog_version == number("Catalog version number")
    assert control.state == theirs["Database cluster state"] == "shut down"
    assert lsn.show(control.checkpoint_lsn) == theirs["Latest checkpoint location"]
    assert lsn.show(control.redo_lsn) == theirs["Latest checkpoint's REDO location"]
    assert control.timeline == number("Latest checkpoint's TimeLineID")
    assert control.previous_timeline == number("Latest checkpoint's PrevTimeLineID")
    assert control.full_page_writes is (theirs["Latest checkpoint's full_page_writes"] == "on")
    assert control.next_xid == epoch << 32 | xid
    assert control.next_oid == number("Latest checkpoint's NextOID")
    assert control.next_multixact == number("Latest checkpoint's NextMultiXactId")
    assert control.next_multixact_offset == number("Latest checkpoint's NextMultiOffset")
    assert control.oldest_xid == number("Latest checkpoint's oldestXID")
    assert control.oldest_xid_database == number("Latest checkpoint's oldestXID's DB")
    assert control.oldest_multixact == number("Latest checkpoint's oldestMultiXid")
    assert control.oldest_multixact_database == number("Latest checkpoint's oldestMulti's DB")
    assert control.oldest_active_xid == number("Latest checkpoint's oldestActiveXID")
    assert control.oldest_commit_timestamp_xid == number("Latest checkpoint's oldestCommitTsXid")
    assert control.newest_commit_timestamp_xid == number("Latest checkpoint's newestCommitTsXid")
    recovery = theirs["Minimum recovery ending location"]
    assert lsn.show(control.minimum_recovery_lsn) == recovery
    assert control.minimum_recovery_timeline == number("Min recovery ending loc's timeline")
    assert control.wal_level == theirs["wal_level setting"] == "logical"
    assert control.wal_log_hints is (theirs["wal_log_hints setting"] == "on")
    assert control.track_commit_timestamp is (theirs["track_commit_timestamp setting"] == "on")
    assert control.block_bytes == number("Database block size")
    assert control.relation_segment_blocks == number("Blocks per segment of large relation")
    assert control.wal_block_bytes == number("WAL block size")
    assert control.wal_segment_bytes == number("Bytes per WAL segment") == 4 << 20
    assert control.checksum_version == number("Data page checksum version")


def test_wrong_checksums(postgres: PostgresFactory, tmp_path: Path) -> None:
    """Maps become zeros, other pages come as they are and are counted."""
    server = postgres(18, QUIET)
    server.psql("create table t as select generate_series(1, 60000) as a; vacuum t; checkpoint")
    path = server.data_dir / server.sql("select pg_relation_filepath('t')")[0][0]
    server.stop()
    for suffix, block in (("", 3), ("", 17), ("_vm", 0), ("_fsm", 1)):
        with open(f"{path}{suffix}", "r+b") as file:
            file.seek(block * BLOCK_BYTES + 4000)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x10]))
    on_disk = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("", "_fsm")}
    server.start()
    store = FakeIngest(tmp_path / "store")
    report = take(server, store)
    assert (report.torn_pages, report.zeroed_pages) == (2, 2)
    rel = int(path.name)
    forks = {key.fork: chunk for key, chunk in store.chunks.items() if key.rel == rel}
    assert bytes(forks[Fork.MAIN]) == on_disk[""]
    assert bytes(forks[Fork.VM]) == bytes(BLOCK_BYTES)
    expected = bytearray(on_disk["_fsm"])
    expected[BLOCK_BYTES : 2 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    assert forks[Fork.FSM] == expected


@pytest.fixture
def attachments() -> Iterator[list[Attachment]]:
    attachments: list[Attachment] = []
    yield attachments
    for attachment in attachments:
        attachment.receiver.stop()


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_under_load_with_wal_beside_it(
    postgres: PostgresFactory, tmp_path: Path, attachments: list[Attachment], major: int
) -> None:
    server = postgres(major, {"max_wal_size": "64MB", "min_wal_size": "32MB"})
    server.pgbench("-i", "-q", "-s", "5")
    load = server.start_pgbench("-c", "2", "-T", "60")
    store = FakeIngest(tmp_path / "store")
    progress: list[int] = []
    attached = attach(
        store, [server.conninfo()], None, SLOT, StopSignal(),
        lambda report: progress.append(report.bytes_received),
    )  # fmt: skip
    attachments.append(attached)
    assert progress == sorted(progress)
    assert progress[-1] == attached.report.bytes_received > 50 << 20
    end = attached.report.end_lsn
    wait_until(lambda: store.journal.flushed_lsn >= end)
    assert server.stop() < 5
    load.wait()
    # All WAL from the segment with the start LSN on is here, and nothing before.
    start = attached.report.start_lsn
    assert store.journal.start_lsn == start // (16 << 20) * (16 << 20)
    assert len(store.read_wal(start)) == store.journal.received_lsn - start


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_from_a_standby(
    postgres: PostgresFactory, workspace: Workspace, tmp_path: Path,
    attachments: list[Attachment], major: int,
) -> None:  # fmt: skip
    """The end is the standby's minimum recovery point, and WAL up to it comes."""
    primary = postgres(major)
    primary.pgbench("-i", "-q", "-s", "2")
    directory = primary.base_backup(workspace.new_path("standby"))
    (directory / "standby.signal").touch()
    settings = {"fsync": "off", "primary_conninfo": primary.conninfo()}
    standby = workspace.server(major, directory, settings).start()
    load = primary.start_pgbench("-c", "2", "-T", "60")
    store = FakeIngest(tmp_path / "store")
    attached = attach(store, [standby.conninfo()], None, SLOT, StopSignal())
    attachments.append(attached)
    control = parse_control_file(store.files["global/pg_control"])
    assert control.state == "in archive recovery"
    assert store.end_lsn >= control.minimum_recovery_lsn
    newest = max(
        page.lsn(bytes(chunk[at : at + BLOCK_BYTES]))
        for key, chunk in store.chunks.items() if key.kind == ChunkKind.REL
        for at in range(0, len(chunk), BLOCK_BYTES)
    )  # fmt: skip
    assert newest <= store.end_lsn
    wait_until(lambda: store.journal.flushed_lsn >= store.end_lsn)
    assert store.journal.start_lsn <= attached.report.start_lsn
    primary.stop()
    load.wait()


class StoppingIngest(FakeIngest):
    """Stops its server in the middle of the first base backup."""

    server: Server | None = None

    def add_pages(self, key: ChunkKey, first_block: int, data: bytes | bytearray) -> None:
        super().add_pages(key, first_block, data)
        if self.server is not None and len(self.chunks) == 100:
            server, self.server = self.server, None
            server.stop("immediate")
            threading.Thread(target=server.start).start()


def test_a_backup_that_was_cut_off_starts_anew(
    postgres: PostgresFactory, tmp_path: Path, attachments: list[Attachment]
) -> None:
    server = postgres(18, {"fsync": "on"})
    server.pgbench("-i", "-q", "-s", "10")
    store = StoppingIngest(tmp_path / "store")
    store.server = server
    attached = attach(store, [server.conninfo()], None, SLOT, StopSignal())
    attachments.append(attached)
    assert store.begun_count == 2
    assert store.end_lsn == attached.report.end_lsn
    assert set(store.sizes) == set(chunks_on_disk(server))
    wait_until(lambda: store.journal.flushed_lsn >= store.end_lsn)
    assert store.journal.start_lsn <= attached.report.start_lsn


def test_stopped_in_the_middle(postgres: PostgresFactory, tmp_path: Path) -> None:
    server = postgres(18)
    server.pgbench("-i", "-q", "-s", "3")
    store = FakeIngest(tmp_path / "store")
    stop = StopSignal()

    def stop_early(report: BackupReport) -> None:
        if report.files > 50:
            stop.set()

    with pytest.raises(Stopped):
        attach(store, [server.conninfo()], None, SLOT, stop, stop_early)
    assert store.end_lsn == 0
    # The slot stays: the next start takes it over.
    assert server.sql("select slot_name from pg_replication_slots") == [(SLOT,)]


def test_other_segment_sizes_and_settings(postgres: PostgresFactory, tmp_path: Path) -> None:
    server = postgres(18, None, ["--wal-segsize=1", "--no-data-checksums"])
    store = FakeIngest(tmp_path / "store")
    take(server, store)
    assert store.identity is not None
    assert (store.identity.wal_segment_size, store.identity.checksums) == (1 << 20, False)
    with pytest.raises(SourceError, match="system identifier is"):
        take_base_backup(server.conninfo(), SLOT, store, StopSignal(), system_identifier=1)
