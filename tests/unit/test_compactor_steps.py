"""Compaction step by step: what reads see between two steps, and what a failed one leaves."""

import errno
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.compaction_policy import Policy
from engine.retention import Bounds
from formats.file_name import FileKind
from tests.fixtures.small_store import REL, SmallStore, create, drop, image, insert, truncate

OTHER = (1663, 5, 16385)
EAGER = Policy(l0_bundles_merged_min=4, debt_bytes_min=1, debt_per_image_byte=0.01,
               own_file_bytes_min=1)  # fmt: skip
NO_L0 = Policy(l0_bundles_merged_min=100, debt_bytes_min=1, debt_per_image_byte=0.01)
STEPS_MAX = 300


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallStore]:
    small = SmallStore(tmp_path)
    yield small
    small.let_go()


def steps(small: SmallStore, policy: Policy = EAGER) -> Iterator[None]:
    """Compaction, until there is nothing to do; gives way after each step."""
    compactor = small.store.compactor
    assert compactor is not None
    compactor.policy = policy
    for _ in range(STEPS_MAX):
        if not compactor.step():
            return
        yield
    raise AssertionError("compaction comes to no end")


def compact(small: SmallStore, policy: Policy = EAGER) -> None:
    for _ in steps(small, policy):
        pass


def advance_horizon(small: SmallStore) -> None:
    durable = small.store.durable_lsn
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    assert small.store.horizon_lsn == durable


def content(small: SmallStore, relation: tuple[int, int, int] = REL) -> bytes:
    """Block 0 as it is, made anew: the page cache does not know of it."""
    lsn = small.store.ready_lsn
    return small.store.versions.read_relation(*relation, 0, 0, 1, lsn)


def inserts(small: SmallStore, count: int, first: int = 1) -> None:
    """So many flushes of one tuple each in block 0 of REL."""
    for number in range(first, first + count):
        small.put(insert(0, number, b"row %d" % number, init=number == 1))
        small.flush()


def test_every_step_of_a_merge_leaves_reads_as_they_were(small: SmallStore) -> None:
    """A bundle of L0 that lost all its layers must not go before the older ones."""
    small.put(create(), create(OTHER), insert(0, 1, b"row 1", OTHER, init=True))
    inserts(small, 2)
    small.put(insert(0, 2, b"row 2", OTHER))
    inserts(small, 2, first=3)
    expected = [content(small), content(small, OTHER)]
    seen = 0
    for _ in steps(small):
        assert [content(small), content(small, OTHER)] == expected
        seen += 1
    assert seen > 4
    assert small.store.layers.map.l0_count == 0


@pytest.mark.parametrize("at", range(9))
def test_a_kill_between_the_steps_of_a_merge(small: SmallStore, at: int) -> None:
    """What is left of L0 then, images and collection know nothing of it."""
    small.put(create(), create(OTHER), insert(0, 1, b"row 1", OTHER, init=True))
    inserts(small, 2)
    small.put(insert(0, 2, b"row 2", OTHER))
    inserts(small, 2, first=3)
    expected = [content(small), content(small, OTHER)]
    for _ in zip(range(at), steps(small), strict=False):
        pass
    small.reopen()
    assert [content(small), content(small, OTHER)] == expected
    advance_horizon(small)
    compact(small, NO_L0)
    small.put(image(7, 17, OTHER))
    small.flush()
    advance_horizon(small)
    compact(small, NO_L0)
    assert [content(small), content(small, OTHER)] == expected
    compact(small)
    assert [content(small), content(small, OTHER)] == expected


