"""Oracle A: every page that a record changed, against the page that PostgreSQL says it became.

A primary with `wal_consistency_checking = all` attaches to each record an image of every block as
it must be after the record. This reads such WAL from a checkpoint on (from there each page comes
with an image of its own before its first change), ingests it as the server does, asks the store for
each block at the end of each record, and compares under the masks of tools/masks.py.

    python -m tools.redo_oracle WAL_DIRECTORY START_LSN MAJOR

prints what differs, and counts by resource manager and opcode. WAL may be of any length: what a
checkpoint makes superfluous is forgotten.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from engine.chunk_table import ChunkTable
from engine.cluster_records import ClusterRecords
from engine.errors import IngestStopped, RequestError
from engine.ingest import Ingest
from engine.record_batch import RecordBatch
from engine.store_state import FROZEN_MAX
from engine.version_set import VersionSet
from engine.version_store import READER_CAPACITY, VersionStore
from engine.wal_ingest import WalIngest, decompress_image
from engine.wal_reader import WalReader
from formats import pglz, rmgr
from formats.lsn import parse as parse_lsn
from formats.lsn import show as show_lsn
from tools.excuses import Excuse, explain_gist_deleted
from tools.masks import PAGE_BYTES, Pair, apply_masks

SEGMENT_BYTES = 16 << 20
MEMORY_BYTES_MAX = 2 << 30
"""Three memtables take a third of it; what is read between two checkpoints must fit into two."""
FEED_BYTES = 1 << 20
RECORDS_MAX = 4096
READS_MAX = READER_CAPACITY // 2
DIFFERENCES_SHOWN = 50
IMAGE = 0x10  # flag of a block reference
APPLY, PGLZ, LZ4_OR_ZSTD = 2, 4, 24  # image info, see formats/wal_record.py
CHECKPOINTS = (0x00, 0x10)
HASH_LOCKED_ONLY = {(rmgr.HASH, 0x70), (rmgr.HASH, 0x80), (rmgr.HASH, 0x90)}
"""Records whose block 0 does not change and is named for redo to lock: where they are written it is
not locked while its image is copied, and an insertion with a lower LSN may be missing from that.
PostgreSQL's own recovery then ends with "inconsistent page found" (seen with 18.6)."""
NO_IMAGE = {(*kind, 0) for kind in HASH_LOCKED_ONLY} | {(rmgr.HEAP2, 0x40, 1)}
"""Blocks that are registered with REGBUF_NO_IMAGE: they come without an image of their own even
when nothing has changed them since the checkpoint (hashovfl.c, hash.c; log_heap_visible in
heapam.c, without checksums). What such a page was before is then not in WAL."""

Kind = tuple[int, int]  # resource manager, opcode


@dataclass
class Report:
    """What was compared by kind of record, what could not be and why, and the first differences."""

    records: Counter[Kind] = field(default_factory=Counter)
    images: Counter[Kind] = field(default_factory=Counter)
    """Blocks that a record replaces by an image: nothing is redone."""
    compared: Counter[Kind] = field(default_factory=Counter)
    """Blocks whose page must be as the image says, those that differ included."""
    raced: Counter[Kind] = field(default_factory=Counter)
    """Not among those compared: images of pages that were not locked, which differ."""
    excused: Counter[Kind] = field(default_factory=Counter)
    """Of those compared, where GiST's F_TUPLES_DELETED was excused."""
    baseless: Counter[Kind] = field(default_factory=Counter)
    """Nor these: nothing since the checkpoint says what the page was before the record."""
    differences: list[str] = field(default_factory=list)
    count: int = 0

    def differs(self, text: str) -> None:
        self.count += 1
        if len(self.differences) < DIFFERENCES_SHOWN:
            self.differences.append(text)


class Comparison(NamedTuple):
    """A block that a record names and has an image of."""

    kind: Kind
    lsn: int
    reference: int  # its place in the batch
    reference_id: int
    chunk: int
    block: int  # of the relation

    @property
    def place(self) -> tuple[int, int, int]:
        """As the store is asked for it."""
        return self.chunk, self.block & 0x1FFFF, self.lsn


class RecentStore(VersionStore):
    """Keeps in memory what came since a checkpoint began; older versions nobody needs."""

    redo_lsn = 0

    def replace_memtable(self) -> None:
        while self.frozen and self.frozen[-1].lsn_end <= self.redo_lsn:
            self.publish(self.frozen[-1])
        if len(self.frozen) == FROZEN_MAX:
            raise IngestStopped(
                f"memory is full of what came since the checkpoint at {show_lsn(self.redo_lsn)}: "
                "let the server make checkpoints more often (max_wal_size)"
            )
        with self.lock:
            self.freeze()

    def has_base(self, place: tuple[int, int, int]) -> bool:
        """Whether a self-contained version of a block is among what is kept."""
        chunk, block, lsn = place
        past = self.table.seg[chunk] << 17
        floor = self.history.floor(self.table.root[chunk], block + past, lsn)
        versions = VersionSet()
        memtables = (self.ingest.target.memtable, *self.frozen)
        return any(table.collect(chunk, block, floor, lsn, versions) for table in memtables)


