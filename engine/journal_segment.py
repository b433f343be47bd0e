"""One segment file of the journal and the `.sums` file beside it (formats/journal_sums.py).

The segment holds WAL from its first byte on, at the offsets that the WAL has. A sum is written when
64 KiB have been made durable since the last one, when the segment is full, and when the journal is
closed; a full segment is durable, sums included, before the next one is created.
"""

from pathlib import Path

import crc32c

from engine.storage import File, Storage
from formats.errors import CorruptionError
from formats.journal_sums import ENTRY_BYTES, MAGIC, Sum, ends_torn, parse_sums

SUM_BYTES = 64 * 1024
_READ_BYTES = 1 << 20


def sums_path(path: Path) -> Path:
    return path.with_name(path.name + ".sums")


class JournalSegment:
    """A full segment: read-only, and open only while it is read, because there may be many."""

    def __init__(self, storage: Storage, path: Path, start_lsn: int) -> None:
        self.path = path
        self.start_lsn = start_lsn
        self._storage = storage

    @classmethod
    def open(
        cls, storage: Storage, path: Path, start_lsn: int, segment_bytes: int
    ) -> "JournalSegment":
        """One with others behind it: it must be whole. Its records are checked when read."""
        length = storage.file_size(path)
        if length != segment_bytes:
            raise CorruptionError(
                "journal segment", str(path), f"{segment_bytes} bytes", f"{length} bytes"
            )
        sums, _ = parse_sums(storage.read_all(sums_path(path)))
        covered = sums[-1].end if sums else 0
        if covered != segment_bytes:
            raise CorruptionError(
                "sums of a journal segment",
                str(sums_path(path)),
                f"sums up to {segment_bytes}",
                f"sums up to {covered}",
            )
        return cls(storage, path, start_lsn)

    def read(self, offset: int, length: int) -> bytes:
        file = self._storage.open(self.path)
        try:
            return self._storage.pread(file, offset, length)
        finally:
            self._storage.close(file)


