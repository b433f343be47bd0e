"""What records change beside the blocks they name: visibility map bits and transaction status."""

import struct

import pytest

from engine import index_rebuild
from formats.chunk import relation as relation_key
from formats.errors import CorruptionError
from tests.fixtures.small_store import REL, SmallStore, create, heap_page, image, truncate
from tests.fixtures.wal_builder import PAGE, Image, Record, Reference

MAP_BLOCKS = 32672
FULL_MAP = heap_page(0)[:24] + b"\xff" * (PAGE - 24)
INSERT, DELETE, UPDATE, LOCK = 0x00, 0x10, 0x20, 0x60
MULTI_INSERT, LOCK_UPDATED = 0x50, 0x60
COMMIT, ABORT, COMMIT_PREPARED, ABORT_PREPARED = 0x00, 0x20, 0x30, 0x40
HAS_INFO = 0x80
MAIN, FSM, VM = range(3)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


@pytest.fixture
def small(tmp_path):
    """A relation whose map says of every block that it is visible and frozen."""
    return SmallStore(tmp_path, [
        (relation_key(*REL, MAIN), [heap_page(1)]),
        (relation_key(*REL, VM), [FULL_MAP, FULL_MAP]),
    ])  # fmt: skip


def cleared(small: SmallStore, lsn: int) -> dict[int, int]:
    """Heap block -> the bits of it that are clear."""
    found = {}
    for map_block in range(small.store.nblocks(*REL, VM, lsn)):
        page = small.page(map_block, lsn, fork=VM)
        for pos in range(24, PAGE):
            for i in range(4):
                if bits := 3 & ~(page[pos] >> 2 * i):
                    found[map_block * MAP_BLOCKS + 4 * (pos - 24) + i] = bits
    return found


def heap(info: int, main: bytes, *blocks: int, rmgr: int = 10, map_ids=()) -> Record:
    """References 0.. are heap blocks; `map_ids` are references to map page 0."""
    references = [Reference(i, REL, block) for i, block in enumerate(blocks)]
    references += [Reference(i, REL, 0, VM) for i in map_ids]
    return Record(rmgr, info, 700, main, references)


def target(flags: int) -> bytes:
    """DELETE, LOCK, UPDATE and LOCK_UPDATED begin alike."""
    return struct.pack("<IHBB", 700, 1, 0, flags) + bytes(6)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (heap(INSERT, struct.pack("<HB", 1, 1), 7), {7: 3}),
        (heap(INSERT, struct.pack("<HB", 1, 0), 7), {}),
        (heap(INSERT | 0x80, struct.pack("<HB", 1, 1), 7), {7: 3}),
        (heap(DELETE, target(1), 9), {9: 3}),
        (heap(LOCK, target(1), 9), {9: 2}),
        (heap(LOCK, target(0), 9), {}),
        (heap(UPDATE, target(1), 9), {9: 3}),
        (heap(UPDATE, target(3), 9), {9: 3}),
        (heap(UPDATE, target(1), 9, 11), {11: 3}),
        (heap(UPDATE, target(2), 9, 11), {9: 3}),
        (heap(UPDATE, target(3), 9, 11), {9: 3, 11: 3}),
        (heap(UPDATE, target(3), MAP_BLOCKS - 1, MAP_BLOCKS),
         {MAP_BLOCKS - 1: 3, MAP_BLOCKS: 3}),
        (heap(0x40, target(3), 9), {9: 3}),
        (heap(MULTI_INSERT, struct.pack("<BxH", 1, 0), MAP_BLOCKS + 5, rmgr=9),
         {MAP_BLOCKS + 5: 3}),
        (heap(LOCK_UPDATED, target(1), 9, rmgr=9), {9: 2}),
    ],
)  # fmt: skip
def test_map_bits_that_a_record_clears_without_naming_the_map(small, record, expected):
    """As heapam_xlog.c does where no map page is registered; whatever becomes of the heap page."""
    end = small.put(record)
    assert cleared(small, end) == expected
    assert cleared(small, end - 1) == {}
    assert small.page(0, end, fork=VM)[:8] == FULL_MAP[:8], "its LSN does not move"


