"""The comparer must fail on a planted error of every kind, and pass when there is none.

A small real cluster is stopped and compared with itself through a source that a test spoils.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from formats.chunk import BLOCK_BYTES, Fork, Slru
from formats.control_file import parse_control_file
from server.client import PageServerError
from tests.fixtures.directory_source import DirectorySource
from tests.fixtures.postgres_servers import MAJORS, require_postgres
from tools.compare import Comparison, Difference, compare, relation_map_name
from tools.data_directory import DEFAULT_TABLESPACE, RelationFork
from tools.excuses import Excuse, Rules
from tools.postgres import Workspace

LSN = 0x1_2345_6780
PRIMARY, STANDBY = Rules("primary"), Rules("standby")

SCRIPT = """
create table t(a int primary key, b text);
insert into t select g, repeat('x', g % 90) from generate_series(1, 5000) g;
create table shared(a int primary key);
insert into shared values (1);
begin;
select * from shared for share;
savepoint s;
select * from shared for update;
rollback to s;
commit;
create sequence numbers;
select nextval('numbers');
create unlogged table unlogged(a int primary key);
vacuum freeze t;
"""


@dataclass
class Cluster:
    """A stopped server, and the forks of its relations by name."""

    data_dir: Path
    db: int
    forks: dict[str, RelationFork] = field(default_factory=dict)

    def fork(self, name: str, fork: Fork = Fork.MAIN) -> RelationFork:
        return self.forks[name]._replace(fork=fork)


@pytest.fixture(scope="module", params=MAJORS)
def cluster(request: pytest.FixtureRequest, postgres_templates: Workspace) -> Iterator[Cluster]:
    require_postgres(request.param)
    with Workspace(within=postgres_templates) as workspace:
        server = workspace.cluster(request.param, {"fsync": "off"}).start()
        server.psql(SCRIPT)
        (db,) = server.sql("select oid::int from pg_database where datname = 'postgres'")[0]
        stopped = Cluster(server.data_dir, db)
        for name, rel in server.sql(
            "select relname, pg_relation_filenode(oid)::int from pg_class "
            "where relnamespace = 'public'::regnamespace"
        ):
            stopped.forks[name] = RelationFork(DEFAULT_TABLESPACE, db, rel, Fork.MAIN)
        server.stop()
        yield stopped


@pytest.fixture
def source(cluster: Cluster) -> DirectorySource:
    return DirectorySource(cluster.data_dir)


def run(cluster: Cluster, source: DirectorySource, rules: Rules = STANDBY) -> Comparison:
    return compare(cluster.data_dir, source, LSN, rules)


def only_difference(
    cluster: Cluster, source: DirectorySource, rules: Rules = PRIMARY
) -> Difference:
    """What the comparison found, which must be one thing; primary's rules are the laxer ones."""
    result = run(cluster, source, rules)
    assert result.difference_count == len(result.differences) == 1
    assert result.differences[0].lsn == LSN
    return result.differences[0]


def spoil(source: DirectorySource, fork: RelationFork, block: int, offset: int, xor: int) -> None:
    page = bytearray(source.page(fork, block))
    page[offset] ^= xor
    source.pages[fork, block] = bytes(page)


def first_item(source: DirectorySource, fork: RelationFork, block: int) -> int:
    """Where the first line pointer of a page points to."""
    item: int = struct.unpack_from("<I", source.page(fork, block), 24)[0]
    return item & 0x7FFF


def test_checksum_that_does_not_fit(cluster: Cluster, source: DirectorySource) -> None:
    """Where PostgreSQL would verify it, a page must come with a checksum that fits."""
    fork = cluster.fork("t")
    source.keeps_checksums = True
    spoil(source, fork, 0, 8, 1)
    result = run(cluster, source)
    control = (cluster.data_dir / "global/pg_control").read_bytes()
    if parse_control_file(control).checksums:
        assert [d.block for d in result.differences] == [0]
        assert "checksum" in result.differences[0].what
    else:
        assert result.differences == []


def test_nothing_planted(cluster: Cluster, source: DirectorySource) -> None:
    for rules in (PRIMARY, STANDBY):
        result = run(cluster, source, rules)
        assert result.differences == []
        assert result.difference_count == 0
        assert set(result.blocks_compared) == {"main", "vm", "init", "slru", "relation map"}
        assert result.blocks_compared["relation map"] == 4  # global, template0, template1, postgres
        assert result.blocks_compared["main"] > 2000
        assert {excuse for excuse, count in result.excuses.items() if count} == {
            Excuse.FSM,
            Excuse.UNLOGGED,
        }


