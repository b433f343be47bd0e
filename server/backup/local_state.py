"""What the uploader sees of a data directory that another process writes: its manifest up to a
serial and its journal up to an LSN, both of which that process says are fsynced. Nothing is
written here.

The manifest is followed entry by entry. When it is compacted, or mended after a full disk, another
file takes its place; what is at its end beyond the announced serial may be torn or never become
true, and is not looked at. The journal is read by ranges, and compared with its sums where they
cover it (formats/journal_sums.py).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import crc32c

from engine.journal_directory import list_names
from engine.journal_segment import sums_path
from engine.storage import File, Storage
from formats import lsn, wal_page
from formats import manifest as layout
from formats.errors import CorruptionError
from formats.journal_sums import Sum, parse_sums
from formats.manifest import Entry, Manifest
from formats.manifest_record import RECORDS
from formats.timeline_history import HistoryEntry, history_name, parse_history

_READ_BYTES = 1 << 20


class WalGoneError(Exception):
    """WAL that is not in the journal any more, as layers have it."""


class Position(NamedTuple):
    """What the process that writes the directory says is fsynced; all 0 before there is any."""

    serial: int = 0  # of the manifest
    flushed_lsn: int = 0
    timeline: int = 0  # of the journal


class LocalManifest:
    """D/manifest as another process writes it."""

    def __init__(self, storage: Storage, path: Path) -> None:
        self._storage = storage
        self._path = path
        self._file: File | None = None
        self._end, self._crc = 0, 0  # of what was read of the file
        self._state = Manifest()

    def at(self, serial: int) -> Manifest:
        """The state after the entry with this serial, which is known to be fsynced, or after a
        later one that was asked for before; it is never changed.

        CorruptionError: it is not there.
        """
        if self._state.serial >= serial:
            return self._state
        if self._file is None or not self._storage.is_at(self._file, self._path):
            self._open()
        state = self._state.copy() if self._end else Manifest()
        where = str(self._path)
        for entry, end in self._entries(where):
            for record in entry.records:
                state.apply(record)
            state.serial = entry.serial
            if entry.serial >= serial:
                self._state, self._end, self._crc = state, end, entry.crc
                return state
        self.close()
        raise CorruptionError("manifest", where, f"serial {serial}", state.serial)

    def _entries(self, where: str) -> Iterator[tuple[Entry, int]]:
        """What follows in the file, and where each entry ends."""
        begin, crc, pos = self._end, self._crc, 0
        data = self._rest(begin)
        if begin == 0:
            crc, pos = layout.check_header(data, where), layout.HEADER_BYTES
        where = f"{where} from offset {begin} on,"
        while pos + layout.ENTRY_HEAD_BYTES <= len(data):
            entry = layout.entry_at(data, pos, crc, where, RECORDS)
            if entry is None:
                return
            yield entry, begin + entry.end
            crc, pos = entry.crc, entry.end

    def _rest(self, begin: int) -> bytes:
        """The file from there on; it may be growing."""
        assert self._file is not None
        data = b""
        while piece := self._storage.pread(self._file, begin + len(data), _READ_BYTES):
            data += piece
        return data

    def _open(self) -> None:
        self.close()
        self._file = self._storage.open(self._path)

    def close(self) -> None:
        """Begin anew with the next call."""
        self._end = 0
        if self._file is not None:
            self._storage.close(self._file)
            self._file = None


class LocalJournal:
    """D/journal as another process writes it."""

    def __init__(self, storage: Storage, directory: Path, segment_bytes: int) -> None:
        self._storage = storage
        self._directory = directory
        self._segment_bytes = segment_bytes

    def history_content(self, timeline: int) -> bytes | None:
        """The timeline's history file; timeline 1 has none, nor has one that was never given."""
        path = self._directory / history_name(timeline)
        return self._storage.read_all(path) if self._storage.exists(path) else None

    def history(self, timeline: int) -> list[HistoryEntry]:
        """The timelines before this one, as far as they are known. CorruptionError."""
        content = self.history_content(timeline)
        path = self._directory / history_name(timeline)
        return [] if content is None else parse_history(content, str(path))

    def read(self, start: int, end: int) -> memoryview:
        """WAL that is fsynced; it may span segments, and is copied then.

        WalGoneError if some of it is not there any more; CorruptionError.
        """
        names = list_names(self._storage, self._directory, self._segment_bytes).segments
        pieces = []
        while start < end:
            number = lsn.segment_number(start, self._segment_bytes)
            first = lsn.segment_start(number, self._segment_bytes)
            until = min(end, first + self._segment_bytes)
            try:
                name = wal_page.file_name(names[number], number, self._segment_bytes)
                pieces.append(self._read_segment(self._directory / name, start - first,
                                                 until - first))  # fmt: skip
            except (KeyError, FileNotFoundError):
                raise WalGoneError(f"WAL from {lsn.show(start)} is not here any more") from None
            start = until
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def _read_segment(self, path: Path, begin: int, end: int) -> memoryview:
        """Bytes of a segment file, and those about them that share their sums."""
        file = self._storage.open(path)
        try:
            sums: Sequence[Sum] = ()
            if self._storage.exists(sums_path(path)):
                sums, _ = parse_sums(self._storage.read_all(sums_path(path)))
            ends = [0, *(entry.end for entry in sums)]
            covers = [
                (low, entry) for low, entry in zip(ends, sums, strict=False)
                if low < end and entry.end > begin
            ]  # fmt: skip
            low = min([begin, *(start for start, _ in covers)])
            high = max([end, *(entry.end for _, entry in covers)])
            data = memoryview(self._storage.pread(file, low, high - low))
        finally:
            self._storage.close(file)
        if len(data) < end - low:
            raise CorruptionError("journal segment", str(path), f"at least {end} bytes",
                                  f"{low + len(data)} bytes")  # fmt: skip
        for start, entry in covers:
            found = crc32c.crc32c(data[start - low : entry.end - low])
            if found != entry.crc:
                raise CorruptionError("journal segment", f"{path} offset {start}",
                                      f"CRC {entry.crc:08x} up to offset {entry.end}",
                                      f"{found:08x}")  # fmt: skip
        return data[begin - low : end - low]
