"""The real servers that tests use, and the standby that is their oracle.

The last test is the comparer's own proof: a primary and a standby recovered to the same LSN are
equal, over a workload that writes pages of every kind, with nothing but the known excuses.
"""

import os
import shutil
from pathlib import Path

import pytest

from formats import lsn
from tests.fixtures.directory_source import DirectorySource
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory, require_postgres
from tools import postgres_binaries
from tools.compare import compare
from tools.excuses import Excuse, Rules
from tools.oracle_standby import NoOracle, recover
from tools.postgres import Server, Workspace
from tools.postgres_binaries import Installation, MissingPostgres, ProgramFailed

BEFORE = """
create table old(a int primary key, t text);
insert into old select g, repeat('x', g % 50) from generate_series(1, 5000) g;
create database source;
\\c source
create table b(a int);
insert into b select generate_series(1, 50000);
create index on b using brin(a) with (pages_per_range = 2);
vacuum b;
"""

WORKLOAD = """
create sequence numbers;
select nextval('numbers') from generate_series(1, 5);
create table t as select g as a, md5(g::text) as t, point(g, g % 100) as p,
    array[g % 10, g % 7] as e from generate_series(1, 10000) g;
create extension bloom;
create index on t(a);
create index on t(t);
create index on t using hash(a);
create index on t using gist(p);
create index on t using spgist(p);
create index on t using gin(e);
create index on t using brin(a);
create index on t using bloom(a);
delete from t where a % 3 = 0;
vacuum t;
insert into t select g, md5(g::text), point(g, g % 100), array[g % 10]
    from generate_series(10001, 13000) g;
update old set t = t || 'y' where a % 5 = 0;
select count(*) from old where a < 100;
vacuum freeze old;
set enable_seqscan = off;
select count(*) from t where a between 1 and 5000;
create table rolled_back(a int primary key);
begin;
insert into rolled_back select generate_series(1, 1000);
rollback;
vacuum rolled_back;
create table truncated(a int);
insert into truncated select generate_series(1, 30000);
delete from truncated where a > 100;
vacuum truncated;
create table locked(a int primary key);
insert into locked select generate_series(1, 10);
begin;
select * from locked for share;
savepoint s;
select * from locked for update;
rollback to s;
commit;
create temp table temporary(a int);
insert into temporary values (1);
vacuum full t;
reindex table old;
insert into t select g, md5(g::text), point(g, g % 100), array[g % 10]
    from generate_series(20001, 22000) g;
create unlogged table unlogged(a int primary key, p point);
create index on unlogged using spgist(p);
create index on unlogged using bloom(a);
insert into unlogged select a, p from t limit 100;
create database copied template source;
create database copied_files template source strategy file_copy;
\\c copied
insert into b select generate_series(50000, 60000);
vacuum b;
"""


@pytest.mark.parametrize("major", MAJORS)
def test_servers_start_stop_and_survive_kill(postgres: PostgresFactory, major: int) -> None:
    server = postgres(major, {"work_mem": "1234kB"})
    assert server.sql("show work_mem") == [("1234kB",)]
    assert server.psql("select 1, 'a'; select 2") == "1|a\n2\n"
    server.sql("create table t as select generate_series(1, 100) as a")
    server.kill()
    assert not server.running
    server.start()
    assert server.sql("select count(*) from t") == [(100,)]
    server.pgbench("-i", "-q")
    assert "tps" in server.pgbench("-t", "10")
    assert 0 < server.stop() < 30
    assert server.pg_controldata()["Database cluster state"] == "shut down"


def test_servers_do_not_run_as_root(postgres: PostgresFactory) -> None:
    server = postgres()
    assert server.process is not None
    assert Path(f"/proc/{server.process.pid}").stat().st_uid != 0


def test_a_server_that_cannot_start_says_why(workspace: Workspace) -> None:
    server = workspace.cluster(18, {"shared_buffers": "nonsense"})
    with pytest.raises(ProgramFailed, match="shared_buffers"):
        server.start()


def test_a_missing_major_is_named_with_the_reason() -> None:
    with pytest.raises(MissingPostgres, match=r"PostgreSQL 9 is not in .*; to have it: "):
        Installation.find(9)
    with pytest.raises(pytest.skip.Exception, match="PostgreSQL 9 is not in"):
        require_postgres(9)


