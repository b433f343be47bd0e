"""Compaction of small stores: what a damaged layer stops, and what it does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter
from engine.compaction_policy import Policy
from engine.retention import Bounds
from formats import chunk, layer_bits
from formats.file_name import FileName
from formats.layer_file import LayerKind
from tests.fixtures.crash_workload import content_of
from tests.fixtures.small_store import SmallStore, create, drop, image, insert, truncate

GOOD, BAD = (1663, 5, 16384), (1663, 5, 16385)
POLICY = Policy(l0_bundles_merged_min=2, layers_max=2, debt_bytes_min=1 << 40,
                debt_versions_per_block=1 << 40)  # fmt: skip
PAGES_OF_BAD, PAGES_OF_GOOD = (chunk.relation(*one, 0).pack() for one in (BAD, GOOD))
HISTORY_OF_BAD, HISTORY_OF_GOOD = (
    bytes([key[0] | chunk.HISTORY]) + key[1:] for key in (PAGES_OF_BAD, PAGES_OF_GOOD)
)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def round_of_writes(small: SmallStore, number: int) -> int:
    """Some pages of both relations, flushed; the LSN at which they are."""
    for block in range(12):
        small.add(image(block, 100 * number + block, GOOD), image(block, number, BAD))
    small.ingest()
    small.flush()
    return small.store.durable_lsn


def damage(small: SmallStore, bundle: BundleReader, key: bytes = PAGES_OF_BAD) -> None:
    """One bit of a frame that has nothing but what is of this chunk."""
    directory = bundle.directory
    row = directory.find(key, 0, 0)
    mine = set(range(directory.frame_start(row), directory.frame_end(row)))
    for other in range(directory.count):
        if other != row:
            mine -= set(range(directory.frame_start(other), directory.frame_end(other)))
    damage_frame(small, bundle, min(mine))


def damage_frame(small: SmallStore, bundle: BundleReader, frame: int) -> None:
    at = bundle.table.offset(frame) + bundle.table.stored_length(frame) - 1
    path = small.directory / "layers" / bundle.name.text
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallStore:
    _, require_room = BundleWriter.__init__.__defaults__
    monkeypatch.setattr(BundleWriter.__init__, "__defaults__", (512, require_room))
    return SmallStore(tmp_path)


def test_a_damaged_layer_stops_its_stripe_only(small: SmallStore) -> None:
    small.add(create(GOOD), create(BAD))
    lsns = [round_of_writes(small, number) for number in (1, 2, 3)]
    damage(small, small.store.layers.map.l0[1].reader)
    small.compact(POLICY)
    lsns += [round_of_writes(small, number) for number in (4, 5)]
    small.compact(POLICY)
    assert small.store.layers.map.l0_count < POLICY.l0_bundles_merged_min
    assert [chunk.ChunkKey.unpack(key).rel for key, _ in small.store.compactor.damaged] == [BAD[2]]
    for _ in range(2):
        check(small, lsns)
        small.reopen()
    small.let_go()


def check(small: SmallStore, lsns: list[int]) -> None:
    """All of GOOD; of BAD an error where the damaged frame is needed, else the page."""
    failed = {}
    for number, lsn in enumerate(lsns, 1):
        for block in range(12):
            assert small.mark(block, lsn, GOOD) == 100 * number + block
            try:
                found = small.mark(block, lsn, BAD)
            except LookupError as error:
                failed[number, block] = str(error)
            else:
                assert found == number
    assert {number for number, _ in failed} == {2}
    assert len(failed) < 12
    assert all("checksum" in text for text in failed.values())


def test_a_damaged_history_does_not_stop_the_others_pruning(small: SmallStore) -> None:
    store = small.store
    small.put(create(GOOD), create(BAD))
    for block in range(100):
        small.add(image(block, block, GOOD), image(block, block, BAD))
        if block % 50 == 49:
            small.ingest()
            small.flush()
    small.compact(POLICY)
    index = store.layers.index
    before = sum(layer.versions for layer in index.stripe(HISTORY_OF_GOOD, 0))
    bundle = store.layers.map.reader(index.stripe(HISTORY_OF_BAD, 0)[0].file)
    damage(small, bundle, HISTORY_OF_BAD)
    for mark in (1, 2):
        small.put(image(0, mark, GOOD))
        small.flush()
        store.retention.step(0.0, Bounds(0, 0), lambda time: None)
        small.compact(POLICY)
        assert {key for key, _ in store.compactor.damaged} == {HISTORY_OF_BAD}
    after = sum(layer.versions for layer in index.stripe(HISTORY_OF_GOOD, 0))
    assert after < before / 4
    assert small.mark(99, store.ready_lsn, GOOD) == 99
    small.let_go()


@pytest.mark.parametrize("is_dropped", [False, True])
def test_damaged_history_in_l0_stops_neither_flush_nor_start(
    small: SmallStore, *, is_dropped: bool
) -> None:
    """What L0 says of a relation is read when older history of it is pruned, or goes with the
    relation. That was behind the manifest's entry, which no index could follow any more."""
    small.put(create(GOOD), create(BAD))
    for block in range(100):
        small.add(image(block, block, GOOD), image(block, block, BAD))
        if block % 50 == 49:
            small.ingest()
            small.flush()
    small.compact(POLICY)
    small.add(*(image(block, 1, BAD) for block in range(100, 160)))
    small.put(*[drop(BAD)] * is_dropped)
    small.flush()
    (bundle,) = small.store.layers.map.l0
    damage(small, bundle.reader, HISTORY_OF_BAD)
    small.reopen()
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    small.compact(POLICY)
    small.put(image(0, 7, GOOD))
    small.flush()
    small.reopen()
    small.compact(POLICY)
    assert small.store.layers.map.l0_count == 0  # what can be merged is
    assert small.mark(0, small.store.ready_lsn, GOOD) == 7
    assert small.store.exists(*BAD, 0, small.store.ready_lsn) is not is_dropped
    small.let_go()


