"""Records of the SLRUs: transaction status, multixacts, commit timestamps.

Pages are zeroed when they begin, filled by effects, and dropped by whole segments. What commits
and aborts write into pg_xact and pg_commit_ts is engine/ingest.py's.
"""

import struct

from engine.record_effects import SLRU_PAGES_PER_SEGMENT, RecordEffects
from formats import version
from formats.chunk import ChunkKind, Slru

TRANSACTIONS_PER_PAGE = 32768
TIMESTAMPS_PER_PAGE = 819
MEMBERS_PER_PAGE = 1636
OFFSETS_PER_PAGE = 2048
MAX_MULTIXACT_OFFSET = 0xFFFFFFFF


class SlruRecords:
    def __init__(self, effects: RecordEffects, major: int) -> None:
        self._effects = effects
        self._major = major
        # Of pg_multixact/offsets: a page that CREATE brought into being before ZERO came for it;
        # None where it is not known, as after a start.
        self._made_early: int | None = None
        self._knows_early = False

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

    # --- rmgr MultiXact: src/include/access/multixact.h ----------------------------------------

    def multixact(self, info: int, main: bytes, lsn: int) -> None:
        if info == 0x00:
            self._zero_offsets(self._page_number(main), lsn)
        elif info == 0x10:
            self._effects.zero_slru_page(Slru.MULTIXACT_MEMBERS, self._page_number(main), lsn)
        elif info == 0x20:
            self._create_multixact(main, lsn)
        elif info == 0x30:
            _, _, end_offset, start_member, end_member = struct.unpack_from("<5I", main)
            self._truncate_members(start_member, end_member, lsn)
            previous = end_offset - 1 if end_offset > 1 else 0xFFFFFFFF
            page = previous // OFFSETS_PER_PAGE
            self._truncate(Slru.MULTIXACT_OFFSETS, page, OFFSETS_PER_PAGE, lsn)

    def _zero_offsets(self, page: int, lsn: int) -> None:
        """A page of offsets begins, unless the multixact before it has begun it (multixact_redo).

        Minor releases from before 2026 log the page after the last multixact of the page before;
        its redo by a newer one has then written the first offset here already.
        """
        early = self._made_early == page
        if not self._knows_early:
            early = self._effects.has_slru_page(Slru.MULTIXACT_OFFSETS, page)
        if not early:
            self._effects.zero_slru_page(Slru.MULTIXACT_OFFSETS, page, lsn)
        self._made_early = None
        self._knows_early = True

    def _create_multixact(self, main: bytes, lsn: int) -> None:
        """Its offset, the next one's offset, and its members (RecordNewMultiXact, multixact.c)."""
        multi, offset, count = struct.unpack_from("<IIi", main)
        following = multi + 1 if multi < 0xFFFFFFFF else 1
        following_offset = (offset + count) % 2**32 or 1
        offsets: dict[int, list[tuple[int, int, int]]] = {}
        for one, value in ((multi, offset), (following, following_offset)):
            page, index = divmod(one, OFFSETS_PER_PAGE)
            offsets.setdefault(page, []).append((index, 0, value))
        next_page = following // OFFSETS_PER_PAGE
        if not self._effects.has_slru_page(Slru.MULTIXACT_OFFSETS, next_page):
            self._made_early = next_page
            self._knows_early = True
        for page, items in offsets.items():
            self._effects.slru_effect(
                Slru.MULTIXACT_OFFSETS, page, version.MULTIXACT_OFFSET, items, lsn
            )
        members: dict[int, list[tuple[int, int, int]]] = {}
        for i in range(count):
            member_xid, status = struct.unpack_from("<Ii", main, 12 + 8 * i)
            page, index = divmod((offset + i) % 2**32, MEMBERS_PER_PAGE)
            members.setdefault(page, []).append((index, status, member_xid))
        for page, items in members.items():
            self._effects.slru_effect(
                Slru.MULTIXACT_MEMBERS, page, version.MULTIXACT_MEMBER, items, lsn
            )

    def _truncate_members(self, start: int, end: int, lsn: int) -> None:
        """Members are dropped segment by segment, around the wrap (PerformMembersTruncation)."""
        per_segment = MEMBERS_PER_PAGE * SLRU_PAGES_PER_SEGMENT
        last = MAX_MULTIXACT_OFFSET // per_segment
        segment = start // per_segment
        while segment != end // per_segment:
            self._effects.drop(ChunkKind.SLRU, 0, 0, Slru.MULTIXACT_MEMBERS, 0, segment, lsn)
            segment = 0 if segment == last else segment + 1

    # --- rmgr CommitTs: src/include/access/commit_ts.h -----------------------------------------

    def commit_timestamp(self, info: int, main: bytes, lsn: int) -> None:
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
