"""Redo of GIN records against PostgreSQL's own pages (tools/redo_oracle.py)."""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats import lsn
from formats.rmgr import GIN
from tests.fixtures.postgres_servers import SERVED_MAJORS, PostgresFactory
from tools import redo_oracle, wal_stats
from tools.postgres import Server
from tools.redo_oracle import Comparison

FIXTURES = Path(__file__).parent.parent / "fixtures"
SETTINGS = {
    "wal_consistency_checking": "gin",
    "wal_keep_size": "4GB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
}
INSERT, SPLIT, VACUUM_PAGE, VACUUM_DATA_LEAF_PAGE = 0x20, 0x30, 0x40, 0x90
OPCODES = range(0x10, 0xA0, 0x10)
PAGE_BYTES = 8192
DATA_LEAF, COMPRESSED = 3, 128
ITEMS_MAX = 1358
"""TIDs on a leaf in the format before 9.4."""

Tid = tuple[int, int]


def start_lsn(server: Server) -> int:
    """Where the newest checkpoint starts: from there on a page comes with an image first."""
    server.sql("CHECKPOINT")
    return lsn.parse(server.sql("SELECT redo_lsn::text FROM pg_control_checkpoint()")[0][0])


def wal_of(server: Server) -> Path:
    server.stop()
    return server.data_dir / "pg_wal"


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_every_page_is_as_postgres_has_it(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, SETTINGS)
    start = start_lsn(server)
    server.psql((FIXTURES / "gin_load.sql").read_text())
    wal = wal_of(server)
    report = redo_oracle.check(wal, start, major)
    assert report.differences == []
    compared = {opcode for opcode in OPCODES if report.compared[GIN, opcode] > 0}
    written = {opcode for opcode in OPCODES if (GIN, opcode) in wal_stats.count([wal], start).kinds}
    assert written == set(OPCODES)
    assert compared == set(OPCODES) - {VACUUM_PAGE}  # which is always an image, not redone


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_sessions_that_race(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, {**SETTINGS, "gin_pending_list_limit": "64kB"})
    server.psql(
        "CREATE TABLE raced(k int, a int[], t text);"
        "CREATE INDEX raced_direct ON raced USING gin(a) WITH (fastupdate = off);"
        "CREATE INDEX raced_list ON raced USING gin(a);"
    )
    start = start_lsn(server)
    script = server.data_dir.parent / "gin.pgbench"
    shutil.copy(FIXTURES / "gin.pgbench", script)
    script.chmod(0o644)
    racing = server.start_pgbench("-n", "-c", "4", "-t", "60", "-f", str(script))
    for _ in range(3):
        server.sql("VACUUM raced")
    assert racing.wait(120) == 0
    server.sql("VACUUM raced")
    report = redo_oracle.check(wal_of(server), start, major)
    assert report.differences == []
    assert report.compared[GIN, INSERT] > 1000


class Conversions(redo_oracle.Checker):
    """Notes which records bring a leaf from the format before 9.4 into today's."""

    def __init__(self, start: int, major: int) -> None:
        super().__init__(start, major)
        self.opcodes: set[int] = set()

    def compare(
        self, comparison: Comparison, ours: bytes, theirs: bytes, failure: str | None
    ) -> None:
        super().compare(comparison, ours, theirs, failure)
        manager, opcode = comparison.kind
        if manager != GIN or comparison.reference_id != 0:
            return
        flags = [
            struct.unpack_from("<H", self.page(comparison.chunk, comparison.block, at), 8190)[0]
            for at in (comparison.lsn - 1, comparison.lsn)
        ]
        if flags == [DATA_LEAF, DATA_LEAF | COMPRESSED]:
            self.opcodes.add(opcode)