class SegmentInHand:
    """The full segment that was read last, open until another one is: who reads a journal from end
    to end opens each of them once. For one thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._segment: JournalSegment | None = None
        self._file: File | None = None

    def read(self, segment: JournalSegment, offset: int, length: int) -> bytes:
        if isinstance(segment, LastSegment):
            self.close()
            return segment.read(offset, length)
        if self._file is None or self._segment is not segment:  # another may have the same name
            self.close()
            self._file, self._segment = self._storage.open(segment.path), segment
        return self._storage.pread(self._file, offset, length)

    def close(self) -> None:
        if self._file is not None:
            self._storage.close(self._file)
            self._file = None


class LastSegment(JournalSegment):
    """The segment that is written. By one thread; read by any.

    Its files are never closed by name while a reader may hold them: they close themselves.
    """

    def __init__(
        self, storage: Storage, data: File, sums: File, start_lsn: int, segment_bytes: int
    ) -> None:
        super().__init__(storage, data.path, start_lsn)
        self._segment_bytes = segment_bytes
        self._data = data
        self._sums = sums
        self._covered = 0  # bytes that sums cover
        self._crc = 0  # of the bytes from there on

    @classmethod
    def create(
        cls, storage: Storage, path: Path, start_lsn: int, segment_bytes: int
    ) -> "LastSegment":
        """A new, empty segment; its name is durable when the caller syncs the directory."""
        for leftover in (path, sums_path(path)):
            if storage.exists(leftover):  # of an attempt that failed in between
                storage.remove(leftover)
        sums = storage.create(sums_path(path))
        storage.append(sums, [MAGIC])
        return cls(storage, storage.create(path), sums, start_lsn, segment_bytes)

    @classmethod
    def open(
        cls, storage: Storage, path: Path, start_lsn: int, segment_bytes: int
    ) -> "LastSegment":
        """One that a crash may have cut off: checked against its sums, not yet cut."""
        if not storage.exists(sums_path(path)):
            storage.create(sums_path(path))
        sums_file = storage.open(sums_path(path), writable=True)
        self = cls(storage, storage.open(path, writable=True), sums_file, start_lsn, segment_bytes)
        sums = self._read_sums()
        check_sums(storage, self._data, sums)
        self._keep_sums(sums)
        self._sum_the_rest()
        return self

    @property
    def length(self) -> int:
        return self._data.size

    @property
    def end_lsn(self) -> int:
        return self.start_lsn + self.length

    @property
    def covered_lsn(self) -> int:
        """The end of the bytes that sums vouch for."""
        return self.start_lsn + self._covered

    @property
    def is_full(self) -> bool:
        return self.length == self._segment_bytes

    def _read_sums(self) -> list[Sum]:
        sums, _ = parse_sums(self._storage.pread(self._sums, 0, self._sums.size))
        return sums

    def _keep_sums(self, sums: list[Sum]) -> None:
        """Make these the sums of the file."""
        size = len(MAGIC) + ENTRY_BYTES * len(sums)
        if not sums:
            self._storage.truncate(self._sums, 0)
            self._storage.append(self._sums, [MAGIC])
        elif self._sums.size != size:
            self._storage.truncate(self._sums, size)
        self._covered = sums[-1].end if sums else 0

    def _sum_the_rest(self) -> None:
        self._crc = 0
        for offset in range(self._covered, self.length, _READ_BYTES):
            self._crc = crc32c.crc32c(self.read(offset, _READ_BYTES), self._crc)

    def append(self, data: bytes | memoryview) -> None:
        """Write at the end. After an error the segment is as long as before."""
        length = self.length
        try:
            self._storage.append(self._data, [data])
        except OSError:
            self._data = self._storage.open(self.path, writable=True)
            self._storage.truncate(self._data, length)
            raise
        self._crc = crc32c.crc32c(data, self._crc)

    def sync(self) -> None:
        """Make the bytes durable."""
        self._storage.sync(self._data)

    def vouch(self, *, seal: bool) -> bool:
        """Write a sum of the bytes, all of them durable, if they are many or there will be no more.

        Whether the sums must be synced now. After an error the sums are as before.
        """
        pending = self.length - self._covered
        if pending == 0 or not (seal or self.is_full or pending >= SUM_BYTES):
            return False
        size = self._sums.size
        try:
            self._storage.append(self._sums, [Sum(self.length, self._crc).pack()])
        except OSError:
            self._sums = self._storage.open(sums_path(self.path), writable=True)
            self._storage.truncate(self._sums, size)
            raise
        self._covered, self._crc = self.length, 0
        return seal or self.is_full

    def sync_sums(self) -> None:
        self._storage.sync(self._sums)

    def truncate(self, length: int) -> None:
        """Cut off bytes that are no WAL of this history; sums of them go first, and durably."""
        if length == self.length:
            return
        if length < self._covered:
            self._keep_sums([entry for entry in self._read_sums() if entry.end <= length])
            self.sync_sums()
        self._storage.truncate(self._data, length)
        self._sum_the_rest()

    def finished(self) -> JournalSegment:
        """The segment, full and durable, as one that is only read."""
        return JournalSegment(self._storage, self.path, self.start_lsn)

    def read(self, offset: int, length: int) -> bytes:
        return self._storage.pread(self._data, offset, length)


def check_sums(storage: Storage, data: File, sums: list[Sum]) -> None:
    """Compare a segment's bytes with their sums."""
    begin = 0
    for entry in sums:
        covered = storage.pread(data, begin, entry.end - begin)
        if len(covered) != entry.end - begin:
            raise CorruptionError(
                "journal segment",
                str(data.path),
                f"at least {entry.end} bytes",
                f"{data.size} bytes",
            )
        found = crc32c.crc32c(covered)
        if found != entry.crc:
            raise CorruptionError(
                "journal segment",
                f"{data.path} offset {begin}",
                f"CRC {entry.crc:08x} up to offset {entry.end}",
                f"{found:08x}",
            )
        begin = entry.end


def verify_segment(storage: Storage, path: Path, segment_bytes: int, is_last: bool) -> list[str]:
    """What is wrong with a segment of a stopped journal, in words; nothing is changed.

    Of the last one, what lies behind the sums is what a crash may have torn: no fault.
    """
    entries = storage.read_all(sums_path(path)) if storage.exists(sums_path(path)) else b""
    sums, used = parse_sums(entries)
    data = storage.open(path)
    problems = []
    if any(entries[used:]) and not (is_last and ends_torn(entries, used)):
        problems.append(f"{sums_path(path)} offset {used}: expected a sum, found other bytes")
    try:
        check_sums(storage, data, sums)
    except CorruptionError as error:
        problems.append(str(error))
    covered = sums[-1].end if sums else 0
    if not is_last and (covered, data.size) != (segment_bytes, segment_bytes):
        problems.append(
            f"{path}: expected {segment_bytes} bytes and sums of them all, "
            f"found {data.size} bytes and sums of {covered}"
        )
    return problems