class Checker:
    """Ingests WAL from a checkpoint's redo LSN and compares after each batch of records."""

    def __init__(
        self, start_lsn: int, major: int, memory_bytes_max: int = MEMORY_BYTES_MAX
    ) -> None:
        table = ChunkTable()
        self.ingest = Ingest(table, decompress_image)
        self.store = RecentStore(table, self.ingest, memory_bytes_max)
        self.store.major = major
        cluster = ClusterRecords(table, self.ingest, major)
        reader = WalReader(start_lsn, SEGMENT_BYTES, version=major, zeros_end=True)
        self.wal = WalIngest(self.store, self.ingest, cluster, reader, self._database_copied)
        self.report = Report()
        self.major = major
        self._pages = memoryview(bytearray(READS_MAX * PAGE_BYTES))

    def _database_copied(self, source: Kind, target: Kind, lsn: int) -> None:
        """By files, which are not in WAL: nothing to do, as if the pages had been there before.

        The checkpoint that CREATE DATABASE and ALTER DATABASE SET TABLESPACE force before they
        commit (dbcommands.c, createdb and movedb) comes before the first change of the copies, so
        that each copied page has an image in WAL before it is needed.
        """

    def feed(self, lsn: int, data: bytes) -> None:
        """Take WAL that continues where the last call ended.

        Raises CorruptionError if it is damaged, IngestStopped if checkpoints are too far apart.
        """
        self.wal.reader.feed(lsn, memoryview(data))
        batch = self.wal.batch
        while count := self.wal.reader.decode(batch, RECORDS_MAX):
            self.wal._take(count)
            kinds = self._kinds(batch, count)
            self.report.records.update(kinds)
            self._look_at(batch, kinds)
            self._follow_checkpoints(batch, kinds)

    def _look_at(self, batch: RecordBatch, kinds: list[Kind]) -> None:
        """Judge the records of a batch, which have been ingested."""
        wanted = self._wanted(batch, kinds)
        for first in range(0, len(wanted), READS_MAX):
            self.compare_all(batch, wanted[first : first + READS_MAX])

    def _kinds(self, batch: RecordBatch, count: int) -> list[Kind]:
        rmgrs, infos = list(batch.rmgr[:count]), list(batch.info[:count])
        return [(rm, rmgr.opcode(rm, info)) for rm, info in zip(rmgrs, infos, strict=True)]

    def _follow_checkpoints(self, batch: RecordBatch, kinds: list[Kind]) -> None:
        """After the batch was compared: what came before a checkpoint began may be forgotten."""
        for record, (rm, opcode) in enumerate(kinds):
            if rm == rmgr.XLOG and opcode in CHECKPOINTS:
                pos = batch.main_pos[record]  # struct CheckPoint begins with the redo LSN
                self.store.redo_lsn = int.from_bytes(batch.data[pos : pos + 8], "little")

    def _wanted(self, batch: RecordBatch, kinds: list[Kind]) -> list[Comparison]:
        """The blocks that a batch has images of to compare with."""
        first = list(batch.first_reference[: len(kinds) + 1])
        flags = list(batch.ref_flags[: first[-1]])
        infos = list(batch.ref_image_info[: first[-1]])
        ends, ids, blocks = batch.lsn_end, batch.ref_id, batch.ref_block
        find, spc, db, rel = self.store.table.find, batch.ref_spc, batch.ref_db, batch.ref_rel
        wanted = []
        for record, kind in enumerate(kinds):
            for r in range(first[record], first[record + 1]):
                if not flags[r] & IMAGE:
                    continue
                if infos[r] & APPLY:
                    self.report.images[kind] += 1
                    continue
                block = blocks[r]
                chunk = find(1, spc[r], db[r], rel[r], flags[r] & 15, block >> 17)
                wanted.append(Comparison(kind, ends[record], r, ids[r], chunk, block))
        return wanted

    def compare_all(self, batch: RecordBatch, wanted: list[Comparison]) -> None:
        places = [comparison.place for comparison in wanted]
        failed = self.store.read_blocks(places, self._pages, PAGE_BYTES)
        for number, comparison in enumerate(wanted):
            ours = bytes(self._pages[number * PAGE_BYTES : (number + 1) * PAGE_BYTES])
            self.compare(
                comparison, ours, self.image(batch, comparison.reference), failed.get(number)
            )

    def compare(
        self, comparison: Comparison, ours: bytes, theirs: bytes, failure: str | None
    ) -> None:
        """Judge one block; `failure`: why our page could not be made.

        pd_lsn and pd_checksum are set after the image was made.
        """
        kind = comparison.kind
        pair = Pair(bytearray(theirs[:10] + ours[10:]), theirs, comparison.block)
        difference = failure or first_difference(pair)
        if difference is not None and (*kind, comparison.reference_id) in NO_IMAGE:
            if not self.store.has_base(comparison.place):
                self.report.baseless[kind] += 1
                return
            if kind in HASH_LOCKED_ONLY and failure is None:
                self.report.raced[kind] += 1
                return
        self.report.compared[kind] += 1
        self.report.excused[kind] += Excuse.GIST_DELETED in pair.used
        if difference is not None:
            _, spc, db, rel, fork, _ = self.store.table.key(comparison.chunk)
            self.report.differs(
                f"{rmgr.show(self.major, *kind)} at {show_lsn(comparison.lsn)}: block "
                f"{comparison.block} of fork {fork} of {spc}/{db}/{rel}: {difference}"
            )

    def page(self, chunk: int, block: int, lsn: int) -> bytearray:
        """Our page; RequestError with the reason if it cannot be made."""
        ours = bytearray(PAGE_BYTES)
        failed = self.store.read_blocks([(chunk, block, lsn)], memoryview(ours), PAGE_BYTES)
        if failed:
            raise RequestError(failed[0])
        return ours

    def image(self, batch: RecordBatch, r: int) -> bytes:
        """The page that a reference of the batch has an image of."""
        hole_offset, hole_length = batch.ref_hole_offset[r], batch.ref_hole_length[r]
        pos, length = batch.ref_image_pos[r], batch.ref_image_length[r]
        info, raw = batch.ref_image_info[r], PAGE_BYTES - hole_length
        if info & PGLZ:
            out = memoryview(bytearray(raw))
            pglz.decompress(batch.data, pos, length, out, 0, raw)
            image = bytes(out)
        elif info & LZ4_OR_ZSTD:
            image = decompress_image(info & LZ4_OR_ZSTD, batch.data, pos, length, raw)
        else:
            image = bytes(batch.data[pos : pos + length])
        return image[:hole_offset] + bytes(hole_length) + image[hole_offset:]


