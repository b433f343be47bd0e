"""A page store whose bundles are in a bucket: the same pages, the same index, and errors that pass
when the bucket does not answer."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.directory_check import check_directory
from engine.errors import DirectoryRefusedError, UnreachableError
from engine.lazy_storage import LazyStorage
from engine.page_store import PageStore
from engine.remote_blocks import QUIET_SECONDS
from engine.retention import KEEP_ALL
from engine.storage import Storage
from server.background import Background
from tests.fixtures.lazy_store import AwayStore, away, forget_frames, made, pages
from tests.fixtures.small_store import MEMORY_BYTES, REL, SMALL_POLICY, image, mark_of
from tests.unit.test_wal_ingest import copy_database

FLIP_EVERY = 331  # bytes


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AwayStore]:
    found = away(tmp_path)
    yield found
    found.small.let_go()


def outage(store: AwayStore) -> None:
    """What was read is forgotten, and from now on nothing answers."""
    store.files.is_down = True
    for source in store.storage._remote.values():
        store.storage.blocks.doubt(source, 0, source.size)
    store.small.store.layers.map._readers.clear()
    forget_frames(store.small.store.frames)
    store.small.store.layers.map.reload(store.small.store.layers.state.removed)


def test_every_page_is_that_of_the_original(store: AwayStore) -> None:
    kinds = {name.kind_text for name in store.small.store.layers.state.files}
    assert kinds == {"l0", "l1", "image"}
    assert not store.storage.bundles_here()
    assert pages(store.small, store.lsns) == store.expected
    assert any(isinstance(page, bytes) for page in store.expected.values())


def test_its_index_is_that_of_the_original(store: AwayStore, tmp_path: Path) -> None:
    lazy = store.small.store.layers.index.dump()
    store.small.let_go()
    store.small = made().copy(tmp_path / "original")
    shutil.rmtree(tmp_path / "original" / "index")
    store.small.open()
    local = store.small.store.layers.index.dump()
    state = lazy.pop("meta"), local.pop("meta")
    assert lazy == local
    assert state[0].keys() == state[1].keys()


def test_opening_asks_once_for_each_bundle(tmp_path: Path) -> None:
    """What the first pages need on top is a block each, if anything."""
    found = away(tmp_path, cache_blocks=1000)
    count = len(found.small.store.layers.state.files)
    assert count >= 5
    assert found.files.requests == count, "each is smaller than what is fetched of its end"
    found.small.let_go()


def test_it_goes_on_and_merges_what_is_away(store: AwayStore) -> None:
    small = store.small
    lsns = list(store.lsns)
    before = pages(small, lsns)
    for number in range(4):
        lsns.append(small.put(image(number, 1000 + number)))
        small.flush()
        small.compact(SMALL_POLICY)
    assert {key: page for key, page in pages(small, lsns).items() if key[-1] in store.lsns} == (
        before
    )
    assert store.storage.bundles_here()
    assert small.mark(3, lsns[-1]) == 1003
    small.reopen(LazyStorage(small.directory, store.files, 1 << 20))
    assert small.mark(3, lsns[-1]) == 1003
    assert {key: page for key, page in pages(small, lsns).items() if key[-1] in store.lsns} == (
        before
    )


def test_without_the_bucket_it_is_refused(store: AwayStore) -> None:
    small = store.small
    small.let_go()
    before = sorted(small.directory.rglob("*"))
    with pytest.raises(DirectoryRefusedError, match=r"bundles are only in the bucket.*--s3"):
        PageStore(small.directory, MEMORY_BYTES)
    assert sorted(small.directory.rglob("*")) == before
    small.open(store.storage)


def test_a_bucket_that_does_not_answer_is_an_error_of_the_read_alone(
    store: AwayStore, caplog: pytest.LogCaptureFixture
) -> None:
    small, now = store.small, 0.0
    store.storage.blocks._clock = lambda: now
    outage(store)
    with pytest.raises(LookupError, match="connection refused"):
        small.page(5, store.lsns[1])
    with pytest.raises(UnreachableError):
        small.store.file("global/pg_control", store.lsns[1])
    assert small.mark(3, store.lsns[-1]) == 77, "memory has it"
    store.files.is_down = False
    now += QUIET_SECONDS
    assert pages(small, store.lsns) == store.expected
    assert "damage" not in caplog.text


def test_a_flipped_byte_in_any_object_is_never_a_wrong_page(store: AwayStore) -> None:
    """At every so many bytes of every object: each page is right, or an error."""
    wrong = found = 0
    for name, data in sorted(store.files.objects.items()):
        for at in range(len(name) % FLIP_EVERY, len(data), FLIP_EVERY):
            store.files.objects[name] = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
            outage(store)
            store.files.is_down = False
            got = pages(store.small, store.lsns[::5])
            for key, page in got.items():
                if page != store.expected[key]:
                    found += 1
                    wrong += isinstance(page, bytes)
            store.files.objects[name] = data
    assert not wrong
    assert found > 10
    outage(store)
    store.files.is_down = False
    assert pages(store.small, store.lsns) == store.expected


def test_compaction_waits_for_the_bucket_and_takes_nothing_for_damaged(store: AwayStore) -> None:
    """It fails at each of its requests in turn, and goes on where it can."""
    small, now, failed = store.small, 0.0, 0
    store.storage.blocks._clock = lambda: now
    compactor = small.store.compactor
    assert compactor is not None
    compactor.policy = SMALL_POLICY
    small.put(image(1, 5))
    small.flush()
    small.advance_horizon(store.lsns[6])  # some of what lies below goes
    lsns = [*store.lsns[6:], small.store.ready_lsn]
    expected = pages(small, lsns)
    before = set(small.store.layers.state.files)
    allowed, left = 0, 0
    real = store.files.read

    def read(name: str, start: int, length: int) -> bytes:
        nonlocal left
        left -= 1
        store.files.is_down = left < 0
        return real(name, start, length)

    store.files.read = read
    while True:
        now += QUIET_SECONDS
        outage(store)
        left = allowed
        try:
            if not compactor.step():
                break
        except UnreachableError:
            failed += 1
            allowed += 1
            assert failed < 500
    assert failed > 5
    assert not compactor.damaged
    assert not small.store.layers.state.settled
    assert before - set(small.store.layers.state.files)
    left = 1 << 30
    assert pages(small, lsns) == expected
    small.compact(SMALL_POLICY)


def test_collection_takes_nothing_for_damaged(store: AwayStore) -> None:
    """Neither a layer that is to go nor a file that is to be rewritten."""
    small = store.small
    compactor = small.store.compactor
    assert compactor is not None
    collection, index = compactor._collection, small.store.layers.index
    stripes = {stripe: layers for stripe, layers in index.stripes_after(None, 10) if layers}
    assert stripes
    (file, *_) = {layer.file for layers in stripes.values() for layer in layers}
    outage(store)
    with pytest.raises(UnreachableError):
        collection._rows(stripes)
    with pytest.raises(UnreachableError):
        next(collection._rewrite(file))
    assert not compactor.damaged


def test_a_copy_of_a_database_waits_for_the_bucket(
    store: AwayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its pages would be unreadable for good."""
    small, now, waited = store.small, 0.0, []
    store.storage.blocks._clock = lambda: now

    def sleep(seconds: float) -> None:
        nonlocal now
        now += QUIET_SECONDS
        waited.append(str(small.store.intake.room.problem))
        store.files.is_down = len(waited) < 3

    monkeypatch.setattr("engine.disk_room.time.sleep", sleep)
    end = small.put(image(4, 44))
    small.flush()
    outage(store)
    copied = small.put(copy_database(5, 9))
    assert len(waited) == 3
    assert all("connection refused" in text for text in waited)
    there = (1663, 9, REL[2])
    for block in range(30):
        page = small.page(block, copied, there)
        assert mark_of(page) == small.mark(block, end)


