"""Versions in memory and in layers, and pages made of them: what readers read.

    WalIngest ──> memtable (open) ──freeze──> frozen memtables ──flush──> layers
                      │                           │                         │
    get_pages <───────┴───────────────────────────┴─────────────────────────┘

One lock, held for microseconds: ingest holds it for a step, a reader while it looks up and copies
what the memtables have (engine/page_reader.py, which asks here for nothing but what is not in
memory). Layers are read without it; they have a memtable's bundle before `publish` drops the
memtable, so what is being flushed is seen at least once.
"""

import threading
from collections.abc import Mapping, Sequence

from engine.chunk_table import ChunkTable
from engine.commit_times import CommitTimes
from engine.errors import IngestStopped, RequestError, below_horizon
from engine.ingest import Ingest
from engine.layer_query import LayerQuery
from engine.layer_source import LayerSource, NoLayers, until_layers_stay
from engine.memtable import Memtable
from engine.memtable_pool import MemtablePool
from engine.page_problem import problem_of, text_of, unless_unread
from engine.page_reader import (
    ASK_HISTORY,
    EXPIRED,
    FOREIGN,
    NO_RELATION,
    OPEN,
    PAST_END,
    REFUSED,
    PageReader,
)
from engine.page_refusal import report
from engine.relation_history import RelationHistory
from engine.smaller_batches import Asked, read_in_parts, read_one_by_one
from engine.store_state import StoreState
from engine.version_set import VersionSet
from formats.chunk import ChunkKey, ChunkKind
from formats.cluster_path import small_file_key, small_file_path
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.pagestream import PageBatch

PAGE_BYTES = 8192
READER_CAPACITY = 1024
# Parts of the memory budget: each memtable's arena, of which three may exist, and whose columns
# take half as much again; the page cache. The frame cache and the queues share what remains.
MEMTABLE_SHARE = 9
CACHE_SHARE = 4
KEYS_MAX = 65536  # of chunks, that are remembered as bytes
HOT_RECORDS, HOT_BYTES = 64, 64 << 10  # of a chain, before it gets an image


