"""A bucket becomes a directory again: every answer, every refusal, every way to be cut off."""

import contextlib
import errno
import random
from pathlib import Path

import pytest

from engine import index_rebuild, server_id
from engine.errors import DirectoryRefusedError, RequestError
from engine.storage import File, Space, Storage
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from server.backup import binding
from server.backup.object_store import TransientError
from server.backup.restore_plan import RestoreRefusedError
from server.backup.restore_target import read_mark, refuse_unfinished
from tests.fixtures.bucket_shipping import SERVER_ID, Shipper, files_of
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.memory_bucket import Fault, MemoryBucket
from tests.fixtures.restore_source import URL, Source, bring, opened
from tests.fixtures.small_store import SMALL_POLICY, SmallStore, create, image
from tests.fixtures.store_answers import answers
from tests.fixtures.store_history import RELATIONS


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def test_a_whole_restore_answers_all_and_goes_on(saved: Source, tmp_path: Path) -> None:
    done = bring(saved.bucket, tmp_path / "new")
    assert done is not None
    assert (done.files, done.files_kept) == (len(done.plan.files), 0)
    assert done.bytes > sum(file.bytes_total for file in done.plan.files)
    assert done.state.remote_lsn == saved.end
    storage, directory = Storage(), tmp_path / "new"
    assert f"{server_id.read(storage, directory):08x}" == SERVER_ID
    store = opened(directory)
    saved.check(store)
    # It is the successor of the one that was lost, whatever of an epoch it has taken by now.
    bound = binding.read(storage, directory, URL)
    bound.check(done.state, store.manifest.state)
    assert store.manifest.state.serial > done.state.local_serial
    assert not store.manifest.state.uploaded  # all is here, whatever becomes of the bucket
    assert store.manifest.state.run == done.state.manifest.run + 1
    store.close()


def test_as_of_any_lsn_it_answers_as_the_lost_one_did(saved: Source, tmp_path: Path) -> None:
    chosen = {saved.held, saved.horizon, saved.durable}
    chosen |= set(random.Random(2).sample(sorted(saved.answers), 3))
    for lsn in sorted(chosen - {saved.end}):
        directory = tmp_path / f"{lsn:x}"
        done = bring(saved.bucket, directory, lsn=lsn)
        assert done is not None and done.is_part
        assert all(file.lsn_start <= lsn for file in done.plan.files)
        assert not binding.exists(Storage(), directory)  # it never writes to the bucket
        store = opened(directory)
        saved.check(store, lsn)
        with pytest.raises(RequestError, match="not ready yet"):  # nothing above it is there
            store.retention.create_point("x", lsn + 8)
        store.close()


REFUSALS = [
    (lambda saved: saved.end + 8, "above the remote LSN"),
    (lambda saved: saved.horizon - 8, "below the horizon"),
    (lambda saved: saved.held - 8, "below the horizon"),
]


@pytest.mark.parametrize(("lsn_of", "why"), REFUSALS)
def test_an_lsn_that_is_not_there_is_refused_with_those_that_are(
    saved: Source, tmp_path: Path, lsn_of, why: str
) -> None:
    lsn = lsn_of(saved)
    with pytest.raises(RestoreRefusedError) as refused:
        bring(saved.bucket, tmp_path / "new", lsn=lsn)
    text = str(refused.value)
    assert f"the state at {show_lsn(lsn)} is not in the bucket: it is {why}" in text
    choices = f"any LSN from {show_lsn(saved.horizon)} to {show_lsn(saved.end)}, "
    assert choices + f"{show_lsn(saved.held)} of point held" in text
    assert not (tmp_path / "new").exists()


def test_the_newest_lsn_is_no_part_of_the_bucket(saved: Source, tmp_path: Path) -> None:
    done = bring(saved.bucket, tmp_path / "new", lsn=saved.end)
    assert done is not None and not done.is_part
    assert binding.exists(Storage(), tmp_path / "new")