def test_an_image_at_the_horizon_waits_for_what_is_in_l0_below_it(small: SmallStore) -> None:
    """Reads take from L0 first, and the rest from below that, not from an image above it."""
    small.put(create(), create(OTHER))
    inserts(small, 4)
    compact(small, Policy(l0_bundles_merged_min=4))
    inserts(small, 1, first=5)
    for mark in (1, 2):
        small.put(image(0, mark, OTHER))
        small.flush()
        expected = content(small)
        advance_horizon(small)
        compact(small)
        assert content(small) == expected


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_image_stays_if_its_commit_fails(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The manifest may name it already."""
    small.put(create())
    inserts(small, 4)
    commit = small.store.layers.index.commit
    expected = content(small)

    def refuse(serial: int, durable_lsn: int, added=(), *others: object) -> None:
        added = list(added)
        if any(bundle.name.kind == FileKind.IMAGE for bundle in added):
            raise error
        commit(serial, durable_lsn, added, *others)

    with monkeypatch.context() as patch:
        patch.setattr(small.store.layers.index, "commit", refuse)
        with pytest.raises(type(error)):
            compact(small)
    manifest, index = small.store.manifest, small.store.layers.index
    assert any(name.kind == FileKind.IMAGE for name in manifest.state.files)
    small.store.layers.mend()
    assert index.state.serial == manifest.state.serial
    assert content(small) == expected
    small.reopen()
    assert content(small) == expected
    compact(small)
    assert content(small) == expected


def busy_reader(small: SmallStore) -> Callable[[], None]:
    """Somebody who reads layers, and does not end before the answer is called."""
    layers = small.store.layers.map
    epoch = layers._enter()
    return lambda: layers._leave(epoch)


def test_a_merge_while_a_collection_waits_for_readers(small: SmallStore) -> None:
    """It takes layers that are to be removed, and their bundles go; the collection goes on."""
    policy = Policy(l0_bundles_merged_min=4, layers_max=1, own_file_bytes_min=1)
    small.put(create())
    inserts(small, 4)
    compact(small, policy)
    small.put(truncate(0), insert(0, 1, b"new", init=True))
    small.flush()
    advance_horizon(small)
    leave = busy_reader(small)
    compact(small, policy)  # until it waits
    for number in (2, 3, 4):
        small.put(insert(0, number, b"new"))
        small.flush()
    expected = content(small)
    assert small.store.compactor is not None
    for _ in range(60):
        small.store.compactor.step()
    assert small.store.layers.map.l0_count == 0
    leave()
    compact(small, policy)
    assert content(small) == expected
    assert not small.store.compactor.damaged  # what has gone is not taken for damage


def test_a_stripe_that_loses_its_last_layer_while_it_is_looked_up(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between LMDB's commit and what memory says of it: no damage, no layers."""
    small.put(create())
    inserts(small, 4)
    compact(small)
    small.put(drop(REL))
    small.flush()
    inserts_of_other(small, 3)
    index = small.store.layers.index
    found: list[object] = []
    key = next(key for key, _ in index._items(b"layers"))[:-4]
    get = index._get

    def look_up(database: bytes, name: bytes) -> bytes | None:
        return get(database, name)

    def read() -> None:
        try:
            found.append(index.stripe(key, 0))
        except Exception as error:  # noqa: BLE001  (the test says what it was)
            found.append(error)

    monkeypatch.setattr(index, "_get", look_up)
    lmdb_commit = index._committing
    threads: list[threading.Thread] = []

    class Committing:
        """A reader comes just when LMDB has committed."""

        def __init__(self, path: Path) -> None:
            self._inner = lmdb_commit(path)

        def __enter__(self) -> None:
            self._inner.__enter__()

        def __exit__(self, *reason: object) -> None:
            self._inner.__exit__(*reason)
            threads.append(threading.Thread(target=read))
            threads[-1].start()
            threads[-1].join(0.05)

    monkeypatch.setattr(index, "_committing", Committing)
    advance_horizon(small)
    compact(small)
    for thread in threads:
        thread.join()
    assert found[-1] == ()
    assert not [item for item in found if isinstance(item, Exception)]


def inserts_of_other(small: SmallStore, count: int) -> None:
    small.put(create(OTHER))
    for number in range(count):
        small.put(image(0, number, OTHER))
        small.flush()


def test_what_was_mostly_dead_before_a_start_is_rewritten(small: SmallStore) -> None:
    small.put(create(), create(OTHER), image(0, 1, OTHER), *(image(n, n) for n in range(200)))
    small.flush()
    small.put(image(0, 2, OTHER))
    small.flush()
    policy = Policy(l0_bundles_merged_min=2)
    compact(small, policy)
    small.put(drop(REL))
    small.flush()
    advance_horizon(small)
    for _ in steps(small, policy):
        if removed := set(small.store.manifest.state.removed):
            break
    small.reopen()
    compact(small, policy)
    assert not removed & set(small.store.manifest.state.files)
    assert small.mark(0, small.store.ready_lsn, OTHER) == 2
