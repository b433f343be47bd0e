"""A full disk at every call: the step fails, reads go on, and done again it finishes; a disk that
fails is another matter."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.disk_room import RESERVE_SHARE, DiskFullError, DiskRoom, is_full
from engine.errors import IngestStopped
from engine.index import Index, lmdb_errors
from engine.storage import Bytes, File, PoisonedFileError, Space, Storage
from tests.fixtures.small_store import OTHER, REL, SmallStore, flushed_and_not

MIB = 1 << 20


class FullStorage(Storage):
    """From the call numbered `fail_at` on, `times` calls that need room do half of their work and
    fail with `number`."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at = -1
        self.times = 1
        self.number = errno.ENOSPC
        self.free = 1 << 40

    def _count(self, path: Path, file: File | None = None, parts: Sequence[Bytes] = ()) -> None:
        self.calls += 1
        if 0 <= self.fail_at < self.calls <= self.fail_at + self.times:
            if file is not None:
                half = b"".join(parts)
                super().append(file, [half[: len(half) // 2]])
                file.is_poisoned = True
            raise OSError(self.number, os.strerror(self.number), str(path))

    def create(self, path: Path) -> File:
        self._count(path)
        return super().create(path)

    def append(self, file: File, parts: Sequence[Bytes]) -> None:
        self._count(file.path, file, parts)
        super().append(file, parts)

    def sync(self, file: File) -> None:
        self._count(file.path, file)
        super().sync(file)

    def sync_directory(self, path: Path) -> None:
        self._count(path)
        super().sync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count(target)
        super().rename(source, target)

    def space(self, path: Path) -> Space:
        return Space(self.free, 1 << 40)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def check(small: SmallStore, lsns: list[int]) -> None:
    assert [small.mark(0, lsn) for lsn in lsns] == [10, 10, 30]
    assert [small.store.nblocks(*REL, 0, lsn) for lsn in lsns] == [2, 6, 6]
    assert small.mark(5, lsns[2]) == 15
    assert [small.mark(3, lsn, OTHER) for lsn in lsns[:2]] == [13, 13]


def check_files(small: SmallStore) -> None:
    """The directory has what the manifest names, and the index is what a rebuild would make."""
    state = small.store.manifest.state
    assert {path.name for path in small.store.paths.layers.iterdir()} == {
        name.text for name in state.files
    }
    fresh = small.directory / "fresh"
    fresh.mkdir()
    rebuilt = Index(fresh)
    index_rebuild.catch_up(rebuilt, Storage(), state, small.store.paths.layers)
    ours, theirs = small.store.layers.index.dump(), rebuilt.dump()
    rebuilt.close()
    assert ours.pop("meta").keys() == theirs.pop("meta").keys()
    assert ours == theirs


def flush_step(small: SmallStore) -> OSError | None:
    try:
        assert small.store.flush_step()
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_flush_that_finds_no_room_is_done_again(tmp_path, times):
    """At every call that needs room, also if the next attempts, and the mending, find none."""
    call = 0
    while True:
        directory = tmp_path / str(call)
        directory.mkdir()
        storage = FullStorage()
        small, lsns = flushed_and_not(directory, storage)
        storage.fail_at, storage.times = storage.calls + call, times
        failures = 0
        small.store.freeze()
        while (error := flush_step(small)) is not None:
            assert is_full(error)
            assert small.store.durable_lsn == lsns[0]
            check(small, lsns)
            failures += 1
        storage.fail_at = -1
        assert small.store.durable_lsn == lsns[2]
        check(small, lsns)
        check_files(small)
        small.let_go()
        small.open()
        assert small.store.durable_lsn == lsns[2]
        check(small, lsns)
        small.let_go()
        if not failures:
            break
        call += 1
    assert call >= 6  # create, append, sync, directory; append and sync of the manifest


@pytest.mark.parametrize("killed", [False, True])
def test_an_index_without_room_is_caught_up(tmp_path, monkeypatch, killed):
    """The manifest has the bundle by then: it is not written twice."""
    small, lsns = flushed_and_not(tmp_path, Storage())
    real, bundles = Index.commit, len(list(small.store.paths.layers.iterdir()))

    def commit(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "index")

    monkeypatch.setattr(Index, "commit", commit)
    small.store.freeze()
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            small.store.flush_step()
        check(small, lsns)
    monkeypatch.setattr(Index, "commit", real)
    if killed:
        small.reopen()
        assert small.store.durable_lsn == lsns[2]
    else:
        assert small.store.flush_step()
        assert len(small.store.versions.layers._l0) == len(small.store.layers.index.l0())
    assert len(list(small.store.paths.layers.iterdir())) == bundles + 1
    check(small, lsns)
    check_files(small)
    small.let_go()


def test_no_room_in_lmdb_is_no_corruption(tmp_path):
    import lmdb

    with pytest.raises(OSError, match="No space left") as full, lmdb_errors(tmp_path):
        raise lmdb.DiskError("mdb_txn_commit: No space left on device")
    assert is_full(full.value)


@pytest.mark.parametrize("call", range(6))
def test_a_disk_that_fails_is_not_tried_again(tmp_path, call):
    """What the manifest has is not known: nothing is appended until a start has looked."""
    storage = FullStorage()
    small, lsns = flushed_and_not(tmp_path, storage)
    storage.fail_at, storage.number = storage.calls + call, errno.EIO
    small.store.freeze()
    with pytest.raises(OSError, match="Input/output error"):
        small.store.flush_step()
    check(small, lsns)
    if call >= 4:  # of the manifest
        for _ in range(2):
            with pytest.raises(PoisonedFileError):
                small.store.flush_step()
        assert small.store.durable_lsn == lsns[0]
    storage.fail_at = -1
    small.reopen()
    small.flush()
    check(small, lsns)
    assert small.store.durable_lsn == lsns[2]
    small.let_go()


def test_the_reserve_is_left_alone(tmp_path):
    storage = FullStorage()
    small, lsns = flushed_and_not(tmp_path, storage)
    storage.free = 200 * MIB
    small.store.freeze()
    with pytest.raises(DiskFullError, match=r"200\.0 MiB left, of which 256\.0 MiB are kept"):
        small.store.flush_step()
    assert small.store.wal_hold(1).state == "disk full"
    check(small, lsns)
    storage.free = 300 * MIB
    assert small.store.wal_hold(1) is None
    assert small.store.flush_step()
    check_files(small)
    small.let_go()


def test_a_small_file_system_has_a_small_reserve(tmp_path):
    class Small(Storage):
        def space(self, path: Path) -> Space:
            return Space(6 * MIB, 100 * MIB)

    room = DiskRoom(Small(), tmp_path, 256 * MIB)
    assert 100 // RESERVE_SHARE == 5
    assert not room.shortage(MIB)
    assert "5.0 MiB are kept" in room.shortage(MIB + 1)


def test_waiting_for_room_ends_when_it_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.disk_room.RETRY_SECONDS", 0.001)
    room, seen = DiskRoom(Storage(), tmp_path, 0), []

    def action() -> str:
        seen.append("" if room.problem is None else room.explain(room.problem))
        if len(seen) < 4:
            raise OSError(errno.ENOSPC, "No space left on device", "there")
        return "done"

    assert room.persist(action, lambda: False) == "done"
    assert seen[0] == ""
    assert "there: No space left on device: make room there" in seen[3]
    assert room.problem is None
    seen.clear()
    with pytest.raises(IngestStopped, match="disk full"):
        room.persist(action, lambda: len(seen) == 2)
    with pytest.raises(OSError, match="broken"):
        room.persist(lambda: (_ for _ in ()).throw(OSError(errno.EIO, "broken")), lambda: False)
