"""Sources of WAL: those with WAL only, standbys, promoted ones, and those that are refused."""

import pytest

from formats import lsn
from server.attach import attach, detach, reserve_wal
from server.replication import StopSignal
from server.source_errors import SourceError
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory
from tests.fixtures.receiving import (
    SLOT,
    SMALL_WAL,
    Receiving,
    assert_same_wal,
    caught_up,
    flush_lsn,
    standby_of,
    system_identifier,
)
from tests.fixtures.wal_only_proxy import WalOnlyProxy
from tools.postgres import Workspace


def test_wal_only_source(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18)
    server.pgbench("-i", "-q", "-s", "1")
    with WalOnlyProxy(server.port) as proxy:
        store = receiving.store()
        attached = attach(store, [proxy.conninfo], server.conninfo(), SLOT, StopSignal())
        receiving.receivers.append(attached.receiver)
        assert store.end_lsn == attached.report.end_lsn > attached.report.start_lsn
        server.sql("create table t as select generate_series(1, 10000)")
        caught_up(server, store)
        assert attached.receiver.source == f"127.0.0.1:{proxy.port}"
        assert server.sql("select count(*) from pg_replication_slots") == [(0,)]
        assert {command.split()[0] for command in proxy.refused} == {
            b"CREATE_REPLICATION_SLOT",
            b"START_REPLICATION",
            b"SHOW",  # synchronous_standby_names: unknown here, so every fsync is at once
        }
        assert store.journal.start_lsn <= attached.report.start_lsn
        assert_same_wal(server, store)
        with pytest.raises(SourceError, match="this source has WAL only.*--base-source"):
            attach(receiving.store(), [proxy.conninfo], None, SLOT, StopSignal())
        attached.receiver.stop()
        assert not detach([proxy.conninfo], SLOT)


@pytest.mark.parametrize("major", MAJORS)
def test_cascading_standby_and_its_promotion(
    postgres: PostgresFactory, workspace: Workspace, receiving: Receiving, major: int
) -> None:
    primary = postgres(major)
    primary.pgbench("-i", "-q", "-s", "1")
    standby = standby_of(workspace, primary)
    store = receiving.begin(standby)
    primary.sql("create table t as select generate_series(1, 10000)")
    caught_up(primary, store)
    assert_same_wal(standby, store)

    primary.stop()
    standby.sql("select pg_promote()")
    standby.sql("create table after_promotion as select generate_series(1, 10000)")
    caught_up(standby, store)
    assert store.journal.timeline == 2
    (entry,) = store.journal.history()
    assert entry.timeline == 1
    assert entry.end_lsn < store.journal.received_lsn
    assert_same_wal(standby, store, timeline=2)

    receiving.last.stop()
    store.journal.close()
    store.open_journal()
    assert store.journal.timeline == 2
    standby.sql("create table later(a int)")
    receiver = receiving.start(store, system_identifier(standby), standby.conninfo())
    caught_up(standby, store)
    assert receiver.state == "streaming"


def test_promoted_source_that_was_behind_is_refused(
    postgres: PostgresFactory, workspace: Workspace, receiving: Receiving
) -> None:
    primary = postgres(18)
    standby = standby_of(workspace, primary)
    store = receiving.begin(primary)
    primary.sql("create table before(a int)")
    caught_up(primary, store)
    replayed = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
    target = lsn.show(flush_lsn(primary))
    wait_until(lambda: standby.sql(replayed.replace("%s", f"'{target}'")) == [(True,)])
    standby.stop()
    primary.sql("create table lost as select generate_series(1, 1000)")
    caught_up(primary, store)
    primary.stop("immediate")
    receiving.last.stop()
    received = store.journal.received_lsn
    standby.settings["primary_conninfo"] = ""
    standby.start()
    standby.sql("select pg_promote()")
    receiver = receiving.start(store, system_identifier(standby), standby.conninfo())
    wait_until(lambda: receiver.state == "refused")
    switch = standby.sql("select pg_read_file('pg_wal/00000002.history')")[0][0].split()[1]
    whole = lsn.show(store.journal.last_record_end())
    assert f"for 2 at {switch}, but WAL up to {whole} was received here" in receiver.error
    assert (store.journal.timeline, store.journal.received_lsn) == (1, received)

    # Back at the old primary all goes on; the new one is refused as long as the other is there.
    receiver.stop()
    primary.start()
    receiving.start(store, system_identifier(primary), standby.conninfo(), primary.conninfo())
    primary.sql("create table again(a int)")
    caught_up(primary, store)


