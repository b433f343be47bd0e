"""Masks and excuses on single pages: what each allows, and what it must not."""

import struct
from typing import Any

import pytest

from formats.chunk import BLOCK_BYTES, Fork
from tools.data_directory import RelationFork
from tools.excuses import Excuse, Rules, excuse_absent_block, explain
from tools.masks import Mask, Pair

LOADED = Rules("standby", backup_under_load=True)
PRIMARY, STANDBY = Rules("primary"), Rules("standby")


def heap_page(**changes: int) -> bytearray:
    """One heap page with one tuple of 30 bytes at 8160, and two bytes of padding."""
    values = {
        "lsn": 0x500,
        "flags": 0,
        "prune": 0,
        "unused": 0,
        "infomask": 0x0800,
        "cid": 0,
        "ctid_offset": 1,
        "body": 7,
        "padding": 0,
    } | changes
    page = bytearray(BLOCK_BYTES)
    struct.pack_into(
        "<IIHHHHHHI",
        page,
        0,
        0,
        values["lsn"],
        0,
        values["flags"],
        28,
        8160,
        8192,
        8196,
        values["prune"],
    )
    struct.pack_into("<I", page, 24, 8160 | 1 << 15 | 30 << 17)
    struct.pack_into(
        "<IIIHHHHHBB",
        page,
        8160,
        700,
        0,
        values["cid"],
        0,
        9,
        values["ctid_offset"],
        1,
        values["infomask"],
        24,
        0,
    )
    page[8184:8190] = bytes([values["body"]]) * 6
    page[8190:8192] = bytes([values["padding"]]) * 2
    page[4000] = values["unused"]
    return page


def explained(
    ours: bytearray,
    theirs: bytearray,
    rules: Rules = STANDBY,
    fork: Fork = Fork.MAIN,
    block: int = 9,
) -> tuple[int | None, set[Any]]:
    """The first offset that still differs, and what was used to explain the others."""
    pair = Pair(bytearray(ours), bytes(theirs), block)
    explain(pair, RelationFork(1663, 5, 16384, fork), rules)
    return pair.first_difference(), pair.used


@pytest.mark.parametrize(
    ("change", "mask"),
    [
        ({"infomask": 0x0520}, Mask.HINT_BITS),
        ({"infomask": 0x0E00}, Mask.HINT_BITS),
        ({"cid": 3}, Mask.COMMAND_ID),
        ({"padding": 0xEE}, Mask.PADDING),
        ({"unused": 1}, Mask.UNUSED_SPACE),
        ({"prune": 800}, Mask.PRUNE_XID),
        ({"flags": 0x0001}, Mask.FREE_LINES),
        ({"flags": 0x0002}, Mask.PAGE_FULL),
        ({"ctid_offset": 0xFFFE}, Mask.SPECULATIVE),
    ],
)
def test_heap_masks(change: dict[str, int], mask: Mask) -> None:
    assert explained(heap_page(), heap_page(**change)) == (None, {mask})
    assert explained(heap_page(**change), heap_page()) == (None, {mask})


@pytest.mark.parametrize(
    "change",
    [
        {"lsn": 0x508},
        {"flags": 0x0004},
        {"body": 8},
        {"ctid_offset": 2},
        {"infomask": 0x0810},
        {"infomask": 0x1800},
        {"infomask": 0x2800},
    ],
)
def test_heap_has_no_other_masks(change: dict[str, int]) -> None:
    for rules in (PRIMARY, STANDBY):
        assert explained(heap_page(), heap_page(**change), rules)[0] is not None
        assert explained(heap_page(**change), heap_page(), rules)[0] is not None


def test_frozen_is_not_a_hint() -> None:
    frozen, committed = heap_page(infomask=0x0B00), heap_page(infomask=0x0900)
    assert explained(frozen, committed)[0] is not None
    assert explained(committed, frozen)[0] is not None
    assert explained(frozen, heap_page(infomask=0x0700)) == (None, {Mask.HINT_BITS})
    assert explained(frozen, heap_page(infomask=0x0B20))[0] is not None


def index_page(special: bytes, dead: bool = False, lsn: int = 0x500) -> bytearray:
    """A page with one line pointer and some access method's special space."""
    page = bytearray(BLOCK_BYTES)
    end = BLOCK_BYTES - len(special)
    struct.pack_into("<IIHHHHHHI", page, 0, 0, lsn, 0, 0, 28, end - 16, end, 8196, 0)
    struct.pack_into("<I", page, 24, end - 16 | (3 if dead else 1) << 15 | 16 << 17)
    page[end:] = special
    return page


def btree_page(
    level: int = 0, flags: int = 1, cycle: int = 0, dead: bool = False, lsn: int = 0x500
) -> bytearray:
    return index_page(struct.pack("<IIIHH", 0, 0, level, flags, cycle), dead, lsn)


