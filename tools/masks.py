"""What redo does not determine in a page, whoever wrote it: hint bits, checksums, unused space.

These bytes differ between two standbys as well as between a standby and its primary. The masks are
PostgreSQL's own of wal_consistency_checking, and stricter where the truth allows it: of a heap
tuple's infomask only 0x0F20 may differ, and PD_ALL_VISIBLE, pd_lsn and every bit of a visibility
map are compared.

A mask works on a `Pair`: it makes our page like theirs in the bytes that may differ, and notes its
name when they did; what differs afterwards is a difference. The kind of a page (which access method
wrote it) is read from their page: the size of its special space and what lies in it.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

PAGE_BYTES = 8192
HEADER_BYTES = 24
CHECKSUM = 8

_FLAGS = 10
_HAS_FREE_LINES, _PAGE_FULL = 0x0001, 0x0002
_PRUNE_XID = 20

_LP_NORMAL = 1
_TUPLE_HEADER_BYTES = 23
_LP_DEAD_BIT = 2 << 15
_LP_FLAGS, _LP_IS_NORMAL = 3 << 15, 1 << 15
_SPECULATIVE_OFFSET = 0xFFFE
_XMIN_FROZEN = 0x0300
_HINT_BITS = 0x0F20
_HINT_BITS_FROZEN = 0x0C00


class Mask(StrEnum):
    """What may differ anywhere; each is counted, in pages."""

    CHECKSUM = "pd_checksum"
    HINT_BITS = "hint bits of a tuple"
    COMMAND_ID = "command id of a tuple"
    SPECULATIVE = "ctid of a speculative tuple"
    PADDING = "padding behind a tuple"
    UNUSED_SPACE = "unused space of a page"
    PRUNE_XID = "pd_prune_xid"
    PAGE_FULL = "PD_PAGE_FULL"
    FREE_LINES = "PD_HAS_FREE_LINES"
    LP_DEAD = "LP_DEAD in an index leaf"
    BTREE_GARBAGE = "btree: BTP_HAS_GARBAGE"
    BTREE_SPLIT = "btree: BTP_SPLIT_END and cycle id"
    HASH_DEAD = "hash: LH_PAGE_HAS_DEAD_TUPLES"
    HASH_UNUSED = "hash: contents of an unused page"
    GIST_NSN = "gist: NSN"
    GIST_FLAGS = "gist: F_FOLLOW_RIGHT, F_HAS_GARBAGE"
    GIN_DELETED = "gin: contents of a deleted page"
    BRIN_EVACUATE = "brin: BRIN_EVACUATE_PAGE"


class Kind(StrEnum):
    """Whose page it is."""

    HEAP = "heap"
    SEQUENCE = "sequence"
    BTREE = "btree"
    HASH = "hash"
    GIST = "gist"
    GIN = "gin"
    SPGIST = "spgist"
    BRIN = "brin"
    BLOOM = "bloom"
    OTHER = "other"


@dataclass
class Pair:
    """A page twice; masks make `ours` like `theirs` where they may differ."""

    ours: bytearray
    theirs: bytes
    block: int
    used: set[StrEnum] = field(default_factory=set)
    remark: str = ""
    """What could not be looked at, if anything."""

    def adopt(self, name: StrEnum, begin: int, end: int) -> None:
        if self.ours[begin:end] != self.theirs[begin:end]:
            self.ours[begin:end] = self.theirs[begin:end]
            self.used.add(name)

    def adopt_bits(self, name: StrEnum, position: int, bits: int) -> None:
        """The same for some bits of a 16-bit integer."""
        ours, theirs = u16(self.ours, position), u16(self.theirs, position)
        if (ours ^ theirs) & bits:
            struct.pack_into("<H", self.ours, position, ours & ~bits | theirs & bits)
            self.used.add(name)

    def first_difference(self) -> int | None:
        if self.ours == self.theirs:
            return None
        return next(at for at in range(PAGE_BYTES) if self.ours[at] != self.theirs[at])


def u16(page: bytes | bytearray, position: int) -> int:
    return int.from_bytes(page[position : position + 2], "little")


def u32(page: bytes | bytearray, position: int) -> int:
    return int.from_bytes(page[position : position + 4], "little")


def pd_lower(page: bytes | bytearray) -> int:
    return u16(page, 12)


def pd_upper(page: bytes | bytearray) -> int:
    return u16(page, 14)


def pd_special(page: bytes | bytearray) -> int:
    return u16(page, 16)


def kind_of(page: bytes, block: int) -> Kind:
    """Whose page this is, by its special space; OTHER for what no access method of core writes."""
    special = pd_special(page)
    size = PAGE_BYTES - special
    mark = u16(page, PAGE_BYTES - 2)
    if size == 0:
        return Kind.HEAP
    if size == 16:
        return {0xFF80: Kind.HASH, 0xFF81: Kind.GIST}.get(mark, Kind.BTREE)
    if size != 8:
        return Kind.OTHER
    if block == 0 and u32(page, special) == 0x1717:
        return Kind.SEQUENCE
    if mark in (0xF091, 0xF092, 0xF093):
        return Kind.BRIN
    marks = {0xFF82: Kind.SPGIST, 0xFF83: Kind.BLOOM}
    return marks.get(mark, Kind.GIN if mark < 0x0400 else Kind.OTHER)


# Masks, one function each; MASKS says which access method has which.


def _header_hints(pair: Pair) -> None:
    pair.adopt(Mask.PRUNE_XID, _PRUNE_XID, _PRUNE_XID + 4)
    pair.adopt_bits(Mask.FREE_LINES, _FLAGS, _HAS_FREE_LINES)
    pair.adopt_bits(Mask.PAGE_FULL, _FLAGS, _PAGE_FULL)


def _unused_space(pair: Pair) -> None:
    lower, upper, special = pd_lower(pair.theirs), pd_upper(pair.theirs), pd_special(pair.theirs)
    if HEADER_BYTES <= lower <= upper <= special <= PAGE_BYTES:
        pair.adopt(Mask.UNUSED_SPACE, lower, upper)


def _unused_space_if_kept(pair: Pair) -> None:
    """For access methods with pages that leave pd_lower at the header's end, used or not."""
    if pd_lower(pair.theirs) > HEADER_BYTES:
        _unused_space(pair)


