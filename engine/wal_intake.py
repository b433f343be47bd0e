"""Whether the journal may take more WAL: it has a bound, and the disk has an end.

Where it may not, the receiver stops reading; the source keeps the WAL, and is told as before what
is flushed here. What holds ingest or flush up needs no word here: the journal grows meanwhile.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engine.disk_room import DiskRoom, is_full, will_pass
from engine.journal import Journal
from engine.remote_wal import RemoteWal
from engine.storage import Storage

JOURNAL_FULL = "journal full: source keeps WAL"
DISK_FULL = "disk full"
UNREACHABLE = "bucket unreachable"


@dataclass(frozen=True)
class Limits:
    """What a data directory may take."""

    journal_bytes_max: int = 16 << 30
    disk_reserve_bytes: int = 256 << 20
    waits_for_remote: bool = False  # the journal stays until the bucket has it, too


class Hold(NamedTuple):
    """Why nothing goes on for now, as `pageserver status` shows it."""

    state: str
    reason: str


class WalIntake:
    def __init__(self, storage: Storage, directory: Path, limits: Limits) -> None:
        self.room = DiskRoom(storage, directory, limits.disk_reserve_bytes)
        self.remote = RemoteWal(limits.waits_for_remote)
        self.is_journal_full = False  # so that only a flush makes room, as far as is known
        self._journal_bytes_max = limits.journal_bytes_max

    def hold(
        self, journal: Journal, read_lsn: int, ready_lsn: int, durable_lsn: int, length: int
    ) -> Hold | None:
        """Why `length` bytes must not be appended now, None if they may.

        Counted is WAL that must stay: it is not in layers yet, or not in the bucket. If ingest has
        read all of it, up to `read_lsn`, and none is ready to be flushed, as when a record is
        larger than the bound, only more WAL can help. All three LSNs are 0 before a base backup is
        complete.
        """
        kept_from = self.remote.keep_from(durable_lsn)
        kept = journal.received_lsn - max(journal.start_lsn, kept_from)
        can_shrink = ready_lsn > kept_from or read_lsn < journal.received_lsn
        self.is_journal_full = can_shrink and kept + length > self._journal_bytes_max
        if self.is_journal_full:
            where, behind = "layers", "flush or compaction is"
            if kept_from < durable_lsn:
                where, behind = "S3", "the backup is"
            return Hold(
                JOURNAL_FULL,
                f"{kept} bytes of WAL are not in {where} yet, journal_bytes_max is "
                f"{self._journal_bytes_max}: {behind} behind",
            )
        shortage = self.room.shortage(length)
        return Hold(DISK_FULL, shortage) if shortage else None

    def hold_of(self, error: OSError) -> Hold | None:
        """The hold that an error means; None if it is a fault."""
        if not will_pass(error):
            return None
        return Hold(DISK_FULL if is_full(error) else UNREACHABLE, self.room.explain(error))
