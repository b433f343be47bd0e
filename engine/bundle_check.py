"""Whether a bundle is whole: every checksum, and every table against what the frames hold.

The layer directory is derived a second time, from the frames, by the code that wrote it
(formats/frame.py, LayerColumns), and compared; so are the frame table and the footer's counts.
"""

from collections.abc import Iterator

from engine.bundle_reader import BundleReader
from engine.bundle_writer import layer_kinds
from formats import frame, layer_file
from formats.chunk import STRIPE_BLOCKS, ChunkKey
from formats.errors import CorruptionError
from formats.frame import LayerColumns
from formats.layer_directory import LayerDirectory

_ROW_FIELDS = ("stripe", "lsn_start", "lsn_end", "frame_start", "frame_end", "block_start",
               "block_end", "versions")  # fmt: skip


def problems(reader: BundleReader) -> Iterator[CorruptionError]:
    """Everything that is wrong with a bundle, as errors that were not raised."""
    try:
        footer, directory, table = reader.footer, reader.directory, reader.table
    except CorruptionError as error:
        yield error
        return
    counts = (directory.count, table.count)
    if counts != (footer.layers, footer.frames):
        yield CorruptionError("rows of the directory and the frame table", str(reader.path),
                              (footer.layers, footer.frames), counts)  # fmt: skip
    yield from _table_problems(reader)
    layers = LayerColumns()
    versions, is_whole = 0, True
    for number in range(table.count):
        where = f"{reader.path} frame {number}"
        try:
            raw = reader.read_frame(number)
            versions += frame.check(raw, number, layers)
        except CorruptionError as error:
            yield error
            is_whole = False
        except (ValueError, IndexError) as error:
            yield CorruptionError("frame", where, "sorted, whole versions", error)
            is_whole = False
        else:
            yield from _first_version_problems(reader, number, raw)
    yield from _order_problems(reader, directory)
    if is_whole:
        yield from _content_problems(reader, directory, layers)
        if versions != footer.versions:
            yield CorruptionError("footer versions", str(reader.path), versions, footer.versions)


def _table_problems(reader: BundleReader) -> Iterator[CorruptionError]:
    """Frames lie one behind the other, from the header to the layer directory."""
    table, offset = reader.table, layer_file.HEADER_BYTES
    for number in range(table.count):
        if table.offset(number) != offset:
            yield CorruptionError("frame table offset", f"{reader.path} frame {number}", offset,
                                  table.offset(number))  # fmt: skip
        offset = table.offset(number) + table.stored_length(number)
    if offset != reader.footer.directory_offset:
        yield CorruptionError("end of the frames", str(reader.path),
                              reader.footer.directory_offset, offset)  # fmt: skip


def _first_version_problems(
    reader: BundleReader, number: int, raw: bytes
) -> Iterator[CorruptionError]:
    table = reader.table
    first = (table.layer(number), table.block(number))
    if (
        len(raw) != table.raw_length(number)
        or not frame.is_of_block(raw, 0, *first)
        or frame.version_lsn(raw, 0) != table.lsn(number)
    ):
        yield CorruptionError("frame table row", f"{reader.path} frame {number}",
                              "raw length and first version of the frame",
                              (table.raw_length(number), *first, table.lsn(number)))  # fmt: skip


def _order_problems(reader: BundleReader, directory: LayerDirectory) -> Iterator[CorruptionError]:
    places = [(directory.key(row), directory.stripe(row)) for row in range(directory.count)]
    for row in range(1, len(places)):
        if places[row - 1] >= places[row]:
            yield CorruptionError("order of the layer directory", f"{reader.path} row {row}",
                                  "rising keys", ChunkKey.unpack(places[row][0]).name)  # fmt: skip
    if sorted(directory.number(row) for row in range(directory.count)) != list(range(len(places))):
        yield CorruptionError("layer numbers", str(reader.path), "each once", "others")


def _content_problems(
    reader: BundleReader, directory: LayerDirectory, layers: LayerColumns
) -> Iterator[CorruptionError]:
    footer = reader.footer
    if directory.count != layers.count:
        yield CorruptionError("layers of the directory", str(reader.path), layers.count,
                              directory.count)  # fmt: skip
        return
    kinds = layer_kinds(reader.name.kind, memoryview(layers.fuzzy)[: layers.count].tolist())
    for row in range(directory.count):
        number = directory.number(row)
        name = ChunkKey.unpack(directory.key(row)).name
        where = f"{reader.path} layer {number} ({name} stripe {directory.stripe(row)})"
        if number < layers.count and directory.kind(row) != kinds[number]:
            yield CorruptionError("layer kind", where, kinds[number], directory.kind(row))
        for field in _ROW_FIELDS:
            expected = getattr(layers, field)[number] if number < layers.count else None
            found = getattr(directory, field)(row)
            if expected != found:
                yield CorruptionError(f"layer {field}", where, expected, found)
        if directory.block_end(row) > (directory.stripe(row) + 1) * STRIPE_BLOCKS:
            yield CorruptionError("layer stripe", where, "one stripe", directory.block_end(row))
    rows = range(directory.count)
    lsn_range = (
        min((directory.lsn_start(row) for row in rows), default=0),
        max((directory.lsn_end(row) for row in rows), default=0),
    )
    if lsn_range != (footer.lsn_start, footer.lsn_end):
        yield CorruptionError("footer LSN range", str(reader.path), lsn_range,
                              (footer.lsn_start, footer.lsn_end))  # fmt: skip
