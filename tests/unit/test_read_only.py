"""A directory that ends at an LSN and reads its layers in a bucket, whose server goes on."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.block_cache import BLOCK_BYTES
from engine.errors import DirectoryRefusedError, RequestError
from engine.lazy_storage import LazyStorage
from engine.local_copies import LocalCopies
from engine.page_store import PageStore
from engine.storage import Storage
from formats.chunk_filter import parse as parse_chunks
from formats.lsn import show as show_lsn
from server.backup import binding, read_only
from server.backup.bucket_files import BucketFiles
from server.backup.lazy_start import begin_from_bucket
from server.backup.restore_plan import RestoreRefusedError
from server.backup.restore_target import Target, Wanted
from tests.fixtures.bucket_shipping import Shipper
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.memory_bucket import Contents, MemoryBucket
from tests.fixtures.restore_source import URL, Source, bring
from tests.fixtures.small_store import MEMORY_BYTES, SMALL_POLICY
from tests.fixtures.store_answers import answers, pages_of
from tests.fixtures.store_history import RELATIONS, History

CHANGES = ("put", "put_new", "put_stream", "delete")


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def begin(bucket: MemoryBucket, directory: Path, storage: Storage | None = None) -> None:
    """As `serve --s3` does, before it opens the directory."""
    read_only.open_at_its_end(bucket, directory, storage or Storage(), URL, sleep=lambda _: None)


def opened(bucket: MemoryBucket, directory: Path) -> PageStore:
    """With a cache of two blocks."""
    lsn = read_only.ends_at(Storage(), directory)
    assert lsn is not None
    files = BucketFiles(bucket, read_only.gone(lsn))
    store = PageStore(directory, MEMORY_BYTES, LazyStorage(directory, files, 2 * BLOCK_BYTES))
    while store.ingest_step():
        pass
    return store


def serve(bucket: MemoryBucket, directory: Path) -> PageStore:
    begin(bucket, directory)
    return opened(bucket, directory)


def test_as_of_any_lsn_it_answers_from_the_bucket_and_leaves_it_alone(
    saved: Source, tmp_path: Path
) -> None:
    """At the remote LSN as well: who names an LSN wants a directory that ends."""
    before = dict(saved.bucket.objects)
    chosen = {saved.held, saved.horizon, saved.durable, saved.end}
    chosen |= set(random.Random(7).sample(sorted(saved.answers), 2))
    saved.bucket.requests.clear()
    for lsn in sorted(chosen):
        directory = tmp_path / f"{lsn:x}"
        done = bring(saved.bucket, directory, lsn=lsn, lazy=True)
        assert done is not None and done.is_part and done.files == 0
        assert not list((directory / "layers").iterdir())
        for _ in range(2):  # and it may be started again
            store = serve(saved.bucket, directory)
            saved.check(store, lsn)
            with pytest.raises(RequestError, match="not ready yet"):
                store.retention.create_point("x", lsn + 8)
            assert not store.compact_step()
            store.close()
        assert binding.read(Storage(), directory, URL).entries == ()
    assert saved.bucket.objects == before
    assert not any(saved.bucket.requests[call] for call in CHANGES)


def test_of_chunks_as_of_an_lsn(saved: Source, tmp_path: Path) -> None:
    spec, lsn = "rel:1663/5/16384,slru:*", saved.durable
    bring(saved.bucket, tmp_path / "new", lsn=lsn, lazy=True, chunks=spec)
    store = serve(saved.bucket, tmp_path / "new")
    seen = 0
    for question, answer in answers(store, lsn).items():
        if question[0] == "relation" and question[1:4] != RELATIONS[0]:
            assert all("does not hold" in page for page in answer)
        elif question[0] == "relation":
            assert answer == saved.answers[lsn][question]
            seen += 1
    assert seen
    store.close()
    with pytest.raises(RestoreRefusedError, match="only as of an LSN.*Name an --lsn"):
        bring(saved.bucket, tmp_path / "other", lazy=True, chunks=spec)


# Its server goes on ------------------------------------------------------------------------------


class Living:
    """A server that merges and deletes what it merged, and a directory as of an LSN before."""

    def __init__(self, tmp_path: Path, *, keeps: bool, chunks: str | None = None) -> None:
        """`keeps`: a point at that LSN, which the horizon passes."""
        history = History(tmp_path / "from", 11, 90)
        small, self.bucket = history.small, MemoryBucket(Contents())
        small.flush()
        shipper = Shipper(self.bucket)
        before = shipper.ship(small.store)
        self.lsn = small.store.durable_lsn
        self.right = answers(small.store, self.lsn)
        self.directory = tmp_path / "new"
        bring(self.bucket, self.directory, lsn=self.lsn, lazy=True, chunks=chunks)
        self.store = serve(self.bucket, self.directory)  # it has an index now
        self.store.close()
        if keeps:
            small.store.retention.create_point("kept", self.lsn)
        history.go_on(60)
        small.flush()
        small.advance_horizon(small.store.durable_lsn)
        small.compact(SMALL_POLICY)
        self.state = shipper.ship(small.store)
        self.gone = sorted(set(before.objects()) - set(self.state.objects()))
        assert any(name.startswith("layers/") for name in self.gone)
        small.let_go()

    def delete(self) -> None:
        """What nothing names any more, as after the grace time."""
        self.bucket.delete(self.gone)


def pages(
    store: PageStore, right: dict[object, object], lsn: int
) -> Iterator[tuple[object, object]]:
    """Each page as it is read, or why it cannot be, and as it was."""
    for question, expected in right.items():
        if isinstance(question, tuple) and question[0] == "relation":
            assert isinstance(expected, list)
            yield from zip(
                pages_of(store, *question[1:], len(expected), lsn), expected, strict=True
            )


def test_what_was_merged_is_found_in_what_it_was_merged_into(tmp_path: Path) -> None:
    living = Living(tmp_path, keeps=True)
    assert living.state.manifest.horizon_lsn > living.lsn
    living.delete()
    store = opened_or_text(living)
    assert isinstance(store, str) and is_explained(store, living.lsn)
    changes = living.bucket.contents.changes
    for _ in range(2):
        store = serve(living.bucket, living.directory)
        assert store.ready_lsn == living.lsn
        assert answers(store, living.lsn) == living.right
        files = store.manifest.state.files
        assert files.keys() == living.state.manifest.files.keys() & files.keys()
        store.close()
    assert living.bucket.contents.changes == changes


def opened_or_text(living: Living) -> PageStore | str:
    """Without a look at the bucket's manifest: why the directory cannot be opened."""
    try:
        return opened(living.bucket, living.directory)
    except OSError as error:
        return str(error)


