"""Merging bundles against a dictionary of versions: nothing is lost, added or out of its place."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import bundle_merge
from engine.bundle_check import problems
from engine.bundle_merge import MergedBundle, Retained, merge_bundles
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter, Version
from engine.garbage import needed_cuts
from engine.merge_plan import MergeInput
from engine.storage import File, Storage
from formats import frame, version
from formats.chunk import HISTORY
from formats.file_name import FileKind, FileName
from tests.fixtures import bundles

STRIPE = 1 << 14
LSN_MAX = 25
Place = tuple[bytes, int, int]  # chunk key, block, LSN

payloads = st.builds(
    lambda make, text: make(text),
    st.sampled_from([bundles.record, bundles.record, bundles.record, bundles.image]),
    st.binary(max_size=60),
)
keys = st.builds(bundles.relation_key, st.integers(0, 1))
blocks = st.sampled_from([0, 1, STRIPE - 1, STRIPE])
versions = st.lists(st.tuples(keys, blocks, st.integers(1, LSN_MAX), payloads), max_size=60)


@dataclass
class Input:
    """The versions of a bundle, its frame size, and which of its layers are not merged."""

    versions: list[Version]
    frame_bytes: int
    skipped: frozenset[int]


inputs = st.lists(
    st.builds(
        Input,
        versions,
        st.sampled_from([32, 100, 300, 1 << 15]),
        st.frozensets(st.integers(0, 5), max_size=3),
    ),
    max_size=7,
)
retentions = st.none() | st.builds(
    Retained, st.lists(st.integers(0, LSN_MAX + 5), max_size=5), st.integers(0, LSN_MAX + 5)
)


class UnsyncedStorage(Storage):
    """No power is lost here."""

    def sync(self, file: File) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


def is_self_contained(payload: bytes) -> bool:
    return payload[0] not in (version.RECORD, version.EFFECT)


def read(path: Path) -> list[tuple[Place, bytes]]:
    """All versions of a bundle in the order of its frames, its checks passed."""
    reader = BundleReader(Storage(), path)
    assert list(problems(reader)) == []
    directory, found = reader.directory, []
    places = {
        directory.number(row): (directory.key(row), directory.stripe(row))
        for row in range(directory.count)
    }
    for number in range(reader.table.count):
        raw = reader.read_frame(number)
        for slot in range(frame.version_count(raw)):
            key, stripe = places[frame.version_layer(raw, slot)]
            block = frame.version_block(raw, slot)
            assert block >> 14 == stripe
            payload = raw[frame.version_start(raw, slot) : frame.version_end(raw, slot)]
            found.append(((key, block, frame.version_lsn(raw, slot)), payload))
    return found


def merged_model(sources: Sequence[dict[Place, bytes]]) -> dict[Place, bytes]:
    """The newest source first: of equal places a self-contained version, else the first."""
    model: dict[Place, bytes] = {}
    for source in sources:
        for place, payload in source.items():
            there = model.get(place)
            if there is None or (is_self_contained(payload) and not is_self_contained(there)):
                model[place] = payload
    return model


def pruned(model: dict[Place, bytes], retained: Retained) -> dict[Place, bytes]:
    """What a reader at a retained LSN or above the horizon can want, by the definition."""
    wanted: dict[Place, bytes] = {}
    for key, block in {place[:2] for place in model}:
        chain = {lsn: payload for (k, b, lsn), payload in model.items() if (k, b) == (key, block)}
        readers = {lsn for lsn in retained.lsns if lsn <= retained.horizon} | {retained.horizon}
        keep = {lsn for lsn in chain if lsn > retained.horizon}
        for reader in readers:
            bases = [lsn for lsn in chain if lsn <= reader and is_self_contained(chain[lsn])]
            base = max(bases, default=0)
            keep |= {lsn for lsn in chain if base <= lsn <= reader}
        wanted |= {(key, block, lsn): chain[lsn] for lsn in keep}
    return wanted


class Merging:
    """Bundles of some inputs in a directory of their own, and what is merged of them."""

    def __init__(self, directory: Path, given: Sequence[Input]) -> None:
        self.directory = directory
        self.inputs: list[MergeInput] = []
        self.sources: list[dict[Place, bytes]] = []
        self._sequence = count(1)
        for number, source in enumerate(given):
            file, storage = bundles.l0(number + 1), UnsyncedStorage()
            bundles.write(directory, file, source.versions, source.frame_bytes, storage)
            path = directory / file.text
            reader = BundleReader(storage, path)
            rows = [row for row in range(reader.directory.count) if row not in source.skipped]
            self.inputs.append(MergeInput(reader, rows))
            chosen = {(reader.directory.key(row), reader.directory.stripe(row)) for row in rows}
            self.sources.append(
                {
                    place: payload
                    for place, payload in read(path)
                    if (place[0], place[1] >> 14) in chosen
                }
            )

    def create_bundle(self) -> BundleWriter:
        name = FileName(FileKind.L1, 0, 1, next(self._sequence))
        return bundles.writer_for(self.directory, name, 200, UnsyncedStorage())

    def content(self, output: MergedBundle) -> list[tuple[Place, bytes]]:
        return read(self.directory / output.info.name.text) if output.info else []

    def check_rows(self, outputs: list[MergedBundle]) -> None:
        """Each row that is merged is given with one output, which alone has its stripe."""
        output_of = {
            (place[0], place[1] >> 14): number
            for number, output in enumerate(outputs)
            for place, _ in self.content(output)
        }
        for i, (reader, rows) in enumerate(self.inputs):
            directory, seen = reader.directory, []
            for number, output in enumerate(outputs):
                bits = int.from_bytes(output.rows[i], "little")
                for row in range(directory.count):
                    if bits >> row & 1:
                        seen.append(row)
                        stripe = (directory.key(row), directory.stripe(row))
                        assert output_of.get(stripe, number) == number
            assert seen == rows


@settings(max_examples=150, deadline=None)
@given(
    inputs,
    retentions,
    st.sampled_from([64, 500, 1 << 20]),
    st.sets(st.tuples(keys, st.integers(0, 1)), max_size=3),
    st.sampled_from([64, 400, 1 << 20]),
)
def test_a_merge_is_that_of_dictionaries(
    given_inputs: list[Input],
    retained: Retained | None,
    file_bytes: int,
    own_files: set[tuple[bytes, int]],
    batch_bytes: int,
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_merge, "BATCH_BYTES", batch_bytes)
        merging = Merging(Path(name), given_inputs)
        outputs = list(
            merge_bundles(
                merging.inputs,
                merging.create_bundle,
                retained=retained,
                own_files=own_files,
                file_bytes=file_bytes,
            )
        )
        model = merged_model(merging.sources)
        if retained is not None:
            model = pruned(model, retained)
        found = []
        for output in outputs:
            content = merging.content(output)
            stripes = {(place[0], place[1] >> 14) for place, _ in content}
            assert len(stripes) == 1 or not stripes & own_files
            found += content
        assert found == sorted(model.items())
        merging.check_rows(outputs)


# A block's chain, by its kinds: R a record, I an image; and where another source has an image too.
chains = st.lists(
    st.tuples(st.sampled_from("RRRRRRRRRI"), st.integers(0, 40), st.integers(0, 12)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(chains, min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(20, 200),
    st.sampled_from([64, 1 << 20]),
    st.booleans(),
)
def test_chains_never_get_hot(
    given_chains: list[list[tuple[str, int, int]]],
    hot_records: int,
    hot_bytes: int,
    batch_bytes: int,
    leaves_some: bool,
) -> None:
    """Counting along each chain: where it gets too long there is an image, and nowhere else."""
    sources: list[list[Version]] = [[] for _ in range(13)]
    for block, chain in enumerate(given_chains):
        for lsn, (kind, length, source) in enumerate(chain, 1):
            make = bundles.record if kind == "R" else bundles.image
            key = bundles.relation_key(block & 1)
            sources[source].append((key, block, lsn, make(bytes(length))))
    asked: list[Place] = []

    def images(wanted: list[Place]) -> list[bytes | None]:
        asked.extend(wanted)
        return [image_at(place) for place in wanted]

    def image_at(place: Place) -> bytes | None:
        return None if leaves_some and place[2] % 2 else bundles.image(b"%d" % place[2])

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_merge, "BATCH_BYTES", batch_bytes)
        patch.setattr(bundle_merge, "HOT_RECORDS", hot_records)
        patch.setattr(bundle_merge, "HOT_BYTES", hot_bytes)
        merging = Merging(Path(name), [Input(source, 100, frozenset()) for source in sources])
        (output,) = merge_bundles(merging.inputs, merging.create_bundle, images=images)
        found = merging.content(output)
    expected, hot = [], []
    records, size, block = 0, 0, None
    for place, payload in sorted(merged_model(merging.sources).items()):
        if place[:2] != block:
            records, size, block = 0, 0, place[:2]
        records, size = records + 1, size + len(payload)
        if is_self_contained(payload):
            records, size = 0, 0
        elif records >= hot_records or size >= hot_bytes:
            hot.append(place)
            payload = image_at(place) or payload
            records, size = 0, 0
        expected.append((place, payload))
    assert found == expected
    assert asked == hot


cuts = st.lists(
    st.tuples(st.integers(1, LSN_MAX), st.integers(0, 5), st.integers(0, 2)),
    max_size=20,
    unique_by=lambda cut: cut[0],
)


@settings(max_examples=60)
@given(cuts, retentions.filter(lambda kept: kept is not None), st.sampled_from([60, 1 << 15]))
def test_cuts_of_a_history_that_no_read_wants_go(
    cuts: list[tuple[int, int, int]], retained: Retained, frame_bytes: int
) -> None:
    """(LSN, blocks, bundle) of each; which are needed, garbage.needed_cuts says."""
    key = bytes([bundles.relation_key(0)[0] | HISTORY]) + bundles.relation_key(0)[1:]
    parts = [
        [(key, 1, lsn, bundles.history(True, blocks)) for lsn, blocks, at in cuts if at == part]
        for part in range(3)
    ]
    given = [Input(versions, frame_bytes, frozenset()) for versions in parts if versions]
    with tempfile.TemporaryDirectory() as directory:
        merging = Merging(Path(directory), given)
        create, found = merging.create_bundle, list[int]()
        for output in merge_bundles(merging.inputs, create, retained=retained):
            found += [lsn for (_, _, lsn), _ in merging.content(output)]
    ordered = sorted((lsn, blocks) for lsn, blocks, _ in cuts)
    needed = needed_cuts(ordered, sorted(retained.lsns), retained.horizon)
    assert found == [cut[0] for cut, stays in zip(ordered, needed, strict=True) if stays]
