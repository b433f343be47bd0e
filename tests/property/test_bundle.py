"""Bundles against a dictionary: whatever was written is read back, at every LSN, by every way."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bundle_check import problems
from engine.bundle_reader import BundleReader
from engine.bundle_writer import Version
from engine.frame_cache import FrameCache
from engine.index import Index
from engine.index_rebuild import bundle_for_index
from engine.layer_map import LayerMap
from engine.layer_query import LayerQuery
from engine.storage import Storage
from engine.version_set import VersionSet
from tests.fixtures import bundles
from tests.fixtures.bundles import Model

LSN_MAX = 400
STRIPE = 1 << 14

payloads = st.builds(
    lambda make, text: make(text),
    st.sampled_from([bundles.record, bundles.record, bundles.record, bundles.image]),
    st.binary(max_size=90),
)
keys = st.builds(bundles.relation_key, st.integers(0, 3), st.integers(0, 1))
blocks = st.sampled_from([0, 1, 2, STRIPE - 1, STRIPE, STRIPE + 1, 131071])
versions = st.lists(
    st.tuples(keys, blocks, st.integers(1, LSN_MAX), payloads), min_size=1, max_size=120
)
frame_sizes = st.sampled_from([32, 100, 300, 1000, 1 << 15])
reads = st.lists(
    st.tuples(keys, blocks, st.integers(0, LSN_MAX + 9), st.integers(0, LSN_MAX)), max_size=30
)


Request = tuple[bytes, int, int, int]  # chunk key, block, LSN, floor


def check_reads(layers: LayerMap, model: Model, requests: list[Request]) -> None:
    """One by one, and all in one batch."""
    batch, shared = LayerQuery(max(1, len(requests))), VersionSet()
    batch.begin(shared)
    chains = []
    for key, block, lsn_max, lsn_floor in sorted(requests):
        expected, is_complete = model.read(key, block, lsn_max, lsn_floor)
        alone = VersionSet()
        found_complete = layers.collect(key, block, lsn_max, lsn_floor, alone)
        assert bundles.pushed(alone) == expected
        assert found_complete == (is_complete or lsn_max <= lsn_floor)
        batch.add(key, block, lsn_floor, lsn_max, 0)
        chains.append(expected)
    layers.collect_batch(batch)
    assert batch.errors == {}
    for i, expected in enumerate(chains):
        chain, number = [], batch.oldest_of(i)
        while number:
            chain.append((shared.lsn[number], shared.payload(number)))
            number = shared.newer[number]
        assert chain == expected[::-1]


@settings(max_examples=150, deadline=None)
@given(versions, frame_sizes, reads)
def test_one_bundle(written: list[Version], frame_bytes: int, requests: list[Request]) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        info = bundles.write(directory, bundles.l0(1), written, frame_bytes)
        model = Model(written)
        reader = BundleReader(Storage(), directory / info.name.text)
        assert list(problems(reader)) == []
        assert reader.footer == info.footer
        assert info.footer.versions == sum(len(lsns) for lsns in model.blocks.values())
        everything = [(key, block, LSN_MAX, 0) for key, block in model.blocks]
        cache = FrameCache(1 << 16)
        for key, block, lsn_max, lsn_floor in requests + everything:
            into, query = VersionSet(), LayerQuery(1)
            query.begin(into)
            query.add(key, block, lsn_floor, lsn_max, 0)
            if hits := reader.locate(query, b""):
                reader.collect_hits(query, hits, cache)
            assert bundles.pushed(into) == model.read(key, block, lsn_max, lsn_floor)[0]


@settings(max_examples=40, deadline=None)
@given(versions, frame_sizes, reads, st.lists(st.integers(1, LSN_MAX), max_size=4), st.booleans())
def test_many_bundles(
    written: list[Version],
    frame_bytes: int,
    requests: list[Request],
    flushes: list[int],
    has_base: bool,
) -> None:
    """A base backup and any number of flushes; the number of L0 bundles makes no difference."""
    bounds = [0, *sorted(set(flushes)), LSN_MAX]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for directory in ("index", "layers"):
            (root / directory).mkdir()
        index = Index(root / "index")
        layers = LayerMap(Storage(), root / "layers", index, FrameCache(1 << 12), {}, 1, 2)
        for serial, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False), 1):
            part = [version for version in written if low < version[2] <= high]
            is_base = has_base and serial == 1
            file = bundles.l1(serial) if is_base else bundles.l0(serial)
            info = bundles.write(root / "layers", file, part, frame_bytes)
            reader = BundleReader(Storage(), root / "layers" / file.text)
            index.commit(serial, high, added=[bundle_for_index(reader, info)])
            layers.change([info], (), {(key, block >> 14) for key, block, _, _ in part}, {})
        model = Model(written)
        everything = [(key, block, LSN_MAX, 0) for key, block in model.blocks]
        check_reads(layers, model, requests + everything)
        again = LayerMap(Storage(), root / "layers", index, FrameCache(0))
        check_reads(again, model, requests)
        index.close()