def is_explained(text: str, lsn: int) -> bool:
    told = ("the bucket has this object no longer", "Start again", show_lsn(lsn), "point create")
    return all(part in text for part in told)


def test_it_says_so_where_pages_are_gone_while_it_runs(tmp_path: Path) -> None:
    living = Living(tmp_path, keeps=True)
    store = opened(living.bucket, living.directory)
    living.delete()
    found = list(pages(store, living.right, living.lsn))
    failed = [page for page, right in found if page != right]
    assert failed
    assert all(is_explained(str(page), living.lsn) for page in failed)
    store.close()


def test_what_is_still_named_there_is_not_asked_for_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    history = History(tmp_path / "from", 3, 60)
    shipper = Shipper(MemoryBucket())
    shipper.ship(history.small.store)
    directory = tmp_path / "new"
    bring(shipper.bucket, directory, lsn=history.small.store.durable_lsn, lazy=True)
    serve(shipper.bucket, directory).close()
    history.small.put()
    history.small.flush()
    shipper.ship(history.small.store)
    history.small.let_go()
    before = (directory / "manifest").read_bytes()
    begin(shipper.bucket, directory)
    assert (directory / "manifest").read_bytes() == before
    assert list((directory / "index").iterdir())
    assert "until its horizon, now 0/1000000, passes it; a point there keeps it" in caplog.text


