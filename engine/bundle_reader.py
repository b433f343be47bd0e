"""Bundle file -> versions. Whatever is read is checked before it is used.

A reader opens its file at the first use and then keeps the frame table (32 bytes a frame) in
memory; the layer directory too where the caller does not have it already. Frames go through the
FrameCache that all readers share.
"""

import itertools
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import zstandard

from engine.errors import UnreachableError
from engine.frame_cache import FrameCache
from engine.layer_query import LayerQuery
from engine.storage import File, Storage
from formats import layer_file
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_directory import FrameTable, LayerDirectory
from formats.layer_file import Footer, FrameKind

RUN_FRAMES = 16  # read at once where they are neighbours, as of a scan or an image
_identities = itertools.count()
_local = threading.local()
_Table = TypeVar("_Table", LayerDirectory, FrameTable)


def _decompressor() -> zstandard.ZstdDecompressor:
    """This thread's own: one must not be used by two threads at once."""
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    codec: zstandard.ZstdDecompressor = _local.decompressor
    return codec


class _Opened(NamedTuple):
    file: File
    footer: Footer
    footer_crc: int


def _open(storage: Storage, path: Path, name: FileName, identity: int) -> _Opened:
    file = storage.open(path)
    try:
        return _read_ends(storage, file, name, identity)
    except CorruptionError:
        if not storage.doubt(file, 0, file.size):
            raise
        return _read_ends(storage, file, name, identity)


def _read_ends(storage: Storage, file: File, name: FileName, identity: int) -> _Opened:
    """The header of a file in a bucket is not asked for: all other CRCs continue from the one that
    its name calls for."""
    path = file.path
    if file.is_local:
        header = storage.pread(file, 0, layer_file.HEADER_BYTES)
        layer_file.check_header(header, name, str(path))
    trailer_at = max(0, file.size - layer_file.TRAILER_BYTES)
    trailer = storage.pread(file, trailer_at, layer_file.TRAILER_BYTES)
    length, crc = layer_file.unpack_trailer(trailer, str(path))
    end = trailer_at - length
    if end < layer_file.HEADER_BYTES:
        where = f"{path} offset {trailer_at}"
        raise CorruptionError("footer length", where, f"at most {trailer_at}", length)
    body = storage.pread(file, end, length)
    footer = layer_file.unpack_footer(body, crc, identity, name, str(path))
    sections = footer.directory_offset + footer.directory_length + footer.table_length
    if footer.table_offset + footer.table_length != end or sections != end:
        raise CorruptionError("footer sections", f"{path} footer", f"to end at {end}", footer)
    return _Opened(file, footer, crc)


