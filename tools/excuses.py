"""Where PostgreSQL's files may differ from what redo makes of its WAL, and why.

A primary's files hold what was never logged; that, and nothing else, is excused when we compare
with a primary. Some differences have a reason that only the caller can know (a database that was
copied through WAL, a base backup taken under load): they are excused when `Rules` says so. Forks
that are hints or not in WAL at all are left out against anybody. Each excuse has a counter.

The masks of tools/masks.py, which hold against anybody, come first.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from formats import rmgr
from formats.chunk import Fork
from tools.data_directory import RelationFork
from tools.masks import (
    HEADER_BYTES,
    PAGE_BYTES,
    Kind,
    Pair,
    apply_masks,
    kind_of,
    pd_lower,
    pd_special,
    pd_upper,
    u16,
    u32,
)
from tools.primary_wal import PrimaryWal, WalGone

ZERO_PAGE = bytes(PAGE_BYTES)

_BUILT_BEFORE_LOGGED = (Kind.BTREE, Kind.GIST, Kind.SPGIST, Kind.BLOOM)
"""Access methods that write some new pages to the file before they log them."""
_BUILD_LSN_MAX = 1
"""Those pages have no LSN in the file, or GiST's placeholder, until something changes them."""

_GIST_DELETED = 0x0004
_FPI_FOR_HINT, _SQUEEZE_PAGE = 0xA0, 0x80


class Excuse(StrEnum):
    """Why a difference is none; each is counted, in blocks."""

    # Not compared at all.
    FSM = "free space maps"
    UNLOGGED = "main, fsm and vm forks of unlogged relations"
    TEMPORARY = "temporary relations"
    BLOOM_INIT = "bloom init forks, which are not logged"
    # Against a primary.
    SEQUENCE = "last_value, log_cnt and is_called of a sequence"
    ZERO_TAIL = "all-zero blocks beyond our size"
    INITIALISED = "initialised pages that were never logged"
    EMPTY_VM = "visibility map pages without a bit, beyond our size"
    BUILD_LSN = "pd_lsn of a freshly built index"
    SPGIST_CACHE = "spgist: last-used pages in the meta page"
    GIST_DELETED = "gist: F_TUPLES_DELETED, which DELETE sets in redo alone"
    HINT_LSN = "pd_lsn of a hint logged without an image"
    IMAGE_LSN = "pd_lsn of an image of a page that its record leaves alone"
    HINT_RACE = "pd_lsn of the second of two images of a hint"
    # For a reason that the caller names.
    COPIED_VM = "visibility maps of a database copied through WAL"
    COPIED_REVMAP = "brin: revmaps of a database copied through WAL"
    BACKUP_VM = "visibility maps after a base backup under load"
    CRASH = "empty files that a crash left"
    BACKUP_GIST = "gist: pd_lsn after a base backup under load"


@dataclass(frozen=True)
class Rules:
    """Against whom we compare, and what the caller knows about the history."""

    against: Literal["primary", "standby"]
    copied_databases: frozenset[int] = frozenset()
    """Databases created with STRATEGY wal_log since our base backup began: their visibility maps
    and BRIN revmaps came through WAL as zeros."""
    crashed: bool = False
    """The primary crashed since our base backup. It forgot then which dropped relations' first
    files, cut to nothing, it was to remove after the next checkpoint (register_unlink_segment,
    md.c); a standby removes them at once. Relations whose creation did not reach WAL stay, too."""
    backup_under_load: bool = False
    """A base backup, ours or the standby's, was taken while the primary wrote, or it wrote between
    the two: what a primary keeps unlogged (a sequence's row, SP-GiST's cache) came with one of them
    and not with the other."""
    wal: PrimaryWal | None = None
    """The primary's, which must justify each pd_lsn that its redo gives another value."""


def explain(pair: Pair, relation: RelationFork, rules: Rules) -> None:
    """Apply to a pair that differs every mask and excuse that it has a right to."""
    database, fork = relation.db, relation.fork
    if rules.against == "primary" and pair.ours == ZERO_PAGE and is_initialised(pair.theirs):
        pair.adopt(Excuse.INITIALISED, 0, PAGE_BYTES)
    elif fork == Fork.VM:
        _explain_visibility_map(pair, database, rules)
    else:
        apply_masks(pair)
        if pair.ours != pair.theirs:
            _explain_index_or_sequence(pair, database, rules)
    if rules.against == "primary" and rules.wal is not None:
        _explain_lsn(pair, relation, rules.wal)


def excuse_absent_block(page: bytes, fork: Fork, rules: Rules) -> Excuse | None:
    """Why a block of theirs that lies beyond our size may do so."""
    if rules.against != "primary":
        return None
    if fork == Fork.VM:
        return Excuse.EMPTY_VM if not any(page[HEADER_BYTES:]) else None
    if page == ZERO_PAGE:
        return Excuse.ZERO_TAIL
    return Excuse.INITIALISED if is_initialised(page) else None


def is_initialised(page: bytes) -> bool:
    """As an access method leaves a new page: a header without an LSN, no contents."""
    upper, special = pd_upper(page), pd_special(page)
    return (
        page_lsn(page) == 0
        and pd_lower(page) == HEADER_BYTES
        and upper == special != 0
        and not any(page[HEADER_BYTES:special])
    )


def page_lsn(page: bytes | bytearray) -> int:
    """pd_lsn, which is stored as two halves, the high one first."""
    return u32(page, 0) << 32 | u32(page, 4)


def is_bloom(page: bytes) -> bool:
    return kind_of(page, 0) == Kind.BLOOM


