"""Redo of whole WAL files in LSN order, by one thread or by several that share the work.

    segments ──read──> WalIngest ──> memtable ──> shard 0 of the pages
                                        ├───────> shard 1
                                        └───────> ...

There are two kinds of tasks: read and ingest the next piece of WAL into an empty memtable, and redo
what a full one has for one shard. The first can be done by one thread at a time; so can the second
for each shard, and its memtables must come in order. Whoever is free takes the next task that can
be done; a memtable that all shards are through with is empty again. All of a task's work is done
without the GIL, so the lock here is taken a few times for each piece of WAL.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from engine.chunk_table import ChunkTable
from engine.cluster_records import ClusterRecords
from engine.ingest import Ingest
from engine.memtable import Memtable
from engine.wal_ingest import WalIngest, decompress_image
from engine.wal_reader import WalReader
from formats import lsn
from formats.errors import CorruptionError
from tools.bench.current_pages import CurrentPages

Base = Callable[[int, int], bytes | None]

PIECE_BYTES = 512 << 10  # of WAL: with what is made of it still in the processor's cache
ARENA_BYTES = 1 << 20
ENTRIES_MAX = 16384
SHARDS_PER_THREAD = 3
PAGES_MAX = 1 << 16  # of a shard
NEVER_HOT = 0x7FFFFFFF


class RedoRun:
    """One run over some WAL; afterwards `page` has what became of each page."""

    def __init__(
        self,
        table: ChunkTable,
        major: int,
        files: Mapping[int, bytes],
        base: Base,
        thread_count: int = 1,
        new_page_lsn_max: int = 0,
    ) -> None:
        """`table` and `files` (see ClusterRecords) say how the cluster was before the first record,
        `base(chunk, block)` gives each page then, None: zeros; `new_page_lsn_max` is explained in
        engine/reconstruct.py."""
        self.thread_count = thread_count
        self.table = table
        self.major = major
        self.ingest = Ingest(table, decompress_image)
        self.cluster = ClusterRecords(table, self.ingest, major, files)
        self.base = base
        shard_count = 1 if thread_count == 1 else SHARDS_PER_THREAD * thread_count
        self.shards = [
            CurrentPages(table, major, PAGES_MAX, ENTRIES_MAX, self._load, number, shard_count)
            for number in range(shard_count)
        ]
        for shard in self.shards:
            shard.reconstruct.new_page_lsn_max = new_page_lsn_max
        self.changed = threading.Condition()
        self.empty = [
            Memtable(ARENA_BYTES, ENTRIES_MAX, ENTRIES_MAX, NEVER_HOT, NEVER_HOT)
            for _ in range(1 if thread_count == 1 else 2 * thread_count)
        ]
        self.full: list[tuple[Memtable, int]] = []  # and how many shards it is still for
        self.emptied = 0  # how many are not in `full` any more
        self.next_full = [0] * shard_count
        self.busy = [False] * shard_count
        self.is_filling = False
        self.is_over = False
        self.error: BaseException | None = None

    @property
    def records(self) -> int:
        return int(self.ingest.records)

    @property
    def applied(self) -> int:
        """Versions of pages."""
        return sum(int(shard.applied) for shard in self.shards)

    def page(self, chunk: int, block: int) -> bytes | None:
        """A page as it is at the end, None if no WAL changed it."""
        for shard in self.shards:
            if shard.owns(chunk, block):
                page: bytes | None = shard.page(chunk, block)
                return page
        raise LookupError("a page of no shard")

    def run(self, reader: WalReader, segments: Sequence[Path]) -> None:
        """Redo all of it; the first record that the reader wants is in the first segment."""
        self.wal = WalIngest(self, self.ingest, self.cluster, reader, self._copy_database)
        self.pieces = self._read(segments)
        threads = [threading.Thread(target=self._work) for _ in range(self.thread_count - 1)]
        for thread in threads:
            thread.start()
        self._work()
        for thread in threads:
            thread.join()
        if self.error is not None:
            raise self.error

    def _read(self, segments: Sequence[Path]) -> Iterator[memoryview]:
        """The segments' bytes, each time in the same buffer."""
        buffer = memoryview(bytearray(PIECE_BYTES))
        start = lsn.segment_offset(self.wal.reader.lsn, self.wal.reader.segment_size)
        for path in segments:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                start = 0
                while count := os.readv(file.fileno(), [buffer]):
                    yield buffer[:count]

    # Tasks

    def _work(self) -> None:
        try:
            while (task := self._take()) is not None:
                task()
        except BaseException as error:
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()

    def _take(self) -> Callable[[], None] | None:
        """The next task, waiting for one; None when nothing will be left to do."""
        with self.changed:
            while self.error is None:
                if self.empty and not self.is_filling and not self.is_over:
                    self.is_filling = True
                    return self._fill
                task = self._take_redo()
                if task is not None:
                    return task
                if self.is_over and not self.full:
                    return None
                self.changed.wait()
        return None

    def _take_redo(self) -> Callable[[], None] | None:
        """A shard that is free and has a full memtable before it; with the lock."""
        filled = self.emptied + len(self.full)
        for number, following in enumerate(self.next_full):
            if following < filled and not self.busy[number]:
                self.busy[number] = True
                memtable = self.full[following - self.emptied][0]
                return partial(self._redo, number, memtable)
        return None

    def _fill(self) -> None:
        data = None if self.wal.reader.at_end else next(self.pieces, None)
        if data is None:
            with self.changed:
                self.is_over = True
                self.changed.notify_all()
            return
        with self.changed:
            self._open_memtable()
        self.wal.consume(self.wal.reader.lsn, data)
        with self.changed:
            self._close_memtable()
            self.is_filling = False
            self.changed.notify_all()

    def _open_memtable(self) -> None:
        memtable = self.empty.pop()
        memtable.clear()
        self.ingest.target.memtable = memtable

    def _close_memtable(self) -> None:
        self.full.append((self.ingest.target.memtable, len(self.shards)))

    def _redo(self, number: int, memtable: Memtable) -> None:
        self.apply(self.shards[number], memtable)
        with self.changed:
            place = self.next_full[number] - self.emptied
            self.full[place] = memtable, self.full[place][1] - 1
            self.next_full[number] += 1
            self.busy[number] = False
            while self.full and self.full[0][1] == 0:
                self.empty.append(self.full.pop(0)[0])
                self.emptied += 1
            self.changed.notify_all()

    def apply(self, shard: CurrentPages, memtable: Memtable) -> None:
        """Redo what a full memtable has for a shard."""
        shard.redo(memtable)

    # What ingest needs of its host

    def enter(self) -> None:
        """Nobody reads a memtable that is being filled."""

    def leave(self) -> None:
        """See `enter`."""

    def advance_ready(self, lsn_ready: int) -> None:
        """Nobody waits for an LSN."""

    def abandon(self, lsn_end: int) -> None:
        """The run ends with the error."""

    def read_blocks(
        self, blocks: Sequence[tuple[int, int, int]], out: memoryview, stride: int
    ) -> Mapping[int, str]:
        """No page is hot, as memtables are emptied at once."""
        return {}

    def replace_memtable(self) -> None:
        """A piece of WAL that needs more than a memtable: compressed images do."""
        with self.changed:
            self._close_memtable()
            self.changed.notify_all()
            while not self.empty and self.error is None:
                task = self._take_redo()
                if task is None:
                    self.changed.wait()
                    continue
                self.changed.release()
                try:
                    task()
                finally:
                    self.changed.acquire()
            self._open_memtable()

    def _copy_database(self, source: tuple[int, int], target: tuple[int, int], end: int) -> None:
        raise CorruptionError("WAL", lsn.show(end), "no database copied by files", "one")

    def _load(self, chunk: int, block: int, wanted_lsn: int) -> bytes | None:
        """The base's page, unless the relation was cut off before `wanted_lsn`."""
        root = self.table.root[chunk]
        in_relation = block + (self.table.seg[chunk] << 17 if self.table.kind[chunk] == 1 else 0)
        for cut_lsn, cut_blocks in self.ingest.target.cuts.get(root, ()):
            if cut_lsn <= wanted_lsn and cut_blocks <= in_relation:
                return None
        return self.base(chunk, block)
