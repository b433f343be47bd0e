"""Records that create, truncate, drop or copy files, and what they leave to read."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import index_rebuild
from engine.cluster_records import fsm_blocks_after_truncate
from engine.slru_records import precedes
from formats.control_file import parse_control_file
from formats.errors import CorruptionError
from tests.fixtures.small_store import (
    REL,
    SmallStore,
    control_file,
    create,
    heap_page,
    image,
    mark_of,
    truncate,
)
from tests.fixtures.wal_builder import Image, Record, Reference

XACT, MEMBERS, OFFSETS = range(3)
MAP_BLOCKS = 32672


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def parameter_change(wal_level: int = 1, wal_log_hints: bool = False) -> Record:
    main = struct.pack("<6i2?", 200, 8, 10, 0, 64, wal_level, wal_log_hints, False)
    return Record(0, 0x60, main=main)


def visible(heap_block: int) -> Record:
    """HEAP2 VISIBLE: map page and heap page, no images."""
    main = struct.pack("<IB", 700, 1)
    references = [
        Reference(0, REL, heap_block // MAP_BLOCKS, 2),
        Reference(1, REL, heap_block, 0),
    ]
    return Record(9, 0x40, 700, main, references)


@pytest.mark.parametrize("major", [15, 18])
def test_wal_log_hints_is_followed_by_lsn_and_through_a_start(tmp_path, major):
    """It decides whether setting a page all-visible moves its LSN."""
    control = control_file(major, checksums=False)
    small = SmallStore(tmp_path, major=major, control=control)
    small.add(create(), create(fork=2), image(1, 11))
    written = small.put(image(0, 10))
    off = small.put(visible(0))
    changed = small.put(parameter_change(wal_log_hints=True))
    assert lsn_of(small.page(0, off)) == written
    for _ in range(2):
        on = small.put(visible(1))
        assert lsn_of(small.page(1, on)) == on
        assert lsn_of(small.page(0, on)) == written
        for lsn, hints in ((off, False), (changed, True)):
            now = parse_control_file(small.store.file("global/pg_control", lsn))
            assert now.wal_log_hints is hints
        small.flush()
        small.reopen()
        small.put(image(1, 12))


def lsn_of(page: bytes) -> int:
    high, low = struct.unpack_from("<II", page)
    return high << 32 | low


def test_wal_level_minimal_is_refused(tmp_path):
    small = SmallStore(tmp_path)
    small.add(parameter_change(wal_level=0))
    with pytest.raises(CorruptionError, match="take a new base backup"):
        small.ingest()


def test_a_fork_that_is_there_is_not_made_again(tmp_path):
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10))
    end = small.put(create())
    assert small.store.nblocks(*REL, 0, end) == 1
    assert mark_of(small.page(0, end)) == 10


def test_a_truncation_makes_the_relation(tmp_path):
    """Of one that is dropped later (smgr_redo), whatever the flags; its other forks it leaves."""
    small = SmallStore(tmp_path)
    end = small.put(truncate(5, flags=6))
    assert small.store.nblocks(*REL, 0, end) == 0
    assert not any(small.store.exists(*REL, fork, end) for fork in (1, 2, 3))


@pytest.mark.parametrize(
    ("flags", "sizes"), [(1, [2, 5, 1]), (2, [6, 5, 1]), (4, [6, 3, 1]), (7, [2, 3, 1])]
)
def test_a_truncation_takes_the_forks_that_its_flags_name(tmp_path, flags, sizes):
    small = SmallStore(tmp_path)
    small.add(*(create(fork=fork) for fork in (0, 1, 2)))
    small.add(image(5, 1), image(4, 1, fork=1), image(0, 1, fork=2))
    small.add(visible(0), visible(4))
    before = small.put(visible(5))
    end = small.put(truncate(2, flags=flags))
    assert [small.store.nblocks(*REL, fork, end) for fork in (0, 1, 2)] == sizes
    bits = [small.page(0, lsn, fork=2)[25] for lsn in (before, end)]
    assert bits == [0x05, 0 if flags & 2 else 0x05]


def test_a_hint_without_an_image_changes_nothing(tmp_path):
    """As logged with full_page_writes off; an image that is not to be applied is none, either."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10))
    before = small.put(image(1, 11))
    unapplied = Reference(0, REL, 1, image=Image(heap_page(13), info=0))
    small.add(Record(0, 0xA0, references=[Reference(0, REL, 0)]))
    end = small.put(Record(0, 0xA0, references=[unapplied]))
    assert [small.page(block, end) for block in (0, 1)] == [
        small.page(block, before) for block in (0, 1)
    ]


