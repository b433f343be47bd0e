"""A bucket becomes a directory again: every answer, every refusal, every way to be cut off."""

import random
from pathlib import Path

import pytest

from engine import index_rebuild, server_id
from engine.errors import DirectoryRefusedError, RequestError
from engine.page_store import PageStore
from engine.storage import File, Space, Storage
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from server.backup import binding
from server.backup.object_store import TransientError
from server.backup.restore import Restored, restore
from server.backup.restore_plan import RestoreRefusedError
from server.backup.restore_target import refuse_unfinished
from tests.fixtures.bucket_shipping import SERVER_ID, Shipper, files_of, flip, shipped
from tests.fixtures.memory_bucket import Fault, MemoryBucket
from tests.fixtures.small_store import MEMORY_BYTES, SMALL_POLICY, SmallStore, create, image
from tests.fixtures.store_answers import answers
from tests.fixtures.store_history import RELATIONS, History

URL = "s3://bucket/prefix/"


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def bring(bucket: MemoryBucket, directory: Path, **options) -> Restored | None:
    storage = options.pop("storage", None) or Storage()
    return restore(bucket, directory, storage, URL, sleep=lambda _: None, **options)


def opened(directory: Path) -> PageStore:
    store = PageStore(directory, MEMORY_BYTES)
    while store.ingest_step():
        pass
    return store


class Source:
    """A stopped store, the bucket that has it, and what it answered."""

    def __init__(self, directory: Path, seed: int = 5, steps: int = 160) -> None:
        history = History(directory, seed, steps)
        small = self.small = history.small
        held = history.lsns[30]
        small.store.retention.create_point("held", held)
        self.horizon = history.lsns[60]
        small.advance_horizon(self.horizon)
        small.compact(SMALL_POLICY)
        lsns = [held, *(lsn for lsn in history.lsns if lsn >= self.horizon)]
        self.answers = {lsn: answers(small.store, lsn) for lsn in lsns}
        self.held = held
        self.end = lsns[-1]
        self.durable = small.store.durable_lsn
        assert self.horizon < self.durable < self.end
        self.bucket = shipped(small.store)
        small.let_go()

    def check(self, store: PageStore, end: int | None = None) -> None:
        end = self.end if end is None else end
        assert store.ready_lsn == end
        for lsn in (lsn for lsn in self.answers if lsn <= end):
            assert answers(store, lsn) == self.answers[lsn], show_lsn(lsn)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_rebuild, "check_in_child", lambda path: True)
        return Source(tmp_path_factory.mktemp("source") / "store")


def test_a_whole_restore_answers_all_and_goes_on(source: Source, tmp_path: Path) -> None:
    done = bring(source.bucket, tmp_path / "new")
    assert done is not None
    assert (done.files, done.files_kept) == (len(done.plan.files), 0)
    assert done.bytes > sum(file.bytes_total for file in done.plan.files)
    assert done.state.remote_lsn == source.end
    storage, directory = Storage(), tmp_path / "new"
    assert f"{server_id.read(storage, directory):08x}" == SERVER_ID
    store = opened(directory)
    source.check(store)
    # It is the successor of the one that was lost, whatever of an epoch it has taken by now.
    bound = binding.read(storage, directory, URL)
    bound.check(done.state, store.manifest.state)
    assert store.manifest.state.serial > done.state.local_serial
    assert store.manifest.state.uploaded == done.state.manifest.uploaded
    assert store.manifest.state.run == done.state.manifest.run + 1
    store.close()


def test_as_of_any_lsn_it_answers_as_the_lost_one_did(source: Source, tmp_path: Path) -> None:
    chosen = {source.held, source.horizon, source.durable}
    chosen |= set(random.Random(2).sample(sorted(source.answers), 5))
    for lsn in sorted(chosen - {source.end}):
        directory = tmp_path / f"{lsn:x}"
        done = bring(source.bucket, directory, lsn=lsn)
        assert done is not None and done.is_part
        assert all(file.lsn_start <= lsn for file in done.plan.files)
        assert not binding.exists(Storage(), directory)  # it never writes to the bucket
        store = opened(directory)
        source.check(store, lsn)
        with pytest.raises(RequestError, match="not ready yet"):  # nothing above it is there
            store.retention.create_point("x", lsn + 8)
        store.close()


