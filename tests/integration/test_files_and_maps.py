"""Tablespaces, moved databases, relation maps, origins, and visibility maps as wal_log_hints turns.

Compared with the primary's own files at each stop, and with a standby before the last (oracle B).
Tablespaces lie inside the data directory, so that a standby makes its own. On 15, where there are
no checksums by default: with them wal_log_hints changes nothing.
"""

from pathlib import Path

from engine.transaction_records import parse_origins
from formats.lsn import parse
from tools.compare import compare
from tools.excuses import Excuse, Rules
from tools.oracle_standby import recover
from tools.page_server import PageServer
from tools.postgres import Server

MAJOR = 15
SETTINGS = {
    "autovacuum": "off",
    "wal_keep_size": "4GB",
    "allow_in_place_tablespaces": "on",
    "max_prepared_transactions": "8",
}
ORIGINS = "pg_logical/replorigin_checkpoint"

TABLES = """
CREATE TABLESPACE one LOCATION ''; CREATE TABLESPACE two LOCATION '';
CREATE TABLE v(a int, b text);
INSERT INTO v SELECT g, repeat('x', 300) FROM generate_series(1, 4000) g;
CREATE INDEX ON v(a); CREATE UNLOGGED TABLE u(a int PRIMARY KEY);
CREATE DATABASE moves;
"""
CHANGES = """
VACUUM (FREEZE) v;
UPDATE v SET a = -a WHERE a % 500 = 1; DELETE FROM v WHERE a % 700 = 3;
BEGIN; SELECT count(*) FROM (SELECT 1 FROM v WHERE a % 600 = 5 FOR SHARE) s; COMMIT;
INSERT INTO v VALUES (1), (2); VACUUM v; DELETE FROM v WHERE a > 3000; VACUUM v;
INSERT INTO v SELECT g, 'again' FROM generate_series(1, 2000) g; VACUUM v;
"""
FILES = """
ALTER TABLE v SET TABLESPACE one; ALTER TABLE u SET TABLESPACE one; ALTER TABLE u SET LOGGED;
ALTER DATABASE moves SET TABLESPACE one;
\\c "{moves}"
CREATE TABLE there(a int PRIMARY KEY); INSERT INTO there SELECT generate_series(1, 3000);
VACUUM FULL pg_class; REINDEX INDEX pg_class_oid_index;
\\c "{postgres}"
ALTER DATABASE moves SET TABLESPACE two; ALTER DATABASE moves SET TABLESPACE one;
DROP TABLESPACE two; CREATE TABLESPACE three LOCATION '';
CREATE DATABASE gone TABLESPACE three; DROP DATABASE gone; DROP TABLESPACE three;
VACUUM FULL pg_authid; VACUUM FULL pg_class;
"""
REPLICATED = """
SELECT pg_replication_origin_create('said'), pg_replication_origin_create('never said'),
       pg_replication_origin_create('dropped'), pg_replication_origin_create('forced');
SELECT pg_replication_origin_advance('forced', '0/300'),
       pg_replication_origin_advance('forced', '0/200'),
       pg_replication_origin_advance('dropped', '0/400');
SELECT pg_replication_origin_session_setup('said');
BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2001-01-01'); INSERT INTO v VALUES (7);
COMMIT;
BEGIN; SELECT pg_replication_origin_xact_setup('0/2345', '2001-01-01'); INSERT INTO v VALUES (8);
PREPARE TRANSACTION 'replicated';
COMMIT PREPARED 'replicated';
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_session_setup('never said');
INSERT INTO v VALUES (9);
SELECT pg_replication_origin_session_reset();
SELECT pg_replication_origin_drop('dropped');
"""


def flush_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def compare_stopped(primary: Server, server: PageServer) -> int:
    """Stop the primary, whose own files are the oracle then; the LSN."""
    server.wait_until_ready(flush_lsn(primary))
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    server.wait_until_ready(end)
    copied = {path.name for path in primary.data_dir.glob("pg_tblspc/*/PG_*/*")}
    rules = Rules("primary", copied_databases=frozenset(int(name) for name in copied))
    with server.client() as client:
        result = compare(primary.data_dir, client, end, rules)
    assert [str(difference) for difference in result.differences] == []
    return end


def assert_standby_equal(standby_dir: Path, server: PageServer, lsn: int) -> None:
    with server.client() as client:
        result = compare(standby_dir, client, lsn, Rules("standby"))
    assert [str(difference) for difference in result.differences] == []
    assert {excuse for excuse, count in result.excuses.items() if count} <= {
        Excuse.FSM, Excuse.UNLOGGED,
    }  # fmt: skip


def test_files_origins_and_maps(postgres, workspace, page_server):
    primary = postgres(MAJOR, SETTINGS)
    primary.psql(TABLES)
    backup = primary.base_backup(workspace.new_path("backup"))
    primary.sql("CHECKPOINT")
    server = page_server(primary, "--set", "flush_seconds_max=1")
    primary.psql(CHANGES)
    compare_stopped(primary, server)
    primary.settings["wal_log_hints"] = "on"
    primary.start()
    names = {name: primary.conninfo(name) for name in ("moves", "postgres")}
    primary.psql(FILES.format(**names))
    primary.psql(CHANGES)
    primary.psql(REPLICATED)
    lsn = flush_lsn(primary)
    primary.sql("INSERT INTO v VALUES (10)")
    end = compare_stopped(primary, server)
    with server.client() as client:
        ours = client.file(ORIGINS, end)
    assert ours is not None
    theirs = parse_origins((primary.data_dir / ORIGINS).read_bytes())
    assert parse_origins(ours) == theirs == {1: 0x2345, 2: 0, 4: 0x200}
    # In a standby wal_log_hints is its own; all that this primary did without, it has done anew.
    wal = primary.data_dir / "pg_wal"
    standby = recover(workspace, MAJOR, backup, wal, lsn, wal_log_hints=True)
    assert_standby_equal(standby.data_dir, server, standby.lsn_boundary)