@pytest.mark.parametrize("info", [0x20, 0x30, 0x50, 0x70, 0x80, 0x90, 0xE0])
def test_xlog_records_that_change_nothing(tmp_path, info):
    """NOOP, NEXTOID, BACKUP_END, RESTORE_POINT, FPW_CHANGE, END_OF_RECOVERY, CHECKPOINT_REDO."""
    small = SmallStore(tmp_path)
    small.add(create())
    before = small.put(image(0, 10))
    end = small.put(Record(0, info, main=bytes(range(1, 90))))
    assert small.store.files(end) == small.store.files(before)
    control = small.store.file("global/pg_control", before)
    assert small.store.file("global/pg_control", end) == control
    assert small.page(0, end) == small.page(0, before)
    assert list(small.store.relations(end)) == list(small.store.relations(before))
    assert segments(small, XACT, end) == []


# --- free space map arithmetic --------------------------------------------------------------------


def fsm_pages_in_order(heap_pages_max: int):
    """The map's pages as they lie in the file: (level, number), leaves last, depth first."""
    leaves = -(-heap_pages_max // 4069)
    yield (2, 0)
    for middle in range(-(-leaves // 4069)):
        yield (1, middle)
        for leaf in range(middle * 4069, min((middle + 1) * 4069, leaves)):
            yield (0, leaf)


FSM_PLACE = {page: place for place, page in enumerate(fsm_pages_in_order(4069 * 4069 * 3))}


@given(st.one_of(st.integers(0, 20), st.integers(0, 4069 * 4069 * 2)), st.integers(-1, 1))
def test_free_space_map_pages_that_a_truncation_keeps(leaf_blocks, shift):
    """All pages up to the leaf with the first removed slot, that leaf too if it keeps slots."""
    for blocks in (leaf_blocks, max(0, leaf_blocks // 4069 * 4069 + shift)):
        leaf, slot = divmod(blocks, 4069)
        expected = FSM_PLACE[0, leaf] + (1 if slot else 0)
        if leaf % 4069 == 0 and not slot:  # the middle page before it stays, as in PostgreSQL
            assert FSM_PLACE[1, leaf // 4069] == expected - 1
        assert fsm_blocks_after_truncate(blocks) == expected


# --- SLRU truncation ------------------------------------------------------------------------------


def xid_precedes(a: int, b: int) -> bool:
    """TransactionIdPrecedes, for normal ids."""
    difference = (a - b) & 0xFFFFFFFF
    return difference >= 1 << 31


@given(st.integers(0, 131071), st.integers(0, 131071))
def test_pages_precede_by_all_of_their_transactions(page, cutoff):
    """A page may go only if none of its ids is at or after any of the cutoff page's."""
    ids = [page * 32768 + 4, page * 32768 + 32767]
    if precedes(page, cutoff, 32768):
        assert xid_precedes(ids[0], cutoff * 32768 + 4)
        assert xid_precedes(ids[0], (cutoff * 32768 + 4 + 32767) & 0xFFFFFFFF)
    if 0 < (cutoff - page) % 131072 < 65535:
        assert precedes(page, cutoff, 32768)
    if (page - cutoff) % 131072 <= 65535:
        assert not precedes(page, cutoff, 32768)


def test_half_way_around_no_page_precedes() -> None:
    """Its first id would precede the cutoff page's first one, but follow that page's last one."""
    assert precedes(1, 65536, 32768)
    assert not precedes(0, 65536, 32768)


def slru(rmgr: int, info: int, page: int, major: int) -> Record:
    return Record(rmgr, info, main=struct.pack("<q" if major >= 17 else "<i", page))


def segments(small: SmallStore, kind: int, lsn: int) -> list[int]:
    return [key[1] for key in small.store.slru_segments(lsn) if key[0] == kind]


@pytest.mark.parametrize("major", [15, 18])
def test_transaction_status_is_truncated_by_whole_segments(tmp_path, major):
    small = SmallStore(tmp_path, major=major)
    small.add(*(slru(3, 0x00, page, major) for page in (0, 31, 32, 63, 64, 65, 100)))
    main = struct.pack("<q" if major >= 17 else "<i", 64) + struct.pack("<II", 64 * 32768, 5)
    before = small.wal.lsn
    end = small.put(Record(3, 0x10, main=main))
    assert segments(small, XACT, before) == [0, 1, 2, 3]
    assert segments(small, XACT, end) == [2, 3]
    again = small.put(slru(3, 0x00, 1, major))  # after the ids went once around
    assert small.store.slru_segment(XACT, 0, again) == bytes(2 * 8192)


def test_transaction_status_around_the_wrap(tmp_path):
    """Just before the wrap the old ids are the large ones."""
    small = SmallStore(tmp_path)
    small.add(*(slru(3, 0x00, page, 18) for page in (131000, 131071, 0, 40, 96)))
    main = struct.pack("<qII", 40, 40 * 32768, 5)
    end = small.put(Record(3, 0x10, main=main))
    assert segments(small, XACT, end) == [1, 3]


def multixact(multi: int, offset: int, members: list[tuple[int, int]]) -> Record:
    main = struct.pack("<IIi", multi, offset, len(members))
    main += b"".join(struct.pack("<Ii", *member) for member in members)
    return Record(6, 0x20, 700, main)


def offset_of(small: SmallStore, multi: int, lsn: int) -> int:
    data = small.store.slru_segment(OFFSETS, multi // 2048 // 32, lsn)
    return struct.unpack_from("<I", data, multi % (2048 * 32) * 4)[0]


def member_of(small: SmallStore, offset: int, lsn: int) -> tuple[int, int]:
    page, index = divmod(offset, 1636)
    data = small.store.slru_segment(MEMBERS, page // 32, lsn)
    group = page % 32 * 8192 + index // 4 * 20
    (xid,) = struct.unpack_from("<I", data, group + 4 + index % 4 * 4)
    return xid, data[group + index % 4]


@pytest.mark.parametrize(
    ("multi", "offset", "following", "following_offset"),
    [
        (1, 1, 2, 4),
        (2047, 1635, 2048, 1638),  # both over the end of a page
        (65535, 32 * 1636 - 1, 65536, 32 * 1636 + 2),  # of a segment
        (0xFFFFFFFF, 77, 1, 80),  # ids start again at 1
        (9, 0xFFFFFFFD, 10, 1),  # offset 0 stands for none
        (9, 0xFFFFFFFE, 10, 1),
    ],
)
def test_a_multixact_its_members_and_the_start_of_the_next(
    tmp_path, multi, offset, following, following_offset
):
    small = SmallStore(tmp_path)
    members = [(701, 1), (702, 4), (703, 5)]
    end = small.put(multixact(multi, offset, members))
    assert offset_of(small, multi, end) == offset
    assert offset_of(small, following, end) == following_offset
    found = [member_of(small, (offset + i) % 2**32, end) for i in range(3)]
    assert found == members


def test_multixacts_are_truncated(tmp_path):
    """Offsets by what precedes, members by the range that the record gives, around the wrap."""
    small = SmallStore(tmp_path)
    per_segment = 32 * 1636
    last = 0xFFFFFFFF // per_segment
    small.add(*(slru(6, 0x00, page, 18) for page in (0, 32, 64)))
    small.add(*(slru(6, 0x10, seg * 32, 18) for seg in (last - 1, last, 0, 1, 2)))
    main = struct.pack("<5I", 5, 1, 64 * 2048 + 1, (last - 1) * per_segment, per_segment + 3)
    end = small.put(Record(6, 0x30, main=main))
    assert segments(small, OFFSETS, end) == [2]
    assert segments(small, MEMBERS, end) == [1, 2]
    assert segments(small, MEMBERS, end - 1) == sorted([0, 1, 2, last - 1, last])


@pytest.mark.parametrize(
    ("end", "kept"), [(64 * 2048, [1, 2]), (64 * 2048 + 1, [2]), (1, [0, 1, 2])]
)
def test_offsets_go_before_the_page_of_the_multixact_before(tmp_path, end, kept):
    """PreviousMultiXactId: that page is there even if the next one was never begun."""
    small = SmallStore(tmp_path)
    small.add(*(slru(6, 0x00, page, 18) for page in (0, 32, 64)))
    lsn = small.put(Record(6, 0x30, main=struct.pack("<5I", 5, 1, end, 1, 1)))
    assert segments(small, OFFSETS, lsn) == kept


# --- databases and relation maps ------------------------------------------------------------------


def test_a_dropped_database_goes_in_the_tablespaces_named(tmp_path):
    small = SmallStore(tmp_path)
    elsewhere, other = (99, 5, 20000), (1663, 6, 16384)
    small.add(*(create(relation) for relation in (REL, elsewhere, other)))
    small.add(image(3, 1), Record(4, 0x10, main=struct.pack("<II", 5, 1663)))
    kept = small.put(Record(4, 0x20, main=struct.pack("<IiI", 5, 1, 1663)))
    assert [small.store.exists(*relation, 0, kept) for relation in (REL, elsewhere, other)] == [
        False, True, True,
    ]  # fmt: skip
    assert small.store.files(kept - 1)[-1] == "global/pg_control"
    assert "base/5/PG_VERSION" in small.store.files(kept - 1)
    assert "base/5/PG_VERSION" not in small.store.files(kept)
    gone = small.put(Record(4, 0x20, main=struct.pack("<Ii2I", 5, 2, 1663, 99)))
    assert not small.store.exists(*elsewhere, 0, gone)


def test_a_relation_map_has_a_version_for_each_update(tmp_path):
    small = SmallStore(tmp_path)
    contents = [bytes([n]) * 524 for n in (1, 2)]
    ends = [
        small.put(Record(7, 0x00, main=struct.pack("<IIi", 5, 1663, 524) + content))
        for content in contents
    ]
    shared = small.put(Record(7, 0x00, main=struct.pack("<IIi", 0, 1664, 524) + b"s" * 524))
    for _ in range(2):
        found = [small.store.file("base/5/pg_filenode.map", end) for end in ends]
        assert found == contents
        assert small.store.file("global/pg_filenode.map", shared) == b"s" * 524
        small.flush()
        small.reopen()


@pytest.mark.parametrize("rmgr", [*range(8), 18, 19])
@pytest.mark.parametrize("info", range(0, 0x100, 0x10))
def test_records_that_are_cut_off_are_errors_or_nothing(tmp_path, rmgr, info):
    """Never anything but CorruptionError."""
    small = SmallStore(tmp_path)
    small.add(create(), Record(rmgr, info, 700, b"\xff\xff\xff"))
    with contextlib.suppress(CorruptionError):
        small.ingest()


@pytest.mark.parametrize("rmgr", [3, 6, 18])
@pytest.mark.parametrize("page", [b"\xff" * 8, b"\xff" * 4, b"\0\0\0\x80"])
def test_a_page_number_below_zero_is_an_error(tmp_path, rmgr, page):
    """Of an SLRU; it once came out as an OverflowError, which stops the server."""
    small = SmallStore(tmp_path)
    small.add(create(), Record(rmgr, 0x00, 700, page))
    with contextlib.suppress(CorruptionError):
        small.ingest()
