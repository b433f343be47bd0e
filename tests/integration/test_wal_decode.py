"""Real WAL of PostgreSQL 15 and 18, decoded, against what pg_waldump and pg_walinspect say of it.

pg_waldump -b prints of every record its kind, lengths, transaction, LSN and link, and of every
block reference relation, fork, block and image with its hole and compression. The same text is made
here from the columns of our batches and compared line by line. Segments are of 1 MiB, so that they
are crossed often.
"""

import contextlib
import re
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lz4.block
import psycopg
import pytest
import zstandard

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn, pglz, rmgr
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory
from tests.fixtures.wal_builder import PGLZ, Image, reference, row
from tools import wal_stats
from tools.postgres import Server

MIB = 1 << 20
SMALL_SEGMENTS = ("--wal-segsize=1",)
SETTINGS = {
    "wal_level": "logical",
    "wal_keep_size": "2GB",
    "max_wal_size": "2GB",
    "autovacuum": "off",
    "max_prepared_transactions": "5",
    "track_commit_timestamp": "on",
}
FORKS = ("main", "fsm", "vm", "init")
STATS_ROW = re.compile(r"(\w+/.*?) +" + r"(\d+) \( *[\d.]+\) +" * 3)
METHODS = {4: "pglz", 8: "lz4", 16: "zstd"}

DDL = """
create extension bloom;
create table t (a int, b text, p point, n int[]);
create index on t (a);
create index on t (b);
create index on t using hash (a);
create index on t using gist (p);
create index on t using spgist (p);
create index on t using gin (n);
create index on t using brin (a);
create index on t using bloom (a);
insert into t select g, repeat(md5(g::text), 1 + g % 4), point(g, g % 77), array[g, g % 9]
    from generate_series(1, 8000) g;
update t set b = b || 'x' where a % 3 = 0;
delete from t where a % 5 = 0;
vacuum (freeze) t;
insert into t select g, 'again', point(1, g), array[g] from generate_series(1, 3000) g;
create sequence s;
select count(nextval('s')) from generate_series(1, 100);
alter table t alter b type varchar;
cluster t using t_a_idx;
create unlogged table u (a int primary key);
truncate t;
drop table u;
create database copied strategy file_copy;
create database logged strategy wal_log;
drop database copied;
begin;
create table prepared (a int);
prepare transaction 'two';
commit prepared 'two';
begin;
insert into t values (1);
savepoint one;
insert into t values (2);
savepoint two;
insert into t values (3);
rollback to two;
commit;
select pg_replication_origin_create('elsewhere');
select pg_replication_origin_session_setup('elsewhere');
begin;
select pg_replication_origin_xact_setup('0/12345', now());
insert into t values (4);
commit;
select pg_replication_origin_session_reset();
select pg_replication_origin_advance('elsewhere', '0/54321');
select pg_replication_origin_drop('elsewhere');
vacuum full pg_class;
begin;
select * from t where a = 4 for share;
savepoint three;
update t set b = 'multixact' where a = 4;
commit;
"""

MESSAGES = """
select pg_logical_emit_message(true, 'prefix', 'short');
select pg_logical_emit_message(false, 'prefix', repeat('y', 8192));
select pg_logical_emit_message(false, 'prefix', repeat('z', 3000000));
select pg_switch_wal();
select pg_logical_emit_message(true, '', repeat('z', 20000));
select pg_switch_wal();
select pg_logical_emit_message(true, '', '');
"""


def workload(server: Server) -> None:
    server.pgbench("-i", "-s", "1", "-q")
    server.pgbench("-t", "100", "-c", "4")
    server.psql(DDL)
    server.sql("checkpoint")
    server.pgbench("-t", "100", "-c", "4")
    server.psql(MESSAGES)
    server.sql("checkpoint")


def segments(server: Server) -> list[Path]:
    return wal_stats.segments([server.data_dir / "pg_wal"])