def test_an_image_of_the_heap_page_leaves_the_map_to_be_cleared(small):
    """PostgreSQL clears the map before it looks at the heap page (heap_xlog_delete)."""
    record = heap(DELETE, target(1), 9)
    record.references[0].image = Image(heap_page(4))
    end = small.put(record)
    assert small.mark(9, end) == 4
    assert cleared(small, end) == {9: 3}


def test_a_map_that_does_not_exist_comes_into_being(tmp_path):
    """visibilitymap_pin extends the fork; what it clears was clear."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 1))
    end = small.put(heap(DELETE, target(1), MAP_BLOCKS))
    assert small.store.nblocks(*REL, VM, end) == 2
    assert small.page(1, end, fork=VM) == bytes(PAGE)


def test_truncation_cuts_the_map_and_clears_the_bits_behind(small):
    """visibilitymap_prepare_truncate: the rest of the last page, as the heap may grow again."""
    small.add(image(MAP_BLOCKS + 100, 1))
    within = small.put(truncate(MAP_BLOCKS + 6))
    assert small.store.nblocks(*REL, VM, within) == 2
    assert sorted(cleared(small, within)) == list(range(MAP_BLOCKS + 6, 2 * MAP_BLOCKS))
    boundary = small.put(truncate(MAP_BLOCKS))
    assert small.store.nblocks(*REL, VM, boundary) == 1
    assert cleared(small, boundary) == {}
    regrown = small.put(heap(DELETE, target(1), MAP_BLOCKS + 1))
    assert small.page(1, regrown, fork=VM) == bytes(PAGE)
    short = small.put(truncate(3))
    assert sorted(cleared(small, short)) == list(range(3, MAP_BLOCKS))
    gone = small.put(truncate(0))
    assert small.store.nblocks(*REL, VM, gone) == 0
    assert small.page(0, short - 1, fork=VM)[24:] == FULL_MAP[24:]


def test_truncation_to_more_than_there_is_changes_nothing(small):
    end = small.put(truncate(5_000_000))
    assert small.store.nblocks(*REL, MAIN, end) == 1
    assert small.store.nblocks(*REL, VM, end) == 2
    assert cleared(small, end) == {}


# --- transactions ---------------------------------------------------------------------------------


def finish(
    operation: int,
    xid: int,
    *,
    database: bool = False,
    subxids=(),
    relations=(),
    stats: int | None = None,
    invalidations: int = 0,
    prepared_xid: int = 0,
    origin: bool = False,
    major: int = 18,
) -> Record:
    """A COMMIT or ABORT with everything that xact.h lets it have."""
    xinfo = (
        database | bool(subxids) << 1 | bool(relations) << 2 | bool(invalidations) << 3
        | bool(prepared_xid) << 4 | origin << 5 | (stats is not None) << 8
    )  # fmt: skip
    main = bytes(8)
    if xinfo:
        main += struct.pack("<I", xinfo)
    if database:
        main += struct.pack("<II", 5, 1663)
    if subxids:
        main += struct.pack(f"<i{len(subxids)}I", len(subxids), *subxids)
    if relations:
        main += struct.pack("<i", len(relations))
        main += b"".join(struct.pack("<III", *relation) for relation in relations)
    if stats is not None:
        main += struct.pack("<i", stats) + b"\x77" * stats * (16 if major >= 18 else 12)
    if invalidations:
        main += struct.pack("<i", invalidations) + b"\x55" * 16 * invalidations
    if prepared_xid:
        main += struct.pack("<I", prepared_xid)
    if origin:
        main += bytes(16)
    return Record(1, operation | (HAS_INFO if xinfo else 0), xid, main)


def statuses(small: SmallStore, lsn: int, xids) -> list[int]:
    segments = {key[1] for key in small.store.slru_segments(lsn) if key[0] == 0}
    found = []
    for xid in xids:
        segment, rest = divmod(xid, 32 * 32768)
        data = small.store.slru_segment(0, segment, lsn) if segment in segments else b""
        found.append(data[rest // 4] >> rest % 4 * 2 & 3 if rest // 4 < len(data) else 0)
    return found


@pytest.mark.parametrize("major", [15, 18])
@pytest.mark.parametrize(("operation", "status"), [(COMMIT, 1), (ABORT, 2)])
@pytest.mark.parametrize("origin", [False, True])
def test_a_transaction_and_its_subtransactions(tmp_path, major, operation, status, origin):
    small = SmallStore(tmp_path, major=major)
    subxids = [703, 704, 32767, 32768, 40000, 65535, 1 << 20]
    end = small.put(finish(operation, 700, subxids=subxids, database=True, origin=origin,
                           stats=3, major=major))  # fmt: skip
    assert statuses(small, end, [699, 700, 701, 702, *subxids, 705]) == (
        [0, status, 0, 0] + [status] * len(subxids) + [0]
    )


@pytest.mark.parametrize("major", [15, 18])
@pytest.mark.parametrize(
    ("operation", "status"), [(COMMIT_PREPARED, 1), (ABORT_PREPARED, 2), (COMMIT, 1), (ABORT, 2)]
)
def test_relations_go_with_every_kind_of_end(tmp_path, major, operation, status):
    """Their forks, too; the layout between them and the prepared xid differs by version."""
    small = SmallStore(tmp_path, major=major)
    small.add(create(), image(0, 1), create(fork=VM), create(fork=3))
    other = (1663, 5, 99)
    small.put(create(other))
    prepared = operation in (COMMIT_PREPARED, ABORT_PREPARED)
    end = small.put(finish(
        operation, 0 if prepared else 900, subxids=[901], relations=[REL], stats=2, major=major,
        database=True, invalidations=5 if status == 1 else 0, prepared_xid=900 if prepared else 0,
    ))  # fmt: skip
    assert statuses(small, end, [900, 901, 902]) == [status, status, 0]
    assert [small.store.exists(*REL, fork, end) for fork in range(4)] == [False] * 4
    assert [small.store.exists(*REL, fork, end - 1) for fork in (0, 2, 3)] == [True] * 3
    assert small.store.exists(*other, 0, end)


def test_subtransactions_around_the_wrap(tmp_path):
    """They ascend modulo 2^32."""
    small = SmallStore(tmp_path)
    end = small.put(finish(COMMIT, 0xFFFFFFFE, subxids=[0xFFFFFFFF, 3, 4]))
    assert statuses(small, end, [0xFFFFFFFD, 0xFFFFFFFE, 0xFFFFFFFF, 3, 4, 5]) == [0, 1, 1, 1, 1, 0]


def test_many_subtransactions(tmp_path):
    small = SmallStore(tmp_path)
    subxids = range(701, 701 + 100_000)
    end = small.put(finish(COMMIT, 700, subxids=subxids))
    assert set(statuses(small, end, range(700, 700 + 100_001, 997))) == {1}


def test_a_cut_off_transaction_is_an_error(tmp_path):
    small = SmallStore(tmp_path)
    main = bytes(8) + struct.pack("<Ii", 2, 1000) + bytes(8)
    small.add(Record(1, HAS_INFO, 700, main))
    with pytest.raises(CorruptionError, match="cut off"):
        small.ingest()


# --- relations that records bring into being ------------------------------------------------------


def test_a_relation_that_only_a_reference_tells_of(tmp_path):
    """Its earlier life is over: PostgreSQL's redo would find an empty file."""
    small = SmallStore(tmp_path)
    first = small.put(create(), image(4, 1))
    gone = small.put(finish(COMMIT, 800, relations=[REL]))
    again = small.put(image(2, 7))
    grown = small.put(image(5, 8))
    assert [small.store.nblocks(*REL, 0, lsn) for lsn in (first, again, grown)] == [5, 3, 6]
    assert not small.store.exists(*REL, 0, gone)
    assert small.mark(2, again) == 7
    assert small.page(4, grown) == bytes(PAGE)
    assert small.mark(4, first) == 1


def test_blocks_around_two_gigabytes(tmp_path):
    """Segment 2, and block numbers above 2^31: nothing wraps."""
    small = SmallStore(tmp_path)
    blocks = [131071, 131072, 262143, 262144, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFD]
    end = small.put(create(), *(image(block, 10 + i) for i, block in enumerate(blocks)))
    for _ in range(2):
        assert [small.mark(block, end) for block in blocks] == list(range(10, 17))
        assert small.store.nblocks(*REL, 0, end) == 0xFFFFFFFE
        small.flush()
        small.reopen()
