"""The slot that keeps WAL at the source until the bucket has it, on real servers."""

import pytest

from engine.storage import Storage
from formats import lsn
from server.backup import binding
from server.backup.binding import Binding
from server.backup.source_slot import MOVE_SECONDS, SourceSlot, name_beside
from server.replication import StopSignal
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.page_servers import PageServerFactory
from tests.fixtures.postgres_servers import MAJORS, PostgresFactory
from tests.fixtures.receiving import flush_lsn
from tools.postgres import Server

SLOT = "pageserver_0badcafe"
SEGMENT_BYTES = 16 << 20


def restart_lsn(server: Server) -> int:
    query = "select restart_lsn::text from pg_replication_slots where slot_name = '{}'"
    ((text,),) = server.sql(query.format(name_beside(SLOT)))
    return lsn.parse(text)


def write_segments(server: Server, count: int) -> None:
    """WAL, and checkpoints that forget what nobody keeps."""
    for _ in range(count):
        server.psql("create table if not exists t(a int); insert into t values (1);")
        server.psql("select pg_switch_wal()")
    server.psql("checkpoint")
    server.psql("checkpoint")


def oldest_segment(server: Server) -> int:
    names = [
        name for (name,) in server.sql("select name from pg_ls_waldir() where length(name) = 24")
    ]
    oldest = min(names)
    return (int(oldest[8:16], 16) << 32) + int(oldest[16:], 16) * SEGMENT_BYTES


@pytest.mark.parametrize("major", MAJORS)
def test_the_source_keeps_wal_back_to_the_remote_lsn_and_no_more(
    postgres: PostgresFactory, major: int
) -> None:
    server = postgres(major, {"max_wal_size": "32MB", "min_wal_size": "32MB"})
    now = 0.0
    slot = SourceSlot([server.conninfo()], SLOT, 10 * SEGMENT_BYTES, StopSignal(), lambda: now)
    assert not slot.step(0, 0)
    remote = flush_lsn(server)
    assert slot.step(remote, remote)
    assert restart_lsn(server) == remote
    write_segments(server, 6)
    assert oldest_segment(server) <= remote
    assert not slot.step(remote + 100, flush_lsn(server))  # not yet
    now += MOVE_SECONDS
    assert slot.step(remote + 100, flush_lsn(server))
    assert restart_lsn(server) == remote + 100
    # The bucket has stood still for long.
    write_segments(server, 8)
    received = flush_lsn(server)
    assert slot.step(remote + 100, received)
    assert restart_lsn(server) == received - 10 * SEGMENT_BYTES
    server.psql("checkpoint")
    assert oldest_segment(server) > remote
    assert slot.error == ""
    last = SourceSlot([server.conninfo()], SLOT, 0, StopSignal(), lambda: now)
    assert last.step(0, 0)
    assert server.sql("select * from pg_replication_slots") == []
    assert not last.step(0, 0)


def test_a_slot_that_the_source_gave_up_or_lost_is_made_again(postgres: PostgresFactory) -> None:
    size = "32MB"
    server = postgres(18, {"max_wal_size": size, "min_wal_size": size,
                           "max_slot_wal_keep_size": size})  # fmt: skip
    now = 0.0
    slot = SourceSlot([server.conninfo()], SLOT, 100 * SEGMENT_BYTES, StopSignal(), lambda: now)
    remote = flush_lsn(server)
    assert slot.step(remote, remote)
    write_segments(server, 6)
    state = "select wal_status from pg_replication_slots"
    assert server.sql(state) == [("lost",)]
    now += MOVE_SECONDS
    assert not slot.step(remote + 100, flush_lsn(server))  # where the bucket is, there is no WAL
    assert server.sql(state) == [("reserved",)]
    assert not slot.error
    server.psql("insert into t values (2)")
    server.sql(f"select pg_drop_replication_slot('{name_beside(SLOT)}')")
    for _ in range(2):  # it is made, and then moved
        server.psql("insert into t values (2)")
        now += MOVE_SECONDS
        caught_up = flush_lsn(server)
        slot.step(caught_up, caught_up)
    assert restart_lsn(server) == caught_up


def test_a_source_without_room_for_a_slot_is_told_once(
    postgres: PostgresFactory, caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres(18, {"max_replication_slots": "0"})
    now = 0.0
    slot = SourceSlot([server.conninfo()], SLOT, SEGMENT_BYTES, StopSignal(), lambda: now)
    remote = flush_lsn(server)
    for _ in range(3):
        assert not slot.step(remote, remote)
        now += MOVE_SECONDS
    assert slot.error
    tried_at = slot._tried_at
    now -= 1.0  # it is not asked every second for as long as that lasts
    assert not slot.step(remote, remote)
    assert slot._tried_at == tried_at
    assert len(caplog.records) == 1


def test_a_server_that_has_a_bucket_no_more_lets_the_slot_go(
    postgres: PostgresFactory, page_server: PageServerFactory
) -> None:
    """Nobody would move it: the primary would keep its WAL for ever."""
    primary = postgres(18)
    server = page_server(primary, "--slot", SLOT)
    server.wait_until_ready()
    server.stop()
    primary.sql(f"select pg_create_physical_replication_slot('{name_beside(SLOT)}', true)")
    binding.write(Storage(), server.data_dir, Binding("s3://bucket/prefix"))
    server.start()
    names = "select slot_name from pg_replication_slots"
    wait_until(lambda: primary.sql(names) == [(SLOT,)])