def test_workers_wait_for_the_bucket_and_go_on(
    store: AwayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pageserver status` says what for; reads of what is here go on."""
    monkeypatch.setattr("server.background.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("engine.remote_blocks.QUIET_SECONDS", 0.01)
    small = store.small
    compactor = small.store.compactor
    assert compactor is not None
    compactor.policy = SMALL_POLICY
    end = small.put(image(1, 5), image(2, 6))
    small.flush()
    outage(store)
    background = Background(small.store, 3600.0, KEEP_ALL)
    background.start()
    try:
        wait_until(lambda: background.compaction.waits_for is not None)
        hold = background.find_hold()
        assert hold is not None
        assert hold.state == "bucket unreachable"
        assert "compaction: GET layers/" in hold.reason
        assert small.mark(3, end) == 77
        store.files.is_down = False
        wait_until(lambda: background.compaction.waits_for is None and compactor.state == "idle")
        assert background.find_hold() is None
        assert all(worker.error is None for worker in background.workers)
    finally:
        background.stop()
    assert not compactor.damaged
    assert pages(small, store.lsns) == store.expected


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_verify_says_what_it_does_not_check(store: AwayStore, tmp_path: Path) -> None:
    small = store.small
    end = small.put(image(1, 5))
    small.flush()
    small.let_go()
    work = tmp_path / "work"
    work.mkdir()
    findings = list(check_directory(Storage(), small.directory, work))
    assert not [finding for finding in findings if finding.is_fault]
    away = len(store.files.objects)
    assert f"{away} of {away + 1} bundles are only in the bucket" in findings[0].what
    (here,) = store.storage.bundles_here()
    content = (small.directory / "layers" / here.text).read_bytes()
    (small.directory / "layers" / here.text).write_bytes(content[:40] + b"?" + content[41:])
    assert any(f.is_fault for f in check_directory(Storage(), small.directory, work))
    (small.directory / "layers" / here.text).write_bytes(content)
    with pytest.raises(FileNotFoundError, match="remove the directory `index`"):
        index_rebuild.reindex(Storage(), small.directory)
    shutil.rmtree(small.directory / "index")
    small.open(store.storage)
    small.ingest()
    assert small.mark(1, end) == 5
