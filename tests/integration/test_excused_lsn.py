"""Two pd_lsn that a primary has by itself, made to happen: its WAL justifies each.

Without that WAL they are differences, and nothing else is. tools/excuses.py says why they are so.
"""

from tools.compare import compare
from tools.excuses import Excuse, Rules
from tools.primary_wal import PrimaryWal

MAJOR = 18
ROWS_KEPT = 500
"""More than the 407 that the first page of a bucket holds, which so stays as it is, and less than
the first overflow page does with it: those behind lose all of theirs."""


def test_what_the_primary_did_is_excused_by_its_wal(postgres, page_server):
    primary = postgres(MAJOR, {"autovacuum": "off", "wal_keep_size": "1GB"})
    primary.psql(
        "CREATE TABLE hashed(k int, number int); CREATE INDEX ON hashed USING hash (k);"
        "INSERT INTO hashed SELECT 1, generate_series(1, 3000); CREATE TABLE hinted(a int);"
    )
    server = page_server(primary)
    primary.psql("INSERT INTO hinted SELECT generate_series(1, 2000); CHECKPOINT;")
    # An image of the bucket's first page comes with SQUEEZE_PAGE, which moves no tuple there.
    primary.psql(f"DELETE FROM hashed WHERE number > {ROWS_KEPT};")
    primary.psql("VACUUM (INDEX_CLEANUP ON) hashed;")
    # Hints of pages unchanged since the checkpoint, logged without an image.
    primary.psql("ALTER SYSTEM SET full_page_writes = off; SELECT pg_reload_conf(); CHECKPOINT;")
    primary.psql("SELECT count(*) FROM hinted;")
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    server.wait_until_ready(end)
    with server.client() as client:
        wal = PrimaryWal(primary.data_dir / "pg_wal")
        found = compare(primary.data_dir, client, end, Rules("primary", wal=wal))
        without = compare(primary.data_dir, client, end, Rules("primary"))
    assert [str(difference) for difference in found.differences] == []
    excused = {kind: found.excuses[kind] for kind in (Excuse.IMAGE_LSN, Excuse.HINT_LSN)}
    assert excused[Excuse.IMAGE_LSN] == 1 and excused[Excuse.HINT_LSN] >= 8
    assert without.difference_count == sum(excused.values())
    assert all(each.offset is not None and each.offset < 8 for each in without.differences)
