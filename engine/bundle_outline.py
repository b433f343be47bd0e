"""A bundle's outline: all that the index takes of it, without its file.

A bundle of 64 MiB has thousands of history versions and a frame table; what the index keeps of them
is some kilobytes (formats/outline.py). Who has lost the index and has the outlines need not read
the end of each bundle, which lies in a bucket perhaps.
"""

import logging
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path

import zstandard

from engine.bundle_history import changes_of_rows
from engine.bundle_reader import BundleReader
from engine.index import subject_of
from engine.index_batch import RelationChange
from engine.storage import Storage
from formats import layer_file, outline
from formats.chunk import HISTORY
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_directory import LayerDirectory
from formats.layer_file import FrameKind
from formats.manifest import Manifest
from formats.manifest_record import FileAdded
from formats.outline import HistoryChange, Outline

_log = logging.getLogger("pageserver.index")


def history_rows(directory: LayerDirectory) -> list[int]:
    """The rows of a layer directory that are histories; a chunk's is one row."""
    return [row for row in range(directory.count) if directory.key(row)[0] & HISTORY]


def outline_of(reader: BundleReader) -> Outline:
    """CorruptionError, OSError: it cannot be read."""
    directory = reader.directory
    if reader.table.count != reader.footer.frames:  # asked: `stored_bytes` does without a table
        raise CorruptionError("frames", str(reader.path), reader.footer.frames, reader.table.count)
    rows = history_rows(directory)
    row_of = {subject_of(directory.key(row)): row for row in rows}
    newest: dict[bytes, RelationChange] = {}
    cuts = []
    for change in changes_of_rows(reader, rows):
        if change.is_cut:
            cuts.append(change)
        elif change.key not in newest or change.lsn >= newest[change.key].lsn:
            newest[change.key] = change
    kept = [HistoryChange(row_of[one.key], *one[1:]) for one in (*newest.values(), *cuts)]
    stored = list(reader.stored_bytes())
    frame = reader.read_directory_frame()
    return Outline(reader.name, reader.bytes_total, reader.footer, frame, stored, sorted(kept))


class OutlinedBundle:
    """What a BundleReader says of its bundle, as far as the index wants to know."""

    def __init__(self, outline: Outline) -> None:
        """CorruptionError: its layer directory is damaged, or not this bundle's."""
        self.name = outline.name
        self.bytes_total = outline.bytes_total
        self.footer = outline.footer
        identity = layer_file.identity_of(outline.name)
        trailer = layer_file.pack_footer(outline.footer, identity)[-layer_file.TRAILER_BYTES :]
        self.footer_crc = layer_file.unpack_trailer(trailer, outline.name.text)[1]
        self._frame = outline.directory_frame
        self._stored = array("Q", outline.stored)
        self._changes = outline.changes
        where = f"outline of {outline.name.text}"
        codec = zstandard.ZstdDecompressor()
        raw = layer_file.unseal(self._frame, FrameKind.DIRECTORY, 0, identity, codec, where)
        self.directory = LayerDirectory(raw)
        if len(self._stored) != self.directory.count:
            raise CorruptionError("rows", where, self.directory.count, len(self._stored))

    def read_directory_frame(self) -> bytes:
        return self._frame

    def stored_bytes(self) -> "array[int]":
        return self._stored

    def changes_of_rows(self, rows: Iterable[int]) -> list[RelationChange]:
        wanted, key = set(rows), self.directory.key
        return [
            RelationChange(subject_of(key(change.row)), *change[1:])
            for change in self._changes
            if change.row in wanted
        ]


def read_outlines(storage: Storage, directory: Path) -> dict[FileName, Outline]:
    """Those that a data directory has got to begin with; none are no harm."""
    path = directory / outline.FILE_NAME
    return outlines_in(storage.read_all(path), str(path)) if storage.exists(path) else {}


def outlines_in(data: bytes, path: str) -> dict[FileName, Outline]:
    """Those of a file, if it is sound."""
    if not data:
        return {}
    try:
        return outline.unpack_outlines(data, path)
    except CorruptionError as error:
        _log.warning("outlines of bundles are of no use, the bundles are read: %s", error)
        return {}


def outlined_bundle(
    outlines: Mapping[FileName, Outline], record: FileAdded, manifest: Manifest
) -> OutlinedBundle | None:
    """One of the manifest's, if what the index needs of it is outlined."""
    known = outlines.get(FileName.parse(record.name))
    end = manifest.ends_at_lsn
    if known is None or (end is not None and record.lsn_end > end + 1):
        return None  # which was the newest change at an LSN within it is not said
    try:
        bundle = OutlinedBundle(known)
    except CorruptionError as error:
        _log.warning("an outline is of no use, its bundle is read: %s", error)
        return None
    found = (bundle.bytes_total, bundle.footer_crc)
    return bundle if found == (record.bytes_total, record.footer_crc) else None
