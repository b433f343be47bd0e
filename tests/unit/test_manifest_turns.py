"""Who changes what the manifest says takes turns, and who reads it looks at the right moment."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.errors import RequestError
from engine.page_store import PageStore
from engine.retention import Bounds
from tests.fixtures.small_store import SmallStore, create, drop, image

NOW = 1_800_000_000.0
WAIT_SECONDS = 0.05

ACTIONS: dict[str, Callable[[PageStore], object]] = {
    "create point": lambda store: store.retention.create_point("new", store.ready_lsn),
    "drop point": lambda store: store.retention.drop_point("point"),
    "create lease": lambda store: store.retention.create_lease(store.ready_lsn, 9, NOW, "new"),
    "renew lease": lambda store: store.retention.renew_lease("lease", 90, NOW),
    "drop lease": lambda store: store.retention.drop_lease("lease"),
    "horizon": lambda store: store.retention.step(NOW, Bounds(0, 0), lambda time: None),
    "retained": lambda store: store.retention.retained(),
    "commit": lambda store: store.layers.commit(),
    "settle": lambda store: store.layers.settle(store.layers.map.l0[-1].reader.name),
    "mend": lambda store: store.layers.mend(),
    "unlink": lambda store: store.layers.unlink_step(),
    "compact": lambda store: store.layers.compact_manifest_if_worthwhile(),
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallStore]:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    small = SmallStore(tmp_path)
    small.put(create(), image(0, 1))
    small.flush()
    small.store.retention.create_point("point", small.store.ready_lsn)
    small.store.retention.create_lease(small.store.ready_lsn, 10, NOW, "lease")
    yield small
    small.let_go()


@pytest.mark.parametrize("action", ACTIONS)
def test_nobody_comes_into_a_commit(small: SmallStore, action: str) -> None:
    store = small.store
    thread = threading.Thread(target=lambda: ACTIONS[action](store))
    with store._committing:
        thread.start()
        thread.join(WAIT_SECONDS)
        assert thread.is_alive()
    thread.join()


def test_a_collector_waits_until_readers_know_the_horizon(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it lets go could still be asked for."""
    retention = small.store.retention
    publish, found, threads = retention.publish, list[int](), list[threading.Thread]()

    def collect() -> None:
        found.append(retention.retained().horizon_lsn)

    def publish_later() -> None:
        threads.append(threading.Thread(target=collect))
        threads[0].start()
        threads[0].join(WAIT_SECONDS)
        assert not found
        publish()

    monkeypatch.setattr(retention, "publish", publish_later)
    assert retention.step(NOW, Bounds(0, 0), lambda time: None)
    threads[0].join()
    assert found == [small.store.horizon_lsn] == [small.store.durable_lsn]


def test_a_lease_renewed_while_the_time_is_looked_up_stays(small: SmallStore) -> None:
    retention = small.store.retention
    now = NOW + 100

    def renew_first(time: int) -> None:
        retention.renew_lease("lease", 50, now)

    retention.step(now, Bounds(1, 0), renew_first)
    assert [lease.name for lease in retention.leases()] == ["lease"]


def test_a_horizon_that_comes_while_layers_are_read(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read may have gone by then: a page as well as a segment of an SLRU is refused."""
    before = small.put(image(0, 2), drop((1663, 5, 16385)))  # which is a commit
    small.put(image(0, 3))
    small.flush()
    small.reopen()
    layers = small.store.versions
    read, horizon = layers._finish, layers.horizon_lsn

    def read_late(*arguments: object) -> object:
        found = read(*arguments)
        with layers.lock:
            layers.horizon_lsn = layers.ready_lsn
        return found

    monkeypatch.setattr(layers, "_finish", read_late)
    with pytest.raises(LookupError, match="below the horizon"):
        small.page(0, before)
    layers.horizon_lsn = horizon
    with pytest.raises(RequestError, match="below the horizon"):
        layers.slru_segment(0, 0, before)