def _item_count(page: bytes) -> int:
    lower = pd_lower(page)
    return (min(lower, PAGE_BYTES) - HEADER_BYTES) // 4 if lower > HEADER_BYTES else 0


def _dead_items(pair: Pair) -> None:
    end = HEADER_BYTES + 4 * _item_count(pair.theirs)
    if pair.ours[HEADER_BYTES:end] == pair.theirs[HEADER_BYTES:end]:
        return
    for position in range(HEADER_BYTES, end, 4):
        ours, theirs = u32(pair.ours, position), u32(pair.theirs, position)
        if ours ^ theirs == _LP_DEAD_BIT and theirs >> 15 & _LP_NORMAL:
            pair.adopt(Mask.LP_DEAD, position, position + 4)


def _tuples(pair: Pair) -> None:
    """Heap tuples: hint bits, command id, speculative ctid, and the padding behind each."""
    ours, theirs = bytes(pair.ours), pair.theirs
    if ours == theirs:
        return
    items = struct.unpack_from(f"<{_item_count(theirs)}I", theirs, HEADER_BYTES)
    for number, item in enumerate(items, 1):
        begin, length = item & 0x7FFF, item >> 17
        end = begin + length
        padding = -length & 7
        if length == 0 or end + padding > PAGE_BYTES:
            continue
        header_end = begin + _TUPLE_HEADER_BYTES
        our_header, their_header = ours[begin:header_end], theirs[begin:header_end]
        is_tuple = item & _LP_FLAGS == _LP_IS_NORMAL and length >= _TUPLE_HEADER_BYTES
        if our_header != their_header and is_tuple:
            masked, names = _tuple_header(our_header, their_header)
            pair.ours[begin:header_end] = masked
            pair.used |= names
            if masked != their_header:
                _speculative(pair, begin, number)
        if padding and ours[end : end + padding] != theirs[end : end + padding]:
            pair.adopt(Mask.PADDING, end, end + padding)