def tids_of(page: bytes) -> Iterator[Tid]:
    """The TIDs in the segments of a leaf."""
    at, end = 32, struct.unpack_from("<H", page, 12)[0]
    while at < end:
        high, low, number, length = struct.unpack_from("<HHHH", page, at)
        at += 8
        value = high << 27 | low << 11 | number
        yield value >> 11, value & 0x7FF
        distance = shift = 0
        for byte in page[at : at + length]:
            distance |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                value += distance
                yield value >> 11, value & 0x7FF
                distance = shift = 0
        at += length + length % 2


def longest_chain(file: bytes) -> list[int]:
    """The leaves of the index's largest posting tree, from left to right."""
    following = {
        at // PAGE_BYTES: struct.unpack_from("<I", file, at + 8184)[0]
        for at in range(0, len(file), PAGE_BYTES)
        if struct.unpack_from("<H", file, at + 8190)[0] == DATA_LEAF | COMPRESSED
    }
    chains = []
    for first in set(following) - set(following.values()):
        chains.append([first])
        while (block := following[chains[-1][-1]]) in following:
            chains[-1].append(block)
    return max(chains, key=len)


def forge(path: Path) -> list[tuple[Tid, Tid]]:
    """Give the leaves of the largest posting tree the format before 9.4; their first and last TIDs.

    Such a page holds fewer TIDs: most of them go, which nothing here ever notices.
    """
    file = bytearray(path.read_bytes())
    bounds = []
    for block in longest_chain(file):
        at = block * PAGE_BYTES
        tids = list(tids_of(file[at : at + PAGE_BYTES]))
        bounds.append((tids[0], tids[-1]))
        kept = tids[:: len(tids) // ITEMS_MAX + 1]
        packed = b"".join(struct.pack("<HHH", b >> 16, b & 0xFFFF, n) for b, n in kept)
        struct.pack_into("<H", file, at + 12, 24)
        file[at + 32 : at + 8184] = packed.ljust(8152, b"\0")
        struct.pack_into("<HH", file, at + 8188, len(kept), DATA_LEAF)
    path.write_bytes(file)
    return bounds


def delete(key: int, first: Tid, last: Tid) -> str:
    return f"DELETE FROM old WHERE k = '{{{key}}}' AND ctid BETWEEN '{first}' AND '{last}';"


@pytest.mark.parametrize("major", SERVED_MAJORS)
def test_leaves_in_the_format_before_9_4(postgres: PostgresFactory, major: int) -> None:
    """They are forged, as no server writes them; the page then changes without an image of its own.

    A leaf whose right sibling is deleted gets an image but stays in the old format until its own
    TIDs change: by VACUUM the third, by an insertion the first.
    """
    arguments = ("--no-data-checksums",) if major >= 18 else ()
    server = postgres(major, SETTINGS, arguments)
    server.psql(
        "CREATE TABLE old(k int[]);"
        "INSERT INTO old SELECT ARRAY[(g % 20 = 0)::int] FROM generate_series(1, 44000) g;"
        "CREATE INDEX old_k ON old USING gin(k);"
        "VACUUM old;"
    )
    path = server.data_dir / server.sql("SELECT pg_relation_filepath('old_k')")[0][0]
    server.stop()
    bounds = forge(path)
    assert len(bounds) >= 5
    server.start()
    start = start_lsn(server)
    third = bounds[2][0]
    vacuum = "VACUUM (index_cleanup on) old;"  # it would spare the index for so few rows
    server.psql(
        delete(0, *bounds[1])
        + delete(0, *bounds[3])
        + delete(1, *bounds[0])
        + vacuum
        + delete(0, third, (third[0] + 1, third[1]))
        + vacuum
        + "INSERT INTO old SELECT ARRAY[0] FROM generate_series(1, 9000);"
        + vacuum
    )
    checker = Conversions(start, major)
    for at, data in redo_oracle.segments(wal_of(server), start):
        checker.feed(at, data)
    assert checker.report.differences == []
    assert checker.opcodes == {INSERT, VACUUM_DATA_LEAF_PAGE}