@pytest.mark.parametrize(
    ("change", "mask"),
    [
        ({"dead": True}, Mask.LP_DEAD),
        ({"flags": 0x41}, Mask.BTREE_GARBAGE),
        ({"flags": 0x21}, Mask.BTREE_SPLIT),
        ({"cycle": 7}, Mask.BTREE_SPLIT),
    ],
)
def test_btree_masks(change: dict[str, Any], mask: Mask) -> None:
    assert explained(btree_page(), btree_page(**change)) == (None, {mask})
    assert explained(btree_page(**change), btree_page()) == (None, {mask})


def test_btree_has_no_other_masks() -> None:
    assert explained(btree_page(), btree_page(flags=0x81))[0] is not None
    assert explained(btree_page(), btree_page(level=1))[0] is not None
    inner, dead = btree_page(level=1, flags=0), btree_page(level=1, flags=0, dead=True)
    assert explained(inner, dead)[0] is not None


def test_heap_line_pointers_are_compared() -> None:
    dead = heap_page()
    struct.pack_into("<I", dead, 24, 8160 | 3 << 15 | 30 << 17)
    assert explained(heap_page(), dead, PRIMARY)[0] == 26


def test_lsn_of_a_built_index_against_a_primary_only() -> None:
    gist = struct.pack("<QIHH", 0, 0, 1, 0xFF81)
    built, logged = index_page(gist, lsn=1), index_page(gist, lsn=0x500)
    assert explained(logged, built, PRIMARY) == (None, {Excuse.BUILD_LSN})
    assert explained(logged, built, STANDBY)[0] is not None
    assert explained(built, logged, PRIMARY)[0] is not None
    assert explained(btree_page(), btree_page(lsn=0), PRIMARY)[1] == {Excuse.BUILD_LSN}
    assert explained(btree_page(), btree_page(lsn=0x400), PRIMARY)[0] is not None
    assert explained(heap_page(), heap_page(lsn=0), PRIMARY)[0] is not None


def sequence_page(
    last_value: int, log_cnt: int = 0, is_called: bool = True, infomask: int = 0x0B00
) -> bytearray:
    page = bytearray(BLOCK_BYTES)
    struct.pack_into("<IIHHHHHHI", page, 0, 0, 0x500, 0, 0, 28, 8136, 8184, 8196, 0)
    struct.pack_into("<I", page, 24, 8136 | 1 << 15 | 41 << 17)
    struct.pack_into("<IIIHHHHHBB", page, 8136, 2, 0, 0, 0, 0, 1, 3, infomask, 24, 0)
    struct.pack_into("<qq?", page, 8160, last_value, log_cnt, is_called)
    struct.pack_into("<I", page, 8184, 0x1717)
    return page


def test_sequence_runs_ahead_in_a_primary_and_its_base_backups() -> None:
    ours, theirs = sequence_page(33), sequence_page(2, 31)
    for rules in (PRIMARY, LOADED):
        assert explained(ours, theirs, rules, block=0) == (None, {Excuse.SEQUENCE})
    assert explained(ours, theirs, STANDBY, block=0)[0] == 8160
    assert explained(ours, sequence_page(33, infomask=0x0900), PRIMARY, block=0)[0] is not None


def test_spgist_cache_of_the_meta_page_only() -> None:
    meta, leaf = struct.pack("<HHHH", 1, 0, 0, 0xFF82), struct.pack("<HHHH", 4, 0, 0, 0xFF82)
    for special, rules, excused in (
        (meta, PRIMARY, True),
        (meta, STANDBY, False),
        (meta, LOADED, True),
        (leaf, PRIMARY, False),
    ):
        ours = index_page(special)
        struct.pack_into("<H", ours, 12, 92)
        theirs = bytearray(ours)
        theirs[40] = 9
        assert (explained(ours, theirs, rules, block=0)[0] is None) == excused


def map_page(bits: int, lsn: int = 0x500) -> bytearray:
    page = bytearray(BLOCK_BYTES)
    struct.pack_into("<IIHHHHHHI", page, 0, 0, lsn, 0, 0, 24, 8192, 8192, 8196, 0)
    page[30] = bits
    return page


def test_visibility_maps_may_lose_bits_for_named_reasons_only() -> None:
    copied = Rules("primary", copied_databases=frozenset({5}))
    other = Rules("primary", copied_databases=frozenset({6}))
    loaded = Rules("primary", backup_under_load=True)

    def differs(ours: bytearray, theirs: bytearray, rules: Rules) -> bool:
        return explained(ours, theirs, rules, Fork.VM, 0)[0] is not None

    for rules in (PRIMARY, STANDBY, other):
        assert differs(map_page(1), map_page(3), rules)
    for rules in (copied, loaded):
        assert not differs(map_page(1), map_page(3), rules)
        assert differs(map_page(3), map_page(1), rules)
    assert not differs(map_page(1, 0x400), map_page(3, 0x500), copied)
    assert differs(map_page(1, 0x500), map_page(3, 0x400), copied)
    assert not differs(map_page(3), map_page(1), LOADED)