@lru_cache(maxsize=1 << 16)
def _tuple_header(ours: bytes, theirs: bytes) -> tuple[bytes, frozenset[Mask]]:
    """Our header of a heap tuple with theirs where it may differ, and what did.

    Kept, since the tuples of a page are met again with each record that changes the page.
    """
    masked, names = bytearray(ours), set()
    if ours[8:12] != theirs[8:12]:
        masked[8:12] = theirs[8:12]
        names.add(Mask.COMMAND_ID)
    ours_bits, theirs_bits = u16(ours, 20), u16(theirs, 20)
    ours_frozen = ours_bits & _XMIN_FROZEN == _XMIN_FROZEN
    theirs_frozen = theirs_bits & _XMIN_FROZEN == _XMIN_FROZEN
    bits = _HINT_BITS_FROZEN if theirs_frozen else _HINT_BITS
    if ours_frozen == theirs_frozen and (ours_bits ^ theirs_bits) & bits:
        struct.pack_into("<H", masked, 20, ours_bits & ~bits | theirs_bits & bits)
        names.add(Mask.HINT_BITS)
    return bytes(masked), frozenset(names)


def _speculative(pair: Pair, begin: int, number: int) -> None:
    """The ctid of a tuple is itself or a speculative token, whichever it is."""
    itself = struct.pack("<HHH", pair.block >> 16, pair.block & 0xFFFF, number)
    ctids = {bytes(page[begin + 12 : begin + 18]) for page in (pair.ours, pair.theirs)}
    if all(ctid == itself or u16(ctid, 4) == _SPECULATIVE_OFFSET for ctid in ctids):
        pair.adopt(Mask.SPECULATIVE, begin + 12, begin + 18)


def _btree(pair: Pair) -> None:
    flags = pd_special(pair.theirs) + 12
    if u16(pair.theirs, flags) & 0x0001:
        _dead_items(pair)
    pair.adopt_bits(Mask.BTREE_GARBAGE, flags, 0x0040)
    pair.adopt_bits(Mask.BTREE_SPLIT, flags, 0x0020)
    pair.adopt(Mask.BTREE_SPLIT, flags + 2, flags + 4)


def _contents(pair: Pair, mask: Mask) -> None:
    """All but the rest of the header, for pages whose contents mean nothing."""
    pair.adopt(mask, 12, 16)
    pair.adopt(mask, HEADER_BYTES, PAGE_BYTES)


def _hash(pair: Pair) -> None:
    flags = pd_special(pair.theirs) + 12
    page_type = u16(pair.theirs, flags) & 0x000F
    if page_type == 0 and u16(pair.ours, flags) & 0x000F == 0:
        _contents(pair, Mask.HASH_UNUSED)
    if page_type in (0x0001, 0x0002):
        _dead_items(pair)
    pair.adopt_bits(Mask.HASH_DEAD, flags, 0x0080)


def _gist(pair: Pair) -> None:
    special = pd_special(pair.theirs)
    pair.adopt(Mask.GIST_NSN, special, special + 8)
    if u16(pair.theirs, special + 12) & 0x0001:
        _dead_items(pair)
    pair.adopt_bits(Mask.GIST_FLAGS, special + 12, 0x0018)


def _gin(pair: Pair) -> None:
    flags = PAGE_BYTES - 2
    if u16(pair.theirs, flags) & u16(pair.ours, flags) & 0x0004:
        _contents(pair, Mask.GIN_DELETED)
    else:
        _unused_space_if_kept(pair)


def _brin(pair: Pair) -> None:
    """A regular page is true to pd_lower even with no summary left; a revmap page never is."""
    kind = u16(pair.theirs, PAGE_BYTES - 2)
    if kind == 0xF093:
        _unused_space(pair)
    elif kind == 0xF091:
        _unused_space_if_kept(pair)
    pair.adopt_bits(Mask.BRIN_EVACUATE, PAGE_BYTES - 4, 0x0001)


MASKS: dict[Kind, tuple[Callable[[Pair], None], ...]] = {
    Kind.HEAP: (_header_hints, _unused_space, _tuples),
    Kind.SEQUENCE: (_unused_space,),
    Kind.BTREE: (_header_hints, _unused_space, _btree),
    Kind.HASH: (_header_hints, _unused_space, _hash),
    Kind.GIST: (_header_hints, _unused_space, _gist),
    Kind.GIN: (_header_hints, _gin),
    Kind.SPGIST: (_header_hints, _unused_space),
    Kind.BRIN: (_header_hints, _brin),
    Kind.BLOOM: (_unused_space,),
    Kind.OTHER: (),
}


def apply_masks(pair: Pair) -> None:
    """The masks of the page's access method, for any fork but visibility maps."""
    for mask in MASKS[kind_of(pair.theirs, pair.block)]:
        mask(pair)
