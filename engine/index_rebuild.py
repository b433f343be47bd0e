"""The index derived from what is true: the manifest and the bundles it names.

`bundle_for_index` is the one way in which a bundle gets into the index, after a flush as well as
in a rebuild, so the two give the same bytes. `catch_up` closes the gap that a crash between the
manifest's fsync and the index's commit leaves; a rebuild is catching up from nothing.
"""

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from engine.bundle_history import changes_of_rows
from engine.bundle_outline import (
    OutlinedBundle,
    history_rows,
    outlined_bundle,
    read_outlines,
)
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleInfo
from engine.index import Index, check_in_child, subject_of
from engine.index_batch import NewBundle, RelationChange, Removal
from engine.storage import Storage
from formats import layer_bits, outline
from formats import manifest as layout
from formats.chunk import HISTORY
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.index_value import IN_USE, SETTLED, FileEntry, LayerEntry
from formats.manifest import Manifest
from formats.manifest_record import FileAdded
from formats.outline import Outline

LOCK_NAME = "lock.mdb"
LOCK_BYTES = 64 << 10  # its header and 64 for each of READERS_MAX
"""LMDB writes it by way of memory: on a full disk that kills, so it gets its room beforehand."""
CATCH_UP_BUNDLES = 64  # per transaction
_BESIDE, _OLD = "index.new", "index.old"
_log = logging.getLogger("pageserver.index")


def open_index(storage: Storage, path: Path, manifest: Manifest, layers: Path) -> Index:
    """The index of a data directory, checked by a child first, and up to date with the manifest.

    Without one, it is built anew, by the outlines of bundles as far as the directory has them.
    """
    storage.make_directory(path)
    if "data.mdb" in storage.list(path) and not check_in_child(path):
        _remove_directory(storage, path)  # of another version: it is made anew
        storage.make_directory(path)
    storage.allocate(path / LOCK_NAME, LOCK_BYTES)
    index = Index(path, storage)
    try:
        catch_up(index, storage, manifest, layers, read_outlines(storage, layers.parent))
    except BaseException:
        index.close()
        raise
    if storage.exists(layers.parent / outline.FILE_NAME):
        storage.remove(layers.parent / outline.FILE_NAME)
    return index


def catch_up(
    index: Index,
    storage: Storage,
    manifest: Manifest,
    layers: Path,
    outlines: Mapping[FileName, Outline] | None = None,
) -> None:
    """Bring an index that may be behind to the manifest's state.

    `outlines` of bundles spare reading them.
    """
    if index.state.serial > manifest.serial:
        where = f"{layers.parent}; the manifest has lost entries that the index knows"
        raise CorruptionError("manifest serial", where, index.state.serial, manifest.serial)
    have = index.files()
    if any(name not in manifest.files and not storage.exists(layers / name.text) for name in have):
        # The index is older than its last commit: which layers it had there cannot be known.
        have = {}
        index.clear()
    missing = [record for name, record in manifest.files.items() if name not in have]
    missing.sort(key=lambda record: (record.lsn_start, record.lsn_end, record.name))
    if missing:
        _log.info("the index lacks %d of %d bundles", len(missing), len(manifest.files))
    state = index.state
    for start in range(0, len(missing), CATCH_UP_BUNDLES):
        part = missing[start : start + CATCH_UP_BUNDLES]
        known = {record.name: outlined_bundle(outlines or {}, record, manifest) for record in part}
        storage.expect([layers / name for name, bundle in known.items() if bundle is None])
        bundles = [
            _for_index(known[record.name] or _open(storage, layers, record), manifest)
            for record in part
        ]
        index.commit(state.serial, state.durable_lsn, added=bundles)
    # Only now, and at once: who reads meanwhile must not miss what a merge has put elsewhere.
    _catch_up_removals(index, storage, manifest, layers, have)


def _catch_up_removals(
    index: Index,
    storage: Storage,
    manifest: Manifest,
    layers: Path,
    have: dict[FileName, FileEntry],
) -> None:
    """What the manifest removed or settled after the index's last commit; the files are there."""
    removed, settled = [], []
    directories = dict(index.l0())
    for name, entry in have.items():
        rows = manifest.removed.get(name, b"") if name in manifest.files else None
        reader = BundleReader(storage, layers / name.text, directories.get(name))
        if name in manifest.settled and entry.state != SETTLED:
            removed.append(Removal(name, [], 0, 0, is_whole=True))
            settled.append(settled_bundle(reader, entry, rows or b""))
        elif rows is None or layer_bits.count(rows) != entry.layers_removed:
            counts_as_l0 = name.kind == FileKind.L0 and entry.state != SETTLED
            removed.append(removal_of(reader, rows, is_l0=counts_as_l0))
    keys = {key for removal in removed for key, _ in removal.layers if key[0] & HISTORY}
    places = LivePlaces(index, manifest, lambda name: BundleReader(storage, layers / name.text))
    histories = {subject_of(key): places.history(key, ()) for key in keys}
    if removed or (index.state.serial, index.state.durable_lsn) != (
        manifest.serial, manifest.durable_lsn
    ):  # fmt: skip
        index.commit(manifest.serial, manifest.durable_lsn, settled, removed, histories)