def test_brin_revmap_of_a_copied_database() -> None:
    copied = Rules("primary", copied_databases=frozenset({5}))
    special = struct.pack("<HHHH", 0, 0, 0, 0xF092)
    theirs = index_page(special)
    theirs[28:400] = b"\x07" * 372
    ours = bytearray(theirs)
    ours[30:60] = bytes(30)
    assert explained(ours, theirs, copied) == (None, {Excuse.COPIED_REVMAP})
    assert explained(ours, theirs, PRIMARY)[0] == 30
    ours[60] = 9
    assert explained(ours, theirs, copied)[0] == 60


def initialised_page(lsn: int = 0) -> bytearray:
    page = bytearray(BLOCK_BYTES)
    struct.pack_into("<IIHHHHHHI", page, 0, 0, lsn, 0, 0, 24, 8192, 8192, 8196, 0)
    return page


def test_pages_that_a_primary_never_logged() -> None:
    zero = bytearray(BLOCK_BYTES)
    assert explained(zero, initialised_page(), PRIMARY) == (None, {Excuse.INITIALISED})
    assert explained(zero, initialised_page(), STANDBY)[0] is not None
    assert explained(zero, initialised_page(0x500), PRIMARY)[0] is not None
    assert explained(initialised_page(), zero, PRIMARY)[0] is not None
    assert explained(zero, heap_page(lsn=0), PRIMARY)[0] is not None


@pytest.mark.parametrize(
    ("page", "fork", "excuse"),
    [
        (bytearray(BLOCK_BYTES), Fork.MAIN, Excuse.ZERO_TAIL),
        (initialised_page(), Fork.MAIN, Excuse.INITIALISED),
        (heap_page(), Fork.MAIN, None),
        (bytearray(BLOCK_BYTES), Fork.VM, Excuse.EMPTY_VM),
        (map_page(0, 0), Fork.VM, Excuse.EMPTY_VM),
        (map_page(1, 0), Fork.VM, None),
    ],
)
def test_blocks_beyond_our_size(page: bytearray, fork: Fork, excuse: Excuse | None) -> None:
    assert excuse_absent_block(bytes(page), fork, PRIMARY) == excuse
    assert excuse_absent_block(bytes(page), fork, STANDBY) is None


def other_special(kind: str, flags: int) -> bytes:
    if kind == "hash":
        return struct.pack("<IIIHH", 0, 0, 0, flags, 0xFF80)
    if kind == "gist":
        return struct.pack("<QIHH", 0, 0, flags, 0xFF81)
    if kind == "gin":
        return struct.pack("<IHH", 0, 0, flags)
    return struct.pack("<HHHH", 0, 0, flags, 0xF093)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs", "mask"),
    [
        ("hash", 0x02, 0x82, Mask.HASH_DEAD),
        ("gist", 0x01, 0x11, Mask.GIST_FLAGS),
        ("gist", 0x01, 0x09, Mask.GIST_FLAGS),
        ("brin", 0x00, 0x01, Mask.BRIN_EVACUATE),
        ("hash", 0x02, 0x12, None),
        ("gist", 0x01, 0x03, None),
        ("gin", 0x02, 0x06, None),
        ("brin", 0x00, 0x02, None),
    ],
)
def test_flags_of_other_access_methods(
    kind: str, ours: int, theirs: int, mask: Mask | None
) -> None:
    offset, used = explained(
        index_page(other_special(kind, ours)), index_page(other_special(kind, theirs)), PRIMARY
    )
    assert (offset is None) == (mask is not None)
    assert used == ({mask} if mask else set())


@pytest.mark.parametrize(
    ("ours", "theirs", "rules", "excuse"),
    [
        (0x05, 0x01, PRIMARY, Excuse.GIST_DELETED),
        (0x05, 0x01, STANDBY, None),
        (0x01, 0x05, PRIMARY, None),
    ],
)
def test_deletion_is_noted_in_a_gist_leaf_by_redo_alone(
    ours: int, theirs: int, rules: Rules, excuse: Excuse | None
) -> None:
    offset, used = explained(
        index_page(other_special("gist", ours)), index_page(other_special("gist", theirs)), rules
    )
    assert (offset is None) == (excuse is not None)
    assert used == ({excuse} if excuse else set())


@pytest.mark.parametrize(
    ("kind", "flags", "mask"),
    [
        ("hash", 0x00, Mask.HASH_UNUSED),
        ("gin", 0x04, Mask.GIN_DELETED),
        ("hash", 0x02, None),
        ("gin", 0x02, None),
    ],
)
def test_contents_of_pages_without_meaning(kind: str, flags: int, mask: Mask | None) -> None:
    page = index_page(other_special(kind, flags))
    theirs = bytearray(page)
    theirs[8170] ^= 0xFF
    assert explained(page, theirs) == ((None, {mask}) if mask else (8170, set()))
