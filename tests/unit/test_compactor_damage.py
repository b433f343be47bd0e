"""Bundles of which nothing can be read: their stripes are left, settled and reported; the others
are compacted, and pruned, as ever."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.retention import Bounds
from formats import chunk
from formats.chunk import ChunkKey, ChunkKind
from tests.fixtures.small_store import SmallStore, create, image
from tests.unit.test_compactor import HISTORY_OF_BAD, HISTORY_OF_GOOD, damage

GOOD, BAD = (1663, 5, 16384), (1663, 5, 16385)
POLICY = Policy(l0_bundles_merged_min=3, layers_max=2, debt_bytes_min=1 << 40,
                debt_versions_per_block=1 << 40)  # fmt: skip


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def frame_table(path: Path, reader: BundleReader) -> None:
    flip(path, reader.footer.table_offset + reader.footer.table_length - 1)


def header(path: Path, reader: BundleReader) -> None:
    flip(path, 20)


def footer(path: Path, reader: BundleReader) -> None:
    flip(path, reader.footer.table_offset + reader.footer.table_length)


def all_of_it(path: Path, reader: BundleReader) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [frame_table, header, footer, all_of_it])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bundle_that_cannot_be_read(
    tmp_path: Path, spoil: Callable[[Path, BundleReader], None], place: int
) -> None:
    small = SmallStore(tmp_path)
    small.put(create(GOOD), create(BAD), image(0, 1, GOOD), image(0, 1, BAD))
    small.flush()
    small.compact(Policy(l0_bundles_merged_min=1, debt_bytes_min=1 << 40))
    lsns = []
    for number in range(3):
        small.put(image(0, 10 + number, BAD if number == place else GOOD))
        lsns.append(small.flush())
    spoiled = small.store.layers.map.l0[2 - place].reader
    name = spoiled.name
    spoil(tmp_path / "layers" / name.text, BundleReader(small.store.storage, spoiled.path))
    small.reopen()
    for number in (3, 4, 5, 6, 7, 8):
        small.compact(POLICY)
        assert small.store.layers.map.l0_count < POLICY.l0_bundles_merged_min
        assert name in small.store.layers.state.settled
        lsns.append(small.put(image(1, number, GOOD), image(1, number, BAD)))
        small.flush()
        small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    assert chunk.relation(*BAD, 0).pack() in {key for key, _ in small.store.compactor.damaged}
    end = lsns[-1]
    for _ in range(2):
        assert small.mark(0, end, GOOD) == (11 if place == 2 else 12)
        assert [small.mark(1, end, each) for each in (GOOD, BAD)] == [8, 8]
        with pytest.raises(LookupError, match=name.text):
            small.mark(0, end, BAD)
        small.reopen()
        small.compact(POLICY)
    stripes = dict(small.store.layers.index.stripes_after(None, 1 << 20))
    assert len(stripes[chunk.relation(*GOOD, 0).pack(), 0]) <= POLICY.layers_max + 1
    small.let_go()


def test_a_history_whose_newest_part_in_l0_is_damaged_is_not_pruned(
    small: SmallStore,
) -> None:
    """A commit that prunes reads what L0 has of it."""
    damage_and_prune(small, lambda bundle: damage(small, bundle, HISTORY_OF_BAD))


def test_a_history_whose_bundle_in_l0_cannot_be_read_is_not_pruned(small: SmallStore) -> None:
    path = small.directory / "layers"
    damage_and_prune(small, lambda bundle: frame_table(path / bundle.name.text, bundle))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallStore:
    _, require_room = BundleWriter.__init__.__defaults__
    monkeypatch.setattr(BundleWriter.__init__, "__defaults__", (64, require_room))
    return SmallStore(tmp_path)


def damage_and_prune(small: SmallStore, spoil: Callable[[BundleReader], None]) -> None:
    store = small.store
    small.put(create(GOOD), create(BAD))
    for block in range(100):
        small.add(image(block, block, GOOD), image(block, block, BAD))
        if block % 50 == 49:
            small.ingest()
            small.flush()
    small.put(image(0, 1, GOOD))
    small.flush()
    small.compact(POLICY)
    small.put(*(image(block, block, BAD) for block in range(100, 120)))
    small.flush()
    index = store.layers.index
    before = sum(layer.versions for layer in index.stripe(HISTORY_OF_GOOD, 0))
    spoil(store.layers.map.l0[0].reader)
    small.reopen()
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    small.compact(POLICY)
    index = small.store.layers.index
    kinds = {ChunkKey.unpack(key).kind for key, _ in small.store.compactor.damaged}
    assert ChunkKind.REL | chunk.HISTORY in kinds
    after = sum(layer.versions for layer in index.stripe(HISTORY_OF_GOOD, 0))
    bad = sum(layer.versions for layer in index.stripe(HISTORY_OF_BAD, 0))
    assert bad >= before
    assert after < before / 4
    small.let_go()


def raise_input_output_error(*_: object) -> bytes:
    raise OSError(errno.EIO, "Input/output error")


def test_a_disk_that_fails_once_is_not_taken_for_an_empty_bundle(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index was told that its layers take 0 bytes."""
    small.put(create(GOOD), image(0, 1, GOOD))
    small.flush()
    storage, known = small.store.storage, small.store.layers.map.l0[0].reader
    reader = BundleReader(storage, known.path, known.read_directory_frame())
    with monkeypatch.context() as disk:
        disk.setattr(storage, "pread", raise_input_output_error)
        with pytest.raises(OSError, match="Input/output"):
            reader.stored_bytes()
        assert not any(reader.stored_bytes_if_readable())
    assert all(reader.stored_bytes())
    small.let_go()
