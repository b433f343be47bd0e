"""What happened to others whose stores are like this one, as regressions by name: those that take
merges, images or garbage collection. Those of flush and journal are among the property tests."""

import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.bundle_merge import merge_bundles
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.directory_check import check_directory
from engine.merge_plan import MergeInput
from engine.page_store import PageStore
from engine.storage import DirectoryInUseError, Storage
from formats.file_name import FileKind, FileName
from tests.fixtures import bundles
from tests.fixtures.crash_workload import content_of
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.small_store import REL, SmallStore, create, drop, image, insert, truncate
from tests.simulation.small_sizes import small_sizes

OTHER = (1663, 5, 16385)
MERGE_TWO = Policy(
    l0_bundles_merged_min=2, layers_max=1, debt_bytes_min=1 << 40, own_file_bytes_min=1
)
MERGE_ALL = Policy(l0_bundles_merged_min=1, layers_max=0, debt_bytes_min=1 << 40)
WITH_IMAGES = Policy(
    l0_bundles_merged_min=1, layers_max=1, debt_bytes_min=1, debt_per_image_byte=0.1,
    image_bytes_per_block=1, debt_versions_per_block=1,
)  # fmt: skip


@pytest.fixture
def small(fast_directory: Path) -> Iterator[SmallStore]:
    with small_sizes():
        directory = fast_directory / "data"
        directory.mkdir()
        store = SmallStore(directory, memory_bytes=1 << 20)
        yield store
        store.let_go()


def flushed(small: SmallStore, *records: object) -> int:
    """Ingest records and flush them into a bundle of their own; the LSN behind them."""
    end = small.put(*records)
    small.flush()
    return end


def texts(small: SmallStore, block: int, lsn: int, relation: tuple = REL) -> list[bytes]:
    content = content_of(small.page(block, lsn, relation))
    return [] if content is None else list(content.tuples)


def check_on_disk(small: SmallStore, tmp_path: Path) -> None:
    """`layertool verify`, after a clean stop; the store is open again afterwards."""
    small.store.close()
    assert [str(one) for one in check_directory(Storage(), small.directory, tmp_path)] == []
    small.open()


@pytest.mark.parametrize("reopens", [False, True])
def test_neon_7296_11040_a_merge_keeps_the_order_of_lsns(small: SmallStore, reopens: bool) -> None:
    """Tiered compaction ignored the order of LSNs: updates were lost, keys not found.

    Here: of two bundles the newer one is merged whole while the older still has layers that are
    not; what was merged of it must not hide what is newer.
    """
    small.compact(WITH_IMAGES)  # what the base backup flushed
    flushed(small, image(0, 1), *(insert(0, n, b"old%d" % n, OTHER, init=n == 1) for n in (1, 2)))
    end = flushed(small, insert(0, 1, b"new", REL))
    small.store.compactor.policy = MERGE_TWO
    while small.store.layers.map.l0_count == 2:
        assert small.store.compact_step()
        assert texts(small, 0, end) == [b"new"]
    if reopens:
        small.reopen()
    assert small.store.layers.map.l0_count == 1, "one has gone, the other has layers left"
    assert texts(small, 0, end) == [b"new"]
    small.compact(MERGE_TWO)
    assert texts(small, 0, end) == [b"new"]
    assert texts(small, 0, end, OTHER) == [b"old1", b"old2"]


def test_neon_2aceb6a3_an_image_goes_only_when_no_delta_needs_it(small: SmallStore) -> None:
    """Garbage collection removed an image layer that deltas above it, still readable, needed."""
    flushed(small, image(0, 1), insert(0, 1, b"one"))
    small.compact(WITH_IMAGES)  # the image that the point will need
    held = flushed(small, insert(0, 2, b"two"))
    small.store.retention.create_point("held", held)
    for n in range(3, 8):
        end = flushed(small, insert(0, n, b"more%d" % n))
        small.compact(WITH_IMAGES)
        small.advance_horizon(end)
        small.compact(WITH_IMAGES)
        assert texts(small, 0, held) == [b"one", b"two"]
    small.store.retention.drop_point("held")
    small.compact(WITH_IMAGES)
    small.reopen()  # what is in the page cache is right, and may be answered
    with pytest.raises(LookupError, match="below the horizon"):
        texts(small, 0, held)
    assert len(texts(small, 0, end)) == 7


