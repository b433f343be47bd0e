"""The WAL receiver against real servers: what it is told, what it reports, whom it refuses."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.storage import File, Storage
from formats import lsn
from server.attach import attach, detach, reserve_wal
from server.replication import StopSignal
from server.source_errors import SourceError
from server.wal_receiver import WalReceiver
from tests.fixtures.fake_ingest import FakeIngest, wait_until
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory
from tests.fixtures.wal_only_proxy import WalOnlyProxy
from tools.postgres import Server, Workspace

SLOT = "pageserver_0badcafe"
SMALL_WAL = {"min_wal_size": "32MB", "max_wal_size": "32MB", "autovacuum": "off"}


class Receiving:
    """A store and the receivers of one test; all are stopped at its end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.receivers: list[WalReceiver] = []

    def store(self, storage: Storage | None = None) -> FakeIngest:
        return FakeIngest(self.directory / f"data-{len(self.receivers)}", storage)

    def begin(self, server: Server, storage: Storage | None = None, *sources: str) -> FakeIngest:
        """A slot at the server, and a journal that starts at the server's present segment."""
        store = self.store(storage)
        reservation = reserve_wal([server.conninfo()], SLOT, StopSignal())
        journal = store.open_journal()
        start = server.sql("select restart_lsn from pg_replication_slots")[0][0]
        journal.begin(lsn.parse(start) // (16 << 20) * (16 << 20), 1)
        self.start(store, reservation.system_identifier, *(sources or [server.conninfo()]))
        return store

    def start(self, store: FakeIngest, identifier: int, *sources: str) -> WalReceiver:
        receiver = WalReceiver(store, sources, SLOT, identifier)
        receiver.start()
        self.receivers.append(receiver)
        return receiver

    @property
    def last(self) -> WalReceiver:
        return self.receivers[-1]

    def close(self) -> None:
        for receiver in self.receivers:
            receiver.stop()


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Receiving]:
    receiving = Receiving(tmp_path)
    yield receiving
    receiving.close()


def system_identifier(server: Server) -> int:
    return int(server.sql("select system_identifier from pg_control_system()")[0][0])


def flush_lsn(server: Server) -> int:
    return lsn.parse(server.sql("select pg_current_wal_flush_lsn()")[0][0])


def caught_up(server: Server, store: FakeIngest) -> None:
    target = flush_lsn(server)
    wait_until(lambda: store.journal.flushed_lsn >= target)


