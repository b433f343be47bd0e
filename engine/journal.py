"""The journal: WAL as it was received, in segment files with PostgreSQL's names and layout.

    D/journal/000000010000000A000000FE        the bytes of one WAL segment, the last one cut off
                                              where the received WAL ends
    D/journal/000000010000000A000000FE.sums   checksums of what of it is durable
    D/journal/00000002.history                how timeline 2 came about, as PostgreSQL keeps it

It exists so that WAL may be reported as flushed as soon as it is fsynced here, long before it has
become layers, and so that a restart replays what is here and needs nothing from the primary.

    received   end of the bytes that were written here: what ingest may read
    flushed    end of the bytes that were fsynced here: what may be reported, never more

One thread writes (append, sync, follow a timeline), another reads at its own pace behind it, any
may trim. What was written last stays in memory, so a reader that keeps up reads no file, and one
that lags costs no memory: the files are the queue.

An fsync that fails ends the journal's life: nobody knows what the disk has, so nothing is written
and nothing is reported after it; so does a write that fails for any reason but a full disk, which
changes nothing and may be tried again.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from engine.disk_room import is_full
from engine.journal_directory import UNFINISHED_SUFFIX, list_names
from engine.journal_segment import JournalSegment, LastSegment, SegmentInHand, sums_path
from engine.journal_tail import Tail
from engine.storage import Storage
from formats import lsn, wal_page, wal_tail
from formats.errors import CorruptionError
from formats.timeline_history import HistoryEntry, history_name, parse_history

TAIL_BYTES = 16 << 20


class JournalFailedError(Exception):
    """An fsync or a write of the journal failed earlier: the process must start again."""


class JournalRewoundError(Exception):
    """Bytes that were read are void: the reader goes on from `lsn`, with no record half read."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the journal went back to {lsn.show(position)}")
        self.lsn = position


