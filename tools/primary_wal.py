"""Which WAL record gave a page its pd_lsn: the record that ends there, in a primary's pg_wal."""

from pathlib import Path
from typing import NamedTuple

from engine.record_batch import RecordBatch
from formats import lsn as lsn_text
from formats import rmgr, wal_page
from formats.chunk import Fork
from tools import wal_stats
from tools.data_directory import RelationFork
from tools.wal_dump import APPLY, FORK_MASK, IMAGE
from tools.wal_positions import SEGMENT_BYTES


class BlockReference(NamedTuple):
    """How a record references a block."""

    id: int
    has_image: bool
    applies: bool  # the image is for redo


class WalRecord(NamedTuple):
    """A record, as far as it says what it does to a block's pd_lsn."""

    rmgr: int
    opcode: int
    main: bytes
    references: dict[tuple[RelationFork, int], BlockReference]
    """By fork of a relation, and block in it."""


class WalGone(Exception):
    """The segment in which a record would end is not kept any more."""


class PrimaryWal:
    """The WAL that a stopped primary kept; its directory is read once for each question."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def record_ending_at(self, lsn: int) -> WalRecord | None:
        """None if no record ends there; raises WalGone and CorruptionError."""
        number = (lsn - 1) // SEGMENT_BYTES
        # A record may have begun in the segment before; the first segment is number 1.
        for first in range(number, max(number - 2, 0), -1):
            files = [path for n in range(first, number + 1) for path in self._segments(n)]
            if len({path.name[8:] for path in files}) <= number - first:
                raise WalGone(f"the WAL that ends at {lsn_text.show(lsn)} is gone")
            for batch, row in wal_stats.records(*wal_stats.open_wal(files)):
                if batch.lsn_end[row] == lsn:
                    return _record(batch, row)
                if batch.lsn_end[row] > lsn:
                    break
        return None

    def _segments(self, number: int) -> list[Path]:
        """A segment, of any timeline."""
        name = wal_page.file_name(1, number, SEGMENT_BYTES)
        return list(self.directory.glob(f"????????{name[8:]}"))


def _record(batch: RecordBatch, row: int) -> WalRecord:
    references = {}
    for i in range(batch.first_reference[row], batch.first_reference[row + 1]):
        fork = Fork(batch.ref_flags[i] & FORK_MASK)
        relation = RelationFork(batch.ref_spc[i], batch.ref_db[i], batch.ref_rel[i], fork)
        has_image = bool(batch.ref_flags[i] & IMAGE)
        applies = has_image and bool(batch.ref_image_info[i] & APPLY)
        references[relation, batch.ref_block[i]] = BlockReference(
            batch.ref_id[i], has_image, applies
        )
    main = bytes(batch.data[batch.main_pos[row] :][: batch.main_length[row]])
    manager = batch.rmgr[row]
    return WalRecord(manager, rmgr.opcode(manager, batch.info[row]), main, references)