def test_progress_reaches_the_end(cluster: Cluster, source: DirectorySource) -> None:
    calls: list[tuple[int, int]] = []
    compare(cluster.data_dir, source, LSN, STANDBY, lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] > 2000
    assert calls == sorted(calls)


def test_heap_body(cluster: Cluster, source: DirectorySource) -> None:
    fork = cluster.fork("t")
    offset = first_item(source, fork, 3) + 24
    spoil(source, fork, 3, offset, 0x01)
    found = only_difference(cluster, source)
    assert (found.path, found.fork, found.block) == (f"base/{cluster.db}/{fork.rel}", "main", 3)
    assert found.offset == offset
    assert f"block 3 at 1/23456780 offset {offset}: here " in str(found)


def test_btree_body(cluster: Cluster, source: DirectorySource) -> None:
    fork = cluster.fork("t_pkey")
    offset = first_item(source, fork, 1)
    spoil(source, fork, 1, offset, 0x80)
    found = only_difference(cluster, source)
    assert (found.block, found.offset) == (1, offset)


@pytest.mark.parametrize("bit", [0x01, 0x02, 0x40])
def test_visibility_map_bit(cluster: Cluster, source: DirectorySource, bit: int) -> None:
    fork = cluster.fork("t", Fork.VM)
    spoil(source, fork, 0, 24, bit)
    found = only_difference(cluster, source)
    assert (found.path, found.block, found.offset) == (f"base/{cluster.db}/{fork.rel}_vm", 0, 24)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Slru.XACT, "pg_xact/0000"),
        (Slru.MULTIXACT_OFFSETS, "pg_multixact/offsets/0000"),
        (Slru.MULTIXACT_MEMBERS, "pg_multixact/members/0000"),
    ],
)
def test_slru_bit(cluster: Cluster, source: DirectorySource, kind: Slru, path: str) -> None:
    segment = bytearray(source.segments[kind, 0])
    segment[100] ^= 0x40
    source.segments[kind, 0] = bytes(segment)
    found = only_difference(cluster, source)
    assert (found.path, found.fork, found.block, found.offset) == (path, "slru", 0, 100)


def test_last_block_missing(cluster: Cluster, source: DirectorySource) -> None:
    fork = cluster.fork("t")
    source.n_blocks[fork] -= 1
    found = only_difference(cluster, source)
    assert found.block == source.n_blocks[fork]
    assert found.what.startswith(f"here are {source.n_blocks[fork]} blocks")


def test_block_too_many(cluster: Cluster, source: DirectorySource) -> None:
    fork = cluster.fork("t")
    source.n_blocks[fork] += 1
    assert only_difference(cluster, source).block == source.forks[fork].n_blocks


@pytest.mark.parametrize("fork", [Fork.MAIN, Fork.VM])
def test_fork_missing(cluster: Cluster, source: DirectorySource, fork: Fork) -> None:
    del source.n_blocks[cluster.fork("t", fork)]
    assert "it is not here" in only_difference(cluster, source).what


def test_init_fork_missing(cluster: Cluster, source: DirectorySource) -> None:
    del source.n_blocks[cluster.fork("unlogged_pkey", Fork.INIT)]
    assert only_difference(cluster, source).fork == "init"


@pytest.mark.parametrize("fork", [Fork.MAIN, Fork.VM, Fork.INIT])
def test_fork_too_many(cluster: Cluster, source: DirectorySource, fork: Fork) -> None:
    source.n_blocks[RelationFork(DEFAULT_TABLESPACE, cluster.db, 77777, fork)] = 0
    found = only_difference(cluster, source)
    assert found.path.startswith(f"base/{cluster.db}/77777")
    assert "is here" in found.what


def test_database_too_many(cluster: Cluster, source: DirectorySource) -> None:
    source.n_blocks[RelationFork(DEFAULT_TABLESPACE, 77777, 1259, Fork.MAIN)] = 5
    assert only_difference(cluster, source).path == "base/77777/1259"


@pytest.mark.parametrize("kind", [Slru.XACT, Slru.MULTIXACT_OFFSETS, Slru.MULTIXACT_MEMBERS])
def test_slru_segment_missing(cluster: Cluster, source: DirectorySource, kind: Slru) -> None:
    del source.segments[kind, 0]
    assert "it is not here" in only_difference(cluster, source).what


def test_slru_segment_too_many(cluster: Cluster, source: DirectorySource) -> None:
    source.segments[Slru.COMMIT_TS, 5] = bytes(BLOCK_BYTES)
    assert only_difference(cluster, source).path == "pg_commit_ts/0005"


@pytest.mark.parametrize("change", [-BLOCK_BYTES, BLOCK_BYTES])
def test_slru_segment_of_another_size(
    cluster: Cluster, source: DirectorySource, change: int
) -> None:
    segment = source.segments[Slru.XACT, 0]
    source.segments[Slru.XACT, 0] = segment[:change] if change < 0 else segment + bytes(change)
    assert run(cluster, source).difference_count > 0


