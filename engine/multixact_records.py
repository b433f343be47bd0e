"""Records of multixacts: where the members of each begin, and who they are (multixact.c).

Two generations of minor releases differ in when a page of pg_multixact/offsets begins. Since
February 2026 a multixact writes the start of the next one, too, so the page of the next one is
logged before it. WAL of releases before that logs it after; a newer PostgreSQL that replays it
begins the page by itself, and passes over the record that would begin it once more. This does as
the newer one, with its rule for when that is so: the page that began last is the newest there is.
"""

import struct

from engine.record_effects import SLRU_PAGES_PER_SEGMENT, RecordEffects
from formats import version
from formats.chunk import ChunkKind, Slru, SmallFile

MEMBERS_PER_PAGE = 1636
OFFSETS_PER_PAGE = 2048
OFFSETS_PER_SEGMENT = OFFSETS_PER_PAGE * SLRU_PAGES_PER_SEGMENT
MEMBERS_PER_SEGMENT = MEMBERS_PER_PAGE * SLRU_PAGES_PER_SEGMENT
MULTIXACT_MAX = OFFSET_MAX = 0xFFFFFFFF
FIRST_MULTIXACT = 1

Items = dict[int, list[tuple[int, int, int]]]  # of an effect, by page


class MultixactRecords:
    def __init__(self, effects: RecordEffects) -> None:
        self._effects = effects
        # PostgreSQL's last_initialized_offsets_page and pre_initialized_offsets_page; what the
        # first would be after a start is in the chunk table, and looked for when it is needed.
        self._last_begun: int | None = None
        self._begun_early: int | None = None
        self._has_looked = False

    def zero_offsets(self, page: int, lsn: int) -> None:
        """ZERO_OFF_PAGE: a page begins, unless the multixact before it has begun it."""
        self._look()
        if page != self._begun_early:
            self._effects.zero_slru_page(Slru.MULTIXACT_OFFSETS, page, lsn)
            self._last_begun = page
        self._begun_early = None

    def create(self, main: bytes, lsn: int) -> None:
        """CREATE_ID: its offset, the next one's, and its members (RecordNewMultiXact)."""
        multi, offset, count = struct.unpack_from("<IIi", main)
        self._put_offsets(multi, offset, (offset + count) % 2**32 or 1, lsn)
        members: Items = {}
        for i in range(count):
            member_xid, status = struct.unpack_from("<Ii", main, 12 + 8 * i)
            page, index = divmod((offset + i) % 2**32, MEMBERS_PER_PAGE)
            members.setdefault(page, []).append((index, status, member_xid))
        self._put(Slru.MULTIXACT_MEMBERS, version.MULTIXACT_MEMBER, members, lsn)

    def _put_offsets(self, multi: int, offset: int, following_offset: int, lsn: int) -> None:
        following = multi + 1 if multi < MULTIXACT_MAX else FIRST_MULTIXACT
        page, index = divmod(multi, OFFSETS_PER_PAGE)
        next_page, next_index = divmod(following, OFFSETS_PER_PAGE)
        offsets: Items = {page: [(index, 0, offset)]}
        self._look()
        self._begun_early = None
        if next_page != page and self._must_begin(next_page, page):
            entries = bytes(4 * next_index) + following_offset.to_bytes(4, "little")
            self._effects.zero_slru_page(Slru.MULTIXACT_OFFSETS, next_page, lsn, entries)
            self._last_begun = self._begun_early = next_page
        else:
            offsets.setdefault(next_page, []).append((next_index, 0, following_offset))
        self._put(Slru.MULTIXACT_OFFSETS, version.MULTIXACT_OFFSET, offsets, lsn)

    def _must_begin(self, next_page: int, page: int) -> bool:
        if self._last_begun is None:
            return not self._effects.has_slru_page(Slru.MULTIXACT_OFFSETS, next_page)
        return self._last_begun == page

    def _put(self, slru: int, effect_class: int, pages: Items, lsn: int) -> None:
        for page, items in pages.items():
            self._effects.slru_effect(slru, page, effect_class, items, lsn)

    def _look(self) -> None:
        """After a start: the newest page that ingest has begun, where it has begun any.

        If its own record is still to come, it was begun early. PG_VERSION, which no record ever
        changes, tells what the base backup brought.
        """
        if self._has_looked:
            return
        self._has_looked = True
        table = self._effects.table
        base = table.find(ChunkKind.FILE, 0, 0, SmallFile.PG_VERSION, 0, 0)
        newest_lsn = table.change_lsn[base] if base >= 0 else 0
        for segment in self._effects.slru_segments((Slru.MULTIXACT_OFFSETS,)):
            root = table.find(ChunkKind.SLRU, 0, 0, Slru.MULTIXACT_OFFSETS, 0, segment)
            if table.change_lsn[root] > newest_lsn:
                newest_lsn = table.change_lsn[root]
                page = segment * SLRU_PAGES_PER_SEGMENT + table.blocks[root] - 1
                self._last_begun = self._begun_early = page

    def truncate_members(self, start: int, end: int, lsn: int) -> None:
        """Members are dropped segment by segment, around the wrap (PerformMembersTruncation)."""
        last = OFFSET_MAX // MEMBERS_PER_SEGMENT
        segment = start // MEMBERS_PER_SEGMENT
        while segment != end // MEMBERS_PER_SEGMENT:
            self._effects.drop(ChunkKind.SLRU, 0, 0, Slru.MULTIXACT_MEMBERS, 0, segment, lsn)
            segment = 0 if segment == last else segment + 1


def offsets_cutoff_page(end: int) -> int:
    """The page before which offsets go: one multixact back from `end` (PreviousMultiXactId)."""
    previous = end - 1 if end > FIRST_MULTIXACT else MULTIXACT_MAX
    return previous // OFFSETS_PER_PAGE
