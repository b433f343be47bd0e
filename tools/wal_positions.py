"""Where records end in the WAL files of a directory, and where the checkpoints are."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn, wal_page

SEGMENT_BYTES = 16 << 20
XLOG_RMGR, CHECKPOINTS, SWITCH, PARAMETER_CHANGE = 0, (0x00, 0x10), 0x40, 0x60
_DRAWS_MAX = 100_000


class TooFewCheckpoints(Exception):
    """Not that many targets with a checkpoint before each; the text has the figures."""


@dataclass
class WalPositions:
    """Ends of records, in order, as redo writes them into pd_lsn."""

    ends: "array[int]" = field(default_factory=lambda: array("Q"))
    checkpoint_ends: "array[int]" = field(default_factory=lambda: array("Q"))
    switch_ends: set[int] = field(default_factory=set)
    parameter_change_ends: list[int] = field(default_factory=list)

    def before_parameter_changes(self, lsn_from: int) -> list[int]:
        """Ends of the last checkpoint records before settings in pg_control changed."""
        places = (bisect_left(self.checkpoint_ends, end) for end in self.parameter_change_ends)
        found = {self.checkpoint_ends[place - 1] for place in places if place}
        return sorted(end for end in found if end >= lsn_from)

    def targets(
        self, random: Random, count: int, lsn_from: int, fixed: Iterable[int] = ()
    ) -> list[int]:
        """Ends of records at or behind random byte positions from `lsn_from` on, and the `fixed`
        ones, in order.

        Between any two, and before the first, is a checkpoint record: positions for which there is
        none are drawn again. No target is the end of a WAL switch, which PostgreSQL counts as the
        end of its segment.
        """
        first, last = max(lsn_from, self.checkpoint_ends[0]), self.ends[-1]
        # number of checkpoints up to it -> target
        chosen = {bisect_left(self.checkpoint_ends, target + 1): target for target in fixed}
        count += len(chosen)
        for _ in range(_DRAWS_MAX):
            if len(chosen) == count:
                break
            target = self.ends[bisect_left(self.ends, random.randrange(first, last))]
            passed = bisect_left(self.checkpoint_ends, target + 1)
            fits = passed > bisect_left(self.checkpoint_ends, lsn_from)
            if fits and target not in self.switch_ends and passed not in chosen:
                chosen[passed] = target
        if len(chosen) < count:
            raise TooFewCheckpoints(
                f"{count} targets need as many checkpoints between "
                f"{lsn.show(first)} and {lsn.show(last)}: {len(chosen)} found"
            )
        return sorted(chosen.values())


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
            elif info == SWITCH:
                found.switch_ends.add(batch.lsn_end[record])
