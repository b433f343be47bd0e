"""Ingest step by step: what may be frozen, records of any size, pages that cannot be made."""

import struct
import threading

import pytest

from engine import index_rebuild, version_store, wal_ingest
from engine.compaction_policy import Policy
from formats import page as pages
from formats.chunk import relation as relation_key
from formats.errors import CorruptionError
from tests.fixtures.small_store import (
    REL,
    SmallStore,
    create,
    drop,
    heap_page,
    image,
    insert,
    truncate,
)
from tests.fixtures.wal_builder import Record, Reference

HEAP_LOCK, HEAP_INSERT_INFO = 0x60, 0x00


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def copy_database(source: int, target: int) -> Record:
    return Record(4, 0x00, main=struct.pack("<4I", target, 1663, source, 1663))


def bad_record() -> Record:
    """A truncation that is cut off, which only ingest notices."""
    return Record(2, 0x20, main=bytes(6))


def within(seconds: float, act) -> None:
    """Run what may hang."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  (it is raised again below)
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


@pytest.mark.parametrize("length", [300_000, 9_000_000])
def test_a_record_larger_than_a_memtable_that_changes_nothing(tmp_path, length):
    """pg_logical_emit_message: 64 MB of budget make a memtable of 7 MB."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10), Record(21, 0, main=bytes(length)))
    end = small.add(image(0, 11))
    within(20, small.ingest)
    assert small.mark(0, end) == 11


def test_a_commit_with_many_invalidations(tmp_path):
    """16 bytes each, and hundreds for each table that is dropped."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10))
    main = bytes(8) + struct.pack("<Ii3I", 4 | 8, 1, *REL) + struct.pack("<i", 100_000)
    end = small.add(Record(1, 0x80, 800, main + bytes(1_600_000)))
    within(20, small.ingest)
    assert not small.store.exists(*REL, 0, end)


def test_dropping_a_database_beside_many_relations(tmp_path):
    """The room it needs is that of its own relations."""
    small = SmallStore(tmp_path)
    with small.store.versions.lock:
        for rel in range(30_000):
            small.store.table.intern(1, 1663, 6, rel, 0, 0)
    small.add(create(), image(0, 10))
    end = small.add(Record(4, 0x20, main=struct.pack("<IiI", 5, 1, 1663)))
    within(20, small.ingest)
    assert not small.store.exists(*REL, 0, end)
    assert small.store.exists(*REL, 0, end - 1)


def test_a_record_that_no_memtable_can_hold_is_an_error(tmp_path):
    """Never an endless search for an empty one."""
    small = SmallStore(tmp_path)
    relations = [(1663, 5, rel) for rel in range(20_000)]
    for relation in relations:
        small.add(create(relation))
    small.ingest()
    small.add(drop(*relations))
    with pytest.raises(CorruptionError, match="memory_bytes_max"):
        within(20, small.ingest)


def test_nothing_above_the_ready_lsn_is_flushed_after_a_bad_record(tmp_path):
    """The records before it in its step, and the half of it that was taken, stay in memory.

    Were they flushed, the sizes in the index would be of a time above the durable LSN, and a start
    would ingest the same records again over them.
    """
    small = SmallStore(tmp_path)
    first = small.put(create(), *(image(block, 10 + block) for block in range(50)))
    assert small.flush() == first
    second = small.add(image(60, 60))
    third = small.add(truncate(0))
    small.add(bad_record())
    with pytest.raises(CorruptionError):
        small.ingest()
    assert small.store.ready_lsn == third
    assert small.store.nblocks(*REL, 0, second) == 61
    small.flush()
    with pytest.raises(CorruptionError):
        small.reopen()
    assert small.store.ready_lsn == third
    assert small.store.nblocks(*REL, 0, second) == 61
    assert small.mark(40, second) == 50
    assert small.mark(60, second) == 60


def test_a_freeze_in_the_middle_of_a_database_copy(tmp_path):
    """The flush thread freezes when it likes: what it freezes ends at the ready LSN."""
    small = SmallStore(tmp_path, [(relation_key(*REL, 0), [heap_page(1), heap_page(2)])])
    small.add(image(0, 10), image(7, 17))
    truncated = small.add(truncate(1))
    copied = small.add(copy_database(5, 9))
    real = small.store._wal.copy_database
    frozen = []

    def copy(*arguments):
        small.store.freeze()
        real(*arguments)
        small.store.freeze()
        for memtable in small.store.versions.frozen:
            lsns = memtable.entry_lsn[1 : memtable.entry_count + 1]
            frozen.append(max(lsns) <= memtable.lsn_end)

    small.store._wal.copy_database = copy
    small.ingest()
    assert frozen == [True]
    while small.store.flush_step():
        pass
    small.reopen()
    assert small.mark(0, copied, (1663, 9, REL[2])) == 10
    assert small.store.nblocks(1663, 9, REL[2], 0, copied) == 1
    assert small.store.nblocks(*REL, 0, truncated - 1) == 8


def unreadable(block: int, relation=REL) -> Record:
    """A record of an extension's resource manager, for which there is no redo."""
    return Record(200, 0x20, references=[Reference(0, relation, block, data=b"x")])


def lock(block: int) -> Record:
    """HEAP_LOCK of a tuple that is not there: redo refuses it."""
    main = struct.pack("<IHBB", 700, 1, 0, 0)
    return Record(10, HEAP_LOCK, 700, main, [Reference(0, REL, block)])


