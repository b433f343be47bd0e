"""GiST and SP-GiST: every page that a record of a real server changed, as that server says it is.

The images in WAL that say so are the primary's, and are taken before it sets an NSN. So the pages
of a standby that replayed the same WAL are compared as well, to the last byte.
"""

from pathlib import Path

import pytest

from formats import rmgr
from formats.lsn import parse
from tests.fixtures.postgres_servers import SERVED_MAJORS
from tools import redo_oracle
from tools.oracle_standby import recover

FIXTURES = Path(__file__).parents[1] / "fixtures"
SEEN = {
    "gist": {"PAGE_UPDATE", "DELETE", "PAGE_SPLIT", "PAGE_DELETE"},
    "spgist": {
        "ADD_LEAF",
        "MOVE_LEAFS",
        "ADD_NODE",
        "SPLIT_TUPLE",
        "PICKSPLIT",
        "VACUUM_LEAF",
        "VACUUM_ROOT",
        "VACUUM_REDIRECT",
    },
}
SETTINGS = {"wal_consistency_checking": "all", "autovacuum": "off", "wal_keep_size": "4GB"}


@pytest.mark.parametrize("major", SERVED_MAJORS)
@pytest.mark.parametrize("method", SEEN)
def test_pages_are_as_the_primary_says(postgres, major: int, method: str) -> None:
    server = postgres(major, SETTINGS)
    server.sql("CHECKPOINT")
    start = server.sql("SELECT redo_lsn FROM pg_control_checkpoint()")[0][0]
    server.psql((FIXTURES / f"{method}_load.sql").read_text(encoding="utf-8"))
    server.stop()
    report = redo_oracle.check(server.data_dir / "pg_wal", parse(start), major)
    assert report.differences == []
    manager = rmgr.GIST if method == "gist" else rmgr.SPGIST
    seen = {rmgr.opcode_name(major, *kind) for kind in report.compared if kind[0] == manager}
    assert seen == SEEN[method]


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_pages_are_as_a_standby_has_them(postgres, workspace, major: int) -> None:
    server = postgres(major, {**SETTINGS, "wal_consistency_checking": ""})
    backup = server.base_backup(workspace.new_path("backup"))
    server.sql("CHECKPOINT")
    start = parse(server.sql("SELECT redo_lsn FROM pg_control_checkpoint()")[0][0])
    for method in SEEN:
        server.psql((FIXTURES / f"{method}_load.sql").read_text(encoding="utf-8"))
    server.sql("CHECKPOINT")
    target = parse(server.sql("SELECT pg_current_wal_lsn()")[0][0])
    indexes = server.sql(
        "SELECT d.oid, pg_relation_filenode(c.oid), pg_relation_filepath(c.oid) FROM pg_class c"
        " JOIN pg_am a ON a.oid = c.relam, pg_database d WHERE a.amname IN ('gist', 'spgist')"
        " AND c.relkind = 'i' AND d.datname = current_database()"
    )
    server.sql("SELECT pg_switch_wal()")
    server.stop()
    standby = recover(workspace, major, backup, server.data_dir / "pg_wal", target)

    checker = redo_oracle.Checker(start, major)
    for lsn, data in redo_oracle.segments(server.data_dir / "pg_wal", start):
        checker.feed(lsn, data)
    compared = 0
    for database, relation, path in indexes:
        content = (standby.data_dir / path).read_bytes()
        chunk = checker.store.table.find(1, 1663, database, relation, 0, 0)
        for block in range(len(content) // 8192):
            theirs = content[8192 * block : 8192 * (block + 1)]
            ours = checker.page(chunk, block, standby.lsn_boundary)
            assert ours[:8] + ours[10:] == theirs[:8] + theirs[10:], (path, block)
            compared += 1
    assert compared > 300
