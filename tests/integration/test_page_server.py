"""The whole server on real primaries: every page equal, through restarts and kill -9.

What is compared, and under which masks and excuses, is tools/compare.py's; here is what happens to
the servers before.
"""

import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from formats.lsn import parse
from server.client import PageClient, PageServerError
from tests.fixtures.postgres_servers import SERVED_MAJORS
from tools.compare import compare
from tools.excuses import Excuse, Rules
from tools.oracle_standby import recover
from tools.page_server import PageServer
from tools.postgres import Server
from tools.primary_wal import PrimaryWal

FIXTURES = Path(__file__).parent.parent / "fixtures"
STRATEGIES = {
    "by_wal": "STRATEGY wal_log",
    "by_files": "TEMPLATE by_wal STRATEGY file_copy",
    "gone": "TEMPLATE by_files STRATEGY file_copy",
}
SETTINGS = {
    "wal_keep_size": "4GB",
    "track_commit_timestamp": "on",
    "max_prepared_transactions": "8",
}
WAL_KEPT = {"wal_keep_size": "4GB"}
"""Clients that begin at once race for hints, in one run of some dozens: tools/excuses.py excuses
that only by the record of it, so whoever compares with a primary needs all its WAL."""


def prepare(primary: Server) -> None:
    """Tables for pgbench, and for a storm of multixacts."""
    primary.pgbench("-i", "-s", "2")
    primary.sql("CREATE TABLE mx(a int PRIMARY KEY, b int)")
    primary.sql("INSERT INTO mx SELECT g, 0 FROM generate_series(1, 200) g")


def start_load(primary: Server, seconds: int) -> list[subprocess.Popen[str]]:
    script = primary.data_dir.parent / "multixact.pgbench"
    shutil.copy(FIXTURES / "multixact.pgbench", script)
    script.chmod(0o644)
    return [
        primary.start_pgbench("-T", str(seconds), "-c", "2"),
        primary.start_pgbench("-T", str(seconds), "-c", "6", "-n", "-f", str(script)),
    ]


def churn(primary: Server, dbname: str = "postgres") -> None:
    primary.psql((FIXTURES / "churn.sql").read_text(), dbname)


def assert_equal(primary: Server, server: PageServer, rules: Rules) -> None:
    """Stop the primary and compare everything at the end of its shutdown checkpoint.

    Its WAL is that of its own directory, where the rules name no other.
    """
    # A primary sends what is left of its WAL at a stop to those who are connected.
    server.wait_until_ready(flush_lsn(primary))
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    server.wait_until_ready(end)
    if rules.wal is None:
        rules = replace(rules, wal=PrimaryWal(primary.data_dir / "pg_wal"))
    with server.client() as client:
        result = compare(primary.data_dir, client, end, rules)
        assert client.status()["state"] != "failed"
    assert [str(difference) for difference in result.differences] == []
    assert result.blocks_compared.total() > 1000


PREPARED = """
CREATE TABLE prepared(a int); CREATE TABLE dropped(a int);
BEGIN; INSERT INTO prepared VALUES (1); PREPARE TRANSACTION 'kept';
BEGIN; INSERT INTO prepared VALUES (2); PREPARE TRANSACTION 'committed';
BEGIN; INSERT INTO prepared VALUES (3); SAVEPOINT s; DROP TABLE dropped;
PREPARE TRANSACTION 'rolled back';
COMMIT PREPARED 'committed'; ROLLBACK PREPARED 'rolled back';
"""


def create_database(primary: Server, name: str) -> None:
    """14 copies files and has no word for it."""
    how = STRATEGIES[name]
    if primary.installation.major == 14:
        how = how.split("STRATEGY")[0]
    primary.psql(f"CREATE DATABASE {name} {how}")


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_ddl_and_copied_databases(postgres, page_server, workspace, major):
    """Both strategies of CREATE DATABASE, and DROP, beside DDL, a storm of multixacts, commit
    timestamps and prepared transactions.

    At two LSNs of its history and at the end: the standbys are equal but for free space maps.
    """
    primary = postgres(major, SETTINGS)
    prepare(primary)
    backup = primary.base_backup(workspace.new_path("backup"))
    primary.sql("CHECKPOINT")
    server = page_server(primary, "--set", "flush_seconds_max=1")
    load = start_load(primary, 6)
    churn(primary)
    noted = [flush_lsn(primary)]
    primary.psql(PREPARED)
    for name in STRATEGIES:
        create_database(primary, name)
    churn(primary, "by_files")
    primary.psql("DROP DATABASE gone")
    noted.append(flush_lsn(primary))
    copied = primary.sql("SELECT oid FROM pg_database WHERE datname LIKE 'by_%'")
    for process in load:
        assert process.wait() == 0
    # by_files was copied from by_wal, so its visibility maps came through WAL as zeros too.
    rules = Rules("primary", copied_databases=frozenset(int(oid) for (oid,) in copied))
    assert_equal(primary, server, rules)
    for lsn in noted:
        standby = recover(workspace, major, backup, primary.data_dir / "pg_wal", lsn)
        with server.client() as client:
            result = compare(standby.data_dir, client, standby.lsn_boundary, Rules("standby"))
        assert [str(difference) for difference in result.differences] == []
        assert {excuse for excuse, count in result.excuses.items() if count} <= {Excuse.FSM}