class Journal:
    """Open it on its directory; an empty one is begun with `begin`."""

    def __init__(
        self, storage: Storage, directory: Path, segment_bytes: int, tail_bytes: int = TAIL_BYTES
    ) -> None:
        if not lsn.is_segment_size(segment_bytes):
            raise ValueError(f"not a size of WAL segments: {segment_bytes}")
        self._storage = storage
        self._directory = directory
        self.segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._segments: list[JournalSegment] = []
        self._older: list[str] = []
        self._failure: BaseException | None = None
        self._rewound_to: int | None = None
        self.timeline = 0
        self.received_lsn = 0
        self.flushed_lsn = 0
        self._tail = Tail(tail_bytes, 0)
        self._in_hand = SegmentInHand(storage)  # the reader's
        storage.make_directory(directory)
        self._recover()

    # Opening

    def _recover(self) -> None:
        names = list_names(self._storage, self._directory, self.segment_bytes)
        for name in names.leftovers:
            self._storage.remove(self._directory / name)
        self._older = names.older
        self.timeline = max([*names.segments.values(), *names.histories], default=0)
        numbers = sorted(names.segments)
        for index, number in enumerate(numbers):
            if number != numbers[0] + index:
                missing = wal_page.file_name(self.timeline, numbers[0] + index, self.segment_bytes)
                raise CorruptionError("journal", str(self._directory), missing, "no such file")
            name = wal_page.file_name(names.segments[number], number, self.segment_bytes)
            is_last = index == len(numbers) - 1
            open_segment = LastSegment.open if is_last else JournalSegment.open
            start = lsn.segment_start(number, self.segment_bytes)
            self._segments.append(
                open_segment(self._storage, self._directory / name, start, self.segment_bytes)
            )
        if self._segments:
            self._cut_torn_end(self._last())
        self._storage.sync_directory(self._directory)

    def _cut_torn_end(self, last: LastSegment) -> None:
        """Keep what sums vouch for and the whole records behind it; make that durable."""
        self.received_lsn = last.end_lsn
        size = self.segment_bytes
        end = last.covered_lsn
        if end < last.end_lsn:
            start = wal_tail.record_start_before(self._read_files, self.start_lsn, end, size)
            if start is None:
                start = wal_tail.first_record_start(
                    self._read_files, self.start_lsn, last.end_lsn, size
                )
            if start is not None:
                records_end = wal_tail.whole_records_end(
                    self._read_files, start, last.end_lsn, size
                )
                end = max(end, records_end)
        last.truncate(end - last.start_lsn)
        self._final(last.sync)
        self.received_lsn = self.flushed_lsn = end
        self._tail.reset(end)

    def begin(self, start: int, timeline: int) -> None:
        """Start an empty journal at the beginning of a segment."""
        if self._segments or start % self.segment_bytes:
            raise ValueError(f"a journal cannot begin at {lsn.show(start)}")
        with self._lock:
            self.timeline = timeline
            self.received_lsn = self.flushed_lsn = start
            self._tail.reset(start)

    def discard(self) -> None:
        """Remove everything, for another `begin`: a base backup that starts anew."""
        with self._lock:
            self._segments = []
            self.received_lsn = self.flushed_lsn = self.timeline = 0
        for name in self._storage.list(self._directory):
            self._storage.remove(self._directory / name)
        self._older = []
        self._storage.sync_directory(self._directory)

    # Writing: one thread

    @property
    def start_lsn(self) -> int:
        """Where the WAL that is here begins."""
        return self._segments[0].start_lsn if self._segments else self.received_lsn

    @property
    def is_empty(self) -> bool:
        return not self._segments

    def append(self, start: int, data: bytes | memoryview) -> None:
        """Write WAL that begins at `start`, which must be where the received WAL ends."""
        if start != self.received_lsn:
            raise ValueError(
                f"WAL from {lsn.show(start)} does not follow {lsn.show(self.received_lsn)}"
            )
        rest = memoryview(data)
        while rest:
            piece = self._append_piece(rest)
            with self._lock:
                self._tail.append(piece)
                self.received_lsn += len(piece)
            rest = rest[len(piece) :]

    def _append_piece(self, rest: memoryview) -> memoryview:
        """Write as much as the segment at hand takes; a fault of the disk is the last word."""
        try:
            segment = self._writable_segment()
            piece = rest[: self.segment_bytes - segment.length]
            segment.append(piece)
        except OSError as error:
            if not is_full(error):
                self._failure = self._failure or error
            raise
        return piece

    def _last(self) -> LastSegment:
        last = self._segments[-1]
        assert isinstance(last, LastSegment), "only those before the last are full and read-only"
        return last

    def _writable_segment(self) -> LastSegment:
        self._refuse_failed()
        full: list[JournalSegment] = []
        if self._segments:
            if not self._last().is_full:
                return self._last()
            self.sync()
            full = [self._last().finished()]
        number = lsn.segment_number(self.received_lsn, self.segment_bytes)
        name = wal_page.file_name(self.timeline, number, self.segment_bytes)
        segment = LastSegment.create(
            self._storage, self._directory / name, self.received_lsn, self.segment_bytes
        )
        self._sync_directory()
        with self._lock:
            self._segments[-1:] = [*full, segment]
        return segment

    def sync(self) -> int:
        """Make everything received durable; returns the flushed LSN."""
        self._sync_last(seal=False)
        return self.flushed_lsn

    def _sync_last(self, *, seal: bool) -> None:
        self._refuse_failed()
        if not self._segments:
            return
        last = self._last()
        if self.flushed_lsn != self.received_lsn:
            self._final(last.sync)
            self.flushed_lsn = self.received_lsn
        if last.vouch(seal=seal):
            self._final(last.sync_sums)

    def _final(self, sync: Callable[[], None]) -> None:
        """An fsync: if it fails, it was the last."""
        try:
            sync()
        except BaseException as error:
            self._failure = error
            raise

    def _sync_directory(self) -> None:
        self._final(lambda: self._storage.sync_directory(self._directory))

    @property
    def has_failed(self) -> bool:
        """Whether the disk failed: nothing may be reported any more."""
        return self._failure is not None

    def _refuse_failed(self) -> None:
        if self._failure is not None:
            raise JournalFailedError(
                f"the journal cannot be written any more: {self._failure}; "
                "check the disk, then start the page server again"
            )

    def close(self) -> None:
        """Make everything durable and vouched for."""
        self._in_hand.close()
        if self._failure is None:
            self._sync_last(seal=True)

    # Timelines: the writing thread

    def last_record_end(self) -> int:
        """The end of the last whole record that was received."""
        return wal_tail.last_record_end(
            self._read_files, self.start_lsn, self.received_lsn, self.segment_bytes
        )

    def history(self) -> list[HistoryEntry]:
        """The timelines before this one; empty on timeline 1 (or if none was ever given)."""
        path = self._directory / history_name(self.timeline)
        if not self._storage.exists(path):
            return []
        return parse_history(self._storage.read_all(path), str(path))

    def keep_history(self, timeline: int, content: bytes) -> None:
        """Store the history file of a timeline, durably, whole or not at all."""
        path = self._directory / history_name(timeline)
        self._write_whole(path, [content])
        self._sync_directory()

    def follow(self, timeline: int, switch: int, history: bytes) -> None:
        """Go on with a new timeline, which left this one at `switch`.

        Bytes above that are dropped: the caller made sure that they hold no whole record. As in
        PostgreSQL the segment in which this happens begins with a copy of the old timeline's.
        """
        if not self.last_record_end() <= switch <= self.received_lsn:
            raise ValueError(f"the journal cannot switch its timeline at {lsn.show(switch)}")
        self._rewind(switch)
        self.sync()
        offset = lsn.segment_offset(switch, self.segment_bytes)
        number = lsn.segment_number(switch, self.segment_bytes)
        if offset and self._segments:
            self._continue_segment(wal_page.file_name(timeline, number, self.segment_bytes))
        self.keep_history(timeline, history)
        self.timeline = timeline

    def _continue_segment(self, name: str) -> None:
        old = self._last()
        path = self._directory / name
        self._write_whole(path, [old.read(0, old.length)])
        new = LastSegment.open(self._storage, path, old.start_lsn, self.segment_bytes)
        self._sync_directory()
        with self._lock:
            self._segments[-1] = new
            self._older.append(old.path.name)

    def _write_whole(self, path: Path, parts: list[bytes]) -> None:
        unfinished = path.with_name(path.name + UNFINISHED_SUFFIX)
        if self._storage.exists(unfinished):
            self._storage.remove(unfinished)
        file = self._storage.create(unfinished)
        try:
            self._storage.append(file, parts)
            self._storage.sync(file)
        finally:
            self._storage.close(file)
        self._storage.rename(unfinished, path)

    def _rewind(self, position: int) -> None:
        if position == self.received_lsn:
            return
        with self._lock:
            while self._segments and self._segments[-1].start_lsn >= position:
                self._remove_segment(self._segments.pop().path)
            if self._segments:
                self._segments[-1] = self._cut(self._segments[-1], position)
            self.received_lsn = position
            self.flushed_lsn = min(self.flushed_lsn, position)
            self._tail.reset(position)
            self._rewound_to = position

    def _cut(self, segment: JournalSegment, position: int) -> LastSegment:
        if not isinstance(segment, LastSegment):
            start = segment.start_lsn
            segment = LastSegment.open(self._storage, segment.path, start, self.segment_bytes)
        segment.truncate(position - segment.start_lsn)
        return segment

    # Reading: another thread

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes of the received WAL from `start`; empty when there are none yet.

        JournalRewoundError when bytes above where the journal went back to were read: once, until
        the reader comes back from there.
        """
        with self._lock:
            if self._rewound_to is not None:
                if start > self._rewound_to:
                    raise JournalRewoundError(self._rewound_to)
                self._rewound_to = None
            length = min(length, self.received_lsn - start)
            if length <= 0 or start >= self._tail.start:
                self._in_hand.close()
                return self._tail.read(start, length) if length > 0 else b""
        segment = self._segment_at(start)
        return self._in_hand.read(segment, start - segment.start_lsn, length)

    def _segment_at(self, start: int) -> JournalSegment:
        with self._lock:
            first = self.start_lsn
            if start < first:
                raise ValueError(
                    f"WAL at {lsn.show(start)} is gone: the journal starts at {lsn.show(first)}"
                )
            return self._segments[(start - first) // self.segment_bytes]

    def _read_file(self, start: int, length: int) -> bytes:
        """From one segment, to its end at most."""
        segment = self._segment_at(start)
        return segment.read(start - segment.start_lsn, length)

    def _read_files(self, start: int, length: int) -> bytes:
        data = self._read_file(start, length)
        while len(data) < length:
            data += self._read_file(start + len(data), length - len(data))
        return data

    def has(self, start: int, data: bytes | memoryview) -> bool:
        """Whether the received WAL has these very bytes at `start`; for the writing thread."""
        return self._read_files(start, len(data)) == data

    # Trimming: any thread

    def trim(self, position: int) -> int:
        """Remove the segments that lie wholly below `position`, but the last; how many went."""
        with self._lock:
            gone = []
            while len(self._segments) > 1 and self._segments[1].start_lsn <= position:
                gone.append(self._segments.pop(0))
            older, self._older = self._older, []
        for segment in gone:
            self._remove_segment(segment.path)
        for name in older:
            self._forget_older(name, position)
        return len(gone)

    def _forget_older(self, name: str, position: int) -> None:
        _, number = wal_page.parse_file_name(name, self.segment_bytes)
        if lsn.segment_start(number + 1, self.segment_bytes) > position:
            with self._lock:
                self._older.append(name)
            return
        self._remove_segment(self._directory / name)

    def _remove_segment(self, path: Path) -> None:
        """Durably before its sums and before another segment go: names may come to the disk in any
        order, and a segment without sums, or a gap before it, would be damage."""
        self._storage.remove(path)
        self._storage.sync_directory(self._directory)
        if self._storage.exists(sums_path(path)):
            self._storage.remove(sums_path(path))
