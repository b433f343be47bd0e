"""Every record in words, against the words of PostgreSQL itself.

Of 15 and 18 pg_waldump is there and its lines are compared whole; of 16 and 17 the server alone,
whose extension pg_walinspect has the same descriptions. Of 14 there is neither, but its standby
logs the description of each record that has a transaction, as the context of a debugging message.
"""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from formats import lsn, rmgr
from tests.fixtures.page_servers import PageServerFactory
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory
from tools import wal_dump, wal_stats
from tools.layer_dump import BundleDump
from tools.postgres import Server, Workspace

FIXTURES = Path(__file__).parent.parent / "fixtures"
WORDED_ANEW = ("record_text", "gist", "hash", "spgist")
"""Loads with records that some version writes or words otherwise than the one before."""
WORDED_ALIKE = ("gin", "brin", "bloom")
ALIKE = ("Gin", "BRIN", "Generic")
"""And those with none, and their resource managers: one version's words are every version's."""
SETTINGS = {
    "wal_level": "logical",
    "wal_log_hints": "on",
    "wal_keep_size": "2GB",
    "max_wal_size": "2GB",
    "autovacuum": "off",
    "max_prepared_transactions": "5",
    "track_commit_timestamp": "on",
}
NOT_WRITTEN = {
    "XLOG/NOOP": "by no code of PostgreSQL's",
    "XLOG/END_OF_RECOVERY": "by a promotion",
    "XLOG/OVERWRITE_CONTRECORD": "after a crash: tests/integration/test_wal_decode.py",
    "CLOG/TRUNCATE": "after a million transactions",
    "CommitTs/TRUNCATE": "after as many as a segment has, when all databases are frozen",
    "MultiXact/TRUNCATE_ID": "after 65,536 multixacts",
    "Heap/HOT_UPDATE+INIT": "by no code: a HOT update stays on a page that has its old tuple",
    "Gist/ASSIGN_LSN": "with wal_level = minimal, which is refused",
}
"""Opcodes that the loads do not make, and what would. Unit tests have them by hand."""
LOGGED = re.compile(r"CONTEXT:  WAL redo at (\w+/\w+) for (\w+/[^:]+): (.*)")
LOGGED_REFERENCES = re.compile(r"; blkref #\d+: rel .*")
SERVER_TIME = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(\.\d+)?\+00")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone of the servers' programs (tools/postgres_binaries.py)."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def run_loads(server: Server, loads: tuple[str, ...]) -> None:
    """Each in a schema of its own, because names repeat."""
    for load in loads:
        script = (FIXTURES / f"{load}_load.sql").read_text(encoding="utf-8")
        if server.installation.major == 14:
            script = script.replace("STRATEGY file_copy", "")  # the only one that it has
        server.psql(f"CREATE SCHEMA {load}; SET search_path = {load}, public; {script}")
    lock_what_is_being_updated(server)


def lock_what_is_being_updated(server: Server) -> None:
    """The one record that takes two sessions: LOCK_UPDATED."""
    server.sql("CREATE TABLE updated AS SELECT 1 AS a, 1 AS b")
    with server.connect() as one, server.connect() as two:
        one.execute("BEGIN")
        one.execute("UPDATE updated SET b = 2")
        two.execute("SELECT a FROM updated FOR KEY SHARE")
        one.execute("COMMIT")


def begin_before_a_page_of_clog(server: Server) -> None:
    """Start again a hundred transactions before the next page, which begins with 32,768."""
    server.stop()
    server.installation.run("pg_resetwal", "-D", str(server.data_dir), "-x", "32668")
    server.start()


def rows(server: Server, start_lsn: int | None = None) -> Iterator[dict[str, Any]]:
    reader, parts = wal_stats.open_wal([server.data_dir / "pg_wal"], start_lsn)
    for batch, r in wal_stats.records(reader, parts):
        yield wal_dump.record_row(batch, r, reader.version)


@pytest.mark.parametrize("major", MAJORS)
def test_every_line_is_pg_waldump_s(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, SETTINGS)
    begin_before_a_page_of_clog(server)
    server.psql("SELECT 1 FROM pg_backup_start('x', true); SELECT 1 FROM pg_backup_stop(false);")
    run_loads(server, WORDED_ANEW + (WORDED_ALIKE if major == max(MAJORS) else ()))
    server.stop()
    stats = wal_stats.count([server.data_dir / "pg_wal"])
    theirs = server.pg_waldump("-s", lsn.show(stats.start_lsn), "-e", lsn.show(stats.end_lsn))
    lines = (line for line in theirs.split("\n") if line.startswith("rmgr: "))
    seen = set()
    for row, line in zip(rows(server), lines, strict=True):
        assert wal_dump.record_line(row) == line
        seen.add(f"{row['rmgr']}/{row['opcode']}")
    missing = {rmgr.show(major, *kind) for kind in rmgr.OPCODES[major]} - seen
    if major < max(MAJORS):
        missing = {name for name in missing if name.partition("/")[0] not in ALIKE}
    assert missing == NOT_WRITTEN.keys()


