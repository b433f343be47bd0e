"""Ingest, step by step: WAL bytes in, versions in the memtable, the ready LSN forward.

    bytes -> WalReader (whole records) -> Ingest (kernel) -> memtable
                                             |-> ClusterRecords for the rarer records

A step takes at most RECORDS_PER_STEP records under the store's lock, so that readers wait for
a fraction of a millisecond only. In between come images of the pages whose chains have grown long
("hot" pages: ten seconds of pgbench wrote 49,050 records to one block, and no read may apply that
many).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import lz4.block
import zstandard

from engine.cluster_records import ClusterRecords
from engine.ingest import MEMTABLE_FULL, NEEDS_PYTHON, Ingest
from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats.chunk import BLOCK_BYTES
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.version import image_exact

RECORDS_PER_STEP = 1024
HOT_PAGES_MIN = 8  # reports that do not wait for the end of what is consumed
HOT_PAGES_PER_READ = 64
RECORDS_PER_BATCH = 16384
REFERENCES_PER_BATCH = 65536
LZ4 = 8


def decompress_image(codec: int, data: memoryview, pos: int, length: int, raw: int) -> bytes:
    """An lz4 or zstd page image of a WAL record, `raw` bytes when decompressed; ValueError."""
    source = bytes(data[pos : pos + length])
    try:
        if codec == LZ4:
            page: bytes = lz4.block.decompress(source, uncompressed_size=raw)
        else:
            # A size that the frame itself claims is what the library would allocate.
            if zstandard.frame_content_size(source) not in (-1, raw):
                raise ValueError(f"page image: a zstd frame that is not of {raw} bytes")
            page = zstandard.ZstdDecompressor().decompress(source, max_output_size=raw)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
        raise ValueError(f"page image: {error}") from error
    if len(page) != raw:
        raise ValueError(f"page image: {raw} bytes expected, {len(page)} found")
    return page


CopyDatabase = Callable[[tuple[int, int], tuple[int, int], int], None]
HotPage = tuple[int, int, int]  # chunk, block, LSN of its newest version
_EMPTY_IMAGE = image_exact(bytes(BLOCK_BYTES))


class IngestHost(Protocol):
    """What ingest needs of the store around it."""

    def enter(self) -> None:
        """Take the lock."""

    def leave(self) -> None:
        """Give it back."""

    def replace_memtable(self) -> None:
        """Freeze the full memtable, called without the lock; waits while too many are frozen."""

    def read_blocks(
        self, blocks: Sequence[HotPage], out: memoryview, stride: int
    ) -> Mapping[int, str]:
        """Pages to the end of each `stride` bytes of `out`, called without the lock.

        Returns the places of those that cannot be made, with the reasons.
        """

    def advance_ready(self, lsn: int) -> None:
        """All records up to here are in the memtable; called with the lock."""

    def abandon(self, lsn: int) -> None:
        """Whole records end at `lsn`, what is above is of one that failed; called with the lock."""


class WalIngest:
    """The one writer of the memtable; used by one thread."""

    def __init__(
        self,
        host: IngestHost,
        ingest: Ingest,
        cluster: ClusterRecords,
        reader: WalReader,
        copy_database: CopyDatabase,
    ) -> None:
        """`copy_database` is called without the lock, for CREATE DATABASE by file copy; then the
        record is ready."""
        self.host = host
        self.ingest = ingest
        self.cluster = cluster
        self.reader = reader
        self.copy_database = copy_database
        self.batch = RecordBatch(RECORDS_PER_BATCH, REFERENCES_PER_BATCH)
        self._images = memoryview(bytearray(_EMPTY_IMAGE * HOT_PAGES_PER_READ))
        self.images_from_lsn = 0  # no page is materialised below the base backup's end
        self.hot_images = 0
        self.hot_failures = 0

    def consume(self, lsn: int, data: bytes | memoryview) -> None:
        """Take raw WAL that continues where the last call ended.

        Raises CorruptionError: damaged WAL, or a record that does not make sense.
        """
        self.reader.feed(lsn, data)
        while count := self.reader.decode(self.batch, RECORDS_PER_BATCH):
            self._take(count)
            self._advance(self.reader.end_lsn)
        self._make_images()
        self._advance(self.reader.end_lsn)  # behind a WAL switch padding may come alone

    def _advance(self, lsn: int) -> None:
        self.host.enter()
        self.host.advance_ready(lsn)
        self.host.leave()

    def _take(self, count: int) -> None:
        done = 0
        while done < count:
            start, is_empty = done, not self.ingest.target.memtable.entry_count
            done, full = self._locked_step(start, min(start + RECORDS_PER_STEP, count))
            if full or self.ingest.target.memtable.hot_count >= HOT_PAGES_MIN:
                self._make_images()
            if self.cluster.pending_copy is not None:
                self.copy_database(*self.cluster.pending_copy)
                self.cluster.pending_copy = None
            if full and is_empty and done == start:
                raise self._bad_record(start, "larger than a memtable: raise memory_bytes_max")
            if full:
                self.host.replace_memtable()

    def _locked_step(self, start: int, end: int) -> tuple[int, bool]:
        """One step, after which all that the memtable has is ready.

        A record that fails may be in the memtable in part, above the ready LSN: that memtable must
        never be flushed.
        """
        self.host.enter()
        try:
            done, full = self._step(start, end)
            complete = done - (self.cluster.pending_copy is not None)
            if complete:
                self.host.advance_ready(self.batch.lsn_end[complete - 1])
            return done, full
        except BaseException as error:
            self.host.abandon(self.ingest.target.memtable.lsn_end)
            if isinstance(error, (ValueError, IndexError, MemoryError)):
                raise self._bad_record(start, str(error)) from error
            raise
        finally:
            self.host.leave()

    def _step(self, start: int, end: int) -> tuple[int, bool]:
        """Records start..end, as far as the memtable has room."""
        batch, ingest = self.batch, self.ingest
        while start < end:
            start = ingest.run(batch, start, end)
            if ingest.reason == MEMTABLE_FULL:
                return start, True
            if ingest.reason == NEEDS_PYTHON:
                main_pos = batch.main_pos[start]
                main = bytes(batch.data[main_pos : main_pos + batch.main_length[start]])
                rmgr, info = batch.rmgr[start], batch.info[start]
                if not ingest.target.memtable.has_room(*self.cluster.room(rmgr, info, main)):
                    return start, True
                lsn = batch.lsn_end[start]
                xid, origin = batch.xid[start], batch.origin[start]
                self.cluster.apply(rmgr, info, xid, main, lsn, origin=origin)
                ingest.target.memtable.lsn_end = lsn
                ingest.records += 1
                start += 1
                if self.cluster.pending_copy is not None:
                    break
        return start, False

    def _bad_record(self, start: int, found: str) -> CorruptionError:
        """`start` is where the step began in which it happened."""
        lsn = show_lsn(self.ingest.target.memtable.lsn_end or self.batch.lsn_start[start])
        return CorruptionError("WAL record", f"or after {lsn}", "one that can be ingested", found)

    def _make_images(self) -> None:
        """Images of the pages that got hot, as many a read as there are: each has its overhead."""
        hot = self._hot_pages()
        for first in range(0, len(hot), HOT_PAGES_PER_READ):
            self._materialise(hot[first : first + HOT_PAGES_PER_READ])

    def _hot_pages(self) -> list[HotPage]:
        """Those that were reported since the last time, as they are now.

        No page is materialised below the base backup's end.
        """
        memtable = self.ingest.target.memtable
        if not memtable.hot_count:
            return []
        chunks, blocks = memtable.page_chunk, memtable.page_block
        newest, lsns = memtable.page_newest, memtable.entry_lsn
        pages = set(memtable.hot[: memtable.hot_count])
        memtable.hot_count = 0
        hot = [(chunks[page], blocks[page], lsns[newest[page]]) for page in pages]
        return [page for page in hot if page[2] >= self.images_from_lsn]

    def _materialise(self, hot: list[HotPage]) -> None:
        """Put an image in the place of each hot page's newest version; only this thread writes.

        A page that cannot be made stays as it is: whoever reads it is told why.
        """
        size = len(_EMPTY_IMAGE)
        failed = self.host.read_blocks(hot, self._images, size)
        self.hot_failures += len(failed)
        self.host.enter()
        try:
            for place, (chunk, block, lsn) in enumerate(hot):
                if place not in failed and self.ingest.target.memtable.has_room(1, size):
                    image = self._images[place * size : (place + 1) * size]
                    self.ingest.target.memtable.put(chunk, block, lsn, image, True)
                    self.hot_images += 1
        finally:
            self.host.leave()
