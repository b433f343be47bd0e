"""Bundle file -> versions. Whatever is read is checked before it is used.

A reader opens its file at the first use and then keeps the frame table (32 bytes a frame) in
memory; the layer directory too where the caller does not have it already. Frames go through the
FrameCache that all readers share.
"""

import itertools
import threading
from pathlib import Path
from typing import TypeVar

import zstandard

from engine.frame_cache import FrameCache
from engine.layer_query import LayerQuery
from engine.storage import File, Storage
from engine.version_set import VersionSet
from formats import layer_file
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_directory import FrameTable, LayerDirectory
from formats.layer_file import Footer, FrameKind

_identities = itertools.count()
_local = threading.local()
_Table = TypeVar("_Table", LayerDirectory, FrameTable)


def _decompressor() -> zstandard.ZstdDecompressor:
    """This thread's own: one must not be used by two threads at once."""
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    codec: zstandard.ZstdDecompressor = _local.decompressor
    return codec


class BundleReader:
    """One bundle; used by any number of threads."""

    def __init__(
        self, storage: Storage, path: Path, directory: LayerDirectory | None = None
    ) -> None:
        """`directory` if it is known already, checked, from the index or the writer."""
        self.path = path
        self.name = FileName.parse(path.name)
        self.identity = layer_file.identity_of(self.name)
        self._storage = storage
        self._cache_key = next(_identities)
        self._lock = threading.Lock()
        self._file: File | None = None
        self._footer: Footer | None = None
        self._footer_crc = 0
        self._directory = directory
        self._table: FrameTable | None = None

    @property
    def file(self) -> File:
        if self._file is None:
            with self._lock:
                if self._file is None:
                    self._file = self._open()
        return self._file

    def _open(self) -> File:
        """Check the header, read the footer."""
        file = self._storage.open(self.path)
        pread, path = self._storage.pread, str(self.path)
        header = pread(file, 0, layer_file.HEADER_BYTES)
        layer_file.check_header(header, self.name, path)
        trailer_at = max(0, file.size - layer_file.TRAILER_BYTES)
        trailer = pread(file, trailer_at, layer_file.TRAILER_BYTES)
        length, crc = layer_file.unpack_trailer(trailer, path)
        if length > trailer_at - layer_file.HEADER_BYTES:
            raise CorruptionError("footer length", f"{path} offset {trailer_at}",
                                  f"at most {trailer_at}", length)  # fmt: skip
        body = pread(file, trailer_at - length, length)
        footer = layer_file.unpack_footer(body, crc, self.identity, self.name, path)
        sections = footer.table_offset + footer.table_length
        if (
            sections != trailer_at - length
            or footer.directory_offset + footer.directory_length != footer.table_offset
        ):
            raise CorruptionError("footer sections", f"{path} footer",
                                  f"directory, table, end at {trailer_at - length}", footer)  # fmt: skip
        self._footer, self._footer_crc = footer, crc
        return file

    @property
    def footer(self) -> Footer:
        assert self.file and self._footer is not None
        return self._footer

    @property
    def footer_crc(self) -> int:
        return self._footer_crc if self.file else 0

    @property
    def directory(self) -> LayerDirectory:
        if self._directory is None:
            footer = self.footer
            raw = self._section(
                FrameKind.DIRECTORY, footer.directory_offset, footer.directory_length
            )
            self._directory = self._parse(LayerDirectory, raw, footer.layers)
        return self._directory

    @property
    def table(self) -> FrameTable:
        if self._table is None:
            footer = self.footer
            raw = self._section(FrameKind.TABLE, footer.table_offset, footer.table_length)
            self._table = self._parse(FrameTable, raw, footer.frames)
        return self._table

    def _section(self, kind: FrameKind, offset: int, length: int) -> bytes:
        data = self._storage.pread(self.file, offset, length)
        where = f"{self.path} offset {offset}"
        return layer_file.unseal(data, kind, 0, self.identity, _decompressor(), where)

    def _parse(self, kind: type[_Table], raw: bytes, count: int) -> _Table:
        try:
            parsed = kind(raw)
        except (ValueError, IndexError) as error:
            raise CorruptionError("bundle table", str(self.path), "whole rows", error) from error
        if parsed.count != count:
            raise CorruptionError("bundle table rows", str(self.path), count, parsed.count)
        return parsed

    def read_frame(self, number: int) -> bytes:
        """A frame from the file, checked and decompressed."""
        table = self.table
        offset = table.offset(number)
        data = self._storage.pread(self.file, offset, table.stored_length(number))
        where = f"{self.path} offset {offset}"
        return layer_file.unseal(
            data, FrameKind.VERSIONS, number, self.identity, _decompressor(), where
        )

    def frame(self, number: int, cache: FrameCache) -> bytes:
        key = (self._cache_key, number)
        raw = cache.get(key)
        if raw is None:
            raw = self.read_frame(number)
            cache.put(key, raw)
        return raw

    def collect(self, query: LayerQuery, cache: FrameCache) -> None:
        """Push what this bundle has for all open requests of a query."""
        for number in range(query.locate(self.directory, self.table)):
            self._push(query, query.hit(number), cache)

    def collect_layer(
        self, query: LayerQuery, i: int, layer: int, frame_start: int, frame_end: int,
        cache: FrameCache,
    ) -> None:  # fmt: skip
        """Push what one layer, whose place the index knows, has for request i."""
        if query.locate_layer(i, self.table, layer, frame_start, frame_end):
            self._push(query, i, cache)

    def _push(self, query: LayerQuery, i: int, cache: FrameCache) -> None:
        while query.push(i, self.frame(query.next_frame(i), cache)):
            pass

    def collect_block(
        self, key: bytes, block: int, lsn_max: int, lsn_floor: int, into: VersionSet,
        cache: FrameCache,
    ) -> bool:  # fmt: skip
        """One block's versions with lsn_floor < LSN <= lsn_max, newest first, into a VersionSet
        that starts with them; True if nothing older is wanted."""
        query = LayerQuery(1)
        query.begin(into)
        query.add(key, block, lsn_floor, lsn_max, 0)
        self.collect(query, cache)
        return bool(query.is_complete(0))
