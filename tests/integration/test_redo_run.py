"""Redo in LSN order leaves every page as the server reads it at the same LSN.

That is what makes the figures of `redo-lsn-order` figures of redo. The WAL is a real server's, with
whole relations created, truncated, dropped and rewritten in it.
"""

from pathlib import Path

import pytest

from engine.chunk_table import ChunkTable
from engine.wal_reader import WalReader
from formats import wal_page
from formats.chunk import BLOCK_BYTES, ChunkKind
from formats.lsn import parse as parse_lsn
from formats.wal_page import parse_file_name
from tests.fixtures.postgres_servers import PostgresFactory
from tools.bench.redo_run import RedoRun
from tools.redo_oracle import SEGMENT_BYTES, Checker, segments

FIXTURES = Path(__file__).parents[1] / "fixtures"
SETTINGS = {"wal_keep_size": "2GB", "max_wal_size": "2GB", "wal_compression": "on"}
MAJORS = (14, 18)
ZEROS = bytes(BLOCK_BYTES)


@pytest.mark.parametrize("major", MAJORS)
def test_pages_are_those_that_the_server_reads(postgres: PostgresFactory, major: int) -> None:
    primary = postgres(major, SETTINGS)
    primary.sql("checkpoint")
    ((text,),) = primary.sql("select redo_lsn::text from pg_control_checkpoint()")
    primary.psql((FIXTURES / "churn.sql").read_text(encoding="utf-8"))
    primary.stop()
    wal, start = primary.data_dir / "pg_wal", parse_lsn(text)

    server = Checker(start, major, 1 << 30)
    for lsn, data in segments(wal, start):
        server.wal.consume(lsn, memoryview(data))
        if server.wal.reader.at_end:
            break
    first = start // SEGMENT_BYTES
    paths = [path for path in sorted(wal.iterdir()) if wal_page.is_file_name(path.name)]
    paths = [path for path in paths if parse_file_name(path.name, SEGMENT_BYTES)[1] >= first]
    for thread_count in (1, 2):
        redo = RedoRun(ChunkTable(), major, {}, lambda chunk, block: None, thread_count)
        redo.run(WalReader(start, SEGMENT_BYTES, version=major, zeros_end=True), paths)
        assert redo.records == server.ingest.records
        assert compared(server, redo) > 1000


def compared(server: Checker, redo: RedoRun) -> int:
    """How many pages were compared; those of relations, and of SLRUs."""
    versions, lsn = server.store, server.wal.reader.end_lsn
    count = 0
    for kind in (ChunkKind.REL, ChunkKind.SLRU):
        for key, blocks in versions.history.existing(kind, lsn):
            theirs = versions.table.find(*key)
            ours = redo.table.find(*key)
            assert ours >= 0
            for block in range(blocks):
                page = server.page(theirs, block, lsn)
                assert page == (redo.page(ours, block) or ZEROS), (key, block)
            count += blocks
    return count
