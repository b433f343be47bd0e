"""Merging bundles: where outputs end, what they say of the inputs, and what errors leave behind."""

import errno
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine import bundle_merge
from engine.bundle_check import problems
from engine.bundle_merge import MergedBundle, Retained, merge_bundles
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleWriter, Version, run_of
from engine.merge_plan import MergeInput
from engine.storage import File, Storage
from formats import version
from formats.chunk import BLOCK_BYTES
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.layer_file import LayerKind
from tests.fixtures import bundles
from tests.fixtures.faulty_storage import FaultyStorage

KEYS = [bundles.relation_key(number) for number in range(6)]


def versions(lsn: int, keys: Sequence[bytes] = KEYS, length: int = 3000) -> list[Version]:
    """One record of random bytes for each of a few blocks of each key."""
    text = b"".join(bytes([lsn + i & 255, i * 7 & 255, i >> 4]) for i in range(length // 3))
    return [(key, block, lsn, bundles.record(text)) for key in keys for block in range(4)]


class Merger:
    """Inputs in a directory, and the outputs that are made of them beside them."""

    def __init__(self, directory: Path, storage: Storage | None = None) -> None:
        self.directory = directory
        self.storage = storage or Storage()
        self.inputs: list[MergeInput] = []
        self._numbers = itertools.count(1)
        self._created = itertools.count(1)
        self.kind = FileKind.L1

    def add(self, content: list[Version], frame_bytes: int = 5000) -> BundleReader:
        file = bundles.l0(next(self._numbers))
        bundles.write(self.directory, file, content, frame_bytes)
        reader = BundleReader(self.storage, self.directory / file.text)
        self.inputs.append(MergeInput(reader, range(reader.directory.count)))
        return reader

    def create(self) -> BundleWriter:
        name = FileName(self.kind, 0, 2, next(self._created))
        return bundles.writer_for(self.directory, name, 1 << 15, self.storage)

    def merge(self, **options: object) -> Iterator[MergedBundle]:
        return merge_bundles(self.inputs, self.create, **options)  # type: ignore[arg-type]

    def outputs(self) -> list[str]:
        """The files that were made, by name."""
        return sorted(path.name for path in self.directory.glob("*-00000002-*"))

    def keys(self, output: MergedBundle) -> list[bytes]:
        assert output.info is not None
        reader = BundleReader(Storage(), self.directory / output.info.name.text)
        assert list(problems(reader)) == []
        return [reader.directory.key(row) for row in range(reader.directory.count)]


@pytest.fixture
def merger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Merger:
    """Two bundles; a batch has less than what they have of a stripe."""
    monkeypatch.setattr(bundle_merge, "BATCH_BYTES", 5000)
    merger = Merger(tmp_path)
    merger.add(versions(20))
    merger.add(versions(10, KEYS[:4]))
    return merger


def test_nothing_to_merge(tmp_path: Path) -> None:
    merger = Merger(tmp_path)
    assert list(merger.merge()) == []
    merger.add(versions(5))
    merger.inputs = [MergeInput(merger.inputs[0].reader, [])]
    assert list(merger.merge()) == []
    assert merger.outputs() == []


def test_an_output_ends_with_the_stripe_that_fills_it(merger: Merger) -> None:
    outputs = list(merger.merge(file_bytes=1))
    assert [merger.keys(output) for output in outputs] == [[key] for key in KEYS]
    assert [list(output.rows[0]) for output in outputs] == [[1 << i] for i in range(6)]
    assert [list(output.rows[1]) for output in outputs] == [[1], [2], [4], [8], [0], [0]]
    (alone,) = merger.merge()
    assert merger.keys(alone) == KEYS and alone.rows == [b"\x3f", b"\x0f"]


def test_stripes_in_files_of_their_own(merger: Merger) -> None:
    own = {(KEYS[0], 0), (KEYS[2], 0), (KEYS[3], 0), (KEYS[3], 1)}
    outputs = [merger.keys(output) for output in merger.merge(own_files=own)]
    assert outputs == [KEYS[:1], KEYS[1:2], KEYS[2:3], KEYS[3:4], KEYS[4:]]


def test_pruning_may_leave_nothing(tmp_path: Path) -> None:
    merger = Merger(tmp_path)
    merger.add([(KEYS[0], 1, 10, bundles.record(b"a"))])
    merger.add([(KEYS[0], 1, 9, bundles.record(b"b"))])
    kept = Retained([], 0)
    (output,) = merger.merge(retained=kept)
    assert merger.keys(output) == KEYS[:1]
    content = [(KEYS[1], 1, lsn, bundles.image(b"%d" % lsn)) for lsn in range(1, 9)]
    merger.add(content)
    ((_, last),) = [(output.info, output) for output in merger.merge(retained=Retained([3], 6))]
    reader = BundleReader(Storage(), tmp_path / last.info.name.text)
    assert [reader.directory.versions(row) for row in range(2)] == [2, 4]  # 3, 6, 7 and 8


def test_hot_chains_across_bundles_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_merge, "BATCH_BYTES", 300)
    merger = Merger(tmp_path)
    for start in (0, 1, 2):
        merger.add([(KEYS[0], 7, lsn, bundles.record(b"")) for lsn in range(start + 1, 901, 3)])
    asked = []

    def images(wanted: list[tuple[bytes, int, int]]) -> list[bytes]:
        asked.extend(wanted)
        return [bundles.image(bytes(40_000)) for _ in wanted]

    (output,) = merger.merge(images=images)
    assert asked == [(KEYS[0], 7, 128 * i) for i in range(1, 8)]
    assert merger.keys(output) == KEYS[:1] and output.info.footer.versions == 900


def test_long_payloads_are_hot_by_their_bytes(tmp_path: Path) -> None:
    merger = Merger(tmp_path)
    merger.add([(KEYS[0], 7, lsn, bundles.record(bytes(8186))) for lsn in range(1, 9)])
    asked = []
    list(merger.merge(images=lambda wanted: asked.extend(wanted) or [None] * len(wanted)))
    assert [lsn for _, _, lsn in asked] == [4, 8]


def damage(reader: BundleReader, number: int) -> None:
    at = reader.table.offset(number) + 25
    data = bytearray(reader.path.read_bytes())
    data[at] ^= 1
    reader.path.write_bytes(data)


def test_a_damaged_frame_ends_the_merge_and_leaves_what_was_finished(merger: Merger) -> None:
    reader = merger.inputs[0].reader
    damage(reader, reader.table.count - 1)
    outputs = merger.merge(file_bytes=1)
    assert merger.keys(next(outputs)) == KEYS[:1]
    with pytest.raises(CorruptionError, match=f"frame checksum at {reader.path} offset"):
        list(outputs)
    assert len(merger.outputs()) == 5


def test_an_input_with_layers_in_another_order_is_refused(tmp_path: Path) -> None:
    merger = Merger(tmp_path)
    writer = bundles.writer_for(tmp_path, bundles.image_bundle(9))
    for key in (KEYS[1], KEYS[0]):
        writer.add_run(run_of([(key, 0, 5, bundles.record(b"x"))]))
    reader = BundleReader(Storage(), tmp_path / writer.finish().name.text)
    merger.inputs.append(MergeInput(reader, [0, 1]))
    merger.add(versions(10))
    with pytest.raises(ValueError, match=f"{reader.path.name}: its layers are not in the order"):
        list(merger.merge())
    assert merger.outputs() == []


class MiscountingWriter(BundleWriter):
    """Its directory says one version more than there is."""

    def _layer_column(self, name: str) -> list[int]:
        column = super()._layer_column(name)
        return [value + (name == "versions") for value in column]


def test_versions_that_are_missing_are_noticed(tmp_path: Path) -> None:
    ids = (bundles.TENANT, bundles.TIMELINE, bundles.POSTGRES_VERSION)
    writer = MiscountingWriter(Storage(), tmp_path, bundles.l0(1), *ids)
    writer.add_run(run_of(versions(10, KEYS[:1])))
    writer.finish()
    merger = Merger(tmp_path)
    reader = BundleReader(Storage(), tmp_path / bundles.l0(1).text)
    merger.inputs.append(MergeInput(reader, [0]))
    with pytest.raises(CorruptionError, match="expected 5, found 4"):
        list(merger.merge())
    assert merger.outputs() == []


@pytest.mark.parametrize("kind", ["append", "sync"])
def test_a_disk_that_fails_leaves_no_half_bundle(tmp_path: Path, kind: str) -> None:
    storage = FaultyStorage()
    merger = Merger(tmp_path, storage)
    merger.add(versions(10))
    storage.fail(kind, errno.EIO, name=".bundle")
    with pytest.raises(OSError, match="bundle"):
        list(merger.merge())
    assert merger.outputs() == []


def test_images_that_cannot_be_made_leave_no_half_bundle(tmp_path: Path) -> None:
    merger = Merger(tmp_path)
    merger.add([(KEYS[0], 7, lsn, bundles.record(b"")) for lsn in range(1, 200)])

    def images(wanted: list[tuple[bytes, int, int]]) -> list[bytes]:
        raise LookupError("no page")

    with pytest.raises(LookupError, match="no page"):
        list(merger.merge(images=images))
    assert merger.outputs() == []


def test_a_merge_that_is_given_up_leaves_what_was_finished(merger: Merger) -> None:
    outputs = merger.merge(file_bytes=1)
    next(outputs)
    outputs.close()  # type: ignore[attr-defined]
    assert len(merger.outputs()) == 1


class CountingStorage(Storage):
    """Notes the length of each read."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def pread(self, file: File, offset: int, length: int) -> bytes:
        self.lengths.append(length)
        return super().pread(file, offset, length)


def test_many_frames_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = CountingStorage()
    merger = Merger(tmp_path, storage)
    reader = merger.add([version for lsn in range(1, 60) for version in versions(lsn)], 2000)
    frames, size = reader.table.count, reader.bytes_total
    storage.lengths.clear()
    list(merger.merge())
    assert frames > 200 and len(storage.lengths) <= 2 + size // bundle_merge.READ_BYTES
    storage.lengths.clear()
    monkeypatch.setattr(bundle_merge, "READ_BYTES", 9000)
    list(merger.merge())
    assert max(storage.lengths) <= 9000 and len(storage.lengths) < frames


def test_a_bundle_of_images_is_rewritten_in_its_own_order(tmp_path: Path) -> None:
    """Fuzzy ones stay fuzzy, and rows that are left out are gone."""
    merger = Merger(tmp_path)
    writer = bundles.writer_for(tmp_path, bundles.image_bundle(1), 1 << 15)
    for key in reversed(KEYS[:3]):
        kind = version.IMAGE_EXACT if key == KEYS[1] else version.IMAGE_FUZZY
        writer.add_pages(key, 0, 77, kind, key.ljust(BLOCK_BYTES, b"."))
    reader = BundleReader(Storage(), tmp_path / writer.finish().name.text)
    merger.inputs, merger.kind = [MergeInput(reader, [0, 1])], FileKind.IMAGE
    (output,) = merger.merge()
    assert merger.keys(output) == KEYS[:2] and output.rows == [b"\x03"]
    written = BundleReader(Storage(), tmp_path / output.info.name.text)
    kinds = [written.directory.kind(row) for row in (0, 1)]
    assert kinds == [LayerKind.FUZZY_IMAGE, LayerKind.IMAGE]
