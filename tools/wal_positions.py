"""Where records end in the WAL files of a directory, and where the checkpoints are."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn, wal_page

SEGMENT_BYTES = 16 << 20
XLOG_RMGR, CHECKPOINTS, PARAMETER_CHANGE = 0, (0x00, 0x10), 0x60
_DRAWS_MAX = 100_000


class TooFewCheckpoints(Exception):
    """No place for a target with a checkpoint before it."""


@dataclass
class WalPositions:
    """Ends of records, in order."""

    ends: "array[int]" = field(default_factory=lambda: array("Q"))
    checkpoint_ends: "array[int]" = field(default_factory=lambda: array("Q"))
    parameter_change_ends: list[int] = field(default_factory=list)

    def before_parameter_changes(self, lsn_from: int) -> list[int]:
        """Ends of the last checkpoint records before settings in pg_control changed."""
        places = (bisect_left(self.checkpoint_ends, end) for end in self.parameter_change_ends)
        found = {self.checkpoint_ends[place - 1] for place in places if place}
        return sorted(end for end in found if end >= lsn_from)

    def targets(self, random: Random, count: int, bases: Sequence[int]) -> list[int]:
        """Random byte positions behind `bases[0]`, in order, no two with the same records before.

        Between a position and the last of `bases` before it, where a standby starts, is a
        checkpoint record: positions for which there is none are drawn again.
        """
        chosen: dict[int, int] = {}  # number of records before it -> position
        for _ in range(_DRAWS_MAX):
            if len(chosen) == count:
                return sorted(chosen.values())
            target = random.randrange(bases[0] + 1, self.ends[-1])
            base = bases[bisect_left(bases, target) - 1]
            before, passed = (bisect_right(self.checkpoint_ends, at) for at in (base, target))
            if passed > before:
                chosen[bisect_right(self.ends, target)] = target
        raise TooFewCheckpoints(
            f"there is no checkpoint behind {', '.join(lsn.show(base) for base in bases)}"
        )


def read_positions(wal_dir: Path, timeline: int, lsn_from: int, major: int) -> WalPositions:
    """Decode the WAL from a record's start to its end: zeros, or what an older file left behind."""
    found = WalPositions()
    reader = WalReader(lsn_from, SEGMENT_BYTES, version=major, zeros_end=True)
    batch = RecordBatch(16384, 65536)
    number, at = lsn_from // SEGMENT_BYTES, lsn_from
    while not reader.at_end:
        path = wal_dir / wal_page.file_name(timeline, number, SEGMENT_BYTES)
        if not path.exists():
            break
        reader.feed(at, memoryview(path.read_bytes()[at % SEGMENT_BYTES :]))
        while count := reader.decode(batch):
            _note(found, batch, count)
        number += 1
        at = number * SEGMENT_BYTES
    return found


def _note(found: WalPositions, batch: RecordBatch, count: int) -> None:
    found.ends.extend(batch.lsn_end[:count])
    for record, rmgr in enumerate(bytes(batch.rmgr[:count])):
        if rmgr == XLOG_RMGR:
            info = batch.info[record] & 0xF0
            if info in CHECKPOINTS:
                found.checkpoint_ends.append(batch.lsn_end[record])
            elif info == PARAMETER_CHANGE:
                found.parameter_change_ends.append(batch.lsn_end[record])