def test_an_empty_bucket_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(RestoreRefusedError, match="there is no backup yet"):
        bring(MemoryBucket(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_directory_with_anything_in_it_is_refused(saved: Source, tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").touch()
    requests = saved.bucket.requests.total()
    with pytest.raises(RestoreRefusedError, match="is not empty: it has PG_VERSION"):
        bring(saved.bucket, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["PG_VERSION"]
    assert saved.bucket.requests.total() == requests
    (tmp_path / "PG_VERSION").unlink()
    (tmp_path / "pageserver.toml").touch()
    assert bring(saved.bucket, tmp_path) is not None


class Full(Storage):
    def space(self, path: Path) -> Space:
        return Space(64 << 20, 1 << 40)


def test_a_disk_without_room_is_found_before_anything_comes(saved: Source, tmp_path: Path) -> None:
    saved.bucket.requests.clear()
    with pytest.raises(RestoreRefusedError, match="64 MiB free, and .* are needed: .* of WAL"):
        bring(saved.bucket, tmp_path / "new", storage=Full())
    assert not list((tmp_path / "new" / "layers").iterdir())


# Cut off ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """kill -9, as far as one process can see it."""


class Dying(Storage):
    """Ends the process at the n-th change of the disk; what was written stays."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def _count(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            raise Killed

    def append(self, file: File, parts) -> None:
        self._count()
        super().append(file, [bytes(part)[: len(part) // 2] for part in parts][:1])
        self._count()
        file.is_poisoned = False
        super().truncate(file, file.size - len(parts[0]) // 2)
        super().append(file, parts)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)
        self._count()

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def make_directory(self, path: Path) -> None:
        self._count()
        super().make_directory(path)

    def create(self, path: Path) -> File:
        self._count()
        return super().create(path)


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.backup.restore.PARALLELISM", 1)


@pytest.mark.usefixtures("one_at_a_time")
def test_killed_at_any_moment_it_goes_on(saved: Source, tmp_path: Path) -> None:
    whole = bring(saved.bucket, tmp_path / "whole")
    assert whole is not None
    right, kept, calls = files_of(tmp_path / "whole"), [], 0
    while True:
        directory = tmp_path / f"{calls}"
        try:
            bring(saved.bucket, directory, storage=Dying(calls))
            break
        except Killed:
            if directory.exists():
                before = files_of(directory)
                is_whole = "manifest" in before
                if "restore" in before and not is_whole:
                    with pytest.raises(DirectoryRefusedError, match="has an unfinished restore of"):
                        refuse_unfinished(Storage(), directory)
            again = bring(saved.bucket, directory)
            if again is not None:
                kept.append(again.files_kept)
                assert again.files + again.files_kept == len(whole.plan.files)
            assert files_of(directory) == right, f"call {calls}"
        calls += 5
    assert calls > 80
    assert max(kept) == len(whole.plan.files)
    assert sorted(kept) == kept  # what was whole came once


@pytest.mark.usefixtures("one_at_a_time")
def test_a_power_failure_at_any_moment_loses_no_more_than_time(
    saved: Source, fast_directory: Path
) -> None:
    """What was not synced may be gone, in part, or zeros; names as well."""
    storage = FaultyStorage()
    bring(saved.bucket, fast_directory / "whole", storage=storage)
    right, calls, finished = files_of(fast_directory / "whole"), storage.calls, 0
    assert calls > 60
    for call in range(calls):
        generator, directory = random.Random(call), fast_directory / f"{call}"
        storage = FaultyStorage()
        storage.crash_at = call
        with contextlib.suppress(CrashError):
            bring(saved.bucket, directory, storage=storage)
        storage.crash(generator)
        has_manifest = (directory / "manifest").exists()
        finished += has_manifest
        if not has_manifest or (directory / "restore").exists():
            bring(saved.bucket, directory)  # else the very last call was done, and all is there
        assert files_of(directory) == right, f"call {call}"
    assert finished


def test_killed_before_its_mark_was_durable_and_a_power_failure_later(
    saved: Source, fast_directory: Path
) -> None:
    """The next run found the mark and went on; without it, what that had brought was refused as
    somebody else's."""
    for seed in range(10):
        storage, directory = FaultyStorage(), fast_directory / f"{seed}"
        storage.fail("sync_directory", errno.EIO, call=2)
        with pytest.raises(OSError, match="error"):
            bring(saved.bucket, directory, storage=storage)
        assert read_mark(Storage(), directory) is not None
        storage.fail("create", errno.EIO)
        with pytest.raises(OSError, match="error"):
            bring(saved.bucket, directory, storage=storage)
        storage.crash(random.Random(seed))
        bring(saved.bucket, directory)


def test_an_unfinished_restore_of_something_else_is_refused(saved: Source, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        bring(saved.bucket, tmp_path / "new", storage=Dying(12))
    for other in ({"lsn": saved.durable}, {"lazy": True}, {"chunks": "slru:*"}):
        with pytest.raises(RestoreRefusedError, match=f"unfinished restore of {URL}, and not of"):
            bring(saved.bucket, tmp_path / "new", **other)
    assert bring(saved.bucket, tmp_path / "new") is not None


# A network, a store, and somebody who writes there -----------------------------------------------


def test_what_fails_for_a_while_is_asked_for_again(saved: Source, tmp_path: Path) -> None:
    generator = random.Random(3)

    def fault(call: str, name: str) -> Fault | None:
        return Fault.BEFORE if call == "get" and generator.random() < 0.3 else None

    saved.bucket.choose_fault = fault
    try:
        assert bring(saved.bucket, tmp_path / "new") is not None
        saved.bucket.choose_fault = lambda call, name: Fault.BEFORE if call == "get" else None
        with pytest.raises(TransientError):
            bring(saved.bucket, tmp_path / "other")
    finally:
        saved.bucket.choose_fault = lambda call, name: None
    store = opened(tmp_path / "new")
    saved.check(store)
    store.close()


def test_a_bucket_that_moves_on_meanwhile(tmp_path: Path) -> None:
    """Its writer merges and deletes while we read: what we get is one state, a newer one."""
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    bucket = MemoryBucket()
    shipper = Shipper(bucket)
    for mark in range(3):
        small.put(*([] if mark else [create(RELATIONS[0])]), image(0, mark, RELATIONS[0]))
        small.flush()
        before = shipper.ship(small.store)
    lsn = small.store.durable_lsn

    def move_on(where: str) -> None:
        if "layers/" in where and "answer" not in where:
            bucket.pause = lambda where: None
            small.compact(SMALL_POLICY)
            after = shipper.ship(small.store)
            gone = set(before.objects()) - set(after.objects())
            assert gone
            bucket.delete(sorted(gone))

    bucket.pause = move_on
    done = bring(bucket, tmp_path / "new")
    assert done is not None and done.state.serial == before.serial + 1
    right = answers(small.store, lsn)
    small.let_go()
    store = opened(tmp_path / "new")
    assert answers(store, lsn) == right
    assert set(files_of(tmp_path / "new" / "layers")) == {n.text for n in done.state.manifest.files}
    store.close()


def test_an_object_that_the_manifest_names_and_that_is_not_there(
    saved: Source, tmp_path: Path
) -> None:
    name = next(name for name in saved.bucket.objects if name.startswith("layers/"))
    stored = saved.bucket.objects.pop(name)
    try:
        with pytest.raises(CorruptionError, match=f"{name}.*no such object"):
            bring(saved.bucket, tmp_path / "new")
    finally:
        saved.bucket.objects[name] = stored
