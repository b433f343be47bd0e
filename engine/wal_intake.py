"""Whether the journal may take more WAL: it has a bound, and the disk has an end.

Where it may not, the receiver stops reading; the source keeps the WAL, and is told as before what
is flushed here. What holds ingest or flush up needs no word here: the journal grows meanwhile.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.disk_room import DiskRoom, is_full, will_pass
from engine.journal import Journal
from engine.storage import Storage

JOURNAL_FULL = "journal full: source keeps WAL"
DISK_FULL = "disk full"
UNREACHABLE = "bucket unreachable"


@dataclass(frozen=True)
class Limits:
    """What a data directory may take."""

    journal_bytes_max: int = 16 << 30
    disk_reserve_bytes: int = 256 << 20


class Hold(NamedTuple):
    """Why nothing goes on for now, as `pageserver status` shows it."""

    state: str
    reason: str


class WalIntake:
    def __init__(self, storage: Storage, directory: Path, limits: Limits) -> None:
        self.room = DiskRoom(storage, directory, limits.disk_reserve_bytes)
        self.is_journal_full = False  # so that only a flush makes room, as far as is known
        self._journal_bytes_max = limits.journal_bytes_max

    def hold(
        self, journal: Journal, read_lsn: int, ready_lsn: int, durable_lsn: int, length: int
    ) -> Hold | None:
        """Why `length` bytes must not be appended now, None if they may.

        Counted is WAL that is not in layers yet. If ingest has read all of it, up to `read_lsn`,
        and none is ready to be flushed, as when a record is larger than the bound, only more WAL
        can help. All three LSNs are 0 before a base backup is complete.
        """
        kept = journal.received_lsn - max(journal.start_lsn, durable_lsn)
        can_shrink = ready_lsn > durable_lsn or read_lsn < journal.received_lsn
        self.is_journal_full = can_shrink and kept + length > self._journal_bytes_max
        if self.is_journal_full:
            return Hold(
                JOURNAL_FULL,
                f"{kept} bytes of WAL are not in layers yet, journal_bytes_max is "
                f"{self._journal_bytes_max}: flush or compaction is behind",
            )
        shortage = self.room.shortage(length)
        return Hold(DISK_FULL, shortage) if shortage else None

    def hold_of(self, error: OSError) -> Hold | None:
        """The hold that an error means; None if it is a fault."""
        if not will_pass(error):
            return None
        return Hold(DISK_FULL if is_full(error) else UNREACHABLE, self.room.explain(error))
