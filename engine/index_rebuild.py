"""The index derived from what is true: the manifest and the bundles it names.

`bundle_for_index` is the one way in which a bundle gets into the index, after a flush as well as
in a rebuild, so the two give the same bytes. `catch_up` closes the gap that a crash between the
manifest's fsync and the index's commit leaves; a rebuild is catching up from nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleInfo
from engine.index import (
    Index,
    NewBundle,
    RelationChange,
    check_in_child,
    subject_of,
)
from engine.storage import Storage
from formats import frame as frames
from formats import manifest as layout
from formats import version
from formats.chunk import HISTORY
from formats.errors import CorruptionError
from formats.file_name import FileKind
from formats.index_value import FileEntry, LayerEntry
from formats.manifest import FileAdded, Manifest

CATCH_UP_BUNDLES = 64  # per transaction


def open_index(storage: Storage, path: Path, manifest: Manifest, layers: Path) -> Index:
    """The index of a data directory, checked by a child first, and up to date with the manifest.

    Without an index directory, or with an empty one, it is built anew.
    """
    storage.make_directory(path)
    if storage.list(path):
        check_in_child(path)
    index = Index(path)
    try:
        catch_up(index, storage, manifest, layers)
    except BaseException:
        index.close()
        raise
    return index


def catch_up(index: Index, storage: Storage, manifest: Manifest, layers: Path) -> None:
    """Bring an index that may be behind to the manifest's state."""
    if index.state.serial > manifest.serial:
        where = f"{layers.parent}; the manifest has lost entries that the index knows"
        raise CorruptionError("manifest serial", where, index.state.serial, manifest.serial)
    have = index.files()
    removed = [name for name in have if name not in manifest.files]
    missing = [record for name, record in manifest.files.items() if name not in have]
    missing.sort(key=lambda record: (record.lsn_start, record.lsn_end, record.name))
    state = index.state
    if removed:
        index.commit(state.serial, state.durable_lsn, removed=removed)
    for start in range(0, len(missing), CATCH_UP_BUNDLES):
        part = missing[start : start + CATCH_UP_BUNDLES]
        bundles = [_read_bundle(storage, layers, record) for record in part]
        index.commit(state.serial, state.durable_lsn, added=bundles)
    if (index.state.serial, index.state.durable_lsn) != (manifest.serial, manifest.durable_lsn):
        index.commit(manifest.serial, manifest.durable_lsn)


def _read_bundle(storage: Storage, layers: Path, record: FileAdded) -> NewBundle:
    reader = BundleReader(storage, layers / record.name)
    check_against_manifest(reader, record)
    return bundle_for_index(reader, info_of(reader))


def check_against_manifest(reader: BundleReader, record: FileAdded) -> None:
    """That a file is the one that the manifest names."""
    footer = reader.footer
    expected = (record.bytes_total, record.footer_crc, record.lsn_start, record.lsn_end)
    found = (reader.bytes_total, reader.footer_crc, footer.lsn_start, footer.lsn_end)
    if expected != found:
        raise CorruptionError("bundle, by the manifest (bytes, footer CRC, LSN range)",
                              str(reader.path), expected, found)  # fmt: skip


def info_of(reader: BundleReader) -> BundleInfo:
    """What the writer of a bundle said of it."""
    return BundleInfo(
        reader.name, reader.bytes_total, reader.footer_crc, reader.footer,
        reader.read_directory_frame(),
    )  # fmt: skip


def bundle_for_index(reader: BundleReader, info: BundleInfo) -> NewBundle:
    """A bundle as the index takes it; relation history is read back from its frames."""
    footer = info.footer
    entry = FileEntry(
        info.bytes_total, info.bytes_total, footer.lsn_start, footer.lsn_end, info.footer_crc,
        footer.layers,
    )  # fmt: skip
    layers = [] if info.name.kind == FileKind.L0 else list(layer_entries(reader))
    return NewBundle(info.name, entry, info.directory_frame, layers, history_changes(reader))


def layer_entries(reader: BundleReader) -> Iterator[tuple[bytes, LayerEntry]]:
    """(chunk key, layer) of every layer of a bundle."""
    directory = reader.directory
    for row in range(directory.count):
        yield directory.key(row), LayerEntry(
            directory.lsn_start(row), directory.lsn_end(row), reader.name, directory.kind(row),
            directory.block_start(row), directory.block_end(row), directory.number(row),
            directory.frame_start(row), directory.frame_end(row),
        )  # fmt: skip


def history_changes(reader: BundleReader) -> list[RelationChange]:
    """What a bundle's HISTORY versions say, in order of (key, block, LSN)."""
    directory = reader.directory
    changes: list[RelationChange] = []
    raw, at = b"", -1
    for row in range(directory.count):
        key = directory.key(row)
        if not key[0] & HISTORY:
            continue
        layer, subject = directory.number(row), subject_of(key)
        for number in range(directory.frame_start(row), directory.frame_end(row)):
            if number != at:
                raw, at = reader.read_frame(number), number
            changes.extend(_changes_of_layer(raw, layer, subject, f"{reader.path} frame {number}"))
    return changes


def _changes_of_layer(
    raw: bytes, layer: int, subject: bytes, where: str
) -> Iterator[RelationChange]:
    for slot in frames.slots_of_layer(raw, layer):
        payload = raw[frames.version_start(raw, slot) : frames.version_end(raw, slot)]
        if len(payload) != version.HISTORY_SIZE or payload[0] != version.HISTORY:
            raise CorruptionError("relation history", where, "a HISTORY version", payload.hex())
        n_blocks = int.from_bytes(payload[4:8], "little")
        is_cut = frames.version_block(raw, slot) == 1
        yield RelationChange(
            subject, frames.version_lsn(raw, slot), bool(payload[1]), n_blocks, is_cut
        )


def commit_flush(
    index: Index, reader: BundleReader, info: BundleInfo, durable_lsn: int, serial: int
) -> None:
    """One transaction for a new bundle, after its file and the manifest's entry `serial`."""
    index.commit(serial, durable_lsn, added=[bundle_for_index(reader, info)])


def reindex(storage: Storage, root: Path) -> int:
    """Replace the index of a data directory by one made anew; returns the number of bundles.

    The new one is built beside the old one and takes its place when it is complete.
    """
    state, _ = layout.replay(storage.read_all(root / "manifest"), str(root / "manifest"))
    path, beside, old = (root / name for name in ("index", "index.new", "index.old"))
    for leftover in (beside, old):
        _remove_directory(storage, leftover)
    storage.make_directory(beside)
    index = Index(beside)
    try:
        catch_up(index, storage, state, root / "layers")
    finally:
        index.close()
    check_in_child(beside)
    if storage.exists(path):
        storage.rename(path, old)
    storage.rename(beside, path)
    storage.sync_directory(root)
    _remove_directory(storage, old)
    return len(state.files)


def _remove_directory(storage: Storage, path: Path) -> None:
    """A directory of plain files."""
    if storage.exists(path):
        for name in storage.list(path):
            storage.remove(path / name)
        storage.remove_directory(path)
