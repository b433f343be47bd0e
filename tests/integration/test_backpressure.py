"""Compaction that does not come: the source keeps its WAL, and all goes on when it does."""

import time
from pathlib import Path

import pytest

from engine.backpressure import Backpressure
from engine.wal_intake import Limits
from formats.lsn import parse
from server import serve
from server.client import PageClient, PageServerError
from server.config import MIB, Settings
from server.serve import ServeOptions
from tests.fixtures.fake_ingest import wait_until
from tools.compare import compare
from tools.excuses import Rules
from tools.postgres import Server

SENDER = "SELECT pid FROM pg_stat_replication WHERE state = 'streaming'"
SLOTS = "SELECT wal_status, invalidation_reason FROM pg_replication_slots"


class Behind:
    """A compactor that does nothing until it is told."""

    l0_count = 0

    def __call__(self) -> int:
        return self.l0_count


class Running:
    """A page server in this process, whose compactor is ours."""

    def __init__(self, directory: Path, primary: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        # Below what a setting may be, so that little WAL is much.
        monkeypatch.setattr(serve, "Limits", lambda *_: Limits(4 * MIB, 0))
        settings = Settings(memory_bytes_max=64 * MIB, flush_seconds_max=0.5, wait_lsn_timeout=0.3)
        options = ServeOptions(
            directory, (primary.conninfo(),), None, None, None, None, None, ("127.0.0.1", 0)
        )
        self.server = serve.Server(options, settings)
        self.debt = Behind()
        self.server.start()
        listener = self.server._service._listener
        assert listener is not None
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        wait_until(lambda: self.status()["ready_lsn"] and self.status()["state"] == "streaming")
        self.server._store.backpressure = Backpressure(self.debt)

    def status(self) -> dict[str, object]:
        with PageClient(self.address) as client:
            return client.status()

    def ready_lsn(self) -> int:
        return parse(str(self.status()["ready_lsn"]))


def flush_lsn(primary: Server) -> int:
    return parse(primary.sql("SELECT pg_current_wal_flush_lsn()")[0][0])


def relation(primary: Server) -> tuple[int, int]:
    (path,) = primary.sql("SELECT pg_relation_filepath('t')")[0]
    _, database, number = path.split("/")
    return int(database), int(number)


def write_much(primary: Server, rows: int = 60_000) -> None:
    """About 9 MB of WAL."""
    primary.sql(f"INSERT INTO t SELECT g, repeat('x', 100) FROM generate_series(1, {rows}) g")


def test_the_source_keeps_the_wal_and_all_goes_on(postgres, tmp_path, monkeypatch):
    primary = postgres(18, {"wal_sender_timeout": "2s", "autovacuum": "off"})
    primary.sql("CREATE TABLE t(a int, b text)")
    running = Running(tmp_path / "pages", primary, monkeypatch)
    try:
        sender = primary.sql(SENDER)
        running.debt.l0_count = 17
        wait_until(lambda: running.status()["state"] == "slowed: compaction is behind")
        running.debt.l0_count = 24
        wait_until(lambda: running.status()["state"] == "waiting for compaction")
        for _ in range(3):
            write_much(primary)
        wait_until(lambda: running.status()["state"] == "journal full: source keeps WAL")
        status = running.status()
        assert "journal_bytes_max is 4194304" in str(status["error"])
        not_in_layers = parse(str(status["received_lsn"])) - parse(str(status["durable_lsn"]))
        assert not_in_layers <= 4 * MIB
        # Its segment, and one that ends where the durable LSN stands, behind a page header.
        assert status["journal_bytes"] <= 4 * MIB + (16 << 20) + 8192
        held, database_and_number = running.ready_lsn(), relation(primary)
        wanted = flush_lsn(primary)
        with PageClient(running.address) as client:
            for _ in range(12):  # longer than the source waits for a silent standby
                assert len(client.get_page(1663, *database_and_number, 0, 0, held)) == 8192
                time.sleep(0.25)
            with pytest.raises(PageServerError) as late:
                client.get_page(1663, *database_and_number, 0, 0, wanted)
        assert "was not ready within 0.3 s: ready is" in str(late.value)
        assert "state: journal full: source keeps WAL" in str(late.value)
        assert primary.sql(SENDER) == sender
        assert running.ready_lsn() < wanted
        running.debt.l0_count = 0
        wait_until(lambda: running.ready_lsn() >= wanted)
        wait_until(lambda: running.status()["state"] == "streaming")
        primary.stop()
        end = primary.shutdown_checkpoint_end()
        wait_until(lambda: running.ready_lsn() >= end)
        with PageClient(running.address) as client:
            result = compare(primary.data_dir, client, end, Rules("primary"))
        assert [str(difference) for difference in result.differences] == []
    finally:
        running.server.stop()


def test_a_source_that_gives_the_slot_up_meanwhile(postgres, tmp_path, monkeypatch):
    """Its checkpoint waits for a WAL sender that nobody reads from, but not for ever."""
    monkeypatch.setattr("server.wal_stream.HELD_SECONDS_MAX", 3.0)
    primary = postgres(
        18,
        {"max_slot_wal_keep_size": "16MB", "max_wal_size": "32MB", "min_wal_size": "32MB",
         "autovacuum": "off"},
    )  # fmt: skip
    primary.sql("CREATE TABLE t(a int, b text)")
    running = Running(tmp_path / "pages", primary, monkeypatch)
    try:
        running.debt.l0_count = 24
        wait_until(lambda: running.status()["state"] == "waiting for compaction")
        for _ in range(8):
            write_much(primary)
        primary.sql("CHECKPOINT")
        wait_until(lambda: primary.sql(SLOTS)[0][0] == "lost")
        wait_until(lambda: running.status()["state"] == "refused")
        assert "max_slot_wal_keep_size" in str(running.status()["error"])
    finally:
        running.server.stop()
