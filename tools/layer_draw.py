"""A data directory's layers, as `layertool draw` shows them: manifest and directories are read,
no frame is."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engine import directory_check
from engine.bundle_reader import BundleReader
from engine.storage import Storage
from formats import layer_bits
from formats import manifest as layout
from formats.chunk import HISTORY, ChunkKey, ChunkKind
from formats.chunk_filter import ChunkFilter
from formats.file_name import FileKind
from formats.lsn import show
from tools.layer_svg import Drawing, Mark, Rectangle

KINDS = {FileKind.L0: "L0", FileKind.L1: "L1", FileKind.IMAGE: "image"}
Layer = tuple[bytes, int, str, int, int, int]
"""Chunk key, stripe, kind, LSN range, versions."""


def read_drawing(storage: Storage, root: Path, wanted: ChunkFilter) -> Drawing:
    """What the files that a directory's manifest names have of the wanted chunks.

    Raises CorruptionError where the manifest, or a bundle's directory, does not check.
    """
    path = root / directory_check.MANIFEST_NAME
    state, _ = layout.replay(storage.read_all(path), str(path))
    layers: list[Layer] = []
    for name in state.files:
        reader = BundleReader(storage, root / directory_check.LAYERS_NAME / name.text)
        layers += _layers(reader, state.removed.get(name, b""), wanted)
    title = f"{root.resolve().name}: {len(layers):,} layers in {len(state.files):,} files"
    marks = [Mark("point", point.lsn, point.name) for point in state.points.values()]
    marks += [Mark("lease", lease.lsn, lease.name) for lease in state.leases.values()]
    return draw_layers(title, layers, state.horizon_lsn, marks)


def draw_layers(
    title: str, layers: list[Layer], horizon: int, marks: Sequence[Mark] = ()
) -> Drawing:
    """Layers with a column for each stripe that has one."""
    stripes = sorted({(key, stripe) for key, stripe, *_ in layers})
    columns = {each: number for number, each in enumerate(stripes)}
    chunks: dict[bytes, int] = {}
    for (key, _), column in columns.items():
        chunks.setdefault(key, column)
    names = {key: ChunkKey.unpack(key).name for key in chunks}
    rectangles = [
        Rectangle(
            kind,
            columns[key, stripe],
            start,
            end,
            f"{names[key]} stripe {stripe}, {kind}, {show(start)} … {show(end - 1)}, "
            f"{versions:,} versions",
        )
        for key, stripe, kind, start, end, versions in layers
    ]
    labels = {column: names[key] for key, column in chunks.items()}
    counts = Counter((key, stripe) for key, stripe, *_ in layers)
    quiet = frozenset(column for each, column in columns.items() if counts[each] == 1)
    return Drawing(title, rectangles, labels, len(columns), horizon, marks, quiet)


def _layers(reader: BundleReader, removed: bytes, wanted: ChunkFilter) -> list[Layer]:
    """A bundle's layers but those that the manifest says are removed."""
    directory = reader.directory
    kind = KINDS[FileKind(reader.name.kind)]
    found: list[Layer] = []
    for row in range(directory.count):
        key = directory.key(row)
        chunk = ChunkKey.unpack(key)
        if layer_bits.has(removed, row) or not _is_wanted(chunk, wanted):
            continue
        lsns = directory.lsn_start(row), directory.lsn_end(row)
        found.append((key, directory.stripe(row), kind, *lsns, directory.versions(row)))
    return found


def _is_wanted(chunk: ChunkKey, wanted: ChunkFilter) -> bool:
    """The history of a relation, segment or file goes with it."""
    subject = chunk._replace(kind=chunk.kind & ~HISTORY)
    return wanted.matches(*subject) and (wanted.everything or subject.kind != ChunkKind.FILE)