def _explain_visibility_map(pair: Pair, database: int, rules: Rules) -> None:
    """Redo may have lost bits, in the two ways that `Rules` names; it has never one too many.

    Where it has lost a bit, the record that clears it does not move pd_lsn either (from 18).
    """
    ours = int.from_bytes(pair.ours[HEADER_BYTES:])
    theirs = int.from_bytes(pair.theirs[HEADER_BYTES:])
    only_lost = ours & ~theirs == 0
    if rules.against == "primary" and only_lost and database in rules.copied_databases:
        pair.adopt(Excuse.COPIED_VM, HEADER_BYTES, PAGE_BYTES)
        if page_lsn(pair.ours) <= page_lsn(pair.theirs):
            pair.adopt(Excuse.COPIED_VM, 0, 8)
    elif rules.backup_under_load and (only_lost or rules.against == "standby"):
        pair.adopt(Excuse.BACKUP_VM, 0, PAGE_BYTES)


def _explain_index_or_sequence(pair: Pair, database: int, rules: Rules) -> None:
    kind = kind_of(pair.theirs, pair.block)
    if kind == Kind.GIST and rules.backup_under_load:
        pair.adopt(Excuse.BACKUP_GIST, 0, 8)
    if rules.against == "primary" or rules.backup_under_load:
        if kind == Kind.SEQUENCE:
            _explain_sequence(pair)
        if kind == Kind.SPGIST and u16(pair.theirs, pd_special(pair.theirs)) & 0x0001:
            pair.adopt(Excuse.SPGIST_CACHE, HEADER_BYTES + 4, HEADER_BYTES + 4 + 8 * 8)
    if rules.against != "primary":
        return
    explain_gist_deleted(pair)
    if kind == Kind.BRIN and database in rules.copied_databases:
        _explain_revmap(pair)
    if kind in _BUILT_BEFORE_LOGGED and page_lsn(pair.theirs) <= _BUILD_LSN_MAX:
        pair.adopt(Excuse.BUILD_LSN, 0, 8)


def explain_gist_deleted(pair: Pair) -> None:
    """Against what a primary wrote, into a file or into WAL: a flag of a GiST leaf.

    Redo of Gist's DELETE sets F_TUPLES_DELETED, the primary does not when it writes that record
    (gistxlog.c and gist.c of PostgreSQL 15.18, 17.11 and 18.6), and nothing ever reads it. No mask
    of PostgreSQL's covers it: its own wal_consistency_checking ends the recovery of such WAL.
    """
    flags = pd_special(pair.theirs) + 12
    if kind_of(pair.theirs, pair.block) == Kind.GIST and u16(pair.ours, flags) & _GIST_DELETED:
        pair.adopt_bits(Excuse.GIST_DELETED, flags, _GIST_DELETED)


def _explain_sequence(pair: Pair) -> None:
    """The row of a sequence runs ahead of what was logged; its header does not."""
    item = u32(pair.theirs, HEADER_BYTES)
    begin, length = item & 0x7FFF, item >> 17
    data = begin + pair.theirs[begin + 22] if begin + 22 < PAGE_BYTES else PAGE_BYTES
    if data + 17 <= begin + length <= PAGE_BYTES:
        pair.adopt(Excuse.SEQUENCE, data, data + 17)


def _explain_revmap(pair: Pair) -> None:
    """Entries of a revmap (6-byte tuple ids) are zeros here where no later record set them."""
    if u16(pair.theirs, PAGE_BYTES - 2) != 0xF092:
        return
    for entry in range(HEADER_BYTES, pd_special(pair.theirs) - 5, 6):
        if not any(pair.ours[entry : entry + 6]):
            pair.adopt(Excuse.COPIED_REVMAP, entry, entry + 6)


def _explain_lsn(pair: Pair, relation: RelationFork, wal: PrimaryWal) -> None:
    """Where nothing but pd_lsn differs, the record that ends at the higher one says whose it is.

    Theirs is higher: FPI_FOR_HINT, written without an image, changes nothing in redo. Ours is:
    redo restores an image, and pd_lsn with it. The primary registered the page and left it alone
    (from 16 on; hashovfl.c is the only place of PostgreSQL 18.6 that registers a block with
    REGBUF_NO_CHANGE and without REGBUF_NO_IMAGE). Or two backends set hint bits of a clean page at
    once: both log an image, and the second finds the page dirty and does not set its pd_lsn
    (MarkBufferDirtyHint, bufmgr.c).
    """
    ours, theirs = page_lsn(pair.ours), page_lsn(pair.theirs)
    if ours == theirs or pair.ours[8:] != pair.theirs[8:]:
        return
    try:
        record = wal.record_ending_at(max(ours, theirs))
    except WalGone as gone:
        pair.remark = f"; pd_lsn cannot be excused: {gone}"
        return
    reference = record.references.get((relation, pair.block)) if record else None
    if record is None or reference is None:
        return
    kind = record.rmgr, record.opcode
    if ours < theirs:
        if kind == (rmgr.XLOG, _FPI_FOR_HINT) and not reference.has_image:
            pair.adopt(Excuse.HINT_LSN, 0, 8)
    elif kind == (rmgr.XLOG, _FPI_FOR_HINT) and reference.applies:
        pair.adopt(Excuse.HINT_RACE, 0, 8)
    elif kind == (rmgr.HASH, _SQUEEZE_PAGE) and reference.id == 1 and reference.applies:
        tuples, (is_primary_page, is_previous_page) = u16(record.main, 8), record.main[10:12]
        if tuples == 0 and is_primary_page and not is_previous_page:
            pair.adopt(Excuse.IMAGE_LSN, 0, 8)
