"""What `layertool stat` tells of a data directory: layers, bytes, debt, reads, write amplification.

Everything comes from the manifest and from the directories of the bundles that it names, so it can
be had of a directory that a server has open: what is true at one moment.

    debt             delta layers above the newest image of their stripe: what redo may go through
    layers a read    layers that a read at the newest LSN may look into: those above the newest
                     image whose blocks include the one that is read, and the image. It is what a
                     read of any block takes at most: versions that need no older one end it before.
                     Percentiles are over blocks.
    amplification    bytes written into layers for each byte that flushes wrote, base backup apart.
                     A manifest that was compacted has forgotten what was written before.

A frame that several layers share is shared out to them by their versions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from engine.bundle_reader import BundleReader
from engine.directory_check import LAYERS_NAME, MANIFEST_NAME
from engine.storage import Storage
from formats import layer_bits
from formats import manifest as manifest_format
from formats.chunk import ChunkKey, ChunkKind
from formats.file_name import FileKind, FileName
from formats.layer_file import LayerKind
from formats.manifest import Manifest
from formats.manifest_record import FileAdded

_READ_TRIES_MAX = 20


class Layer(NamedTuple):
    """One row of a bundle's directory that counts."""

    file_kind: FileKind
    kind: LayerKind
    lsn_start: int
    lsn_end: int
    block_start: int
    block_end: int
    versions: int
    stored_bytes: int


@dataclass
class ChunkStat:
    """A chunk; or, under another name, all of them."""

    layers: int = 0
    stripes: int = 0
    bytes_by_kind: Counter[FileKind] = field(default_factory=Counter)
    debt_bytes: int = 0
    debt_versions: int = 0
    depths: Counter[int] = field(default_factory=Counter)
    """Layers that a read may look into → how many blocks."""

    def add_stripe(self, layers: list[Layer], has_images: bool) -> None:
        """All layers of a stripe; without images (histories, files) there is no redo, no debt."""
        self.stripes += 1
        self.layers += len(layers)
        for layer in layers:
            self.bytes_by_kind[layer.file_kind] += layer.stored_bytes
        if has_images:
            image, deltas = visited(layers)
            self.debt_bytes += sum(layer.stored_bytes for layer in deltas)
            self.debt_versions += sum(layer.versions for layer in deltas)
            self.depths += depths(deltas if image is None else [*deltas, image])

    def add(self, other: "ChunkStat") -> None:
        self.layers += other.layers
        self.stripes += other.stripes
        self.bytes_by_kind.update(other.bytes_by_kind)
        self.debt_bytes += other.debt_bytes
        self.debt_versions += other.debt_versions
        self.depths += other.depths

    @property
    def depth_mean(self) -> float:
        blocks = self.depths.total()
        return sum(depth * n for depth, n in self.depths.items()) / blocks if blocks else 0.0

    @property
    def depth_max(self) -> int:
        return max(self.depths, default=0)

    def depth_percentile(self, share: float) -> int:
        """The least depth that this share of blocks does not exceed."""
        left = share * self.depths.total()
        for depth in sorted(self.depths):
            left -= self.depths[depth]
            if left <= 0:
                return depth
        return self.depth_max

    def as_json(self) -> dict[str, Any]:
        return {
            "layers": self.layers,
            "stripes": self.stripes,
            **{f"{kind.name.lower()}_bytes": self.bytes_by_kind[kind] for kind in FileKind},
            "debt_bytes": self.debt_bytes,
            "debt_versions": self.debt_versions,
            "layers_read_mean": round(self.depth_mean, 2),
            "layers_read_p99": self.depth_percentile(0.99),
            "layers_read_max": self.depth_max,
        }


@dataclass
class FilesOfKind:
    """Bundles of one kind: those that are there, and what was written as far as is known."""

    files: int = 0
    bytes_total: int = 0
    bytes_dead: int = 0
    """Of layers that were removed from files that are still there."""
    bytes_written: int = 0


@dataclass
class DirectoryStat:
    """Everything; bytes of a file that are in no frame of a layer count in `files` alone."""

    files: dict[FileKind, FilesOfKind]
    chunks: dict[ChunkKey, ChunkStat]
    written_from_serial: int
    base_backup_bytes: int

    @property
    def total(self) -> ChunkStat:
        total = ChunkStat()
        for chunk in self.chunks.values():
            total.add(chunk)
        return total

    @property
    def write_amplification(self) -> float | None:
        """None before the first flush that the manifest remembers."""
        flushed = self.files[FileKind.L0].bytes_written
        written = sum(kind.bytes_written for kind in self.files.values())
        return written / flushed if flushed else None

    def worst_first(self) -> list[tuple[ChunkKey, ChunkStat]]:
        """Chunks by what a read may look into, then by debt."""
        return sorted(
            self.chunks.items(), key=lambda item: (-item[1].depth_max, -item[1].debt_bytes, item[0])
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "total": self.total.as_json(),
            "files": {kind.name.lower(): vars(files) for kind, files in self.files.items()},
            "base_backup_bytes": self.base_backup_bytes,
            "written_from_serial": self.written_from_serial,
            "write_amplification": self.write_amplification,
            "chunks": [{"chunk": key.name, **chunk.as_json()} for key, chunk in self.worst_first()],
        }


