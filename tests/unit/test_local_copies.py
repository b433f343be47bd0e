"""`restore chunks` below the statement: what is away comes, what is damaged is replaced."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.errors import RequestError, UnreachableError
from engine.eviction import Eviction
from engine.local_copies import Counts, LocalCopies
from engine.remote_blocks import RemoteObject
from formats import chunk_filter
from formats.bucket import LayerObject
from formats.file_name import FileName
from formats.manifest_record import FileAdded
from tests.fixtures.lazy_store import AwayStore, away, forget_frames, pages
from tests.fixtures.remote_files import EPOCH
from tests.fixtures.small_store import REL, SMALL_POLICY, SmallStore, create, image

THIRD = (1663, 5, 16999)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AwayStore]:
    found = away(tmp_path)
    yield found
    found.small.let_go()


def copies(store: AwayStore) -> LocalCopies:
    def object_of(name: FileName, record: FileAdded) -> RemoteObject | None:
        return store.storage.source_of(store.small.directory / "layers" / name.text)

    return LocalCopies(store.small.store.layers, store.storage, object_of, lambda length: None)


def restore(store: AwayStore, spec: str) -> Counts:
    return copies(store).restore(chunk_filter.parse(spec), lambda: None)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_all_comes_here(store: AwayStore) -> None:
    files = store.small.store.layers.state.files
    counts = restore(store, "all")
    size = sum(file.bytes_total for file in files.values())
    assert counts == Counts(len(files), len(files), 0, size)
    assert set(store.storage.bundles_here()) == set(files)
    store.files.is_down = True
    store.small.reopen(store.storage)
    assert pages(store.small, store.lsns) == store.expected
    store.files.is_down = False
    assert restore(store, "all") == Counts(len(files))


def test_only_what_has_layers_of_the_chunks_comes(store: AwayStore) -> None:
    end = store.small.put(create(THIRD), image(0, 7, THIRD))
    store.small.flush()
    spec = "rel:{}/{}/{}".format(*THIRD)
    assert restore(store, spec) == Counts(1), "it was made here"
    assert not restore(store, "rel:1663/5/999").files
    assert store.small.mark(0, end, THIRD) == 7
    spec = "rel:{}/{}/{}".format(*REL)
    counts = restore(store, spec)
    assert 0 < counts.fetched < len(store.small.store.layers.state.files)


def test_what_is_damaged_is_replaced_and_goes_on(store: AwayStore) -> None:
    """A stripe that was quarantined is compacted again; who reads has the sound file at once."""
    restore(store, "all")
    small = store.small
    layers = small.directory / "layers"
    for path in layers.iterdir():
        flip(path, 60)
    forget_what_was_read(small)
    damaged = pages(small, store.lsns)
    assert damaged != store.expected
    assert any("frame checksum" in page for page in damaged.values() if isinstance(page, str))
    small.put(image(5, 123), image(0, 124))
    small.flush()
    compact(small)
    compactor = small.store.compactor
    assert compactor is not None
    assert compactor.damaged
    counts = restore(store, "all")
    assert counts.replaced > 2
    assert not counts.fetched
    assert pages(small, store.lsns) == store.expected
    compactor.look_anew()
    compact(small)
    assert not compactor.damaged
    assert pages(small, store.lsns) == store.expected


def forget_what_was_read(small: SmallStore) -> None:
    forget_frames(small.store.frames)
    small.store.layers.map._readers.clear()


def compact(small: SmallStore) -> None:
    small.compact(SMALL_POLICY)


@pytest.mark.parametrize("how", ["cut off", "flipped", "gone"])
def test_a_bad_copy_takes_no_place(store: AwayStore, how: str) -> None:
    """What comes is checked before it is there; all others are done."""
    name = sorted(store.small.store.layers.state.files)[0]
    data = store.files.objects.pop(LayerObject(EPOCH, name).text)
    bad = {"cut off": data[:-1], "flipped": data[:70] + b"?" + data[71:], "gone": b""}[how]
    if bad:
        store.files.objects[LayerObject(EPOCH, name).text] = bad
    with pytest.raises(RequestError, match="1 bundles are damaged.*no sound copy"):
        restore(store, "all")
    assert set(store.small.store.layers.state.files) - set(store.storage.bundles_here()) == {name}
    assert not list((store.small.directory / "fetch").iterdir())


def test_a_bucket_that_stops_leaves_what_came(store: AwayStore) -> None:
    real, left = store.files.stream, [2]

    def stream(name: str) -> Iterator[bytes]:
        left[0] -= 1
        store.files.is_down = left[0] < 0
        yield from real(name)

    store.files.stream = stream
    with pytest.raises(UnreachableError):
        restore(store, "all")
    assert len(store.storage.bundles_here()) == 2
    store.files.is_down, left[0] = False, 1000
    counts = restore(store, "all")
    assert counts.fetched == counts.files - 2


def test_what_was_left_by_one_that_was_cut_off_goes(store: AwayStore) -> None:
    beside = store.small.directory / "fetch"
    beside.mkdir()
    name = sorted(store.small.store.layers.state.files)[0]
    (beside / name.text).write_bytes(b"half")
    restore(store, "all")
    assert not os.listdir(beside)


class Killed(BaseException):
    """The process is gone: nothing that it would still have done is done."""


def dies_within(store: AwayStore, calls: int, patch: pytest.MonkeyPatch) -> bool:
    """Bring all here, and die at a call that changes the disk; whether it came to that."""
    left = [calls]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments)

        return call

    for operation in ("create", "append", "sync", "rename", "sync_directory", "remove"):
        patch.setattr(store.storage, operation, counted(getattr(store.storage, operation)))
    try:
        restore(store, "all")
    except Killed:
        return True
    return False


def test_a_process_that_dies_at_any_call_leaves_whole_bundles_alone(
    store: AwayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = store.small.directory / "layers"
    calls, has_died = 0, True
    while has_died:
        for name in store.storage.bundles_here():
            store.storage.evict(layers / name.text)
        with monkeypatch.context() as patch:
            has_died = dies_within(store, calls, patch)
        for name in store.storage.bundles_here():
            source = store.storage.source_of(layers / name.text)
            assert source is not None
            assert (layers / name.text).read_bytes() == store.files.objects[source.name]
        calls += 1
    files = store.small.store.layers.state.files
    assert calls > 4 * len(files)
    assert set(store.storage.bundles_here()) == set(files)
    assert not os.listdir(store.small.directory / "fetch")


def test_it_can_be_evicted_again(store: AwayStore) -> None:
    restore(store, "all")
    eviction = Eviction(store.storage, 1)
    eviction.note(store.small.store.layers.state.uploaded)
    assert eviction.step(store.small.store.layers)
    assert eviction.evicted > 2
    assert pages(store.small, store.lsns) == store.expected


def test_a_damaged_bundle_of_l0_is_replaced_for_those_who_read(store: AwayStore) -> None:
    """Its reader has the old file open."""
    restore(store, "all")
    small = store.small
    small.reopen(store.storage)
    newest = small.store.layers.map.l0[0].reader
    assert newest.table.count
    flip(newest.path, newest.table.offset(0) + 30)
    assert pages(small, store.lsns) != store.expected
    assert restore(store, "all").replaced == 1
    assert pages(small, store.lsns) == store.expected
