"""Beginning on an empty directory with what a bucket has: the epoch first, then the state."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from engine import index_rebuild
from engine.block_cache import BLOCK_BYTES
from engine.lazy_storage import LazyStorage
from engine.page_store import PageStore
from engine.storage import Storage
from formats.bucket import HistoryAdded, entry_name
from server.backup import lazy_start
from server.backup.bucket_files import BucketFiles
from server.backup.bucket_manifest import BucketManifest, FencedError
from server.backup.lazy_start import begin_from_bucket, is_empty
from server.backup.object_store import RefusedError, TransientError
from server.backup.restore import restore
from server.backup.restore_plan import RestoreRefusedError
from tests.fixtures.bucket_shipping import SERVER_ID
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket
from tests.fixtures.restore_source import URL, Source
from tests.fixtures.small_store import MEMORY_BYTES

HISTORY = b"1\t0/1\tno reason\n"


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@pytest.fixture
def bucket(saved: Source) -> MemoryBucket:
    """A copy of it, which may change."""
    contents = Contents()
    contents.objects = dict(saved.bucket.objects)
    return MemoryBucket(contents)


def begin(bucket: MemoryBucket, directory: Path, storage: Storage | None = None) -> bool:
    return begin_from_bucket(bucket, directory, storage or Storage(), URL, sleep=lambda _: None)


def chain_of(bucket: MemoryBucket) -> BucketManifest:
    chain = BucketManifest(bucket, lambda: 0.0)
    chain.read()
    return chain


def opened(bucket: MemoryBucket, directory: Path) -> PageStore:
    """With a cache of two blocks."""
    storage = LazyStorage(directory, BucketFiles(bucket), 2 * BLOCK_BYTES)
    store = PageStore(directory, MEMORY_BYTES, storage)
    while store.ingest_step():
        pass
    return store


def test_every_page_from_the_bucket_alone(
    bucket: MemoryBucket, saved: Source, tmp_path: Path
) -> None:
    """At the remote LSN and at every retained one, and nobody else writes there any more."""
    old = chain_of(bucket)
    old.take_epoch("old", SERVER_ID)
    directory = tmp_path / "new"
    assert begin(bucket, directory)
    with pytest.raises(FencedError):
        old.append(HistoryAdded(1, HISTORY))
    state = chain_of(bucket).state
    assert (state.epoch, state.server_id) == (3, SERVER_ID)
    assert not list((directory / "layers").iterdir())
    assert not is_empty(Storage(), directory)
    store = opened(bucket, directory)
    saved.check(store)
    store.close()


def test_a_bucket_without_a_backup_is_left_alone(tmp_path: Path) -> None:
    bucket = MemoryBucket()
    assert not begin(bucket, tmp_path / "new")
    assert not bucket.objects
    assert not (tmp_path / "new").exists()


def test_a_store_that_cannot_keep_writers_apart_gets_no_epoch(
    bucket: MemoryBucket, tmp_path: Path
) -> None:
    def refuse(nonce: str) -> None:
        raise RefusedError("ignores If-None-Match")

    before = dict(bucket.objects)
    with pytest.raises(RefusedError):
        begin_from_bucket(bucket, tmp_path / "new", Storage(), URL, check=refuse)
    assert bucket.objects == before
    assert not (tmp_path / "new").exists()


def test_who_cannot_begin_here_takes_the_bucket_from_nobody(
    bucket: MemoryBucket, tmp_path: Path
) -> None:
    """The server that writes there goes on."""
    old = chain_of(bucket)
    old.take_epoch("old", SERVER_ID)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    with pytest.raises(RestoreRefusedError, match="is not empty: it has notes"):
        begin(bucket, tmp_path / "other")
    bucket.fail("get", Fault.BEFORE, name="layers/", times=100)
    with pytest.raises(TransientError):
        restore(bucket, tmp_path / "begun", Storage(), URL, sleep=lambda _: None)
    with pytest.raises(RestoreRefusedError, match="has an unfinished restore"):
        begin(bucket, tmp_path / "begun")
    assert old.append(HistoryAdded(1, HISTORY))


def test_who_stands_still_for_long_takes_no_epoch_on_what_it_knows(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the next entry was another's by then, and was deleted: the setting says when."""
    now = 0.0
    monkeypatch.setattr(lazy_start, "boottime", lambda: now)

    def stand_still(nonce: str) -> None:
        nonlocal now
        now += 60.0
        old = chain_of(bucket)
        name = entry_name(old.state.serial + 1)
        old.take_epoch("old", SERVER_ID)
        while not old.write_snapshot_if_worthwhile():
            old.append(HistoryAdded(1, HISTORY))
        del bucket.objects[name]

    begin_from_bucket(bucket, tmp_path / "new", Storage(), URL, grace_seconds=100.0,
                      check=stand_still, sleep=lambda _: None)  # fmt: skip
    state = chain_of(bucket).state
    assert state.epoch == 3
    assert state.nonce != "old"


def test_what_another_appends_meanwhile_comes_too(
    bucket: MemoryBucket, saved: Source, tmp_path: Path
) -> None:
    """The old server writes until the very moment at which it is fenced."""
    old = chain_of(bucket)
    old.take_epoch("old", SERVER_ID)
    moments: Iterator[bytes] = iter([HISTORY, HISTORY + b"#"])

    def interfere(where: str) -> None:
        if where.startswith("put_new manifest/") and not where.endswith("answer"):
            bucket.pause = lambda where: None
            old.append(HistoryAdded(7, next(moments)))

    bucket.pause = interfere
    assert begin(bucket, tmp_path / "new")
    assert chain_of(bucket).state.histories[7] == HISTORY
    store = opened(bucket, tmp_path / "new")
    saved.check(store)
    store.close()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.LATE, Fault.TWICE])
@pytest.mark.parametrize("call", ["put_new", "get", "list"])
def test_a_request_that_fails_is_sent_again(
    bucket: MemoryBucket, saved: Source, tmp_path: Path, call: str, fault: Fault
) -> None:
    bucket.fail(call, fault, times=2)
    assert begin(bucket, tmp_path / "new")
    while bucket.contents.late:
        bucket.contents.deliver_late()
    store = opened(bucket, tmp_path / "new")
    assert store.ready_lsn == saved.end
    store.close()


def test_a_bucket_that_stays_away_leaves_nothing(bucket: MemoryBucket, tmp_path: Path) -> None:
    bucket.choose_fault = lambda call, name: Fault.BEFORE
    with pytest.raises(TransientError):
        begin(bucket, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_machine_dies_at_any_call(bucket: MemoryBucket, saved: Source, tmp_path: Path) -> None:
    """The next start goes on, whatever the disk has of the first."""
    ended = False
    for call in range(0, 200, 3):
        directory = tmp_path / str(call)
        storage = FaultyStorage()
        storage.crash_at = storage.calls + call
        try:
            begin(bucket, directory, storage)
            ended = True
        except CrashError:
            pass
        storage.crash(Random(call))
        if is_empty(storage, directory):
            assert begin(bucket, directory, storage)
        store = opened(bucket, directory)
        assert store.ready_lsn == saved.end
        store.close()
        if ended:
            break
    assert ended
    assert call > 20