def test_a_hot_page_that_cannot_be_made_stops_nothing(tmp_path):
    """Invariant 9: its reads fail, the others go on."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10), image(1, 11))
    small.add(*(lock(0) for _ in range(600)))
    end = small.add(image(1, 12))
    small.ingest()
    assert small.mark(1, end) == 12
    with pytest.raises(LookupError, match="do not fit"):
        small.page(0, end)


def test_a_record_without_redo_makes_its_page_unreadable(tmp_path):
    """Invariant 10: an error that names the resource manager, never a stale page."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10), image(1, 11))
    before = small.add(image(2, 12))
    end = small.put(unreadable(1))
    for _ in range(2):
        assert [small.mark(block, end) for block in (0, 2)] == [10, 12]
        assert small.mark(1, before) == 11
        with pytest.raises(LookupError, match="custom200"):
            small.page(1, end)
        small.flush()
        small.reopen()
    repaired = small.put(image(1, 21))
    assert small.mark(1, repaired) == 21


def test_pages_that_get_hot_together_become_images_together(tmp_path, monkeypatch):
    """Also when there are more of them than are read at once, and one cannot be made."""
    monkeypatch.setattr(version_store, "HOT_RECORDS", 4)
    monkeypatch.setattr(wal_ingest, "HOT_PAGES_PER_READ", 3)
    small = SmallStore(tmp_path)
    small.add(create(), *(image(block, 10 + block) for block in range(9)))
    for number in range(1, 7):
        small.add(*(insert(block, number) for block in range(8)), lock(8))
    end = small.add(image(9, 19))
    small.ingest()
    wal = small.store._wal
    assert (wal.hot_images, wal.hot_failures) == (8, 1)
    for block in range(8):
        assert pages.max_offset(memoryview(bytearray(small.page(block, end)))) == 6
    with pytest.raises(LookupError, match="do not fit"):
        small.page(8, end)


def test_a_copied_database_with_an_unreadable_page(tmp_path):
    """Invariant 10: the copy of that page is unreadable as well, all else is copied."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10), image(1, 11), image(2, 12), unreadable(1))
    copied = small.add(copy_database(5, 9))
    end = small.add(image(4, 14))
    target = (1663, 9, REL[2])
    small.ingest()
    for _ in range(2):
        assert [small.mark(block, end, target) for block in (0, 2)] == [10, 12]
        assert small.store.nblocks(*target, 0, copied) == 3
        with pytest.raises(LookupError, match="no redo"):
            small.page(1, end, target)
        assert small.mark(4, end) == 14
        small.flush()
        small.reopen()
    small.store.compactor.policy = Policy(l0_bundles_merged_min=1)
    while small.store.compact_step():
        pass
    assert not small.store.layers.map.l0
    with pytest.raises(LookupError, match="no redo"):
        small.page(1, small.put(image(0, 30, target)), target)
    repaired = small.put(image(1, 21, target))
    assert small.mark(1, repaired, target) == 21


def test_a_copied_database_waits_for_the_journal(tmp_path):
    """Layers never hold what the journal may still lose."""
    small = SmallStore(tmp_path)
    small.add(create(), image(0, 10))
    copied = small.add(copy_database(5, 9))
    journal = small.store.journal
    journal.append(small.fed, bytes(small.wal.data))
    synced, journal.flushed_lsn = small.wal.lsn, small.wal.start
    thread = threading.Thread(target=small.store.ingest_step, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert small.store.ready_lsn < copied
    assert not small.store.manifest.state.durable_lsn > small.wal.start
    journal.flushed_lsn = synced
    thread.join(20)
    assert small.mark(0, copied, (1663, 9, REL[2])) == 10


def test_a_kill_between_a_copy_and_its_flush(tmp_path):
    """The copied layers are there, nothing else says so; the record is ingested again."""
    small = SmallStore(tmp_path, [(relation_key(*REL, 0), [heap_page(1), heap_page(2)])])
    target = (1663, 9, REL[2])
    start = small.put(image(0, 10))
    copied = small.put(copy_database(5, 9))
    changed = small.put(image(1, 21, target), image(0, 11))
    for _ in range(3):
        small.reopen()
        assert not small.store.exists(*target, 0, start)
        assert [small.mark(block, copied, target) for block in (0, 1)] == [10, 2]
        assert [small.mark(block, changed, target) for block in (0, 1)] == [10, 21]
        assert small.mark(0, changed) == 11
    small.flush()
    gone = small.put(Record(4, 0x20, main=struct.pack("<IiI", 9, 1, 1663)))
    again = small.put(copy_database(5, 9))
    for _ in range(2):
        assert not small.store.exists(*target, 0, gone)
        assert [small.mark(block, again, target) for block in (0, 1)] == [11, 2]
        assert [small.mark(block, changed, target) for block in (0, 1)] == [10, 21]
        small.flush()
        small.reopen()


@pytest.mark.parametrize("codec", [8, 16], ids=["lz4", "zstd"])
def test_an_image_that_claims_to_be_huge_is_an_error(codec):
    """The zstd library makes room for what the frame itself claims, whatever it is allowed to."""
    claims = bytes.fromhex("28b52ffde0") + (1 << 62).to_bytes(8, "little") + b"\1\0\0"
    with pytest.raises(ValueError, match="page image"):
        wal_ingest.decompress_image(codec, memoryview(claims), 0, len(claims), 8192)
