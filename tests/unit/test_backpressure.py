"""Who waits for whom: ingest for compaction, the source for the journal."""

import time
from pathlib import Path

import pytest

from engine import index_rebuild, page_store
from engine.backpressure import PAUSE_SECONDS_MAX, Backpressure, nothing_to_merge
from engine.compaction_policy import Policy
from engine.flush import PARTS_WHILE_BEHIND
from engine.retention import Bounds
from engine.wal_intake import JOURNAL_FULL, Limits
from server.background import SLOWED, WAITING, Background
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.small_store import SmallStore, create, image
from tests.fixtures.wal_builder import MIB, Record, Reference


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


class Debt:
    """Answers for a compactor that is behind, until it is told that it is not."""

    def __init__(self, l0_count: int) -> None:
        self.l0_count = l0_count

    def __call__(self) -> int:
        return self.l0_count


def test_ingest_slows_in_proportion() -> None:
    debt = Debt(0)
    pressure = Backpressure(debt, Policy(l0_bundles_behind=4, l0_bundles_wait=8))
    speeds = []
    for debt.l0_count in range(10):
        pause = pressure.pause_seconds(0.1)
        speeds.append(round(0.1 / (0.1 + pause), 3))
        assert pressure.is_behind == (debt.l0_count >= 4)
        assert pressure.must_wait == (debt.l0_count >= 8)
    assert speeds == [1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2]
    assert pressure.pause_seconds(60) == PAUSE_SECONDS_MAX
    assert "9 L0 bundles" in pressure.describe()
    assert "from 4 on and stops at 8" in pressure.describe()


def test_reads_have_room_for_bundles_until_they_are_merged() -> None:
    debt = Debt(0)
    pressure = Backpressure(debt, Policy(l0_bundles_merged_min=3))
    assert [pressure.has_room for debt.l0_count in range(5)] == [True, True, True, False, False]


def test_nobody_waits_where_nobody_compacts() -> None:
    pressure = Backpressure(nothing_to_merge)
    assert not pressure.is_behind and not pressure.must_wait
    assert pressure.pause_seconds(1.0) == 0


def wide(count: int) -> list[Record]:
    """Records of 60,000 bytes for one block each."""
    data = bytes(60_000)
    blocks = [Reference(0, (1663, 5, 16384), block) for block in range(count)]
    return [Record(10, 0x60, 7, data, [block]) for block in blocks]


def test_nothing_is_flushed_while_compaction_must_catch_up(tmp_path) -> None:
    """Memtables fill, ingest stops, reads go on; it all goes on by itself."""
    small = SmallStore(tmp_path)
    store, debt = small.store, Debt(99)
    store.backpressure = Backpressure(debt)
    first = small.put(create(), image(0, 10))
    small.add(*wide(4 * store.versions.memtable_bytes // 60_000))
    end = small.add(image(0, 20))
    small.receive()
    durable = store.durable_lsn
    background = Background(store, 0.1, Bounds(0, 1 << 62))
    background.start()
    try:
        wait_until(lambda: len(store.versions.frozen) == 2)
        assert background.find_hold().state == WAITING
        time.sleep(0.3)
        assert store.durable_lsn == durable
        assert small.mark(0, first) == 10
        debt.l0_count = 17
        wait_until(lambda: store.ready_lsn >= end)
        assert background.find_hold().state == SLOWED
        debt.l0_count = 0
        wait_until(lambda: store.durable_lsn >= end)
        assert background.find_hold() is None
        assert small.mark(0, end) == 20
    finally:
        background.stop()
    store.close()


@pytest.mark.parametrize(("l0_count", "is_frozen"), [(2, True), (3, False)])
def test_a_flush_begins_early_while_l0_has_room(
    tmp_path: Path, l0_count: int, is_frozen: bool
) -> None:
    """After a kill, many small bundles made reads look into one layer more than they should."""
    small = SmallStore(tmp_path)
    store = small.store
    store.backpressure = Backpressure(Debt(l0_count))
    part = store.versions.memtable_bytes // PARTS_WHILE_BEHIND
    small.put(create(), *wide(part // 60_000 + 1))
    assert store.versions.ingest.target.memtable.used >= part and not store.versions.frozen
    small.add(*wide((page_store.READ_BYTES + 2 * part) // 60_000))
    small.receive()
    store.ingest_step()
    assert bool(store.versions.frozen) == is_frozen
    small.let_go()


def test_a_slowed_ingest_rests_after_each_step(tmp_path, monkeypatch) -> None:
    small = SmallStore(tmp_path)
    small.store.backpressure = Backpressure(Debt(20))
    background, rests = Background(small.store, 3600, Bounds(0, 1 << 62)), []
    monkeypatch.setattr(background.ingest, "rest", rests.append)
    small.add(create(), image(0, 10))
    small.receive()
    assert background._ingest_step()
    assert not background._ingest_step()
    assert len(rests) == 1
    assert rests[0] > 0
    small.let_go()


def test_the_journal_has_a_bound(tmp_path) -> None:
    """It counts what is not in layers; without anything to flush only more WAL can help."""
    small = SmallStore(tmp_path, limits=Limits(journal_bytes_max=2 * MIB))
    store = small.store
    assert store.wal_hold(100 * MIB) is None
    small.put(create(), *wide(20))
    assert store.wal_hold(MIB // 2) is None
    small.add(*wide(20))
    small.receive()
    hold = store.wal_hold(1)
    assert hold.state == JOURNAL_FULL
    assert "journal_bytes_max is 2097152" in hold.reason
    assert store.intake.is_journal_full
    small.ingest()
    assert store.wal_hold(1) is not None
    background = Background(store, 3600, Bounds(0, 1 << 62))
    background.start()
    try:  # the flush does not wait for its time
        wait_until(lambda: store.durable_lsn == store.ready_lsn)
    finally:
        background.stop()
    assert store.wal_hold(1) is None
    assert not store.intake.is_journal_full
    store.close()