class LivePlaces:
    """Where the layers that count have a stripe, by the manifest: the index may be behind."""

    def __init__(
        self, index: Index, manifest: Manifest, reader: Callable[[FileName], BundleReader]
    ) -> None:
        self._index = index
        self._manifest = manifest
        self._reader = reader

    @cached_property
    def _l0(self) -> set[FileName]:
        """Only where a history is asked for: it looks at all files."""
        return {name for name in self._manifest.files if is_l0(self._manifest, name)}

    def history(self, key: bytes, added: Iterable[BundleReader]) -> list[RelationChange]:
        """All that they say of a history chunk, and `added` bundles, which the index lacks."""
        below = {layer.file for layer in self._index.stripe(key, 0)}
        names = self._l0 | below & self._manifest.files.keys()
        readers = [self._reader(name) for name in sorted(names)]
        changes, removed = [], self._manifest.removed
        for reader in (*readers, *added):
            row = reader.directory.find(key, 0, 0)
            if row >= 0 and not layer_bits.has(removed.get(reader.name, b""), row):
                changes += changes_of_rows(reader, [row])
        return _to_the_end(changes, self._manifest)


def _to_the_end(changes: Iterable[RelationChange], manifest: Manifest) -> list[RelationChange]:
    """Without those above where a directory ends: its bundles have them, but it is not there yet.

    So sizes stand in the index as of that LSN, which is the newest one that anybody reads at.
    """
    end = manifest.ends_at_lsn
    return [change for change in changes if end is None or change.lsn <= end]


def is_l0(manifest: Manifest, name: FileName) -> bool:
    """Whether a bundle is one of L0, whose layers the index does not have one by one."""
    return name.kind == FileKind.L0 and name not in manifest.settled


def removal_of(
    reader: BundleReader, rows: bytes | None, before: bytes = b"", *, is_l0: bool
) -> Removal:
    """How the index is told that layers are gone: the bitmap `rows` of a bundle's directory, of
    which those in `before` were gone already; None: the bundle and all it has."""
    count = reader.directory.count
    gone = layer_bits.everything(count) if rows is None else rows
    layers: list[tuple[bytes, LayerEntry]] = []
    if not is_l0:
        layers = list(layer_entries(reader, layer_bits.without(gone, before)))
    live = reader.bytes_total if is_l0 else bytes_live(reader, gone)
    return Removal(reader.name, layers, layer_bits.count(gone), live, rows is None)


def bytes_live(reader: BundleReader | OutlinedBundle, removed: bytes) -> int:
    """Bytes of a bundle but those of its removed layers."""
    if not any(removed):
        return reader.bytes_total
    stored = reader.stored_bytes()
    return reader.bytes_total - sum(stored[row] for row in layer_bits.rows(removed))


def _open(storage: Storage, layers: Path, record: FileAdded) -> BundleReader:
    reader = BundleReader(storage, layers / record.name)
    check_against_manifest(reader, record)
    return reader


def _for_index(bundle: BundleReader | OutlinedBundle, manifest: Manifest) -> NewBundle:
    removed, is_settled = manifest.removed.get(bundle.name, b""), bundle.name in manifest.settled
    new = bundle_for_index(bundle, info_of(bundle), removed, is_settled=is_settled)
    return new._replace(changes=_to_the_end(new.changes, manifest))


def check_against_manifest(reader: BundleReader, record: FileAdded) -> None:
    """That a file is the one that the manifest names."""
    footer = reader.footer
    expected = (record.bytes_total, record.footer_crc, record.lsn_start, record.lsn_end)
    found = (reader.bytes_total, reader.footer_crc, footer.lsn_start, footer.lsn_end)
    if expected != found:
        raise CorruptionError("bundle, by the manifest (bytes, footer CRC, LSN range)",
                              str(reader.path), expected, found)  # fmt: skip


def info_of(reader: BundleReader | OutlinedBundle) -> BundleInfo:
    """What the writer of a bundle said of it."""
    return BundleInfo(
        reader.name, reader.bytes_total, reader.footer_crc, reader.footer,
        reader.read_directory_frame(),
    )  # fmt: skip