def test_a_damaged_history_stops_no_image_but_its_own(small: SmallStore) -> None:
    """How many blocks an image has is read from it, if the relation has changed since."""
    small.put(create(GOOD), create(BAD))
    for block in range(100):
        small.add(image(block, block, GOOD), image(block, block, BAD))
    small.ingest()
    small.flush()
    small.compact(replace(POLICY, l0_bundles_merged_min=1))
    index = small.store.layers.index
    bundle = small.store.layers.map.reader(index.stripe(HISTORY_OF_BAD, 0)[0].file)
    row = bundle.directory.find(HISTORY_OF_BAD, 0, 0)
    damage_frame(small, bundle, bundle.directory.frame_end(row) - 1)
    small.put(truncate(5, BAD), truncate(50, GOOD))
    small.reopen()  # nothing is in memory that was read before
    index = small.store.layers.index
    small.compact(replace(POLICY, debt_bytes_min=1, debt_per_image_byte=0.01))
    kinds = {key: {layer.kind for layer in index.stripe(key, 0)}
             for key in (PAGES_OF_BAD, PAGES_OF_GOOD)}  # fmt: skip
    assert LayerKind.IMAGE in kinds[PAGES_OF_GOOD]
    assert LayerKind.IMAGE not in kinds[PAGES_OF_BAD]
    assert set(small.store.compactor.damaged) == {(PAGES_OF_BAD, 0)}
    small.let_go()


def test_a_merge_that_is_done_in_part_hides_nothing(small: SmallStore) -> None:
    """The newer of two bundles is merged as a whole while the older one has more to merge: what was
    merged of the older one no longer counts, or its versions would be the newest."""
    small.add(create(GOOD), create(BAD))
    small.put(image(0, 1, GOOD), image(0, 1, BAD))
    small.flush()
    end = small.put(image(0, 2, GOOD))
    small.flush()
    store = small.store
    assert store.compactor is not None
    store.compactor.policy = replace(POLICY, own_file_bytes_min=1)
    counts = [store.layers.map.l0_count]
    while store.compact_step():
        assert (small.mark(0, end, GOOD), small.mark(0, end, BAD)) == (2, 1)
        counts.append(store.layers.map.l0_count)
    assert 1 in counts  # or it was no test
    assert counts[-1] == 0
    small.let_go()


