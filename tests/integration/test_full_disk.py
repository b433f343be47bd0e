"""A disk that is full, for real: the server stays up, waits, and goes on by itself."""

import time
from collections.abc import Iterator

import pytest

from engine.index import Index
from engine.wal_intake import Limits
from formats.lsn import parse
from server.client import PageClient
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.small_disk import MIB, SmallDisk
from tests.fixtures.small_store import SmallStore, create, image
from tools.compare import compare
from tools.excuses import Rules
from tools.page_server import PageServer
from tools.postgres import Server
from tools.primary_wal import PrimaryWal

# Whatever would wait for us for long, as a WAL sender does for a silent standby, ends.
SETTINGS = {"wal_sender_timeout": "3s", "autovacuum": "off", "wal_keep_size": "1GB"}
SENDER = "SELECT pid FROM pg_stat_replication WHERE state <> 'backup'"


@pytest.fixture
def servers() -> Iterator[list[PageServer]]:
    started: list[PageServer] = []
    yield started
    for server in started:
        server.kill()


def state_of(server: PageServer) -> str:
    with server.client() as client:
        status = client.status()
    return f"{status['state']}: {status.get('error', '')}"


def wait_until_full(server: PageServer, disk: SmallDisk, leaving: int) -> str:
    """Compaction unlinks what it has merged: what that gives back is taken, too."""

    def is_full() -> bool:
        disk.fill(leaving)
        return state_of(server).startswith("disk full")

    wait_until(is_full, 30)
    return state_of(server)


def wait_for_state(server: PageServer, state: str) -> str:
    wait_until(lambda: state_of(server).startswith(state), 30)
    return state_of(server)


def insert_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def read_something(primary: Server, client: PageClient) -> None:
    """Pages at the newest LSN that there is."""
    (path,) = primary.sql("SELECT pg_relation_filepath('pgbench_branches')")[0]
    _, database, relation = path.split("/")
    lsn = parse(str(client.status()["ready_lsn"]))
    assert len(client.get_page(1663, int(database), int(relation), 0, 0, lsn)) == 8192


def assert_equal(primary: Server, server: PageServer) -> None:
    server.wait_until_ready(insert_lsn(primary))
    primary.stop()
    end = primary.shutdown_checkpoint_end()
    server.wait_until_ready(end)
    with server.client() as client:
        wal = PrimaryWal(primary.data_dir / "pg_wal")  # clients that begin at once race for hints
        result = compare(primary.data_dir, client, end, Rules("primary", wal=wal))
    assert [str(difference) for difference in result.differences] == []
    assert result.blocks_compared.total() > 1000


def start(servers: list[PageServer], disk: SmallDisk, primary: Server, *options) -> PageServer:
    server = PageServer(disk.path, primary.conninfo(), "--set", "flush_seconds_max=1", *options)
    servers.append(server)
    server.start()
    return server


def fill_and_empty(
    primary: Server, server: PageServer, disk: SmallDisk, leaving: int, seconds: int
) -> None:
    """It reads, and holds its connection, while there is no room; then it catches up."""
    wait_until(lambda: len(primary.sql(SENDER)) == 1)
    sender = primary.sql(SENDER)
    load = primary.start_pgbench("-n", "-T", str(seconds), "-c", "2")
    assert "make room there" in wait_until_full(server, disk, leaving)
    with server.client() as client:
        for _ in range(4 * seconds):
            read_something(primary, client)
            time.sleep(0.25)
    assert load.wait() == 0
    wait_until_full(server, disk, leaving)
    assert primary.sql(SENDER) == sender, "the source has lost us"
    disk.empty()
    wait_for_state(server, "streaming")
    server.wait_until_ready(insert_lsn(primary))


def test_it_waits_for_room_and_goes_on(postgres, small_disk, servers):
    """First with the base backup, then with WAL and layers, with a reserve and without."""
    disk = small_disk(160)
    primary = postgres(18, SETTINGS)
    primary.pgbench("-i", "-s", "1")
    disk.fill(leaving=10 * MIB)
    server = start(servers, disk, primary)
    wait_until(lambda: "waits for room" in server.log_tail())
    assert "make room there" in wait_for_state(server, "disk full")
    disk.empty()
    server.wait_until_ready(insert_lsn(primary))
    fill_and_empty(primary, server, disk, 9 * MIB, 4)
    assert server.stop() == 0
    server = start(servers, disk, primary, "--set", "disk_reserve_bytes=0")
    server.wait_until_ready(insert_lsn(primary))
    for leaving in (MIB, 0):
        fill_and_empty(primary, server, disk, leaving, 2)
    assert server.running
    assert_equal(primary, server)
    assert server.stop() == 0


def test_an_index_that_finds_no_room(small_disk, monkeypatch):
    """LMDB's own writes, where the bundle and the manifest have just taken the last of it."""
    disk = small_disk(64)
    small = SmallStore(disk.path, limits=Limits(disk_reserve_bytes=0))
    relations = [(1663, 5, 20_000 + i) for i in range(3000)]
    end = small.put(*(create(relation) for relation in relations), create(), image(0, 10))
    real = Index.commit

    def commit(index: Index, *arguments, **named) -> None:
        disk.fill(0)
        real(index, *arguments, **named)

    monkeypatch.setattr(Index, "commit", commit)
    small.store.freeze()
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            small.store.flush_step()
        assert small.mark(0, end) == 10
        assert small.store.durable_lsn < end
    monkeypatch.setattr(Index, "commit", real)
    disk.empty()
    assert small.store.flush_step()
    assert small.store.durable_lsn == end
    for _ in range(2):
        assert small.mark(0, end) == 10
        assert all(small.store.exists(*relation, 0, end) for relation in relations)
        small.reopen()
    small.let_go()
