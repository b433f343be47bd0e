"""Points, leases and the horizon of a store: what they keep, what is refused, what a restart has.

The clock is a number. Nothing deletes here; that a read is refused is what is looked at.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from engine import index_rebuild
from engine.errors import RequestError
from engine.page_store import PageStore
from engine.retention import (
    HELD_MAX,
    LEASE_SECONDS_MAX,
    POSTGRES_EPOCH_SECONDS,
    Bounds,
    Retention,
)
from engine.storage import Storage
from formats.errors import CorruptionError
from formats.lsn import show
from formats.manifest_record import LeaseSet, PointSet
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.small_store import MEMORY_BYTES, REL, SmallStore, create, drop, image, truncate

NOW = 1_800_000_000.0
NOTHING_MORE = Bounds(0, 0)


def unknown(time: int) -> None:
    """No commit has a time."""


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


class Written:
    """A store with a relation whose block 0 changed five times; `lsns` are the ends."""

    def __init__(self, directory: Path, storage: Storage | None = None) -> None:
        self.small = SmallStore(directory, storage=storage)
        self.lsns = [self.small.put(create(), image(0, 1))]
        self.lsns += [self.small.put(image(0, mark)) for mark in range(2, 6)]
        self.small.flush()

    @property
    def retention(self) -> Retention:
        return self.small.store.retention

    def advance(self, to: int, now: float = NOW) -> bool:
        """A step that lets the horizon come as far as `to`."""
        bounds = Bounds(0, self.small.store.ready_lsn - to)
        return self.retention.step(now, bounds, unknown)

    def mark(self, number: int) -> int:
        """The page's mark at the end of its `number`th change."""
        return self.small.mark(0, self.lsns[number])

    def resolved(self, lsn: int) -> bool:
        """Whether a request at an LSN gets as far as the engine."""
        store = self.small.store
        return lsn >= store.horizon_lsn or store.is_retained(lsn)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as error:
        call()
    return str(error.value)


# What stays readable ------------------------------------------------------------------------------


def test_below_the_horizon_only_points_and_leases_are_read(written: Written) -> None:
    written.retention.create_lease(written.lsns[1], 60, NOW, "mine")
    written.retention.create_point("release", written.lsns[2])
    assert written.advance(written.lsns[3])
    assert [written.resolved(lsn) for lsn in written.lsns] == [False, True, True, True, True]
    assert not written.resolved(written.lsns[1] + 8)  # the same state, but not that LSN
    assert [written.mark(number) for number in (1, 2, 3, 4)] == [2, 3, 4, 5]
    with pytest.raises(LookupError, match="0/[0-9A-F]+ is below the horizon .*, the oldest LSN"):
        written.mark(0)
    retained = written.retention.retained()
    assert retained == (written.lsns[1:3], written.lsns[3])


def test_what_the_horizon_passed_while_it_was_read_is_refused(written: Written) -> None:
    """History, files and SLRUs as well: their layers may have gone by the time they were read."""
    small, store = written.small, written.small.store
    written.small.put(truncate(0), drop(REL))
    small.flush()
    before = written.lsns[2]
    assert store.nblocks(*REL, 0, before) == 1
    with store.versions.lock:
        store.versions.horizon_lsn = written.lsns[3]
    for read in (
        lambda: store.nblocks(*REL, 0, before),
        lambda: store.exists(*REL, 0, before),
        lambda: store.relations(before),
        lambda: store.db_size(5, before),
        lambda: store.file("global/pg_control", before),
        lambda: store.files(small.wal.start - 8),
    ):
        assert "is below the horizon" in refused(read)
    assert store.nblocks(*REL, 0, written.lsns[3]) == 1


def test_a_page_that_came_too_late_does_not_get_into_the_cache(written: Written) -> None:
    store = written.small.store
    written.small.reopen()
    store = written.small.store
    with store.versions.lock:
        store.versions.horizon_lsn = written.lsns[3]
    with pytest.raises(LookupError, match="below the horizon"):
        written.mark(1)
    assert store.versions.cache.hits == 0
    assert written.mark(3) == 4
    assert store.versions.cache.hits == 0


def test_a_lease_keeps_its_lsn_over_restarts(written: Written) -> None:
    written.retention.create_lease(written.lsns[0], 60, NOW, "mine")
    written.advance(written.lsns[2])
    written.small.reopen()
    assert written.small.store.horizon_lsn == written.lsns[2]
    assert [written.resolved(lsn) for lsn in written.lsns[:3]] == [True, False, True]
    assert written.mark(0) == 1
    assert not written.advance(0, NOW + 59)
    assert written.mark(0) == 1
    assert written.advance(0, NOW + 60)
    assert not written.resolved(written.lsns[0])
    assert written.retention.leases() == []
    written.small.reopen()
    assert not written.resolved(written.lsns[0])
    with pytest.raises(LookupError, match="below the horizon"):
        written.mark(0)