REFUSALS = [
    (lambda source: source.end + 8, "above the remote LSN"),
    (lambda source: source.horizon - 8, "below the horizon"),
    (lambda source: source.held - 8, "below the horizon"),
]


@pytest.mark.parametrize(("lsn_of", "why"), REFUSALS)
def test_an_lsn_that_is_not_there_is_refused_with_those_that_are(
    source: Source, tmp_path: Path, lsn_of, why: str
) -> None:
    lsn = lsn_of(source)
    with pytest.raises(RestoreRefusedError) as refused:
        bring(source.bucket, tmp_path / "new", lsn=lsn)
    text = str(refused.value)
    assert f"the state at {show_lsn(lsn)} is not in the bucket: it is {why}" in text
    choices = f"any LSN from {show_lsn(source.horizon)} to {show_lsn(source.end)}, "
    assert choices + f"{show_lsn(source.held)} of point held" in text
    assert not (tmp_path / "new").exists()


def test_the_newest_lsn_is_no_part_of_the_bucket(source: Source, tmp_path: Path) -> None:
    done = bring(source.bucket, tmp_path / "new", lsn=source.end)
    assert done is not None and not done.is_part
    assert binding.exists(Storage(), tmp_path / "new")


def test_an_empty_bucket_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(RestoreRefusedError, match="there is no backup yet"):
        bring(MemoryBucket(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_directory_with_anything_in_it_is_refused(source: Source, tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").touch()
    requests = source.bucket.requests.total()
    with pytest.raises(RestoreRefusedError, match="is not empty: it has PG_VERSION"):
        bring(source.bucket, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["PG_VERSION"]
    assert source.bucket.requests.total() == requests
    (tmp_path / "PG_VERSION").unlink()
    (tmp_path / "pageserver.toml").touch()
    assert bring(source.bucket, tmp_path) is not None


class Full(Storage):
    def space(self, path: Path) -> Space:
        return Space(64 << 20, 1 << 40)


def test_a_disk_without_room_is_found_before_anything_comes(source: Source, tmp_path: Path) -> None:
    source.bucket.requests.clear()
    with pytest.raises(RestoreRefusedError, match="64 MiB free, and .* are needed: .* of WAL"):
        bring(source.bucket, tmp_path / "new", storage=Full())
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
def test_killed_at_any_moment_it_goes_on(source: Source, tmp_path: Path) -> None:
    whole = bring(source.bucket, tmp_path / "whole")
    assert whole is not None
    right, kept, calls = files_of(tmp_path / "whole"), [], 0
    while True:
        directory = tmp_path / f"{calls}"
        try:
            bring(source.bucket, directory, storage=Dying(calls))
            break
        except Killed:
            if directory.exists():
                before = files_of(directory)
                is_whole = "manifest" in before
                if "restore" in before and not is_whole:
                    with pytest.raises(DirectoryRefusedError, match="has an unfinished restore of"):
                        refuse_unfinished(Storage(), directory)
            again = bring(source.bucket, directory)
            if again is not None:
                kept.append(again.files_kept)
                assert again.files + again.files_kept == len(whole.plan.files)
            assert files_of(directory) == right, f"call {calls}"
        calls += 3
    assert calls > 80
    assert max(kept) == len(whole.plan.files)
    assert sorted(kept) == kept  # what was whole came once


def test_an_unfinished_restore_of_something_else_is_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        bring(source.bucket, tmp_path / "new", storage=Dying(12))
    for other in ({"lsn": source.durable}, {"lazy": True}, {"chunks": "slru:*"}):
        with pytest.raises(RestoreRefusedError, match=f"unfinished restore of {URL}, and not of"):
            bring(source.bucket, tmp_path / "new", **other)
    assert bring(source.bucket, tmp_path / "new") is not None


# A network, a store, and somebody who writes there -----------------------------------------------


def test_what_fails_for_a_while_is_asked_for_again(source: Source, tmp_path: Path) -> None:
    generator = random.Random(3)

    def fault(call: str, name: str) -> Fault | None:
        return Fault.BEFORE if call == "get" and generator.random() < 0.3 else None

    source.bucket.choose_fault = fault
    try:
        assert bring(source.bucket, tmp_path / "new") is not None
        source.bucket.choose_fault = lambda call, name: Fault.BEFORE if call == "get" else None
        with pytest.raises(TransientError):
            bring(source.bucket, tmp_path / "other")
    finally:
        source.bucket.choose_fault = lambda call, name: None
    store = opened(tmp_path / "new")
    source.check(store)
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
    source: Source, tmp_path: Path
) -> None:
    name = next(name for name in source.bucket.objects if name.startswith("layers/"))
    stored = source.bucket.objects.pop(name)
    try:
        with pytest.raises(CorruptionError, match=f"{name}.*no such object"):
            bring(source.bucket, tmp_path / "new")
    finally:
        source.bucket.objects[name] = stored


# Damage -------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_any_object_is_found_and_named(source: Source, tmp_path: Path) -> None:
    generator, bucket = random.Random(4), source.bucket
    for place, name in enumerate(sorted(bucket.objects)):
        stored, directory = bucket.objects[name], tmp_path / f"{place}"
        flip(bucket, name, generator.randrange(len(stored.data)))
        try:
            with pytest.raises(CorruptionError, match=name):
                bring(bucket, directory)
        finally:
            bucket.objects[name] = stored
        assert not (directory / "manifest").exists()
    assert bring(bucket, tmp_path / "new") is not None
    store = opened(tmp_path / "new")
    source.check(store)
    store.close()


def test_a_damaged_snapshot_is_read_around(source: Source, tmp_path: Path) -> None:
    bucket = source.bucket
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    bucket = MemoryBucket()
    shipper = Shipper(bucket)
    small.put(create(RELATIONS[0]))
    for _ in range(600):
        shipper.chain.append()
        shipper.chain.write_snapshot_if_worthwhile()
    shipper.ship(small.store)
    small.let_go()
    snapshot = next(name for name in bucket.objects if name.startswith("snapshot/"))
    flip(bucket, snapshot, 30)
    assert bring(bucket, tmp_path / "new") is not None


# Of chunks, and lazily ----------------------------------------------------------------------------


def test_of_chunks_it_holds_these_alone(source: Source, tmp_path: Path) -> None:
    spec = "rel:1663/5/16384,slru:*"
    done = bring(source.bucket, tmp_path / "new", chunks=spec)
    assert done is not None and done.is_part
    assert not binding.exists(Storage(), tmp_path / "new")
    store = opened(tmp_path / "new")
    assert store.manifest.state.identity is not None
    assert store.manifest.state.identity.chunks == spec
    seen = set()
    for lsn, right in source.answers.items():
        for question, answer in answers(store, lsn).items():
            if question[0] == "relation" and question[1:4] != RELATIONS[0]:
                assert all("does not hold" in page for page in answer)
            elif question[0] != "past":
                assert answer == right[question]
                seen.add(question[0])
    assert {"relation", "nblocks", "file", "slru"} <= seen
    while store.compact_step():
        pass
    assert store.compactor is not None and not store.compactor.damaged
    store.close()


def test_lazily_no_bundle_comes(source: Source, tmp_path: Path) -> None:
    source.bucket.requests.clear()
    done = bring(source.bucket, tmp_path / "new", lazy=True)
    assert done is not None and done.files == 0
    assert not list((tmp_path / "new" / "layers").iterdir())
    assert list((tmp_path / "new" / "journal").iterdir())
    assert done.state.manifest.uploaded
    for part in ({"lsn": source.durable}, {"chunks": "slru:*"}):
        with pytest.raises(RestoreRefusedError, match="--lazy goes with neither"):
            bring(source.bucket, tmp_path / "other", lazy=True, **part)