def test_neon_10374_images_of_other_sizes_hide_nothing(small: SmallStore) -> None:
    """An image layer that covered other keys than the one before it hid what it did not have."""
    seen = {}
    seen[flushed(small, *(insert(block, 1, b"%d" % block, init=True) for block in range(4)))] = 4
    small.compact(WITH_IMAGES)
    seen[flushed(small, truncate(1), insert(0, 2, b"cut"))] = 1
    small.compact(WITH_IMAGES)
    seen[flushed(small, insert(3, 1, b"again", init=True))] = 4
    small.compact(WITH_IMAGES)
    first, cut, again = seen
    for lsn, blocks in seen.items():
        assert small.store.nblocks(*REL, 0, lsn) == blocks
    assert [texts(small, block, first) for block in range(4)] == [[b"%d" % n] for n in range(4)]
    assert texts(small, 0, cut) == [b"0", b"cut"]
    assert [texts(small, block, again) for block in range(4)] == [
        [b"0", b"cut"],
        [],
        [],
        [b"again"],
    ]


def test_neon_9791_retention_does_not_hang_from_objects(small: SmallStore) -> None:
    """An LSN that a branch needed was forgotten with the object that stood for it."""
    held = flushed(small, image(0, 1), insert(0, 1, b"held"))
    small.store.retention.create_point("held", held)
    small.store.retention.create_lease(held, 60, 1_000_000, "leased")
    small.reopen()
    small.store.retention.drop_point("held")  # the lease still holds it
    for n in range(2, 5):
        small.advance_horizon(flushed(small, image(0, n)))
        small.compact(WITH_IMAGES)
        small.reopen()
    assert texts(small, 0, held) == [b"held"]


def test_neon_5635_an_index_that_names_a_deleted_layer(small: SmallStore, tmp_path: Path) -> None:
    """The index referred to a layer that had been deleted. Here: it is older than its last commit,
    and the files that went since are gone."""
    end = flushed(small, image(0, 1))
    end = flushed(small, insert(0, 1, b"one"))
    old = (small.directory / "index" / "data.mdb").read_bytes()
    small.compact(WITH_IMAGES)
    assert small.store.layers.map.l0_count == 0
    small.let_go()
    (small.directory / "index" / "data.mdb").write_bytes(old)
    small.open()
    assert texts(small, 0, end) == [b"one"]
    check_on_disk(small, tmp_path)


def test_neon_8391_a_merge_takes_bounded_memory(tmp_path: Path) -> None:
    """L0 compaction read all keys of all layers: 15 GB for 60 of them. Here: 60 bundles, 60 MB."""
    storage, key = Storage(), bundles.relation_key(1)
    text = b"payload " * 128
    readers = []
    for number in range(60):
        versions = [(key, block, 1000 * number + block + 1, bundles.image(text + b"%d" % block))
                    for block in range(1000)]  # fmt: skip
        info = bundles.write(tmp_path, bundles.l0(number + 1), versions, 1 << 16)
        readers.append(BundleReader(storage, tmp_path / info.name.text))
    numbers = iter(range(1, 100))

    def create() -> BundleWriter:
        name = FileName(FileKind.L1, 0, 1, next(numbers))
        ids = bundles.TENANT, bundles.TIMELINE, bundles.POSTGRES_VERSION
        return BundleWriter(storage, tmp_path, name, *ids)

    inputs = [MergeInput(reader, [0]) for reader in reversed(readers)]
    tracemalloc.start()
    versions = sum(out.info.footer.versions for out in merge_bundles(inputs, create) if out.info)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert versions == 60_000
    assert peak < 30 << 20, f"{peak >> 20} MiB for {60_000 * len(text) >> 20} MiB of versions"


def test_neon_4580_each_output_counts_at_once(small: SmallStore) -> None:
    """New image layers counted only when all were made: reads stalled for minutes."""
    relations = [(1663, 5, 16384 + n) for n in range(6)]
    for _ in range(2):
        end = flushed(small, *(insert(0, 1, b"%d" % r[2], r, init=True) for r in relations))
    small.store.compactor.policy = MERGE_TWO
    counts = []
    while small.store.layers.map.l0_count:
        assert small.store.compact_step()
        counts.append(sum(1 for name in small.store.manifest.state.files
                          if name.kind == FileKind.L1))  # fmt: skip
        assert [texts(small, 0, end, r) for r in relations] == [[b"%d" % r[2]] for r in relations]
    assert counts == sorted(counts) and len(set(counts)) > 2, counts