def test_renewed_leases_go_on(written: Written) -> None:
    lease = written.retention.create_lease(written.lsns[0], 60, NOW)
    assert lease.until_seconds == NOW + 60
    assert written.retention.renew_lease(lease.name, 10, NOW + 59.5).until_seconds == NOW + 70
    written.advance(written.lsns[2], NOW + 60)
    assert written.mark(0) == 1
    written.advance(0, NOW + 70)
    assert "no lease" in refused(lambda: written.retention.renew_lease(lease.name, 10, NOW + 70))


def test_what_is_kept_twice_stays_until_both_are_gone(written: Written) -> None:
    retention, lsn = written.retention, written.lsns[0]
    retention.create_point("a", lsn)
    written.advance(written.lsns[2])
    second = retention.create_lease(lsn, 60, NOW)  # below the horizon, but still kept
    retention.drop_point("a")
    assert written.mark(0) == 1
    retention.drop_lease(second.name)
    assert "below the horizon" in refused(lambda: retention.create_point("b", lsn))
    assert not written.resolved(lsn)


# What is refused ----------------------------------------------------------------------------------


def test_refusals_say_why(written: Written) -> None:
    retention, lsn = written.retention, written.lsns[0]
    retention.create_lease(lsn, 60, NOW, "l")
    retention.create_point("p", lsn)
    written.advance(written.lsns[2])
    oldest, ready = show(written.lsns[2]), show(written.small.store.ready_lsn)
    later = written.lsns[4] + 8
    for call, said in (
        (lambda: retention.create_point("q", lsn + 8), f"below the horizon {oldest}, the oldest"),
        (lambda: retention.create_lease(lsn + 8, 1, NOW), "exact LSNs of points and leases"),
        (lambda: retention.create_point("q", later), f"not ready yet: ready is {ready}"),
        (lambda: retention.create_lease(later, 1, NOW), f"not ready yet: ready is {ready}"),
        (lambda: retention.create_lease(lsn, 1, NOW, "l"), "a lease l already"),
        (lambda: retention.create_point("p", later), f"a point p already, at {show(lsn)}"),
        (lambda: retention.create_point("", lsn), "1 to 63 letters"),
        (lambda: retention.create_point("a b", lsn), "1 to 63 letters"),
        (lambda: retention.create_lease(lsn, 1, NOW, "x" * 64), "1 to 63 letters"),
        (lambda: retention.create_lease(lsn, 0, NOW), "more than 0"),
        (lambda: retention.create_lease(lsn, LEASE_SECONDS_MAX + 1, NOW), "366 days"),
        (lambda: retention.renew_lease("l", LEASE_SECONDS_MAX + 1, NOW), "366 days"),
        (lambda: retention.renew_lease("p", 1, NOW), "no lease p"),
        (lambda: retention.drop_lease("p"), "no lease p"),
        (lambda: retention.drop_point("l"), "no point l"),
    ):
        assert said in refused(call)
    assert retention.points() == [PointSet("p", lsn)]
    assert retention.leases() == [LeaseSet("l", lsn, int(NOW) + 60)]


def test_no_more_than_so_many_are_held(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.retention.HELD_MAX", 2)
    for name in "ab":
        written.retention.create_point(name, written.lsns[4])
        written.retention.create_lease(written.lsns[4], 60, NOW)
    assert "2 points" in refused(lambda: written.retention.create_point("c", written.lsns[4]))
    assert "2 leases" in refused(lambda: written.retention.create_lease(written.lsns[4], 1, NOW))
    assert HELD_MAX >= 1000


def test_before_the_base_backup_is_complete(tmp_path: Path) -> None:
    store = PageStore(tmp_path, MEMORY_BYTES)
    try:
        retention = store.retention
        assert not retention.step(NOW, NOTHING_MORE, unknown)
        for call in (
            retention.leases,
            retention.points,
            retention.retained,
            lambda: retention.create_point("a", 1),
            lambda: retention.create_lease(1, 1, NOW),
            lambda: retention.drop_lease("a"),
        ):
            assert refused(call) == "base backup not complete"
        assert retention.status() == {
            "horizon_held_by": None, "retained_lsn": None, "point_count": 0, "lease_count": 0
        }  # fmt: skip
    finally:
        store.close()


def test_names_that_are_made_up_never_come_again(written: Written) -> None:
    retention, lsn = written.retention, written.lsns[4]
    names = []
    for _ in range(3):
        names.append(retention.create_lease(lsn, 60, NOW).name)
        retention.drop_lease(names[-1])
    serial = written.small.store.manifest.state.serial
    retention.create_lease(lsn, 60, NOW, f"lease-{serial + 2}")
    names.append(retention.create_lease(lsn, 60, NOW).name)
    written.small.reopen()
    names.append(written.retention.create_lease(lsn, 60, NOW).name)
    assert len(set(names)) == 5 and f"lease-{serial + 2}" not in names


# The horizon --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "wal_bytes", "reaches", "held_by"),
    [
        (0, 0, 4, "flush"),  # the durable LSN, which the ready one is above
        (0, 1 << 40, None, "retention_wal_bytes"),
        (50, 0, 2, "retention_seconds"),
        (1000, 0, None, "retention_seconds"),
    ],
)
def test_where_the_horizon_goes(
    written: Written,
    seconds: float,
    wal_bytes: int,
    reaches: int | None,
    held_by: str,
) -> None:
    """Places are changes; fifty seconds ago, the third was the last."""
    asked = []

    def lsn_at(time: int) -> int | None:
        asked.append(time)
        return written.lsns[2] if seconds == 50 else None

    before = written.small.store.horizon_lsn
    written.small.put(image(0, 6))
    moved = written.retention.step(NOW, Bounds(seconds, wal_bytes), lsn_at)
    assert written.small.store.horizon_lsn == (before if reaches is None else written.lsns[reaches])
    assert moved is (reaches is not None)
    assert written.retention.status()["horizon_held_by"] == held_by
    if seconds:
        assert asked == [(int(NOW) - seconds - POSTGRES_EPOCH_SECONDS) * 1_000_000]
    assert not written.retention.step(NOW, Bounds(seconds, wal_bytes), lsn_at)