def batches(server: Server, start: int | None = None) -> Iterator[RecordBatch]:
    """All WAL that the server's files have, from a record or from the first segment on."""
    files = segments(server)
    first = int(files[0].name[16:], 16) * MIB
    start = first if start is None else start
    batch = RecordBatch(500, 1000)
    reader = WalReader(start, MIB, version=server.installation.major, zeros_end=True)
    for piece in wal_stats.pieces(files[(start - first) // MIB :], start % MIB):
        reader.feed(reader.lsn, piece)
        while reader.decode(batch):
            yield batch
        if reader.at_end:
            return


def record_lines(batch: RecordBatch, r: int, major: int) -> list[str]:
    first, end = batch.first_reference[r], batch.first_reference[r + 1]
    images = sum(batch.ref_image_length[i] for i in range(first, end))
    pos, length = batch.record_pos[r], batch.record_length[r]
    previous = int.from_bytes(bytes(batch.data[pos + 8 : pos + 16]), "little")
    line = (
        f"rmgr: {rmgr.name(batch.rmgr[r]):<11s} len (rec/tot): {length - images:6}/{length:6}, "
        f"tx: {batch.xid[r]:10}, lsn: {padded(batch.lsn_start[r])}, prev {padded(previous)}, "
        f"desc: {rmgr.opcode_name(major, batch.rmgr[r], batch.info[r])}"
    )
    return [line, *(reference_line(batch, i) for i in range(first, end))]


def padded(value: int) -> str:
    return f"{value >> 32:X}/{value & 0xFFFFFFFF:08X}"


def reference_line(batch: RecordBatch, i: int) -> str:
    ref = reference(batch, i)
    line = (
        f"\tblkref #{ref.id}: rel {'/'.join(map(str, ref.relation))} "
        f"fork {FORKS[ref.fork]} blk {ref.block}"
    )
    if ref.image is None:
        return line
    image = ref.image
    verification = "" if image.info & 2 else " for WAL verification"
    line += f" (FPW{verification}); hole: offset: {image.hole_offset}, length: {image.hole_length}"
    method = METHODS.get(image.info & 28)
    if method:
        saved = 8192 - image.hole_length - len(image.content)
        line += f", compression saved: {saved}, method: {method}"
    return line


def their_dump(server: Server, start: int, end: int) -> Iterator[list[str]]:
    """What pg_waldump -b prints of each record, its description cut after the opcode."""
    lines: list[str] = []
    output = server.pg_waldump("-b", "-s", lsn.show(start), "-e", lsn.show(end))
    for line in output.splitlines():
        if line.startswith("rmgr: "):
            if lines:
                yield lines
            head, _, description = line.partition(", desc: ")
            lines = [f"{head}, desc: {description.split(' ')[0].rstrip(',')}"]
        elif line.startswith("\tblkref "):
            lines.append(line)
    yield lines


def compare(server: Server) -> list[list[str]]:
    """Compare everything in the WAL files of a server that is stopped; what it was."""
    stats = wal_stats.count([server.data_dir / "pg_wal"])
    major = server.installation.major
    ours = [record_lines(batch, r, major) for batch in batches(server) for r in range(batch.count)]
    theirs = list(their_dump(server, stats.start_lsn, stats.end_lsn))
    for our_lines, their_lines in zip(ours, theirs, strict=False):
        assert our_lines == their_lines
    assert len(ours) == len(theirs)
    compare_stats(server, stats)
    return ours


def compare_stats(server: Server, stats: wal_stats.Stats) -> None:
    output = server.pg_waldump(
        "--stats=record", "-s", lsn.show(stats.start_lsn), "-e", lsn.show(stats.end_lsn)
    )
    theirs = {
        match[1]: (int(match[2]), int(match[3]), int(match[4]))
        for match in map(STATS_ROW.match, output.splitlines())
        if match
    }
    ours = {
        name: (kind.count, kind.record_bytes, kind.image_bytes)
        for name, kind in stats.by_name().items()
    }
    assert ours == theirs


@pytest.mark.parametrize("major", MAJORS)
def test_every_record_as_pg_waldump_has_it(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, SETTINGS, SMALL_SEGMENTS)
    workload(server)
    server.stop()
    records = compare(server)
    assert len(records) > 20_000
    kinds = {lines[0].split("desc: ")[1] for lines in records}
    assert kinds >= {"SWITCH", "MESSAGE", "COMMIT_PREPARED", "CREATE_WAL_LOG", "FREEZE_PAGE"} - (
        {"FREEZE_PAGE"} if major >= 17 else set()
    )
    managers = {lines[0].split()[1] for lines in records}
    # Tablespaces were not made, and a page of CLOG lasts for 32,768 transactions.
    assert managers | {"Tablespace", "CLOG"} == set(rmgr.NAMES)


@pytest.mark.parametrize(
    ("major", "method"), [(18, "pglz"), (15, "pglz"), (15, "lz4"), (15, "zstd")]
)
def test_compressed_images(postgres: PostgresFactory, major: int, method: str) -> None:
    server = postgres(major, {**SETTINGS, "wal_compression": method}, SMALL_SEGMENTS)
    server.pgbench("-i", "-s", "1", "-q")
    server.sql("checkpoint")
    server.pgbench("-t", "200", "-c", "2")
    server.stop()
    lines = [line for lines in compare(server) for line in lines[1:]]
    ours = images(server)
    assert sum(f"method: {method}" in line for line in lines) > 100
    assert len(ours) == sum(" (FPW" in line for line in lines)
    for page in ours.values():
        lower, upper, special, version = struct.unpack_from("<HHHH", page, 12)
        assert version == 8192 + 4
        assert 24 <= lower <= upper <= special <= 8192
    if major >= 16:
        assert ours == saved_images(server)


def images(server: Server) -> dict[str, bytes]:
    """Every page image, whole, by the name of the file that pg_waldump saves it to."""
    found = {}
    for batch in batches(server):
        for r in range(batch.count):
            for ref in row(batch, r).references:
                if ref.image:
                    start = batch.lsn_start[r]
                    relation = ".".join(map(str, ref.relation))
                    place = f"{start >> 32:08X}-{start & 0xFFFFFFFF:08X}.{relation}.{ref.block}"
                    found[f"00000001-{place}_{FORKS[ref.fork]}"] = whole_page(ref.image)
    return found


def saved_images(server: Server) -> dict[str, bytes]:
    directory = server.data_dir.with_name(server.data_dir.name + "-images")
    stats = wal_stats.count([server.data_dir / "pg_wal"])
    start, end = lsn.show(stats.start_lsn), lsn.show(stats.end_lsn)
    server.pg_waldump("-q", "-s", start, "-e", end, f"--save-fullpage={directory}")
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def whole_page(image: Image) -> bytes:
    length = 8192 - image.hole_length
    content = decompress(image.content, image.info & 28, length)
    assert len(content) == length
    hole = image.hole_offset
    return content[:hole] + bytes(image.hole_length) + content[hole:]


def decompress(content: bytes, compression: int, length: int) -> bytes:
    if not compression:
        return content
    if compression == PGLZ:
        target = bytearray(length)
        pglz.decompress(memoryview(content), 0, len(content), memoryview(target), 0, length)
        return bytes(target)
    if compression == 8:
        return lz4.block.decompress(content, uncompressed_size=length)
    return zstandard.decompress(content, max_output_size=length)


@pytest.mark.parametrize("major", MAJORS)
def test_ends_of_records_as_pg_walinspect_has_them(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, SETTINGS, SMALL_SEGMENTS)
    server.sql("create extension pg_walinspect")
    begin = lsn.parse(server.sql("select pg_current_wal_insert_lsn()::text")[0][0])
    fill_pages_exactly(server)
    server.sql("select pg_switch_wal()")
    server.sql("create table behind (a int)")
    end = lsn.parse(server.sql("select pg_current_wal_flush_lsn()::text")[0][0])
    theirs = [
        (lsn.parse(start), lsn.parse(finish))
        for start, finish in server.sql(
            "select start_lsn::text, end_lsn::text from pg_get_wal_records_info("
            f"'{lsn.show(begin)}', '{lsn.show(end)}')"
        )
    ]
    server.stop()
    ours = [
        place
        for batch in batches(server, begin)
        for place in list(zip(batch.lsn_start, batch.lsn_end, strict=True))[: batch.count]
    ]
    assert ours[: len(theirs)] == theirs
    assert len(theirs) > 100
    ends = {finish % 8192 for _, finish in theirs}
    assert 0 in ends, "no record filled its page"


def fill_pages_exactly(server: Server) -> None:
    """Messages of such lengths that records end at the ends of pages, and just before them."""
    with server.connect() as connection:
        for short_by in (0, 8, 16, 24, 0, 0):
            for _ in range(20):
                text = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
                assert text is not None
                at = lsn.parse(text[0])
                left = 8192 - at % 8192
                # 24 of record header, 5 of fragment header, 24 of the message's own and a prefix.
                length = left - 24 - 5 - 24 - 2 - short_by
                if left < 8192 - 40 and length > 300:
                    connection.execute(
                        f"select pg_logical_emit_message(false, 'p', repeat('x', {length}))"
                    )
                else:
                    connection.execute("select pg_logical_emit_message(false, 'p', 'filler')")


@pytest.mark.parametrize("major", MAJORS)
def test_a_crash_inside_of_a_record(postgres: PostgresFactory, major: int) -> None:
    """The server dies while a record of 60 MB is written; what it then writes replaces it."""
    server = postgres(major, {**SETTINGS, "wal_buffers": "256kB"}, SMALL_SEGMENTS)
    for attempt in range(5):
        server.sql(f"create table before_{attempt} (a int)")
        crash_in_a_large_record(server)
        server.start()
        server.sql(f"create table after_{attempt} (a int)")
    server.stop()
    kinds = [lines[0].split("desc: ")[1] for lines in compare(server)]
    assert "OVERWRITE_CONTRECORD" in kinds


def crash_in_a_large_record(server: Server) -> None:
    count = len(segments(server))

    def emit() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            server.sql("select pg_logical_emit_message(false, '', repeat('x', 60000000))")

    writer = threading.Thread(target=emit)
    writer.start()
    while writer.is_alive() and len(segments(server)) < count + 8:
        time.sleep(0.001)
    server.kill()
    writer.join()


@pytest.mark.parametrize("major", MAJORS)
def test_the_end_of_a_record_is_what_pages_carry(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, SETTINGS, SMALL_SEGMENTS)
    server.psql("""
        create extension pageinspect;
        create table t (a int, b text);
        insert into t select g, repeat('x', g % 900) from generate_series(1, 20000) g;
        """)
    relation = server.sql("select pg_relation_filepath('t')")[0][0].rpartition("/")[2]
    theirs = server.sql(
        "select block, (page_header(get_raw_page('t', block))).lsn::text"
        " from generate_series(0, pg_relation_size('t')::int / 8192 - 1) block"
    )
    server.stop()
    last: dict[int, int] = {}
    for batch in batches(server):
        for r in range(batch.count):
            for ref in row(batch, r).references:
                if ref.relation[2] == int(relation) and ref.fork == 0:
                    last[ref.block] = batch.lsn_end[r]
    assert last == {block: lsn.parse(page_lsn) for block, page_lsn in theirs}
    assert len(last) > 1000
