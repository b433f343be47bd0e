"""Restores of what is damaged, of two timelines, of some chunks, and of no bundle at all."""

import random
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.block_cache import BLOCK_BYTES
from engine.errors import DirectoryRefusedError
from engine.lazy_storage import LazyStorage
from engine.page_store import PageStore
from engine.storage import Storage
from formats.bucket import OUTLINES
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from server.backup import binding
from server.backup.bucket_files import BucketFiles
from server.backup.lazy_start import is_empty
from server.backup.other_bucket import refuse_other_bucket
from server.backup.restore_plan import RestoreRefusedError
from server.backup.restore_target import Target, Wanted
from tests.fixtures.bucket_shipping import Shipper, flip
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket
from tests.fixtures.restore_source import URL, Source, bring, opened
from tests.fixtures.small_store import MEMORY_BYTES, SmallStore, create, image
from tests.fixtures.store_answers import answers
from tests.fixtures.store_history import RELATIONS


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def test_a_flipped_bit_of_any_object_is_found_and_named(saved: Source, tmp_path: Path) -> None:
    """But for outlines, which can be done without."""
    generator, bucket = random.Random(4), saved.bucket
    needed = (name for name in sorted(bucket.objects) if not name.startswith(OUTLINES))
    for place, name in enumerate(needed):
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
    saved.check(store)
    store.close()


@pytest.mark.parametrize("lazy", [False, True])
def test_outlines_that_are_damaged_are_no_harm(
    saved: Source, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, lazy: bool
) -> None:
    bucket = MemoryBucket(Contents())
    bucket.objects.update(saved.bucket.objects)
    for name in [name for name in bucket.objects if name.startswith(OUTLINES)]:
        flip(bucket, name, len(bucket.objects[name].data) // 2)
    assert bring(bucket, tmp_path / "new", lazy=lazy) is not None
    storage = LazyStorage(tmp_path / "new", BucketFiles(bucket), 2 * BLOCK_BYTES)
    store = PageStore(tmp_path / "new", MEMORY_BYTES, storage)
    while store.ingest_step():
        pass
    saved.check(store)
    store.close()
    assert "the bundles are read" in caplog.text


def test_outlines_that_cannot_be_had_are_done_without(saved: Source, tmp_path: Path) -> None:
    bucket = MemoryBucket(saved.bucket.contents)
    bucket.choose_fault = lambda call, name: Fault.BEFORE if "outlines" in name else None
    assert bring(bucket, tmp_path / "new") is not None
    assert not (tmp_path / "new" / "outlines").exists()
    store = opened(tmp_path / "new")
    saved.check(store)
    store.close()


def test_a_damaged_snapshot_is_read_around(saved: Source, tmp_path: Path) -> None:
    bucket = saved.bucket
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


def test_wal_of_two_timelines(tmp_path: Path) -> None:
    """Above the switch the journal is the new one's, whose segment begins as the old one's."""
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    shipper = Shipper(MemoryBucket(), piece_bytes=100)
    switch = small.put(create(RELATIONS[0]), image(0, 1, RELATIONS[0]))
    shipper.ship(small.store)
    history = f"1\t{show_lsn(switch)}\tno recovery target specified\n".encode()
    small.store.journal.follow(2, switch, history)
    end = small.put(image(0, 2, RELATIONS[0]), image(1, 3, RELATIONS[0]))
    state = shipper.ship(small.store, history=history)
    assert {piece.timeline for piece in state.journal} == {1, 2}
    right = {lsn: answers(small.store, lsn) for lsn in (switch, end)}
    before = small.store.journal.history()
    small.let_go()
    assert bring(shipper.bucket, tmp_path / "new") is not None
    store = opened(tmp_path / "new")
    assert (store.journal.timeline, store.journal.history()) == (2, before)
    assert {lsn: answers(store, lsn) for lsn in right} == right
    store.close()


# Of chunks, and lazily ----------------------------------------------------------------------------


def test_of_chunks_it_holds_these_alone(saved: Source, tmp_path: Path) -> None:
    spec = "rel:1663/5/16384,slru:*"
    done = bring(saved.bucket, tmp_path / "new", chunks=spec)
    assert done is not None and done.is_part
    assert not binding.exists(Storage(), tmp_path / "new")
    store = opened(tmp_path / "new")
    assert store.manifest.state.identity is not None
    assert store.manifest.state.identity.chunks == spec
    seen = set()
    for lsn, right in saved.answers.items():
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


def test_lazily_no_bundle_comes(saved: Source, tmp_path: Path) -> None:
    saved.bucket.requests.clear()
    done = bring(saved.bucket, tmp_path / "new", lazy=True)
    assert done is not None and done.files == 0
    assert not list((tmp_path / "new" / "layers").iterdir())
    assert list((tmp_path / "new" / "journal").iterdir())
    assert done.state.manifest.uploaded
    with pytest.raises(RestoreRefusedError, match="--lazy goes with --chunks only as of an LSN"):
        bring(saved.bucket, tmp_path / "other", lazy=True, chunks="slru:*")


def test_a_directory_with_a_manifest_does_not_begin_anew(saved: Source, tmp_path: Path) -> None:
    """Nor one whose restore was cut off just before it said that it is done: its state is the one
    that it was restored from, and the epoch that a new beginning takes would part it from that."""
    new, storage = tmp_path / "new", Storage()
    begun = Target(storage, tmp_path / "begun")
    assert begun.begin(Wanted(URL, lazy=True))
    begun.close()
    assert is_empty(storage, tmp_path / "begun")
    bring(saved.bucket, new, lazy=True)
    assert not is_empty(storage, new)
    (new / "restore").write_bytes((tmp_path / "begun" / "restore").read_bytes())
    assert not is_empty(storage, new)
    assert bring(saved.bucket, new, lazy=True) is None


def test_layers_that_are_in_one_bucket_are_not_looked_for_in_another(
    saved: Source, tmp_path: Path
) -> None:
    new, storage = tmp_path / "new", Storage()
    bring(saved.bucket, new, lazy=True)
    empty, copied = MemoryBucket(), MemoryBucket()
    copied.objects.update(saved.bucket.objects)
    refuse_other_bucket(empty, storage, new, URL)  # it is bound to this one, which is not asked
    assert not empty.requests
    other = "s3://other/prefix/"
    with pytest.raises(DirectoryRefusedError, match=f"has layers in {URL} that {other} lacks"):
        refuse_other_bucket(empty, storage, new, other)
    refuse_other_bucket(copied, storage, new, other)
    bring(saved.bucket, tmp_path / "whole")
    refuse_other_bucket(empty, storage, tmp_path / "whole", other)  # all of it is here