def first_difference(pair: Pair) -> str | None:
    """Where two pages differ that must not."""
    if pair.ours == pair.theirs:
        return None
    apply_masks(pair)
    explain_gist_deleted(pair)  # the image is the primary's
    position = pair.first_difference()
    if position is None:
        return None
    return (
        f"first difference at byte {position}: "
        f"ours {pair.ours[position]:02X}, theirs {pair.theirs[position]:02X}"
    )


def segments(directory: Path, start_lsn: int) -> Iterator[tuple[int, bytes]]:
    """(LSN, bytes) of the WAL files of a directory from `start_lsn` on."""
    for path in sorted(p for p in directory.iterdir() if len(p.name) == 24):
        lsn = (int(path.name[8:16], 16) << 32) + int(path.name[16:24], 16) * SEGMENT_BYTES
        if lsn + SEGMENT_BYTES > start_lsn:
            skip = max(0, start_lsn - lsn)
            yield lsn + skip, path.read_bytes()[skip:]


def check(directory: Path, start_lsn: int, major: int) -> Report:
    """Compare everything from a checkpoint's redo LSN to the end of the WAL files."""
    checker = Checker(start_lsn, major)
    for lsn, data in segments(directory, start_lsn):
        for skip in range(0, len(data), FEED_BYTES):
            checker.feed(lsn + skip, data[skip : skip + FEED_BYTES])
            if checker.wal.reader.at_end:
                return checker.report
    return checker.report


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    directory, start_lsn, major = Path(arguments[0]), parse_lsn(arguments[1]), int(arguments[2])
    report = check(directory, start_lsn, major)
    for kind, count in sorted(report.compared.items()):
        print(f"{rmgr.show(major, *kind):40} {count:10}")
    for text in report.differences:
        print(text)
    print(
        f"total {report.compared.total()} compared, {report.count} differences; "
        f"apart: {report.raced.total()} images of pages that were not locked, "
        f"{report.baseless.total()} of pages that WAL has no base of; "
        f"{report.excused.total()} with a flag of GiST excused"
    )
    return 1 if report.count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