@pytest.mark.parametrize("major", [16, 17])
def test_every_description_is_the_server_s(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, SETTINGS)
    server.sql("CREATE EXTENSION pg_walinspect")
    start = server.sql("SELECT pg_current_wal_insert_lsn()::text")[0][0]
    run_loads(server, WORDED_ANEW)
    server.sql("SELECT pg_switch_wal()")
    end = server.sql("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    theirs = server.sql(
        "SELECT start_lsn::text, resource_manager, record_type, description"
        f" FROM pg_get_wal_records_info('{start}', '{end}')"
    )
    server.stop()
    seen = set()
    for row, (place, manager, opcode, description) in zip(
        rows(server, lsn.parse(start)), theirs, strict=False
    ):
        described = SERVER_TIME.sub(in_waldump_s_manner, description or "")
        theirs_row = (lsn.parse(place), manager, opcode, described)
        assert (lsn.parse(row["lsn"]), *list(row.values())[5:8]) == theirs_row
        seen.add(f"{manager}/{opcode}")
    assert len(theirs) > 100_000
    assert len(seen) >= 80


def test_a_layer_says_of_a_record_what_its_wal_says(
    postgres: PostgresFactory, page_server: PageServerFactory
) -> None:
    """But where WAL has the data of block 0 and the layer another block's."""
    primary = postgres(18, SETTINGS)
    server = page_server(primary)
    run_loads(primary, ("spgist",))
    primary.stop()
    server.wait_until_ready(primary.shutdown_checkpoint_end())
    assert server.stop() == 0
    reader, parts = wal_stats.open_wal([primary.data_dir / "pg_wal"])
    wal = {
        lsn.show(batch.lsn_end[r]): wal_dump.record_row(batch, r, reader.version)
        for batch, r in wal_stats.records(reader, parts)
    }
    kinds: Counter[str] = Counter()
    for path in (server.data_dir / "layers").glob("l0-*.bundle"):
        for row in BundleDump(path).entries():
            kinds[row["kind"].partition("/")[0]] += 1
            assert "malformed" not in row["description"]
            if row["tx"] is not None:
                record = wal[row["lsn"]]
                assert row["kind"] == f"{record['rmgr']}/{record['opcode']}"
                assert row["tx"] == record["tx"]
                if row["reference"] == 0:
                    assert row["description"] == record["description"]
    assert kinds.keys() >= {"Heap", "Heap2", "Btree", "SPGist", "history", "image of WAL"}
    assert kinds["SPGist"] > 10_000 and kinds["effect: status"] > 10


def test_every_description_is_in_the_standby_s_log(
    postgres: PostgresFactory, workspace: Workspace
) -> None:
    primary = postgres(14, {**SETTINGS, "max_connections": "30"})
    primary.sql("CHECKPOINT")
    primary.stop()
    copy = workspace.copy(primary.data_dir, "standby")
    primary.start()
    run_loads(primary, ("record_text",))
    primary.stop()
    wal = wal_stats.segments([primary.data_dir / "pg_wal"])
    subprocess.run(["cp", "-a", *wal, copy / "pg_wal"], check=True)
    subprocess.run(["cp", "-a", copy / "PG_VERSION", copy / "standby.signal"], check=True)
    standby = workspace.server(14, copy, {**primary.settings, "log_min_messages": "debug4"})
    standby.start()
    end = primary.shutdown_checkpoint_end()
    while lsn.parse(standby.sql("SELECT pg_last_wal_replay_lsn()::text")[0][0]) < end:
        time.sleep(0.1)
    standby.stop()
    log = standby.log_path.read_text(encoding="utf-8")
    theirs = {place: (name, said) for place, name, said in LOGGED.findall(log)}
    kinds = set()
    for row in rows(primary):
        if (place := lsn.show(lsn.parse(row["lsn"]))) in theirs:
            name, said = theirs[place]
            said = SERVER_TIME.sub(in_waldump_s_manner, LOGGED_REFERENCES.sub("", said))
            assert (f"{row['rmgr']}/{row['opcode']}", row["description"]) == (name, said)
            kinds.add(name)
    assert len(theirs) > 50_000
    assert len(kinds) > 40


def in_waldump_s_manner(match: re.Match[str]) -> str:
    """A time as pg_waldump prints it: the server leaves zeros off."""
    return f"{match[1]}{match[2] or '.':0<7} UTC"