def test_neon_10395_what_a_crash_left_of_compaction_is_not_read(small: SmallStore) -> None:
    """Layers that an interrupted job had left made history that could not be replayed."""
    flushed(small, image(0, 1))
    end = flushed(small, insert(0, 1, b"one"))
    storage = FaultyStorage()
    small.reopen(storage)
    small.store.compactor.policy = MERGE_TWO
    storage.fail("append", 5, name="manifest")  # behind the output's fsync, before it counts
    with pytest.raises(OSError, match="manifest"):
        small.compact(MERGE_TWO)
    left = {path.name for path in small.store.paths.layers.iterdir()}
    assert texts(small, 0, end) == [b"one"]
    small.let_go()
    small.open()
    named = {name.text for name in small.store.manifest.state.files}
    assert {path.name for path in small.store.paths.layers.iterdir()} == named < left
    assert texts(small, 0, end) == [b"one"]
    small.compact(MERGE_TWO)
    assert texts(small, 0, end) == [b"one"]


def test_neon_11404_what_was_deleted_stays_deleted(small: SmallStore, tmp_path: Path) -> None:
    """Compaction with garbage collection might bring deleted files back."""
    flushed(small, create(OTHER), insert(0, 1, b"gone", OTHER, init=True), image(0, 1))
    flushed(small, drop(OTHER), image(0, 2))
    small.compact(WITH_IMAGES)
    for n in range(3, 8):
        end = flushed(small, image(0, n))
        small.advance_horizon(end)
        small.compact(WITH_IMAGES)
        assert not small.store.exists(*OTHER, 0, end)
    check_on_disk(small, tmp_path)
    assert not small.store.exists(*OTHER, 0, end)
    assert all(relation[:3] != OTHER for relation in small.store.relations(end))
    shutil.rmtree(small.directory / "index")
    small.reopen()
    assert not small.store.exists(*OTHER, 0, end)
    again = small.put(create(OTHER), insert(1, 1, b"again", OTHER, init=True))
    assert texts(small, 0, again, OTHER) == []
    assert texts(small, 1, again, OTHER) == [b"again"]


def test_neon_9240_a_truncation_keeps_what_is_below_it(small: SmallStore) -> None:
    """What a truncation did was told wrong. Here: it ends the need for older layers only if it left
    none of the stripe's blocks."""
    flushed(small, insert(0, 1, b"kept", init=True), insert(1, 1, b"cut", init=True))
    small.compact(WITH_IMAGES)
    end = flushed(small, truncate(1), image(0, 1, OTHER))
    end = flushed(small, image(0, 2, OTHER))
    small.compact(WITH_IMAGES)
    small.advance_horizon(end)
    small.compact(WITH_IMAGES)
    small.reopen()
    assert texts(small, 0, end) == [b"kept"]


def test_a_file_stays_for_who_is_about_to_open_it(small: SmallStore) -> None:
    """As in Neon #5635: a reader knows of a layer whose file a merge makes superfluous."""
    flushed(small, image(0, 1), insert(0, 1, b"one"))
    flushed(small, insert(0, 2, b"two"))
    small.compact(MERGE_TWO)
    end = flushed(small, insert(1, 1, b"other", init=True))
    small.reopen()
    layers = small.store.layers.map
    open_reader, awaited = layers.reader, []

    def merge_first(name: FileName) -> BundleReader:
        if not awaited:
            awaited.append(name)
            merging = threading.Thread(target=small.compact, args=(MERGE_ALL,))
            merging.start()
            merging.join()
        return open_reader(name)

    layers.reader = merge_first  # type: ignore[method-assign]
    assert texts(small, 0, end) == [b"one", b"two"]
    assert awaited[0] not in small.store.manifest.state.files
    small.compact(MERGE_ALL)
    assert not (small.store.paths.layers / awaited[0].text).exists()


def test_slatedb_1622_nobody_else_collects(small: SmallStore) -> None:
    """A stale client's garbage collection took what another had flushed and not yet named. Here it
    does not get as far as to look: a directory has one owner, leftovers included."""
    end = small.put(image(0, 1))
    small.store.freeze()
    step = small.store._flusher._write
    written = []

    def write_and_let_another_start(memtable: object) -> object:
        info = step(memtable)
        written.append(info.name.text)
        with pytest.raises(DirectoryInUseError):
            PageStore(small.directory, 1 << 20)
        assert (small.store.paths.layers / written[0]).exists()
        return info

    small.store._flusher._write = write_and_let_another_start
    assert small.store.flush_step()
    small.reopen()
    assert small.mark(0, end) == 1
    assert written[0] in {name.text for name in small.store.manifest.state.files}
