"""Which local bundles go when the bucket has them too, and that nothing is lost by it."""

from pathlib import Path
from random import Random

import pytest

from engine import index_rebuild
from engine.block_cache import BLOCK_BYTES
from engine.eviction import Eviction
from engine.lazy_storage import LazyStorage
from formats.bucket import LayerObject
from formats.file_name import FileKind
from tests.fixtures.faulty_storage import CrashError, FaultyStorage
from tests.fixtures.lazy_store import Pages, made, pages
from tests.fixtures.remote_files import MemoryFiles, upload
from tests.fixtures.small_store import SmallStore, image


class FaultyLazyStorage(LazyStorage, FaultyStorage):
    """A disk that fails, below one whose bundles may be away."""

    def __init__(self, directory: Path, files: MemoryFiles) -> None:
        FaultyStorage.__init__(self)
        LazyStorage.__init__(self, directory, files, 4 * BLOCK_BYTES)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


class Evicting:
    """A store with all of its bundles here, and a bucket that has them too."""

    def __init__(self, directory: Path) -> None:
        self.small, self.lsns = made().copy(directory / "store"), made().lsns
        self.expected = made().expected
        self.files = MemoryFiles()
        self.uploaded = upload(self.small.directory, self.files)
        self.storage = FaultyLazyStorage(self.small.directory, self.files)
        self.open()

    def open(self) -> None:
        self.small.open(self.storage)
        self.small.ingest()

    @property
    def layers(self) -> int:
        """Bytes of bundles that are here."""
        files = self.small.store.layers.state.files
        return sum(files[name].bytes_total for name in self.storage.bundles_here())

    def evict(self, bytes_max: int) -> Eviction:
        """Until there is nothing to do."""
        eviction = Eviction(self.storage, bytes_max)
        eviction.note(self.uploaded)
        while eviction.step(self.small.store.layers):
            pass
        return eviction

    def read(self) -> Pages:
        return pages(self.small, self.lsns)


@pytest.fixture
def store(tmp_path: Path) -> Evicting:
    return Evicting(tmp_path)


def l0_names(small: SmallStore) -> set[str]:
    return {bundle.reader.name.text for bundle in small.store.layers.map.l0}


def test_all_but_l0_go_and_every_page_stays(store: Evicting) -> None:
    before = store.storage.bundles_here()
    eviction = store.evict(1)
    assert {name.text for name in store.storage.bundles_here()} == l0_names(store.small)
    assert eviction.evicted == len(before) - len(l0_names(store.small)) > 2
    assert store.read() == store.expected
    store.small.reopen(LazyStorage(store.small.directory, store.files, 8 * BLOCK_BYTES))
    assert store.read() == store.expected


def test_as_many_as_must_go_do(store: Evicting) -> None:
    before = store.layers
    store.evict(before)
    assert store.layers == before
    store.evict(before - 1)
    assert store.layers < before
    assert len(store.uploaded) - len(store.storage.bundles_here()) == 1
    assert len(store.small.store.layers.state.uploaded) == 1


def test_never_is_zero(store: Evicting) -> None:
    before = store.layers
    store.evict(0)
    assert store.layers == before


def test_only_what_the_bucket_has_goes(store: Evicting) -> None:
    below = [name for name in store.uploaded if name.kind != FileKind.L0]
    kept = below[0]
    del store.uploaded[kept]
    store.evict(1)
    assert store.storage.is_here(store.small.directory / "layers" / kept.text)
    assert store.read() == store.expected


def test_nothing_goes_on_the_word_of_an_uploader_that_is_no_more(store: Evicting) -> None:
    """The bucket may have been emptied: the next one says what it finds there."""
    eviction = store.evict(1)
    here = store.layers
    for name in store.uploaded:  # brought back, as `restore chunks` does
        data = store.files.objects[LayerObject(store.uploaded[name], name).text]
        (store.small.directory / "layers" / name.text).write_bytes(data)
    eviction.forget_noted()
    eviction.look_anew()
    assert store.layers > here
    assert not eviction.step(store.small.store.layers)
    eviction.note(store.uploaded)
    assert eviction.step(store.small.store.layers)
    assert store.layers == here


def test_a_bucket_that_was_filled_anew_has_it_under_another_epoch(store: Evicting) -> None:
    """What went once, came back, and goes again is looked for where it is now."""
    store.evict(1)
    old, epoch = dict(store.files.objects), 7
    store.files.objects.clear()
    for name in store.uploaded:
        data = old[LayerObject(store.uploaded[name], name).text]
        store.files.objects[LayerObject(epoch, name).text] = data
        (store.small.directory / "layers" / name.text).write_bytes(data)
    store.uploaded = dict.fromkeys(store.uploaded, epoch)
    assert store.evict(1).evicted
    assert store.read() == store.expected
    store.small.reopen(LazyStorage(store.small.directory, store.files, 8 * BLOCK_BYTES))
    assert store.read() == store.expected


def test_what_was_read_last_goes_last(store: Evicting) -> None:
    l0 = l0_names(store.small)
    below = [name for name in sorted(store.uploaded) if name.text not in l0]
    order = [*below[1:], below[0]]
    store.small.store.layers.map._readers.clear()
    for name in order:
        store.small.store.layers.map.reader(name)
    assert store.small.store.layers.map.by_last_read() == order
    files = store.small.store.layers.state.files
    gone = []
    while len(gone) < len(order):
        store.evict(store.layers - 1)
        here = store.storage.bundles_here()
        gone += [name for name in order if name not in here and name not in gone]
    assert gone == order
    assert set(gone) <= set(files)


def test_who_has_it_open_reads_on(store: Evicting) -> None:
    readers = [store.small.store.layers.map.reader(name) for name in store.uploaded]
    store.evict(1)
    assert not store.files.requests
    for reader in readers:
        assert reader.read_frame(0)
    assert not store.files.requests


def test_new_bundles_stay_until_the_bucket_has_them(store: Evicting) -> None:
    store.evict(1)
    end = store.small.put(image(1, 5))
    store.small.flush()
    store.evict(1)
    assert store.small.mark(1, end) == 5
    assert any(name not in store.uploaded for name in store.storage.bundles_here())


def test_the_machine_dies_at_any_call(tmp_path: Path) -> None:
    """After each the directory is whole, with the bucket's help."""
    dead = 0
    for call in range(200):
        directory = tmp_path / str(call)
        directory.mkdir()
        store = Evicting(directory)
        store.storage._keep_index = True
        store.storage.crash_at = store.storage.calls + call
        try:
            store.evict(1)
        except CrashError:
            dead += 1
        is_over = not store.storage.is_dead
        store.small.store.layers.index.close()
        store.storage.crash(Random(call), ("last", "earlier")[call % 2])
        store.storage = FaultyLazyStorage(store.small.directory, store.files)
        store.open()
        lsn = store.lsns[call % len(store.lsns)]
        expected = {key: page for key, page in store.expected.items() if key[-1] == lsn}
        assert pages(store.small, [lsn]) == expected
        store.small.let_go()
        if is_over:
            break
    assert dead > 5
