"""Records of the SLRUs: transaction status, multixacts, commit timestamps.

Pages are zeroed when they begin, filled by effects, and dropped by whole segments. What commits
and aborts write into pg_xact and pg_commit_ts is engine/transaction_ingest.py's, what is in the
pages of multixacts engine/multixact_records.py's.
"""

import struct

from engine.multixact_records import OFFSETS_PER_PAGE, MultixactRecords, offsets_cutoff_page
from engine.record_effects import SLRU_PAGES_PER_SEGMENT, RecordEffects
from formats.chunk import ChunkKind, Slru

TRANSACTIONS_PER_PAGE = 32768
TIMESTAMPS_PER_PAGE = 819


class SlruRecords:
    def __init__(self, effects: RecordEffects, major: int) -> None:
        self._effects = effects
        self._major = major
        self._multixacts = MultixactRecords(effects)

    def _page_number(self, main: bytes) -> int:
        """SLRU page numbers became 64 bits wide in 17."""
        number: int = struct.unpack_from("<q" if self._major >= 17 else "<i", main)[0]
        return number

    def clog(self, info: int, main: bytes, lsn: int) -> None:
        """rmgr CLOG: src/include/access/clog.h."""
        page = self._page_number(main)
        if info == 0x00:
            self._effects.zero_slru_page(Slru.XACT, page, lsn)
        elif info == 0x10:
            self._truncate(Slru.XACT, page, TRANSACTIONS_PER_PAGE, lsn)

    def _truncate(self, slru: int, cutoff_page: int, entries_per_page: int, lsn: int) -> None:
        """Drop the segments that wholly precede a page (SlruMayDeleteSegment, slru.c)."""
        for segment in self._effects.slru_segments((slru,)):
            first = segment * SLRU_PAGES_PER_SEGMENT
            if precedes(first, cutoff_page, entries_per_page) and precedes(
                first + SLRU_PAGES_PER_SEGMENT - 1, cutoff_page, entries_per_page
            ):
                self._effects.drop(ChunkKind.SLRU, 0, 0, slru, 0, segment, lsn)

    def multixact(self, info: int, main: bytes, lsn: int) -> None:
        """rmgr MultiXact: src/include/access/multixact.h."""
        if info == 0x00:
            self._multixacts.zero_offsets(self._page_number(main), lsn)
        elif info == 0x10:
            self._effects.zero_slru_page(Slru.MULTIXACT_MEMBERS, self._page_number(main), lsn)
        elif info == 0x20:
            self._multixacts.create(main, lsn)
        elif info == 0x30:
            _, _, end_offset, start_member, end_member = struct.unpack_from("<5I", main)
            self._multixacts.truncate_members(start_member, end_member, lsn)
            page = offsets_cutoff_page(end_offset)
            self._truncate(Slru.MULTIXACT_OFFSETS, page, OFFSETS_PER_PAGE, lsn)

    def commit_timestamp(self, info: int, main: bytes, lsn: int) -> None:
        """rmgr CommitTs: src/include/access/commit_ts.h."""
        page = self._page_number(main)
        if info == 0x00:
            self._effects.zero_slru_page(Slru.COMMIT_TS, page, lsn)
        elif info == 0x10:
            self._truncate(Slru.COMMIT_TS, page, TIMESTAMPS_PER_PAGE, lsn)

    def track_commit_timestamps(self, next_xid: int, lsn: int) -> None:
        """From here on commits leave timestamps (ActivateCommitTs, commit_ts.c)."""
        page = (next_xid & 0xFFFFFFFF) // TIMESTAMPS_PER_PAGE
        if not self._effects.has_slru_page(Slru.COMMIT_TS, page):
            self._effects.zero_slru_page(Slru.COMMIT_TS, page, lsn)

    def forget_commit_timestamps(self, lsn: int) -> None:
        """From here on they do not, and those that were are gone (DeactivateCommitTs)."""
        for segment in self._effects.slru_segments((Slru.COMMIT_TS,)):
            self._effects.drop(ChunkKind.SLRU, 0, 0, Slru.COMMIT_TS, 0, segment, lsn)


def precedes(page: int, cutoff_page: int, entries_per_page: int) -> bool:
    """Whether an SLRU page lies wholly before another, modulo 2^32 entries.

    CLOGPagePrecedes, CommitTsPagePrecedes and MultiXactOffsetPagePrecedes: all compare the page's
    first entry (past the reserved ones) with the first and the last entry of the cutoff page.
    """
    first = page * entries_per_page + 4
    cutoff = cutoff_page * entries_per_page + 4
    return _before(first, cutoff) and _before(first, cutoff + entries_per_page - 1)


def _before(a: int, b: int) -> bool:
    """Circular comparison of 32-bit identifiers."""
    return (a - b) % 2**32 >= 2**31