def read_directory(storage: Storage, root: Path) -> DirectoryStat:
    """What is true now; raises CorruptionError and OSError.

    A server may remove a file between our reading of the manifest and of the file: then what the
    manifest says has changed, and it is read again.
    """
    for _ in range(_READ_TRIES_MAX):
        data = storage.read_all(root / MANIFEST_NAME)
        state, _ = manifest_format.replay(data, str(root / MANIFEST_NAME))
        try:
            return _read(storage, root, state, data)
        except FileNotFoundError:
            if data == storage.read_all(root / MANIFEST_NAME):
                raise
    raise OSError(f"{root}: its files changed {_READ_TRIES_MAX} times while they were read")


def _read(storage: Storage, root: Path, state: Manifest, data: bytes) -> DirectoryStat:
    stat = DirectoryStat({kind: FilesOfKind() for kind in FileKind}, {}, 0, 0)
    _count_written(stat, state, data, str(root / MANIFEST_NAME))
    stripes: dict[tuple[ChunkKey, int], list[Layer]] = defaultdict(list)
    for name, file in state.files.items():
        files = stat.files[name.kind]
        files.files += 1
        files.bytes_total += file.bytes_total
        removed = state.removed.get(name, b"")
        for row, key, stripe, layer in _layers(
            BundleReader(storage, root / LAYERS_NAME / name.text)
        ):
            if layer_bits.has(removed, row):
                files.bytes_dead += layer.stored_bytes
            else:
                stripes[key, stripe].append(layer)
    for (key, _), layers in stripes.items():
        stat.chunks.setdefault(key, ChunkStat()).add_stripe(layers, has_images(key))
    return stat


def has_images(key: ChunkKey) -> bool:
    """Whether compaction makes image layers of a chunk: not where each version is whole."""
    return key.kind in (ChunkKind.REL, ChunkKind.SLRU)


def _count_written(stat: DirectoryStat, state: Manifest, data: bytes, path: str) -> None:
    """From the manifest's entries; the first one of a compacted manifest is no news."""
    for entry in manifest_format.entries(data, path):
        if stat.written_from_serial == 0:
            stat.written_from_serial = entry.serial
            if entry.serial > 1:
                continue
        for record in entry.records:
            if not isinstance(record, FileAdded):
                continue
            kind = FileName.parse(record.name).kind
            if kind == FileKind.IMAGE and record.lsn_end <= state.backup_start_lsn + 1:
                stat.base_backup_bytes += record.bytes_total
            else:
                stat.files[kind].bytes_written += record.bytes_total


def _layers(reader: BundleReader) -> Iterator[tuple[int, ChunkKey, int, Layer]]:
    """(row, chunk, stripe, layer) of a bundle."""
    directory = reader.directory
    sizes = layer_bytes(reader)
    for row in range(directory.count):
        layer = Layer(
            reader.name.kind, LayerKind(directory.kind(row)),
            directory.lsn_start(row), directory.lsn_end(row),
            directory.block_start(row), directory.block_end(row),
            directory.versions(row), sizes[row],
        )  # fmt: skip
        yield row, ChunkKey.unpack(directory.key(row)), directory.stripe(row), layer


def layer_bytes(reader: BundleReader) -> list[int]:
    """Stored bytes of each row's layer; their sum is that of all frames, but for rounding.

    Frames between the first and the last one of a layer have versions of no other.
    """
    directory, table = reader.directory, reader.table
    weights: dict[int, float] = defaultdict(float)
    spans = []
    for row in range(directory.count):
        first, end = directory.frame_start(row), directory.frame_end(row)
        weight = directory.versions(row) / (end - first)
        ends = {first, end - 1}
        spans.append((first, end - 1, weight))
        for number in ends:
            weights[number] += weight
    sizes = []
    for first, last, weight in spans:
        inner = table.offset(last) - table.offset(first + 1) if last > first else 0
        ends = {first, last}
        shares = (table.stored_length(number) * weight / weights[number] for number in ends)
        sizes.append(inner + round(sum(shares)))
    return sizes


def visited(layers: list[Layer]) -> tuple[Layer | None, list[Layer]]:
    """The newest image layer of a stripe, and the delta layers above it.

    Deltas at the image's own LSN are above it too where it is fuzzy: the read rule of
    engine/layer_query.py.
    """
    images = [layer for layer in layers if layer.kind != LayerKind.DELTA]
    deltas = [layer for layer in layers if layer.kind == LayerKind.DELTA]
    if not images:
        return None, deltas
    image = max(images, key=lambda layer: layer.lsn_end)
    least = image.lsn_end - (image.kind == LayerKind.FUZZY_IMAGE)
    return image, [layer for layer in deltas if layer.lsn_end > least]


def depths(layers: list[Layer]) -> Counter[int]:
    """How many of these layers cover a block → how many blocks, without those that none covers."""
    steps: Counter[int] = Counter()
    for layer in layers:
        steps[layer.block_start] += 1
        steps[layer.block_end] -= 1
    found: Counter[int] = Counter()
    depth = 0
    for begin, end in pairwise(sorted(steps)):
        depth += steps[begin]
        if depth:
            found[depth] += end - begin
    return found
