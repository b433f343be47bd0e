"""Transactions, multixacts and their members past pages, segments and 2^32, and truncated.

The primary begins just before all three wrap around, and goes through restarts that switch commit
timestamps off and on. All is compared with the primary's own files at each stop, and with standbys
(oracle B) at LSNs before the first and behind the last switch. Between the switches a standby is no
oracle: of pg_commit_ts it writes afterwards what it had in memory when that was switched off
(DeactivateCommitTs removes the files and keeps dirty buffers).
"""

import shutil
from pathlib import Path

import pytest

from formats.chunk import Slru
from formats.lsn import parse
from tests.fixtures.counters import freeze_everything, move_to_the_wrap
from tests.fixtures.postgres_servers import MAJORS, require_postgres
from tools.compare import compare
from tools.data_directory import slru_segments
from tools.excuses import Excuse, Rules
from tools.oracle_standby import recover
from tools.page_server import PageServer
from tools.postgres import Server

FIXTURES = Path(__file__).parent.parent / "fixtures"
FIRST_XID, FIRST_MULTIXACT, FIRST_MEMBER, EPOCH = 2**32 - 1500, 2**32 - 150, 2**32 - 1000, 5
BEFORE = {Slru.XACT: 0xFFF, Slru.MULTIXACT_OFFSETS: 0xFFFF, Slru.MULTIXACT_MEMBERS: 0x14078,
          Slru.COMMIT_TS: 0x28027}  # fmt: skip
SETTINGS = {
    "fsync": "off",
    "autovacuum": "off",
    "wal_keep_size": "4GB",
    "track_commit_timestamp": "on",
    "max_prepared_transactions": "8",
}

SUBTRANSACTIONS = """
DO $$ BEGIN FOR i IN 1..{count} LOOP
  BEGIN
    INSERT INTO s VALUES (i);
    IF i % 7 = 0 THEN RAISE EXCEPTION 'rolled back'; END IF;
  EXCEPTION WHEN raise_exception THEN NULL;
  END;
END LOOP; END $$;
"""
PREPARE = """
BEGIN; INSERT INTO s VALUES (-1); SAVEPOINT a; INSERT INTO s VALUES (-2); PREPARE TRANSACTION '{}';
"""


def flush_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def compare_stopped(primary: Server, server: PageServer) -> None:
    """Stop the primary: its own files are the oracle then."""
    server.wait_until_ready(flush_lsn(primary))
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    server.wait_until_ready(end)
    with server.client() as client:
        result = compare(primary.data_dir, client, end, Rules("primary"))
    assert [str(difference) for difference in result.differences] == []


def restart(primary: Server, server: PageServer, *, timestamps: bool) -> None:
    compare_stopped(primary, server)
    primary.settings["track_commit_timestamp"] = "on" if timestamps else "off"
    primary.start()


def wrap_multixacts(primary: Server) -> None:
    """Row locks by many, until multixacts and their members have wrapped around."""
    script = primary.data_dir.parent / "multixact.pgbench"
    shutil.copy(FIXTURES / "multixact.pgbench", script)
    script.chmod(0o644)
    for _ in range(20):
        primary.pgbench("-n", "-c", "6", "-t", "60", "-f", str(script))
        primary.sql("CHECKPOINT")
        now = primary.pg_controldata()
        names = ("NextMultiXactId", "NextMultiOffset")
        if all(int(now[f"Latest checkpoint's {name}"]) < 2**31 for name in names):
            return
    raise AssertionError("the load made too few multixacts")


def begun_before_the_wrap(primary: Server) -> dict[Slru, bool]:
    """Whether the segment in which the primary began still exists, of each SLRU."""
    return {kind: BEFORE[kind] in slru_segments(primary.data_dir, kind) for kind in BEFORE}


def load(primary: Server, server: PageServer) -> list[int]:
    """Everything that this test is about; LSNs on the way."""
    noted = []
    primary.psql(PREPARE.format("before the wrap"))
    primary.psql(SUBTRANSACTIONS.format(count=3000))
    assert primary.sql("SELECT pg_current_xact_id()::text::numeric >= 6 * 2 ^ 32") == [(True,)]
    wrap_multixacts(primary)
    server.kill()
    primary.sql("INSERT INTO s VALUES (0)")  # not in its journal: who has it is connected again
    server.start()
    noted.append(flush_lsn(primary))
    restart(primary, server, timestamps=False)
    primary.psql("COMMIT PREPARED 'before the wrap'; INSERT INTO s VALUES (-3)")
    restart(primary, server, timestamps=True)
    primary.psql(SUBTRANSACTIONS.format(count=32_000))  # over the end of a page of pg_xact
    primary.psql(PREPARE.format("behind the wrap"))
    restart(primary, server, timestamps=True)
    primary.psql("ROLLBACK PREPARED 'behind the wrap'")
    assert begun_before_the_wrap(primary) == {**dict.fromkeys(BEFORE, True), Slru.COMMIT_TS: False}
    freeze_everything(primary)
    assert begun_before_the_wrap(primary) == dict.fromkeys(BEFORE, False)
    primary.psql(PREPARE.format("at the end"))
    noted.append(flush_lsn(primary))
    primary.sql("INSERT INTO s VALUES (-4)")
    return noted


@pytest.mark.parametrize("major", MAJORS)
def test_all_counters_wrap_around(workspace, page_server, major):
    require_postgres(major)
    primary = workspace.cluster(major, SETTINGS)
    move_to_the_wrap(primary, FIRST_XID, FIRST_MULTIXACT, FIRST_MEMBER, EPOCH)
    primary.start()
    primary.psql("CREATE TABLE s(a int); CREATE TABLE mx(a int PRIMARY KEY, b int);"
                 "INSERT INTO mx SELECT g, 0 FROM generate_series(1, 200) g")  # fmt: skip
    backup = primary.base_backup(workspace.new_path("backup"))
    primary.sql("CHECKPOINT")
    server = page_server(primary, "--set", "flush_seconds_max=1")
    noted = load(primary, server)
    compare_stopped(primary, server)
    with server.client() as client:
        for lsn in noted:
            standby = recover(workspace, major, backup, primary.data_dir / "pg_wal", lsn)
            result = compare(standby.data_dir, client, standby.lsn_boundary, Rules("standby"))
            assert [str(difference) for difference in result.differences] == []
            assert {excuse for excuse, count in result.excuses.items() if count} <= {Excuse.FSM}
            assert result.blocks_compared["slru"] > 0