@pytest.mark.parametrize("name", ["t", "t_pkey", "numbers"])
def test_page_lsn(cluster: Cluster, source: DirectorySource, name: str) -> None:
    spoil(source, cluster.fork(name), 0, 4, 0x08)
    assert only_difference(cluster, source).offset == 4


def test_visibility_map_lsn(cluster: Cluster, source: DirectorySource) -> None:
    spoil(source, cluster.fork("t", Fork.VM), 0, 4, 0x08)
    assert only_difference(cluster, source).offset == 4


def test_infomask_bits(cluster: Cluster, source: DirectorySource) -> None:
    """Hint bits may differ; 0x0200 would, but on a committed tuple it means frozen."""
    fork = cluster.fork("shared")
    for bit in range(16):
        source.pages.clear()
        infomask = first_item(source, fork, 0) + 20
        spoil(source, fork, 0, infomask + bit // 8, 1 << bit % 8)
        differences = run(cluster, source).difference_count
        assert differences == (0 if 1 << bit & 0x0D20 else 1), hex(1 << bit)


def test_all_visible_flag(cluster: Cluster, source: DirectorySource) -> None:
    spoil(source, cluster.fork("t"), 0, 10, 0x04)
    assert only_difference(cluster, source).offset == 10


def test_stale_relation_map(cluster: Cluster, source: DirectorySource) -> None:
    name = relation_map_name(DEFAULT_TABLESPACE, cluster.db)
    source.maps[name] = source.maps[name][:12] + b"\x01" + source.maps[name][13:]
    found = only_difference(cluster, source)
    assert (found.path, found.offset) == (f"base/{cluster.db}/pg_filenode.map", 12)


def test_relation_map_missing(cluster: Cluster, source: DirectorySource) -> None:
    del source.maps[relation_map_name(1664, 0)]
    assert only_difference(cluster, source).path == "global/pg_filenode.map"


def test_short_page(cluster: Cluster, source: DirectorySource) -> None:
    source.bytes_missing = 1
    result = run(cluster, source)
    assert result.difference_count > 100
    assert "here are" in result.differences[0].what


def test_unreadable_page(
    cluster: Cluster, source: DirectorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork, readable = cluster.fork("t"), source.get_pages

    def get_pages(
        spc: int, db: int, rel: int, fork_number: int, first_block: int, count: int, lsn: int
    ) -> bytes:
        asked = RelationFork(spc, db, rel, fork_number)
        if asked == fork and first_block <= 5 < first_block + count:
            raise PageServerError("record of an unknown resource manager")
        return readable(*asked, first_block, count, lsn)

    monkeypatch.setattr(source, "get_pages", get_pages)
    found = only_difference(cluster, source)
    assert (found.block, found.what) == (
        5,
        "cannot be read here: record of an unknown resource manager",
    )


def test_zeroed_page(cluster: Cluster, source: DirectorySource) -> None:
    source.pages[cluster.fork("t"), 2] = bytes(BLOCK_BYTES)
    assert only_difference(cluster, source).block == 2


def test_unknown_file(cluster: Cluster, source: DirectorySource) -> None:
    path = cluster.data_dir / "base" / str(cluster.db) / "123_strange"
    path.touch()
    try:
        assert only_difference(cluster, source).path == f"base/{cluster.db}/123_strange"
    finally:
        path.unlink()


def test_torn_file(cluster: Cluster, source: DirectorySource) -> None:
    path = cluster.data_dir / "base" / str(cluster.db) / "77777"
    path.write_bytes(bytes(100))
    source.n_blocks[RelationFork(DEFAULT_TABLESPACE, cluster.db, 77777, Fork.MAIN)] = 0
    try:
        assert "does not end at the end of a page" in only_difference(cluster, source).what
    finally:
        path.unlink()


def test_empty_files_that_a_crash_left(cluster: Cluster, source: DirectorySource) -> None:
    """Excused only where the caller knows of a crash, and only while nothing is in them."""
    path = cluster.data_dir / "base" / str(cluster.db) / "77777"
    crashed = Rules("primary", crashed=True)
    try:
        for content, differences in ((b"", 0), (bytes(BLOCK_BYTES), 0), (b"\1" * BLOCK_BYTES, 1)):
            path.write_bytes(content)
            assert only_difference(cluster, source).path == f"base/{cluster.db}/77777"
            result = run(cluster, source, crashed)
            assert result.difference_count == differences
            assert result.excuses[Excuse.CRASH] == 1 - differences
    finally:
        path.unlink()