def test_the_horizon_keeps_its_distance_in_wal(written: Written) -> None:
    ready = written.small.store.ready_lsn
    written.retention.step(NOW, Bounds(0, ready - written.lsns[1]), unknown)
    assert written.small.store.horizon_lsn == written.lsns[1]


def test_the_horizon_never_goes_back(written: Written) -> None:
    written.advance(written.lsns[3])
    assert not written.retention.step(NOW, Bounds(0, 1 << 40), unknown)
    assert not written.advance(written.lsns[1])
    assert written.small.store.horizon_lsn == written.lsns[3]


def test_damaged_commit_times_hold_the_horizon(written: Written) -> None:
    def damaged(time: int) -> int | None:
        raise CorruptionError("frame checksum", "somewhere", 1, 2)

    before = written.small.store.horizon_lsn
    assert not written.retention.step(NOW, Bounds(1, 0), damaged)
    assert written.small.store.horizon_lsn == before
    assert "frame checksum" in str(written.retention.status()["horizon_held_by"])


def test_status_names_what_is_kept(written: Written) -> None:
    store = written.small.store
    written.retention.create_point("p", written.lsns[1])
    written.retention.create_lease(written.lsns[0], 60, NOW)
    assert store.status()["retained_lsn"] is None
    written.advance(written.lsns[2])
    status = store.status()
    assert status["horizon_lsn"] == show(written.lsns[2])
    assert status["retained_lsn"] == show(written.lsns[0])
    assert (status["point_count"], status["lease_count"]) == (1, 1)


def test_leases_beside_a_horizon_that_advances(written: Written) -> None:
    """What was granted stays, whoever came first."""
    small = written.small
    lsns = [small.put(image(0, mark)) for mark in range(6, 60)]
    small.flush()
    granted: list[tuple[int, int]] = []
    refusals: list[str] = []

    def lease() -> None:
        for number, lsn in enumerate(lsns):
            try:
                written.retention.create_lease(lsn, 60, NOW)
                granted.append((lsn, number + 6))
            except RequestError as error:
                refusals.append(str(error))

    threads = [threading.Thread(target=lease) for _ in range(2)]
    for thread in threads:
        thread.start()
    for lsn in lsns[::3]:
        written.advance(lsn)
    for thread in threads:
        thread.join()
    written.advance(1 << 40)
    assert granted
    assert all("below the horizon" in refusal for refusal in refusals)
    assert written.retention.retained().lsns == sorted({lsn for lsn, _ in granted})
    for lsn, mark in granted:
        assert small.mark(0, lsn) == mark


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_leaves_what_was_granted(fast_directory: Path, seed: int) -> None:
    """At each call of the disk: what a client or a reader was told before is still true."""
    crash_at = 0
    while True:
        storage, directory = FaultyStorage(), fast_directory / str(crash_at)
        directory.mkdir()
        written = Written(directory, storage)
        retention, lsns = written.retention, written.lsns
        granted: list[str] = []
        horizon = written.small.store.horizon_lsn
        storage.crash_at = storage.calls + crash_at
        try:
            for name, lsn in (("a", lsns[0]), ("b", lsns[1])):
                retention.create_lease(lsn, 60, NOW, name)
                granted.append(name)
            for number in (2, 3):
                written.advance(lsns[number], NOW + 1)
                horizon = written.small.store.horizon_lsn
        except CrashError:
            assert written.small.store.horizon_lsn == horizon
        else:
            storage.crash_at = -1
            break
        written.small.store.layers.index.close()
        storage.crash(Random(f"{seed} {crash_at}"))
        written.small.open(storage)
        assert written.small.store.horizon_lsn >= horizon
        assert set(granted) <= {lease.name for lease in written.retention.leases()}
        for number, name in enumerate("ab"):
            if name in granted:
                assert written.resolved(lsns[number]) and written.mark(number) == number + 1
        written.small.let_go()
        crash_at += 1
    assert crash_at == 10  # an append and a sync for each change; the index notes the leases
    written.small.let_go()
