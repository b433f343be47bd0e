"""Oracle A: every page that a record changed, against the page that PostgreSQL says it became.

A primary with `wal_consistency_checking = all` attaches to each record an image of every block as
it must be after the record. This reads such WAL from a checkpoint on (from there each page comes
with an image of its own before its first change), ingests it as the server does, asks for each
block at the end of each record, and compares under the masks of tools/masks.py.

    python -m tools.redo_oracle WAL_DIRECTORY START_LSN MAJOR

prints what differs, and counts by resource manager and opcode.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.chunk_table import ChunkTable
from engine.cluster_records import ClusterRecords
from engine.errors import RequestError
from engine.ingest import Ingest
from engine.record_batch import RecordBatch
from engine.version_store import VersionStore
from engine.wal_ingest import WalIngest, decompress_image
from engine.wal_reader import WalReader
from formats import pglz, rmgr
from formats.chunk import BLOCK_BYTES
from formats.lsn import parse as parse_lsn
from formats.lsn import show as show_lsn
from tools.excuses import explain_gist_deleted
from tools.masks import Pair, apply_masks

SEGMENT_BYTES = 16 << 20
APPLY, PGLZ, LZ4_OR_ZSTD = 2, 4, 24
LOCKED_ONLY = {(rmgr.HASH, 0x70), (rmgr.HASH, 0x80), (rmgr.HASH, 0x90)}
"""Records whose block 0 does not change and is named for redo to lock: where they are written it is
not locked while its image is copied, and an insertion with a lower LSN may be missing from that.
PostgreSQL's own recovery then ends with "inconsistent page found" (seen with 18.6)."""


@dataclass
class Report:
    """What was compared, and the first differences."""

    compared: Counter[tuple[int, int]] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    count: int = 0
    raced: int = 0  # images of pages that were not locked, and differ

    def differs(self, text: str) -> None:
        self.count += 1
        if len(self.differences) < 50:
            self.differences.append(text)


class Checker:
    """Ingests WAL from a checkpoint's redo LSN and compares after each batch of records."""

    def __init__(self, start_lsn: int, major: int, memory_bytes_max: int = 4 << 30) -> None:
        table = ChunkTable()
        self.ingest = Ingest(table, decompress_image)
        self.store = VersionStore(table, self.ingest, memory_bytes_max)
        self.store.major = major
        cluster = ClusterRecords(table, self.ingest, major)
        reader = WalReader(start_lsn, SEGMENT_BYTES, version=major, zeros_end=True)
        self.wal = WalIngest(self.store, self.ingest, cluster, reader, self._no_copy)
        self.report = Report()
        self.major = major

    def _no_copy(self, source: tuple[int, int], target: tuple[int, int], lsn: int) -> None:
        raise RequestError("a database copied by files is not in WAL: nothing to compare with")

    def feed(self, lsn: int, data: bytes) -> None:
        self.wal.reader.feed(lsn, memoryview(data))
        batch = self.wal.batch
        while count := self.wal.reader.decode(batch, 4096):
            self.wal._take(count)
            for record in range(count):
                self._check_record(batch, record)

    def _check_record(self, batch: RecordBatch, record: int) -> None:
        for r in range(batch.first_reference[record], batch.first_reference[record + 1]):
            info = batch.ref_image_info[r]
            if batch.ref_flags[r] & 16 and not info & APPLY:
                self._check_block(batch, record, r)

    def _check_block(self, batch: RecordBatch, record: int, r: int) -> None:
        spc, db, rel = batch.ref_spc[r], batch.ref_db[r], batch.ref_rel[r]
        fork, block = batch.ref_flags[r] & 15, batch.ref_block[r]
        lsn = batch.lsn_end[record]
        kind = (batch.rmgr[record], batch.info[record] & 0xF0)
        what = (
            f"{rmgr.show(self.major, *kind)} at {show_lsn(lsn)}: "
            f"block {block} of fork {fork} of {spc}/{db}/{rel}"
        )
        self.report.compared[kind] += 1
        chunk = self.store.table.find(1, spc, db, rel, fork, block >> 17)
        try:
            ours = self.page(chunk, block & 0x1FFFF, lsn)
        except RequestError as error:
            self.report.differs(f"{what}: {error}")
            return
        pair = Pair(ours, self._image(batch, r), block)
        pair.ours[:10] = pair.theirs[:10]  # pd_lsn and pd_checksum are set later
        apply_masks(pair)
        explain_gist_deleted(pair)  # the image is the primary's
        position = pair.first_difference()
        if position is not None and kind in LOCKED_ONLY and batch.ref_id[r] == 0:
            self.report.raced += 1
        elif position is not None:
            self.report.differs(
                f"{what}: first difference at byte {position}: "
                f"ours {pair.ours[position]:02X}, theirs {pair.theirs[position]:02X}"
            )

    def page(self, chunk: int, block: int, lsn: int) -> bytearray:
        """Our page; RequestError with the reason if it cannot be made."""
        ours = bytearray(BLOCK_BYTES)
        failed = self.store.read_blocks([(chunk, block, lsn)], memoryview(ours), BLOCK_BYTES)
        if failed:
            raise RequestError(failed[0])
        return ours

    def _image(self, batch: RecordBatch, r: int) -> bytes:
        hole_offset, hole_length = batch.ref_hole_offset[r], batch.ref_hole_length[r]
        pos, length = batch.ref_image_pos[r], batch.ref_image_length[r]
        info, raw = batch.ref_image_info[r], 8192 - hole_length
        if info & PGLZ:
            out = memoryview(bytearray(raw))
            pglz.decompress(batch.data, pos, length, out, 0, raw)
            image = bytes(out)
        elif info & LZ4_OR_ZSTD:
            image = decompress_image(info & LZ4_OR_ZSTD, batch.data, pos, length, raw)
        else:
            image = bytes(batch.data[pos : pos + length])
        return image[:hole_offset] + bytes(hole_length) + image[hole_offset:]


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
        for skip in range(0, len(data), 1 << 20):
            checker.feed(lsn + skip, data[skip : skip + (1 << 20)])
            if checker.wal.reader.at_end:
                return checker.report
    return checker.report


def main(arguments: list[str]) -> int:
    directory, start_lsn, major = Path(arguments[0]), parse_lsn(arguments[1]), int(arguments[2])
    report = check(directory, start_lsn, major)
    for kind, count in sorted(report.compared.items()):
        print(f"{rmgr.show(major, *kind):40} {count:10}")
    for text in report.differences:
        print(text)
    print(
        f"total {report.compared.total()} compared, {report.count} differences, "
        f"{report.raced} images of pages that were not locked"
    )
    return 1 if report.count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