def assert_same_wal(server: Server, store: FakeIngest, timeline: int = 1) -> None:
    """The journal's bytes are those of the server's own files, as far as it still has them."""
    journal = store.journal
    size = journal.segment_bytes
    compared = 0
    for start in range(journal.start_lsn, journal.received_lsn, size):
        length = min(size, journal.received_lsn - start)
        high, low = divmod(start // size, (1 << 32) // size)
        name = f"{timeline:08X}{high:08X}{low:08X}"
        path = server.data_dir / "pg_wal" / name
        if path.exists():
            assert store.read_wal(start)[:length] == path.read_bytes()[:length], name
            compared = start + length
    assert compared == journal.received_lsn


def standby_of(workspace: Workspace, primary: Server, **settings: str) -> Server:
    directory = primary.base_backup(workspace.new_path("standby"))
    (directory / "standby.signal").touch()
    connection = {"primary_conninfo": primary.conninfo() + " application_name=standby"}
    return workspace.server(
        primary.installation.major, directory, {"fsync": "off", **connection, **settings}
    ).start()


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("is_busy", [False, True])
def test_primary_stops_at_once(
    postgres: PostgresFactory, receiving: Receiving, major: int, is_busy: bool
) -> None:
    server = postgres(major)
    server.pgbench("-i", "-q", "-s", "1")
    store = receiving.begin(server)
    caught_up(server, store)
    load = server.start_pgbench("-c", "4", "-T", "60") if is_busy else None
    if load is not None:
        before = flush_lsn(server)
        wait_until(lambda: store.journal.flushed_lsn > before + 100_000)
    seconds = server.stop()
    if load is not None:
        load.wait()
    assert seconds < 5
    wait_until(lambda: receiving.last.state == "waiting")
    assert store.journal.flushed_lsn == server.shutdown_checkpoint_end()
    assert_same_wal(server, store)


class GatedStorage(Storage):
    """Storage whose fsyncs of WAL wait for a gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.is_waiting = threading.Event()

    def sync(self, file: File) -> None:
        if not self.gate.is_set():
            self.is_waiting.set()
            self.gate.wait()
        super().sync(file)


@pytest.mark.parametrize("major", MAJORS)
def test_synchronous_commit_waits_for_our_fsync_and_no_longer(
    postgres: PostgresFactory, receiving: Receiving, major: int
) -> None:
    server = postgres(major, {"synchronous_standby_names": "*", "synchronous_commit": "local"})
    server.sql("create table t(a int)")
    storage = GatedStorage()
    store = receiving.begin(server, storage)
    caught_up(server, store)
    state = "select application_name, sync_state from pg_stat_replication"
    wait_until(lambda: server.sql(state) == [(SLOT, "sync")])
    begin = time.monotonic()
    for _ in range(20):
        server.psql("set synchronous_commit = on; insert into t values (1)")
    assert time.monotonic() - begin < 10  # nothing became durable in layers meanwhile
    storage.gate.clear()
    done = threading.Event()

    def commit() -> None:
        server.psql("set synchronous_commit = on; insert into t values (2)")
        done.set()

    thread = threading.Thread(target=commit)
    thread.start()
    assert storage.is_waiting.wait(10)
    assert not done.wait(0.5)
    storage.gate.set()
    assert done.wait(5)
    thread.join()


def test_remote_apply_waits_for_layers(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18, {"synchronous_standby_names": "*", "synchronous_commit": "local"})
    server.sql("create table t(a int)")
    store = receiving.begin(server)
    caught_up(server, store)
    store.flush()
    done = threading.Event()

    def commit() -> None:
        server.psql("set synchronous_commit = remote_apply; insert into t values (2)")
        done.set()

    thread = threading.Thread(target=commit)
    thread.start()
    assert not done.wait(1.5)
    store.flush()
    assert done.wait(5)
    thread.join()


def test_reports_and_the_slot(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18)
    store = receiving.begin(server)
    server.sql("create table t(a int)")
    caught_up(server, store)
    store.flush()
    target = lsn.show(store.journal.flushed_lsn)
    query = "select write_lsn, flush_lsn, replay_lsn, application_name from pg_stat_replication"
    wait_until(lambda: server.sql(query) == [(target, target, target, SLOT)])
    query = "select slot_name, restart_lsn, active from pg_replication_slots"
    wait_until(lambda: server.sql(query) == [(SLOT, target, True)])
    with pytest.raises(SourceError, match="is active for PID"):
        detach([server.conninfo()], SLOT)
    receiving.last.stop()
    assert receiving.last.state == "stopped"
    wait_until(lambda: server.sql(query)[0][2] is False)
    assert detach([server.conninfo()], SLOT)
    assert not detach([server.conninfo()], SLOT)
    assert server.sql(query) == []


def test_keepalives_are_answered_while_ingest_does_nothing(
    postgres: PostgresFactory, receiving: Receiving
) -> None:
    server = postgres(18, {"wal_sender_timeout": "1s"})
    store = receiving.begin(server)
    pid = "select pid from pg_stat_replication where state = 'streaming'"
    wait_until(lambda: len(server.sql(pid)) == 1)
    before = server.sql(pid)
    time.sleep(3)
    assert server.sql(pid) == before
    assert store.durable_lsn == 0


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_source_restarts(postgres: PostgresFactory, receiving: Receiving, mode: str) -> None:
    server = postgres(18, SMALL_WAL)
    server.pgbench("-i", "-q", "-s", "1")
    store = receiving.begin(server)
    for _ in range(2):
        load = server.start_pgbench("-c", "2", "-T", "60")
        before = flush_lsn(server)
        wait_until(lambda: store.journal.flushed_lsn > before + 200_000)  # noqa: B023
        server.stop(mode)
        load.wait()
        server.start()
        server.sql("create table if not exists t(a int)")
        caught_up(server, store)
        assert_same_wal(server, store)
    wait_until(lambda: receiving.last.state == "streaming")


def test_receiver_restarts_and_sources_fall_in(
    postgres: PostgresFactory, receiving: Receiving
) -> None:
    server = postgres(18)
    nobody = "host=127.0.0.1 port=1 user=postgres"
    store = receiving.begin(server, None, nobody, server.conninfo())
    caught_up(server, store)
    assert receiving.last.source == f"127.0.0.1:{server.port}"
    receiving.last.stop()
    store.journal.close()
    server.sql("create table t as select generate_series(1, 100000)")
    store.open_journal()
    receiving.start(store, system_identifier(server), server.conninfo())
    caught_up(server, store)
    assert_same_wal(server, store)


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


def test_nothing_is_reported_after_a_failed_fsync(
    postgres: PostgresFactory, receiving: Receiving
) -> None:
    server = postgres(18)
    server.sql("create table t(a int)")
    storage = FaultyStorage()
    store = receiving.begin(server, storage)
    caught_up(server, store)
    receiver = receiving.last
    flushed = store.journal.flushed_lsn
    newest = max(path.name for path in (store.directory / "journal").iterdir())
    storage.fail_sync = newest.removesuffix(".sums")
    server.sql("insert into t values (1)")
    wait_until(lambda: receiver.state == "failed")
    assert "Input/output error" in receiver.error
    wait_until(lambda: server.sql("select count(*) from pg_stat_replication") == [(0,)])
    restart = server.sql("select restart_lsn from pg_replication_slots")[0][0]
    assert lsn.parse(restart) <= flushed == store.journal.flushed_lsn


def test_a_full_disk_is_waited_out(postgres: PostgresFactory, receiving: Receiving) -> None:
    server = postgres(18)
    storage = FaultyStorage()
    store = receiving.begin(server, storage)
    caught_up(server, store)
    newest = max(path.name for path in (store.directory / "journal").iterdir())
    storage.fail_append = newest.removesuffix(".sums")
    server.sql("create table t as select generate_series(1, 1000)")
    wait_until(lambda: storage.fail_append == "")
    caught_up(server, store)
    assert_same_wal(server, store)


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