def test_what_the_server_retains_no_more_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it is deleted there, it is read as it is."""
    living = Living(tmp_path, keeps=False)
    store = serve(living.bucket, living.directory)
    assert "bundles count no more in the bucket" in caplog.text
    assert "below the horizon" in caplog.text
    assert answers(store, living.lsn) == living.right
    store.close()


def test_with_all_of_it_here_it_needs_no_bucket(tmp_path: Path) -> None:
    """`restore chunks all`, while the objects are still there."""
    living = Living(tmp_path, keeps=False)
    store = opened(living.bucket, living.directory)
    storage, layers = store.storage, store.paths.layers
    assert isinstance(storage, LazyStorage)
    source_of = storage.source_of
    copies = LocalCopies(
        store.layers, storage, lambda name, _: source_of(layers / name.text), lambda size: None
    )
    assert copies.restore(parse_chunks("all"), lambda: None).fetched
    store.close()
    living.delete()
    for begin_it in (lambda: PageStore(living.directory, MEMORY_BYTES),
                     lambda: serve(living.bucket, living.directory)):  # fmt: skip
        store = begin_it()
        assert answers(store, living.lsn) == living.right
        store.close()


def test_chunks_stay_what_they_were(tmp_path: Path) -> None:
    spec = "rel:1663/5/16385,rel:1663/5/16386,slru:*"
    living = Living(tmp_path, keeps=True, chunks=spec)
    living.delete()
    store = serve(living.bucket, living.directory)
    assert store.manifest.state.identity is not None
    assert store.manifest.state.identity.chunks == spec
    found = list(pages(store, living.right, living.lsn))
    held = [(page, right) for page, right in found if "does not hold" not in str(page)]
    assert 0 < len(held) < len(found)
    assert all(page == right for page, right in held)
    store.close()


def test_the_machine_dies_while_it_is_restored_anew(tmp_path: Path) -> None:
    """At any call: the next start goes on, whatever the disk has of the first."""
    living, ended = Living(tmp_path, keeps=True), False
    living.delete()
    for call in range(0, 100, 2):
        directory = tmp_path / str(call)
        shutil.copytree(living.directory, directory)
        storage = FaultyStorage()
        storage.crash_at = storage.calls + call
        try:
            begin(living.bucket, directory, storage)
            ended = True
        except CrashError:
            pass
        storage.crash(random.Random(call))
        store = serve(living.bucket, directory)
        assert answers(store, living.lsn) == living.right
        store.close()
        if ended:
            break
    assert ended
    assert call > 10


# Refused ------------------------------------------------------------------------------------------


@pytest.fixture
def lazy(saved: Source, tmp_path: Path) -> Path:
    bring(saved.bucket, tmp_path / "new", lsn=saved.durable, lazy=True)
    return tmp_path / "new"


def test_another_bucket_is_refused(saved: Source, lazy: Path) -> None:
    other = "s3://other/prefix/"
    with pytest.raises(DirectoryRefusedError, match=f"from {URL} and reads its layers there, not"):
        read_only.open_at_its_end(saved.bucket, lazy, Storage(), other)


def test_one_with_all_its_layers_needs_no_bucket(saved: Source, tmp_path: Path) -> None:
    bring(saved.bucket, tmp_path / "new", lsn=saved.durable)
    with pytest.raises(DirectoryRefusedError, match="with all its layers.*serve it without --s3"):
        begin(saved.bucket, tmp_path / "new")


def test_another_clusters_backup_is_refused(lazy: Path) -> None:
    with pytest.raises(RestoreRefusedError, match="has no backup of the cluster in"):
        begin(MemoryBucket(), lazy)


def test_without_the_bucket_it_is_refused(lazy: Path) -> None:
    with pytest.raises(DirectoryRefusedError, match="only in the bucket.*serve it with --s3"):
        PageStore(lazy, MEMORY_BYTES)


@pytest.mark.parametrize("lazily", [True, False])
def test_a_restore_that_was_cut_off(saved: Source, tmp_path: Path, lazily: bool) -> None:
    """A lazy one is finished; nobody is fenced off for the sake of either."""
    directory, epoch = tmp_path / "new", saved.bucket.objects.copy()
    begun = Target(Storage(), directory)
    assert begun.begin(Wanted(URL, saved.durable, lazy=lazily))
    begun.close()
    if lazily:
        store = serve(saved.bucket, directory)
        saved.check(store, saved.durable)
        store.close()
    else:
        with pytest.raises(DirectoryRefusedError, match="unfinished restore of.*run `pageserver"):
            begin(saved.bucket, directory)
        with pytest.raises(RestoreRefusedError, match="unfinished restore"):
            begin_from_bucket(saved.bucket, directory, Storage(), URL)
    assert saved.bucket.objects == epoch