def flush_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def recycle_wal(primary: Server) -> None:
    """Make the primary give up all WAL that its slot no longer holds."""
    primary.sql("SELECT pg_switch_wal()")
    primary.sql("CHECKPOINT")


def test_kill_nine_ten_times(postgres, workspace, page_server):
    """What was reported flushed is in our journal alone, and nothing of it is lost.

    An archive, which the page server knows nothing of, keeps the primary's WAL for the comparison.
    """
    archive = workspace.new_path("archive")
    primary = postgres(
        18,
        {"max_wal_size": "64MB", "min_wal_size": "32MB", "archive_mode": "on",
         "archive_command": f"mkdir -p {archive} && cp %p {archive}/%f"},
    )  # fmt: skip
    prepare(primary)
    server = page_server(primary, "--set", "flush_seconds_max=2")
    load = start_load(primary, 20)
    for _ in range(10):
        time.sleep(1.0)
        recycle_wal(primary)
        server.kill()
        recycle_wal(primary)
        server.start()
    for process in load:
        assert process.wait() == 0
    assert_equal(primary, server, Rules("primary", wal=PrimaryWal(archive)))
    kept = {path.name for path in (primary.data_dir / "pg_wal").iterdir()}
    given_up = {path.name for path in archive.iterdir()} - kept
    assert len(given_up) >= 10
    assert server.stop() == 0


def test_clean_stop_and_start(postgres, page_server):
    primary = postgres(18, WAL_KEPT)
    prepare(primary)
    server = page_server(primary)
    primary.pgbench("-T", "2", "-c", "2")
    assert server.stop() == 0
    primary.pgbench("-T", "2", "-c", "2")
    server.start()
    assert_equal(primary, server, Rules("primary"))


def test_damaged_page_of_the_source_is_no_page_of_ours(postgres, page_server):
    """A base backup's page with a wrong checksum that no image replaces is an error to read."""
    primary = postgres(18)
    primary.sql("CREATE TABLE d(a int)")
    primary.sql("INSERT INTO d SELECT generate_series(1, 1000)")
    node = int(primary.sql("SELECT pg_relation_filenode('d')")[0][0])
    database = int(primary.sql("SELECT oid FROM pg_database WHERE datname = 'postgres'")[0][0])
    primary.stop()
    with open(primary.data_dir / f"base/{database}/{node}", "r+b") as file:
        file.seek(8192 + 5000)
        byte = file.read(1)
        file.seek(8192 + 5000)
        file.write(bytes([byte[0] ^ 1]))
    primary.start()
    server = page_server(primary)
    lsn = server.wait_until_ready()
    with server.client() as client:
        (error,) = unreadable_blocks(client, database, node, lsn)
    assert "block 1" in error
    assert "torn in the base backup" in error


def unreadable_blocks(client: PageClient, database: int, node: int, lsn: int) -> list[str]:
    errors = []
    for block in range(client.nblocks(1663, database, node, 0, lsn)):
        try:
            client.get_page(1663, database, node, 0, block, lsn)
        except PageServerError as error:
            errors.append(str(error))
    return errors


def test_disjoint_servers_answer_everything_between_them(postgres, page_server):
    primary = postgres(18, WAL_KEPT)
    server = [page_server(primary, "--chunks", f"hash:{i}/2,slru:*") for i in range(2)]
    prepare(primary)
    primary.pgbench("-T", "2", "-c", "2")
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    for one in server:
        one.wait_until_ready(end)
    rules = Rules("primary", wal=PrimaryWal(primary.data_dir / "pg_wal"))
    with server[0].client() as first, server[1].client() as second:
        result = compare(primary.data_dir, Either(first, second), end, rules)
    assert [str(difference) for difference in result.differences] == []
    assert server[0].stop() == 0
    other = PageServer(server[0].data_dir, primary.conninfo(), "--chunks", "all")
    other.start()
    assert other.process.wait(30) == 4
    assert "was begun with chunks hash:0/2,slru:*" in other.log_tail()


class Either:
    """A page source that asks the second server for what the first does not hold."""

    def __init__(self, first: PageClient, second: PageClient) -> None:
        self.first, self.second = first, second

    def __getattr__(self, name):
        def ask(*arguments):
            try:
                return getattr(self.first, name)(*arguments)
            except PageServerError as error:
                if "not hold" not in str(error) and "not held" not in str(error):
                    raise
                return getattr(self.second, name)(*arguments)

        return ask
