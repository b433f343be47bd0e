"""The WAL receiver against real servers: what it takes, what it reports, and when."""

import errno
import threading
import time

import pytest

from engine.storage import File, Storage
from formats import lsn
from server.attach import detach
from server.source_errors import SourceError
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory
from tests.fixtures.receiving import (
    SLOT,
    SMALL_WAL,
    Receiving,
    assert_same_wal,
    caught_up,
    flush_lsn,
    system_identifier,
)


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
    assert seconds < 5  # a reply at once, and not with the next status, 10 s later
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
    durable = store.durable_lsn
    for _ in range(20):
        server.psql("set synchronous_commit = on; insert into t values (1)")
    assert store.durable_lsn == durable  # so nobody has waited for layers
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
    storage.fail("sync", errno.EIO, name=newest.removesuffix(".sums"))
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
    storage.fail("append", errno.ENOSPC, name=newest.removesuffix(".sums"))
    server.sql("create table t as select generate_series(1, 1000)")
    wait_until(lambda: not storage.has_fault)
    caught_up(server, store)
    assert_same_wal(server, store)