def bundle_for_index(
    reader: BundleReader | OutlinedBundle,
    info: BundleInfo,
    removed: bytes = b"",
    *,
    is_merged: bool = False,
    is_settled: bool = False,
) -> NewBundle:
    """A bundle as the index takes it, but for layers whose bit in `removed` is set.

    Relation history is read back from its frames; `is_merged`: the index knows all of it already.
    `is_settled`: of an L0 bundle that is one no more.
    """
    footer = info.footer
    counts_as_l0 = info.name.kind == FileKind.L0 and not is_settled
    layers: list[tuple[bytes, LayerEntry]] = []
    live_bytes = info.bytes_total
    if not counts_as_l0:
        live = layer_bits.without(layer_bits.everything(footer.layers), removed)
        layers = list(layer_entries(reader, live))
        live_bytes = bytes_live(reader, removed)
    entry = FileEntry(
        info.bytes_total, live_bytes, footer.lsn_start, footer.lsn_end, info.footer_crc,
        footer.layers, layer_bits.count(removed), SETTLED if is_settled else IN_USE,
    )  # fmt: skip
    changes = [] if is_merged else history_changes(reader, removed)
    return NewBundle(info.name, entry, info.directory_frame, layers, changes, counts_as_l0)


def settled_bundle(reader: BundleReader, entry: FileEntry, removed: bytes) -> NewBundle:
    """An L0 bundle that is one no more, as the index takes it, which has `entry` of it: the file
    may be damaged, and no more is asked of it than how many bytes its layers have."""
    stored = reader.stored_bytes_if_readable()
    live = layer_bits.without(layer_bits.everything(entry.layers), removed)
    layers = list(_entries(reader, live, stored))
    entry = entry._replace(
        bytes_live=entry.bytes_total - sum(stored[row] for row in layer_bits.rows(removed)),
        layers_removed=layer_bits.count(removed),
        state=SETTLED,
    )
    return NewBundle(reader.name, entry, b"", layers, [], is_l0=False)


def layer_entries(
    reader: BundleReader | OutlinedBundle, rows: bytes
) -> Iterator[tuple[bytes, LayerEntry]]:
    """(chunk key, layer) of the layers of a bundle whose bit in `rows` is set."""
    if any(rows):
        yield from _entries(reader, rows, reader.stored_bytes())


def _entries(
    reader: BundleReader | OutlinedBundle, rows: bytes, stored: Sequence[int]
) -> Iterator[tuple[bytes, LayerEntry]]:
    directory = reader.directory
    for row in layer_bits.rows(rows):
        yield directory.key(row), LayerEntry(
            directory.lsn_start(row), directory.lsn_end(row), reader.name, directory.kind(row),
            directory.block_start(row), directory.block_end(row), directory.number(row),
            directory.frame_start(row), directory.frame_end(row), stored[row],
            directory.versions(row),
        )  # fmt: skip


def history_changes(
    reader: BundleReader | OutlinedBundle, removed: bytes = b""
) -> list[RelationChange]:
    """What a bundle's HISTORY versions say, in order of (key, block, LSN), but for those of layers
    whose bit in `removed` is set."""
    rows = (row for row in history_rows(reader.directory) if not layer_bits.has(removed, row))
    if isinstance(reader, OutlinedBundle):
        return reader.changes_of_rows(rows)
    return changes_of_rows(reader, rows)


def remove_unfinished(storage: Storage, root: Path) -> None:
    """What a `reindex` that was cut off has left beside the index."""
    for name in (_BESIDE, _OLD):
        _remove_directory(storage, root / name)


def reindex(storage: Storage, root: Path) -> int:
    """Replace the index of a data directory by one made anew; returns the number of bundles.

    The new one is built beside the old one and takes its place when it is complete. OSError names a
    bundle that is only in the bucket, and what can be done.
    """
    state, _ = layout.replay(storage.read_all(root / "manifest"), str(root / "manifest"))
    for name in sorted(state.uploaded):
        if not storage.exists(root / "layers" / name.text):
            text = (
                "this bundle is only in the bucket, so the index cannot be made here; remove the "
                "directory `index`, and the server makes it anew when it starts with --s3"
            )
            raise FileNotFoundError(errno.ENOENT, text, str(root / "layers" / name.text))
    path, beside, old = (root / name for name in ("index", _BESIDE, _OLD))
    remove_unfinished(storage, root)
    storage.make_directory(beside)
    index = Index(beside, storage)
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