def test_old_primary_after_a_failover_is_refused(
    postgres: PostgresFactory, workspace: Workspace, receiving: Receiving
) -> None:
    primary = postgres(18)
    standby = standby_of(workspace, primary)
    store = receiving.begin(standby)
    caught_up(primary, store)
    standby.sql("select pg_promote()")
    standby.sql("create table t(a int)")
    caught_up(standby, store)
    receiving.last.stop()
    receiver = receiving.start(store, system_identifier(primary), primary.conninfo())
    wait_until(lambda: receiver.state == "refused")
    assert "is on timeline 1, the data directory already on 2" in receiver.error


def test_wal_removed_at_the_source(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18, SMALL_WAL)
    store = receiving.begin(server)
    caught_up(server, store)
    receiving.last.stop()
    wait_until(lambda: server.sql("select active from pg_replication_slots") == [(False,)])
    assert detach([server.conninfo()], SLOT)
    for _ in range(4):
        server.sql("create table if not exists t(a int)")
        server.sql("insert into t values (1)")
        server.sql("select pg_switch_wal()")
        server.sql("checkpoint")
    receiver = receiving.start(store, system_identifier(server), server.conninfo())
    wait_until(lambda: receiver.state == "refused")
    assert "has already been removed" in receiver.error
    assert "start again with an empty data directory" in receiver.error
    # The slot that was missing was made again, which did not help.
    assert server.sql("select slot_name from pg_replication_slots") == [(SLOT,)]


def test_wal_level_minimal(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18, {"wal_level": "minimal", "max_wal_senders": "0"})
    with pytest.raises(SourceError, match="set wal_level = replica and max_wal_senders") as refused:
        attach(receiving.store(), [server.conninfo()], None, SLOT, StopSignal())
    assert refused.value.permanent


def test_another_cluster_and_another_branch_of_the_same(
    postgres: PostgresFactory, receiving: Receiving
) -> None:
    server = postgres(18)
    store = receiving.begin(server)
    server.sql("create table t as select generate_series(1, 1000)")
    caught_up(server, store)
    receiving.last.stop()
    received = store.journal.received_lsn

    other = postgres(18, None, ["--data-checksums"])
    ours = system_identifier(server)
    receiver = receiving.start(store, ours, other.conninfo())
    wait_until(lambda: receiver.state == "refused")
    assert f"system identifier is {system_identifier(other)}" in receiver.error
    assert f"holds the cluster {ours}" in receiver.error
    receiver.stop()

    twin = postgres(18)  # a copy of the same template
    twin.sql("create table x as select generate_series(1, 5000)")
    assert system_identifier(twin) == ours
    receiver = receiving.start(store, ours, twin.conninfo())
    wait_until(lambda: receiver.state == "refused")
    assert "from what was received before" in receiver.error
    assert store.journal.received_lsn == received
    receiver.stop()
    for wal, base, slot in ((server, other, "another"), (other, server, SLOT)):
        with pytest.raises(SourceError, match="system identifier"):
            attach(receiving.store(), [wal.conninfo()], base.conninfo(), slot, StopSignal())
    # The slots that these made are gone with them.
    assert server.sql("select slot_name from pg_replication_slots") == [(SLOT,)]
    assert other.sql("select slot_name from pg_replication_slots") == []


def test_a_source_that_lags_is_waited_for(
    postgres: PostgresFactory, workspace: Workspace, receiving: Receiving
) -> None:
    primary = postgres(18)
    standby = standby_of(workspace, primary)
    store = receiving.begin(primary)
    standby.stop()
    primary.sql("create table t as select generate_series(1, 1000)")
    caught_up(primary, store)
    receiving.last.stop()
    standby.settings["primary_conninfo"] = ""
    standby.start()
    receiver = receiving.start(store, system_identifier(primary), standby.conninfo())
    wait_until(lambda: "is ahead of the WAL flush position" in receiver.error)
    assert receiver.state in ("waiting", "connecting")


def test_authentication_and_grants(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18)
    server.sql("create role plain login")
    stop = StopSignal()
    conninfo = f"host=127.0.0.1 port={server.port} user="
    with pytest.raises(SourceError, match="ALTER ROLE … REPLICATION"):
        reserve_wal([conninfo + "plain"], SLOT, stop)
    with pytest.raises(SourceError, match='role "nobody" does not exist'):
        reserve_wal([conninfo + "nobody"], SLOT, stop)
    hba = server.data_dir / "pg_hba.conf"
    hba.write_text("host all all 127.0.0.1/32 trust\n")
    server.sql("select pg_reload_conf()")
    with pytest.raises(SourceError, match="host replication USER ADDRESS"):
        reserve_wal([conninfo + "postgres"], SLOT, stop)
    hba.write_text("host all all 127.0.0.1/32 trust\nhost replication all all scram-sha-256\n")
    server.sql("select pg_reload_conf()")
    with pytest.raises(SourceError, match="Check user and password"):
        reserve_wal([conninfo + "postgres password=wrong"], SLOT, stop)