def test_the_oldest_bundle_is_settled_first(
    small: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is L0 still is looked into before what lies below it."""
    small.add(create(GOOD), create(BAD))
    lsns = [round_of_writes(small, number) for number in (1, 2, 3)]
    damage(small, small.store.layers.map.l0[1].reader)
    settle, settled = small.store.layers.settle, list[int]()

    def settle_and_check(name: FileName) -> None:
        settle(name)
        settled.append(name.sequence)
        check(small, lsns)

    monkeypatch.setattr(small.store.layers, "settle", settle_and_check)
    small.compact(POLICY)
    assert len(settled) > 1
    state = small.store.manifest.state
    assert {name.sequence for name in state.settled} == set(settled)
    for name in state.settled:
        entry = small.store.layers.index.file(name)
        assert entry.layers_removed == layer_bits.count(state.removed.get(name, b"")) > 0
    assert settled == sorted(settled)
    small.let_go()


@pytest.mark.parametrize("is_held", [False, True])
def test_a_table_that_is_let_alone_becomes_one_image(small: SmallStore, *, is_held: bool) -> None:
    """Debt that calls for no image goes all the same when the horizon has passed it, if nobody
    holds an LSN in it."""
    policy = Policy(l0_bundles_merged_min=1, debt_bytes_min=0, debt_per_image_byte=1e9,
                    image_bytes_per_block=8)  # fmt: skip
    small.add(create(GOOD), create(BAD))
    lsns = [round_of_writes(small, number) for number in (1, 2, 3)]
    small.compact(policy)
    key = chunk.relation(*GOOD, 0).pack()
    before = small.store.layers.index.stripe(key, 0)
    assert {layer.kind for layer in before} == {LayerKind.DELTA}
    if is_held:
        small.store.retention.create_point("held", lsns[1])
    end = small.put(image(0, 1, (1663, 5, 16386)))
    small.flush()
    small.store.retention.step(0.0, Bounds(0, 0), lambda time: None)
    small.compact(policy)
    after = small.store.layers.index.stripe(key, 0)
    if is_held:
        assert after == before
    else:
        assert [(layer.kind, layer.lsn_start) for layer in after] == [(LayerKind.IMAGE, end)]
    for lsn, number in ((lsns[1], 2), (end, 3)) if is_held else ((end, 3),):
        assert [small.mark(block, lsn, GOOD) for block in range(12)] == [
            100 * number + block for block in range(12)
        ]
    small.let_go()


def test_no_merge_passes_a_damaged_layer(small: SmallStore) -> None:
    """What is older and what is newer than it must not become one layer: reads would pass by its
    versions without an error."""
    store = small.store
    one_by_one = replace(POLICY, l0_bundles_merged_min=1, layers_max=9, own_file_bytes_min=1)
    small.put(create(BAD))
    lsns = []
    for number in range(1, 5):
        lsns.append(small.put(insert(0, number, b"row %d" % number, BAD, init=number == 1)))
        small.flush()
        small.compact(one_by_one)
    layers = store.layers.index.stripe(PAGES_OF_BAD, 0)
    assert len(layers) == 4
    damage(small, store.layers.map.reader(layers[2].file))
    for number in range(5, 7):
        lsns.append(small.put(insert(0, number, b"row %d" % number, BAD)))
        small.flush()
        small.compact(replace(one_by_one, layers_max=1))
    small.reopen()
    for lsn in lsns[1:]:
        with pytest.raises(LookupError, match="checksum"):
            small.page(0, lsn, BAD)
    assert len(content_of(small.page(0, lsns[0], BAD)).tuples) == 1
    small.let_go()


def test_an_image_in_the_second_segment_has_what_lies_there(small: SmallStore) -> None:
    lsn = small.put(create(GOOD), image(chunk.SEGMENT_BLOCKS + 1, 1, GOOD))
    assert small.store.compactor is not None
    blocks = small.store.compactor._images.pages.blocks
    assert blocks((chunk.relation(*GOOD, 0, 1).pack(), 0), lsn) == 2
    assert blocks((chunk.relation(*GOOD, 0, 1).pack(), 1), lsn) == 0
    assert blocks((PAGES_OF_GOOD, 7), lsn) == chunk.STRIPE_BLOCKS
    small.let_go()
