"""`layertool stat`: sums that must come out, and what a read may look into, against a model."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from engine.bundle_reader import BundleReader
from engine.storage import Storage
from formats import layer_bits
from formats.file_name import FileKind, FileName
from formats.layer_file import LayerKind
from formats.manifest_record import FileRemoved, LayersRemoved, Progress
from tests.fixtures import bundles
from tests.fixtures.stopped_directory import REL, StoppedDirectory, fill
from tools.layer_stat import Layer, depths, layer_bytes, read_directory, visited
from tools.layertool import app

DELTA, IMAGE, FUZZY = LayerKind


def layer(kind: LayerKind, lsns: range, blocks: range, versions: int = 1) -> Layer:
    return Layer(FileKind.L1, kind, lsns.start, lsns.stop, blocks.start, blocks.stop, versions, 1)


def visited_by_a_read(layers: list[Layer], block: int) -> int:
    """The read rule, said once more: newest image first, deltas at or below it are not seen."""
    images = [each for each in layers if each.kind in (IMAGE, FUZZY)]
    newest = max((each.lsn_end - 1 for each in images), default=-1)
    count = 0
    for each in layers:
        covers = each.block_start <= block < each.block_end
        highest = each.lsn_end - 1
        if each.kind == DELTA:
            fuzzy = any(i.kind == FUZZY and i.lsn_end - 1 == newest for i in images)
            count += covers and (highest > newest or (fuzzy and highest == newest))
        else:
            count += covers and highest == newest
    return count


@st.composite
def stripes(draw: st.DrawFn) -> list[Layer]:
    """Layers of a stripe; image layers at LSNs of their own."""
    layers = []
    for lsn in draw(st.lists(st.integers(5, 30), unique=True, max_size=3)):
        kind = draw(st.sampled_from((IMAGE, FUZZY)))
        end = draw(st.integers(1, 12))
        layers.append(layer(kind, range(lsn, lsn + 1), range(end)))
    for _ in range(draw(st.integers(0, 8))):
        start, block = draw(st.integers(1, 30)), draw(st.integers(0, 10))
        stop = draw(st.integers(start + 1, 34))
        layers.append(
            layer(DELTA, range(start, stop), range(block, draw(st.integers(block + 1, 12))))
        )
    return layers


@given(stripes())
def test_layers_that_a_read_may_look_into(layers):
    image, deltas = visited(layers)
    found = depths(deltas if image is None else [*deltas, image])
    counts = (visited_by_a_read(layers, block) for block in range(12))
    assert found == Counter(count for count in counts if count)


@pytest.fixture
def directory(tmp_path: Path) -> StoppedDirectory:
    made = StoppedDirectory(tmp_path)
    fill(made)
    return made


def test_bytes_of_layers_are_those_of_their_frames(tmp_path: Path):
    """With frames that layers share, and layers of many frames."""
    versions = [
        (bundles.relation_key(chunk), block, 100 + block, bundles.record(bytes(payload)))
        for chunk, blocks, payload in ((0, 3, 10), (1, 40, 90), (2, 1, 5), (3, 60, 400), (4, 2, 7))
        for block in range(blocks)
    ]
    name = bundles.l0(1)
    bundles.write(tmp_path, name, versions)
    reader = BundleReader(Storage(), tmp_path / name.text)
    sizes = layer_bytes(reader)
    frames = [reader.table.stored_length(number) for number in range(reader.table.count)]
    assert len(frames) > 10 and len(sizes) == 5
    assert abs(sum(sizes) - sum(frames)) <= len(sizes)
    assert sizes[3] > 10 * sizes[0] > 0


def test_a_directory(directory: StoppedDirectory):
    stat = read_directory(Storage(), directory.root)
    chunk = stat.chunks[REL]
    assert (chunk.stripes, chunk.layers, chunk.debt_versions) == (3, 6, 3)
    assert chunk.bytes_by_kind[FileKind.L0] == chunk.debt_bytes > 0
    # Stripe 0: block 0 in both flushes and the image, block 1 in the image; two others.
    assert chunk.depths[3] == 1 and chunk.depth_max == 3
    assert stat.total.layers == 11 and stat.chunks[REL.history()].debt_bytes == 0
    totals = {kind: files.bytes_total for kind, files in stat.files.items()}
    assert sum(totals.values()) == sum(f.stat().st_size for f in directory.layers.iterdir())
    assert stat.write_amplification == sum(totals.values()) / totals[FileKind.L0]


def test_the_base_backup_is_no_amplification(tmp_path: Path):
    directory = StoppedDirectory(tmp_path)
    directory.manifest.append(Progress(backup_start_lsn=100, backup_end_lsn=105))
    fill(directory)
    stat = read_directory(Storage(), tmp_path)
    assert stat.write_amplification == 1.0
    assert stat.base_backup_bytes == stat.files[FileKind.IMAGE].bytes_total


def test_removed_layers_and_files_count_no_longer(directory: StoppedDirectory):
    before = read_directory(Storage(), directory.root)
    first, second = bundles.l0(2), bundles.l0(3)
    rows = BundleReader(Storage(), directory.layers / first.text).directory
    row = rows.find(REL.pack(), 0, 0)
    directory.manifest.append(
        LayersRemoved(first.text, layer_bits.of_rows([row])), FileRemoved(second.text)
    )
    (directory.layers / second.text).unlink()
    after = read_directory(Storage(), directory.root)
    assert after.chunks[REL].debt_versions == before.chunks[REL].debt_versions - 2 == 1
    assert after.chunks[REL].depths == {1: 3, 2: 1}  # a delta is left above stripe 1
    assert after.files[FileKind.L0].files == 1
    assert after.files[FileKind.L0].bytes_dead > 0
    assert after.files[FileKind.L0].bytes_written == before.files[FileKind.L0].bytes_written


def test_what_was_written_before_a_compaction_of_the_manifest(directory: StoppedDirectory):
    directory.manifest.compact()
    compacted = read_directory(Storage(), directory.root)
    assert compacted.write_amplification is None and compacted.written_from_serial > 1
    directory.write(bundles.l0(9), [(REL.pack(), 0, 200, bundles.record(b"new"))])
    assert read_directory(Storage(), directory.root).write_amplification == 1.0


class Removing(Storage):
    """A server that removes a bundle when the manifest was read."""

    def __init__(self, directory: StoppedDirectory, name: FileName) -> None:
        self.directory, self.name = directory, name

    def read_all(self, path: Path) -> bytes:
        data = super().read_all(path)
        file = self.directory.layers / self.name.text
        if file.exists():
            self.directory.manifest.append(FileRemoved(self.name.text))
            file.unlink()
        return data


def test_a_server_removes_a_file_meanwhile(directory: StoppedDirectory):
    stat = read_directory(Removing(directory, bundles.l0(3)), directory.root)
    assert stat.files[FileKind.L0].files == 1


def test_a_file_that_is_lost_is_an_error(directory: StoppedDirectory):
    (directory.layers / bundles.l0(3).text).unlink()
    with pytest.raises(FileNotFoundError, match="l0-"):
        read_directory(Storage(), directory.root)
    result = CliRunner().invoke(app, ["stat", str(directory.root)])
    assert result.exit_code == 1


def test_the_command(directory: StoppedDirectory):
    lock = directory.storage.lock(directory.root / "lock")  # as a server holds it
    result = CliRunner().invoke(app, ["stat", str(directory.root)])
    assert result.exit_code == 0, result.output
    for part in ("rel:1663/5/16384/main/0", "all 3 chunks", "write amplification: "):
        assert part in result.stdout
    told = json.loads(CliRunner().invoke(app, ["stat", str(directory.root), "--json"]).stdout)
    assert told["chunks"][0]["chunk"] == REL.name and told["total"]["layers_read_max"] == 3
    directory.storage.close(lock)
    assert CliRunner().invoke(app, ["stat", str(directory.layers)]).exit_code == 2


def test_blocks_are_what_percentiles_are_over(tmp_path: Path):
    """One block in 200 that many layers have does not raise the 99th percentile."""
    directory = StoppedDirectory(tmp_path)
    pages = [(REL.pack(), block, 100, bundles.image(b"base")) for block in range(200)]
    directory.write(bundles.image_bundle(1), pages)
    for number in range(2, 7):
        directory.write(bundles.l0(number), [(REL.pack(), 7, 100 + number, bundles.record(b"hot"))])
    chunk = read_directory(Storage(), tmp_path).chunks[REL]
    assert (chunk.depth_percentile(0.99), chunk.depth_percentile(0.999), chunk.depth_max) == (
        1,
        6,
        6,
    )
    assert chunk.depth_mean == (199 + 6) / 200