def test_unreachable_binaries_are_copied_with_their_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment under /root, which an unprivileged user cannot enter."""
    if os.geteuid() != 0:
        # Nothing to copy for: whoever is not root runs servers as himself.
        pytest.skip("only root has servers run by another user")
    package = postgres_binaries.wheel_directory()
    assert package is not None
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for source in (package, package.with_name(package.name + ".libs")):
        shutil.copytree(source, hidden / source.name, symlinks=True)
    monkeypatch.setattr(postgres_binaries, "wheel_directory", lambda: hidden / package.name)
    with Workspace() as own:
        binaries = own.installation(18).binaries
        assert own.path in binaries.parents
        assert own.cluster(18).start().sql("select 1") == [(1,)]
    assert not own.path.exists()


def test_closing_a_workspace_stops_its_servers(postgres_templates: Workspace) -> None:
    with Workspace(within=postgres_templates) as own:
        server = own.cluster().start()
    assert not server.running
    assert not own.path.exists()
    assert postgres_templates.path.exists()


@pytest.mark.parametrize("major", MAJORS)
def test_shutdown_checkpoint_end_is_where_the_next_record_begins(
    postgres: PostgresFactory, major: int
) -> None:
    server = postgres(major)
    server.stop()
    end = server.shutdown_checkpoint_end()
    server.start()
    server.sql("checkpoint")
    server.stop()
    begin = server.pg_waldump("-n", "1", "-s", lsn.show(end))
    assert f"lsn: {end >> 32:X}/{end & 0xFFFFFFFF:08X}" in begin
    assert "prev" in begin


def test_an_oracle_needs_a_checkpoint_after_the_base_backup(
    postgres: PostgresFactory, workspace: Workspace
) -> None:
    server = postgres(18)
    base = server.base_backup(workspace.new_path("base"))
    server.sql("create table t as select 1 as a")
    target = insert_lsn(server)
    server.sql("create table u as select 1 as a")
    server.sql("select pg_switch_wal()")
    with pytest.raises(NoOracle, match="run CHECKPOINT between the base backup and the target"):
        recover(workspace, 18, base, server.data_dir / "pg_wal", target)


def test_an_oracle_needs_wal_beyond_its_target(
    postgres: PostgresFactory, workspace: Workspace
) -> None:
    server = postgres(18)
    base = server.base_backup(workspace.new_path("base"))
    server.sql("checkpoint")
    server.stop()
    with pytest.raises(NoOracle, match="did not reach its target"):
        recover(workspace, 18, base, server.data_dir / "pg_wal", 1 << 40)


@pytest.mark.parametrize("major", MAJORS)
def test_a_primary_and_its_standby_are_equal(
    postgres: PostgresFactory, workspace: Workspace, major: int
) -> None:
    server = postgres(major, {"wal_keep_size": "1GB"})
    server.psql(BEFORE)
    base = server.base_backup(workspace.new_path("base"))
    server.sql("checkpoint")
    server.psql(WORKLOAD)
    (copied,) = server.sql("select oid::int from pg_database where datname = 'copied'")[0]
    server.stop()
    final = server.shutdown_checkpoint_end()
    stopped = workspace.copy(server.data_dir, "stopped")
    server.start()  # the standby needs a record behind its target
    server.sql("checkpoint")
    server.stop()
    standby = recover(workspace, major, base, server.data_dir / "pg_wal", final)
    assert standby.lsn_boundary == final

    rules = Rules("primary", copied_databases=frozenset({copied}))
    result = compare(stopped, DirectorySource(standby.data_dir), final, rules)
    assert [str(difference) for difference in result.differences] == []
    assert result.blocks_compared["main"] > 5000
    assert result.blocks_compared["slru"] >= 3
    for excuse in (Excuse.SEQUENCE, Excuse.SPGIST_CACHE, Excuse.COPIED_VM, Excuse.UNLOGGED):
        assert result.excuses[excuse] > 0

    strict = compare(stopped, DirectorySource(standby.data_dir), final, Rules("standby"))
    assert strict.difference_count > 0


def insert_lsn(server: Server) -> int:
    return lsn.parse(server.sql("select pg_current_wal_insert_lsn()::text")[0][0])