class BundleReader:
    """One bundle; used by any number of threads."""

    def __init__(self, storage: Storage, path: Path, directory_frame: bytes | None = None) -> None:
        """`directory_frame`: the layer directory as the file has it, from the writer or the index;
        without it the file is asked."""
        self.path = path
        self.name = FileName.parse(path.name)
        self.identity = layer_file.identity_of(self.name)
        self._storage = storage
        self._cache_key = next(_identities)
        self._opened: _Opened | None = None
        self._directory_frame = directory_frame
        self._directory: LayerDirectory | None = None
        self._table: FrameTable | None = None
        self._stored: array[int] | None = None

    def _open(self) -> "_Opened":
        """The file with its header checked and its footer read, at the first use.

        Without a lock: a read of it may open other bundles first (engine/foresight.py). Two threads
        may open it at the same time, and then one file is closed when nobody reads it any more.
        """
        opened = self._opened
        if opened is None:
            opened = self._opened = _open(self._storage, self.path, self.name, self.identity)
        return opened

    @property
    def footer(self) -> Footer:
        return self._open().footer

    @property
    def footer_crc(self) -> int:
        return self._open().footer_crc

    @property
    def bytes_total(self) -> int:
        return self._open().file.size

    @property
    def directory(self) -> LayerDirectory:
        if self._directory is None:
            known = self._directory_frame
            if known is None:
                self._directory = self._read_directory()[1]
            else:
                self._directory = self._parse(LayerDirectory, FrameKind.DIRECTORY, known)
                self._directory_frame = None
        return self._directory

    def read_directory_frame(self) -> bytes:
        """The layer directory as the file has it, which checks."""
        return self._read_directory()[0]

    def _read_directory(self) -> tuple[bytes, LayerDirectory]:
        offset, length = self.footer.directory_offset, self.footer.directory_length
        return self._read_table(LayerDirectory, FrameKind.DIRECTORY, offset, length)

    @property
    def table(self) -> FrameTable:
        if self._table is None:
            offset, length = self.footer.table_offset, self.footer.table_length
            self._table = self._read_table(FrameTable, FrameKind.TABLE, offset, length)[1]
        return self._table

    def stored_bytes(self) -> "array[int]":
        """Bytes of each layer in the file, by row of the directory; kept, 8 bytes a layer.

        A frame that several layers share counts for each of them in equal parts. Of a bundle whose
        frame table is damaged or whose file is gone none has any: nobody can read them.
        """
        if self._stored is None:
            try:
                self._stored = self._share_frames()
            except (CorruptionError, FileNotFoundError):
                return self._nothing_stored()
        return self._stored

    def stored_bytes_if_readable(self) -> "array[int]":
        """The same, and zeros whatever the disk says: for compaction, which leaves out what it
        cannot read."""
        try:
            return self.stored_bytes()
        except UnreachableError:
            raise
        except OSError:
            return self._nothing_stored()

    def _nothing_stored(self) -> "array[int]":
        return array("Q", bytes(8 * self.directory.count))

    def _share_frames(self) -> "array[int]":
        directory, table = self.directory, self.table
        sharing = [0] * table.count
        for row in range(directory.count):
            first, last = directory.frame_start(row), directory.frame_end(row) - 1
            sharing[first] += 1
            if last != first:
                sharing[last] += 1
        found = array("Q")
        for row in range(directory.count):
            first, last = directory.frame_start(row), directory.frame_end(row) - 1
            stored = table.stored_length(first) // sharing[first]
            if last != first:
                inner = table.offset(last) - table.offset(first) - table.stored_length(first)
                stored += inner + table.stored_length(last) // sharing[last]
            found.append(stored)
        return found

    def _pread(self, offset: int, length: int) -> bytes:
        return self._storage.pread(self._open().file, offset, length)

    def _read_table(
        self, table: type[_Table], kind: FrameKind, offset: int, length: int
    ) -> tuple[bytes, _Table]:
        data = self._pread(offset, length)
        try:
            return data, self._parse(table, kind, data)
        except CorruptionError:
            if not self._storage.doubt(self._open().file, offset, length):
                raise
        data = self._pread(offset, length)
        return data, self._parse(table, kind, data)

    def _parse(self, table: type[_Table], kind: FrameKind, data: bytes) -> _Table:
        where = f"{self.path} {kind.name.lower()}"
        raw = layer_file.unseal(data, kind, 0, self.identity, _decompressor(), where)
        try:
            return table(raw)
        except (ValueError, IndexError) as error:
            raise CorruptionError("rows", where, "whole ones", error) from error

    def read_frame(self, number: int) -> bytes:
        """A frame from the file, checked and decompressed."""
        return self.unseal_frame(number, self.read_stored(number, number + 1))

    def read_stored(self, first: int, end: int, *, is_once: bool = False) -> bytes:
        """Frames first..end as they lie in the file, one behind the other; nothing is checked.

        `is_once`: for one who goes through the file (Storage.pread_once).
        """
        offset, length = self._place(first, end)
        pread = self._storage.pread_once if is_once else self._storage.pread
        return pread(self._open().file, offset, length)

    def _place(self, first: int, end: int) -> tuple[int, int]:
        """Offset and length of frames first..end."""
        table, last = self.table, end - 1
        offset = table.offset(first)
        return offset, table.offset(last) + table.stored_length(last) - offset

    def unseal_frame(self, number: int, stored: bytes | memoryview) -> bytes:
        """Check and decompress a frame that was read; where another read may give other bytes, it
        is read anew."""
        try:
            return self._unseal(number, stored)
        except CorruptionError:
            place = self._place(number, number + 1)
            if not self._storage.doubt(self._open().file, *place):
                raise
            return self._unseal(number, self._pread(*place))

    def _unseal(self, number: int, stored: bytes | memoryview) -> bytes:
        where = f"{self.path} offset {self.table.offset(number)}"
        return layer_file.unseal(
            stored, FrameKind.VERSIONS, number, self.identity, _decompressor(), where
        )

    @property
    def is_open(self) -> bool:
        """Whether the frame table is here."""
        return self._table is not None

    def places(self, numbers: Iterable[int], cache: FrameCache) -> Iterator[tuple[File, int, int]]:
        """(file, offset, length) of those of the frames that the cache does not have."""
        file = self._open().file
        for number in numbers:
            if not cache.has(self._cache_key, number):
                yield file, *self._place(number, number + 1)

    def locate(self, query: LayerQuery, dead: bytes) -> int:
        """How many open requests of a query must see a layer of this bundle: its hits. `dead`: rows
        of the directory that count no longer."""
        try:
            hits: int = query.locate(self.directory, dead)
        except (CorruptionError, OSError) as error:
            query.fail_all(error)
            return 0
        return hits

    def collect_hits(self, query: LayerQuery, hits: int, cache: FrameCache) -> None:
        """Push what the layers that a query has just entered, all of this bundle, have for it."""
        try:
            wanted = query.aim(self.table)
        except (CorruptionError, OSError) as error:
            for hit in range(hits):
                query.fail_hit(hit, error)
            return
        while wanted:
            frames = cache.get_many(self._cache_key, wanted)
            if None in frames:
                self._read_missing(query, wanted, frames, cache)
            wanted = query.push(frames)

    def _read_missing(
        self, query: LayerQuery, wanted: list[int], frames: list[bytes | None], cache: FrameCache
    ) -> None:
        """Fill in frames that the cache did not have, each read once."""
        missing = sorted({n for n, raw in zip(wanted, frames, strict=True) if raw is None})
        found: dict[int, bytes | Exception] = {}
        for first, end in _runs(missing):
            self._read_run(first, end, found, is_once=not query.keeps_frames)
        if query.keeps_frames:
            for number, raw in found.items():
                if isinstance(raw, bytes):
                    cache.put(self._cache_key, number, raw)
        for hit, number in enumerate(wanted):
            if frames[hit] is None:
                raw = found[number]
                if isinstance(raw, bytes):
                    frames[hit] = raw
                else:
                    query.fail_hit(hit, raw)

    def _read_run(
        self, first: int, end: int, found: dict[int, bytes | Exception], *, is_once: bool
    ) -> None:
        """Note frames first..end, read at once; of each that cannot be had, why."""
        table = self.table
        try:
            stored = self.read_stored(first, end, is_once=is_once)
        except (CorruptionError, OSError) as error:
            found.update(dict.fromkeys(range(first, end), error))
            return
        start, whole = 0, memoryview(stored)
        for number in range(first, end):
            length = table.stored_length(number)
            try:
                found[number] = self.unseal_frame(number, whole[start : start + length])
            except (CorruptionError, OSError) as error:
                found[number] = error
            start += length


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours among sorted numbers, first..end, RUN_FRAMES at most."""
    runs: list[tuple[int, int]] = []
    first = end = -1
    for number in numbers:
        if number != end or end - first == RUN_FRAMES:
            if end >= 0:
                runs.append((first, end))
            first = number
        end = number + 1
    return [*runs, (first, end)]