class VersionStore(StoreState):
    """Pages of one cluster by LSN. Reading methods may be called by many threads at once."""

    def __init__(self, table: ChunkTable, ingest: Ingest, memory_bytes_max: int) -> None:
        """`major`, PostgreSQL's version, and `layers` are set when they are known."""
        super().__init__(table, ingest, memory_bytes_max // CACHE_SHARE)
        self.layers: LayerSource = NoLayers()
        self.memtable_bytes = memory_bytes_max // MEMTABLE_SHARE
        self.changed = threading.Condition(self.lock)
        self.memtables = MemtablePool(self.memtable_bytes, HOT_RECORDS, HOT_BYTES)
        self.memtable_frozen = threading.Event()
        self.durable_lsn = 0
        self.is_abandoned = False
        self.no_flush = False
        self.history = RelationHistory(table, ingest.target.cuts, self._collect_history, self.lock)
        self.commit_times = CommitTimes(self, self._collect)
        self._keys: dict[int, bytes] = {}
        self._readers = threading.local()
        self._layer_reads = 0
        self._failed = 0
        ingest.target.memtable = self.memtables.take()

    @property
    def counters(self) -> dict[str, int]:
        return {"pages": self.pages_read, "layer_reads": self._layer_reads, "failed": self._failed}

    def enter(self) -> None:
        self.lock.acquire()

    def leave(self) -> None:
        self.lock.release()

    def advance_ready(self, lsn: int) -> None:
        """Every record that ends at or below `lsn` is readable; called with the lock."""
        self.ready_lsn = lsn
        self.changed.notify_all()

    def abandon(self, lsn: int) -> None:
        """Never freeze the open memtable: above `lsn` it has half a record; called with the lock.

        What is in it is ingested again after the next start.
        """
        self.is_abandoned = True
        self.advance_ready(max(self.ready_lsn, lsn))

    def replace_memtable(self) -> None:
        """Freeze the open memtable, waiting while the flush is too far behind.

        IngestStopped: it will not catch up.
        """
        with self.lock:
            self.changed.wait_for(lambda: self.memtables.has_one or self.no_flush)
            if not self.memtables.has_one:
                raise IngestStopped("memory is full and the flush has ended")
            self.freeze()

    def end_flush(self) -> None:
        """No flush may be waited for any more: it has failed, or the server stops."""
        with self.lock:
            self.no_flush = True
            self.changed.notify_all()
            self.memtable_frozen.set()

    def freeze(self) -> None:
        """Put an empty memtable, of which there is one, in place of the open; with the lock."""
        self.frozen = (self.ingest.target.memtable, *self.frozen)
        self.ingest.target.memtable.lsn_end = self.ready_lsn
        self.ingest.target.memtable = self.memtables.take()
        self.memtable_frozen.set()

    def publish(self, memtable: Memtable) -> None:
        """The oldest frozen memtable is in the layers now: drop it."""
        with self.lock:
            if self.frozen[-1] is not memtable:
                raise RuntimeError("memtables are flushed in the order in which they were frozen")
            self.frozen = self.frozen[:-1]
            self.durable_lsn = memtable.lsn_end
            self.layers_lsn = max(self.layers_lsn, memtable.lsn_end)
            self.changed.notify_all()
        memtable.clear()
        with self.lock:
            self.memtables.give_back(memtable)
            self.changed.notify_all()

    def key(self, number: int) -> bytes:
        """A chunk's 18-byte key."""
        key = self._keys.get(number)
        if key is None:
            if len(self._keys) >= KEYS_MAX:
                self._keys.clear()
            key = self._keys[number] = ChunkKey(*self.table.key(number)).pack()
        return key

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Block until `lsn` is ready; False if the time is over before."""
        with self.changed:
            return self.changed.wait_for(lambda: self.ready_lsn >= lsn, timeout_seconds)

    def get_pages(self, batch: PageBatch, count: int, out: memoryview) -> None:
        """Answer the first `count` requests of a batch; see server/store.py for the terms."""
        try:
            self._get_pages(batch, count, out)
        except OverflowError:
            if count == 1:
                raise
            read_one_by_one(self._get_pages, batch, count, out)

    @until_layers_stay
    def _get_pages(self, batch: PageBatch, count: int, out: memoryview) -> None:
        """OverflowError: they need more than a batch may take."""
        reader, epoch = self.page_reader(), self.layers.epoch
        if reader.read(batch, count, out):
            return
        failures: dict[int, str] = {}
        if reader.asking:
            failures = self._ask_history(reader, batch, count)
            reader.resume(count, out)
        failures |= self._finish(reader, count, out, epoch)
        reader.refused += self.expire(reader.lsn, batch.status, reader.state, EXPIRED, count)
        reader.remember(count, out)
        if reader.refused or failures:
            self._failed += report(self, reader, batch, count, failures)

    def page_reader(self) -> PageReader:
        """The calling thread's own; `get_pages` uses it as well."""
        reader: PageReader | None = getattr(self._readers, "reader", None)
        if reader is None:
            reader = self._readers.reader = PageReader(self, READER_CAPACITY)
            self._readers.query = LayerQuery(READER_CAPACITY)
        return reader

    def read_once(self) -> None:
        """From now on the calling thread's reads of layers push no frames out of the cache."""
        self.page_reader()
        self._readers.query.keeps_frames = False

    def _finish(
        self, reader: PageReader, count: int, out: memoryview, epoch: int
    ) -> dict[int, str]:
        """Collect the rest from the layers and rebuild the pages; returns what went wrong where."""
        failures: dict[int, str] = {}
        if reader.still_open:
            self._collect_from_layers(reader, count, failures, epoch)
        if (done := reader.rebuilding) < 0:  # else one of those that were all in memory fails
            done = reader.rebuild(0, count, out)
        while done < count:
            failures[done] = problem_of(reader, self.major)
            done = reader.rebuild(done + 1, count, out)
        return failures

    def _collect_from_layers(
        self, reader: PageReader, count: int, failures: dict[int, str], epoch: int
    ) -> None:
        """Ask the layers for all requests that are still open; `epoch`: of before memtables."""
        query: LayerQuery = self._readers.query
        query.begin(reader.versions)
        # Each look at a kernel's column makes a memoryview: once a batch, not once a page.
        states, oldests = reader.state, reader.oldest
        lsns, collected = reader.lsn, reader.versions.lsn
        chunks, blocks, floors = reader.chunk, reader.block, reader.floor
        asked = [i for i in range(count) if states[i] == OPEN]
        for i in asked:
            lsn, oldest = lsns[i], oldests[i]
            if oldest:  # what came from a memtable may be in a bundle by now
                lsn = collected[oldest] - 1
            query.add(self.key(chunks[i]), blocks[i], floors[i], lsn, oldest)
        self.layers.collect_batch(query, epoch if any(oldests[i] for i in asked) else None)
        found = query.oldest
        for place, i in enumerate(asked):
            oldests[i] = found[place]
            if place in query.errors:
                failures[i] = text_of(query.errors[place])
                states[i] = REFUSED
        self._layer_reads += len(asked)

    def _ask_history(self, reader: PageReader, batch: PageBatch, count: int) -> dict[int, str]:
        """Locate the requests that ask for history; returns what went wrong where."""
        failures: dict[int, str] = {}
        for i in (i for i in range(count) if reader.state[i] == ASK_HISTORY):
            try:
                self._locate_in_history(reader, batch, i)
            except (CorruptionError, OSError, RequestError) as error:
                reader.refuse(i, REFUSED)
                failures[i] = str(error)
        return failures

    def _locate_in_history(self, reader: PageReader, batch: PageBatch, i: int) -> None:
        """Existence, size and floor at an LSN before the relation's last change."""
        root = self.table.root[reader.chunk[i]]
        lsn, block = batch.lsn[i], batch.block[i]
        exists, blocks = self.history.state(root, lsn)
        if not exists:
            reader.refuse(i, NO_RELATION)
        elif block >= blocks:
            reader.refuse(i, PAST_END)
        else:
            chunk = self._chunk_of(root, block)
            if not self.table.held[chunk]:
                reader.refuse(i, FOREIGN)
                return
            floor = self.history.floor(root, block, lsn)
            reader.ask(i, chunk, block & 0x1FFFF, floor, lsn, batch.out_pos[i])

    def _chunk_of(self, root: int, block: int) -> int:
        kind, spc, db, rel, fork, _ = self.table.key(root)
        with self.lock:
            number: int = self.table.intern(kind, spc, db, rel, fork, block >> 17)
        return number

    def _collect(
        self, chunk: int, block: int, lsn_floor: int, lsn_max: int, versions: VersionSet
    ) -> None:
        """A block's versions, each of them whole, from the memtables and the layers."""
        versions.begin()
        with self.lock:
            for memtable in (self.ingest.target.memtable, *self.frozen):
                if memtable.collect(chunk, block, lsn_floor, lsn_max, versions):
                    return
        if versions.oldest:
            lsn_max = versions.lsn[versions.oldest] - 1
        self.layers.collect(self.key(chunk), block, lsn_max, lsn_floor, versions)

    def _collect_history(
        self, chunk: int, block: int, lsn_floor: int, lsn_max: int, versions: VersionSet
    ) -> None:
        """As `_collect`, for a read at `lsn_max`."""
        self._collect(chunk, block, lsn_floor, lsn_max, versions)
        self._check_expired(lsn_max)

    def _check_expired(self, lsn: int) -> None:
        """Afterwards, that the horizon did not pass what was read: see StoreState.expire."""
        if self.has_passed(lsn):
            raise RequestError(below_horizon(lsn, self.horizon_lsn))

    def read_blocks(
        self, blocks: Sequence[tuple[int, int, int]], out: memoryview, stride: int
    ) -> Mapping[int, str]:
        """Pages of (chunk, block, LSN), all existing, to the end of each `stride` bytes of `out`.

        Returns the places of those that cannot be made, with the reasons.
        """
        asked, table = [], self.table
        roots, kinds, segments = table.root, table.kind, table.seg
        for chunk, block, lsn in blocks:
            past = segments[chunk] << 17 if kinds[chunk] == ChunkKind.REL else 0
            asked.append((chunk, block, self.history.floor(roots[chunk], block + past, lsn), lsn))
        return self._read(asked, out, stride)

    def _read(self, asked: Sequence[Asked], out: memoryview, stride: int) -> dict[int, str]:
        """`read_blocks` of (chunk, block, floor, LSN)."""
        return read_in_parts(self._read_together, asked, out, stride)

    @until_layers_stay
    def _read_together(
        self, asked: Sequence[Asked], out: memoryview, stride: int
    ) -> dict[int, str]:
        reader, count, epoch = self.page_reader(), len(asked), self.layers.epoch
        reader.versions.reset()
        for i, (chunk, block, floor, lsn) in enumerate(asked):
            reader.ask(i, chunk, block, floor, lsn, (i + 1) * stride - PAGE_BYTES)
        reader.collect(count)
        return self._finish(reader, count, out, epoch)

    def read_relation(
        self, spc: int, db: int, rel: int, fork: int, block: int, count: int, lsn: int
    ) -> bytes:
        """`count` blocks of one segment of a relation; RequestError, or OSError."""
        root = self.history.find(ChunkKind.REL, spc, db, rel, fork, 0)
        chunk = self._chunk_of(root, block)
        floors = [self.history.floor(root, block + i, lsn) for i in range(count)]
        return self._read_run(chunk, block & 0x1FFFF, floors, lsn)

    def _read_run(self, chunk: int, block: int, floors: list[int], lsn: int) -> bytes:
        """Pages of a chunk that follow each other, with their floors; RequestError, or OSError."""
        out = memoryview(bytearray(len(floors) * PAGE_BYTES))
        asked = [(chunk, block + i, floor, lsn) for i, floor in enumerate(floors)]
        failures = unless_unread(self._read(asked, out, PAGE_BYTES))
        if failures:
            i, problem = next(iter(failures.items()))
            key = ChunkKey(*self.table.key(chunk))
            raise RequestError(f"block {block + i} of {key} at {show_lsn(lsn)}: {problem}")
        return bytes(out)

    def exists(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> bool:
        return self.history.blocks(spc, db, rel, fork, lsn) is not None

    def nblocks(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> int:
        """A relation fork's size in blocks; raises RequestError if it does not exist at `lsn`."""
        blocks = self.history.blocks(spc, db, rel, fork, lsn)
        if blocks is None:
            raise self.history.missing_relation(spc, db, rel, fork, lsn)
        return blocks

    def db_size(self, db: int, lsn: int) -> int:
        """Bytes of all forks of a database's relations, in all tablespaces."""
        existing = self.history.existing(ChunkKind.REL, lsn)
        return sum(blocks * PAGE_BYTES for key, blocks in existing if key[2] == db)

    def relations(self, lsn: int) -> Sequence[tuple[int, int, int, int, int]]:
        """(spc, db, rel, fork, blocks) of every relation fork that exists at `lsn`."""
        existing = self.history.existing(ChunkKind.REL, lsn)
        return sorted((key[1], key[2], key[3], key[4], blocks) for key, blocks in existing)

    def slru_segments(self, lsn: int) -> Sequence[tuple[int, int, int]]:
        """(SLRU, segment, blocks) of every segment that exists at `lsn`."""
        existing = self.history.existing(ChunkKind.SLRU, lsn)
        return sorted((key[3], key[5], blocks) for key, blocks in existing)

    def slru_segment(self, kind: int, segment: int, lsn: int) -> bytes:
        """All pages of an SLRU segment; raises RequestError if it does not exist at `lsn`."""
        root = self.history.find(ChunkKind.SLRU, 0, 0, kind, 0, segment)
        exists, blocks = self.history.state(root, lsn) if root >= 0 else (False, 0)
        if not exists:
            raise RequestError(f"SLRU {kind} has no segment {segment:04X} at {show_lsn(lsn)}")
        if not self.table.held[root]:
            raise RequestError(f"SLRU {kind} segment {segment:04X} is not held here (see --chunks)")
        floors = [self.history.floor(root, block, lsn) for block in range(blocks)]
        content = self._read_run(root, 0, floors, lsn)
        self._check_expired(lsn)
        return content

    def files(self, lsn: int) -> Sequence[str]:
        """Names of the small files that exist at `lsn`."""
        existing = self.history.existing(ChunkKind.FILE, lsn)
        return sorted(small_file_path(ChunkKey(*key)) for key, _ in existing)

    def file(self, name: str, lsn: int) -> bytes:
        """A small file's content; raises RequestError if it does not exist at `lsn`."""
        key = small_file_key(name)
        if key is None:
            raise RequestError(f"{name} is not a file that is kept")
        return self.read_file(key, lsn)

    def read_file(self, key: ChunkKey, lsn: int) -> bytes:
        """The same by chunk key."""
        root = self.history.find(*key)
        exists, blocks = self.history.state(root, lsn) if root >= 0 else (False, 0)
        if not exists:
            raise RequestError(f"there is no file {small_file_path(key)} at {show_lsn(lsn)}")
        content = b""
        for block in range(blocks):
            versions = VersionSet(2 * PAGE_BYTES, 8)
            self._collect_history(root, block, 0, lsn, versions)
            content += versions.payload(1)[8:]
        return content
