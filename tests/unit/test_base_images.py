"""Pages of a base backup are fuzzy: what redo may and may not do over them."""

import struct

import pytest

from engine import index_rebuild
from formats import page as pages
from formats.chunk import ChunkKey, ChunkKind
from formats.chunk import relation as relation_key
from tests.fixtures.small_store import REL, SmallStore, create, heap_page, image, insert, truncate
from tests.fixtures.wal_builder import MIB, PAGE, Record, Reference, WalBuilder

MAIN = relation_key(*REL, 0)


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def ends_of(*records: Record) -> list[int]:
    """Where records will end, as the first of a SmallStore's WAL."""
    wal = WalBuilder(16 * MIB, MIB)
    return [wal.add(record) for record in records]


def tuples(page: bytes) -> int:
    return pages.max_offset(memoryview(bytearray(page)))


def page_with(count: int, lsn: int) -> bytes:
    view = memoryview(bytearray(heap_page(0)))
    content = memoryview(bytes(32))
    for _ in range(count):
        pages.add_item(view, content, 0, 32, 0, False, True)
    pages.set_lsn(view, lsn)
    return bytes(view)


def test_a_record_that_the_page_has_already_is_skipped(tmp_path):
    """The page was read when it had the first two of three tuples."""
    records = [insert(0, 1), insert(0, 2), insert(0, 3)]
    ends = ends_of(*records)
    small = SmallStore(tmp_path, [(MAIN, [page_with(2, ends[1])])], backup_bytes=64)
    small.put(*records)
    for _ in range(2):
        page = small.page(0, ends[2])
        assert tuples(page) == 3
        assert pages.lsn(memoryview(bytearray(page))) == ends[2]
        small.flush()
        small.reopen()


@pytest.mark.parametrize(("backup_bytes", "expected"), [(PAGE, 2), (0, 3)])
def test_a_record_that_a_copied_page_has_already_is_skipped(tmp_path, backup_bytes, expected):
    """A database copied by files while the backup lasts gets pages that are ahead of the copy.

    Behind its end nothing is ahead, and records apply whatever the page says.
    """
    copy = Record(4, 0x00, main=struct.pack("<4I", 9, 1663, REL[1], 1663))
    again = insert(0, 3, relation=(1663, 9, REL[2]))
    ends = ends_of(copy, again)
    small = SmallStore(tmp_path, [(MAIN, [page_with(2, ends[1])])], backup_bytes=backup_bytes)
    end = small.put(copy, again, insert(1, 1, init=True))
    for _ in range(2):
        assert tuples(small.page(0, end, (1663, 9, REL[2]))) == expected
        small.flush()
        small.reopen()


def test_a_copied_database_has_nothing_of_what_its_directory_had(tmp_path):
    """Redo of CREATE DATABASE by file copy removes the directory first (dbase_redo)."""
    left, both = (1663, 9, 20000), (1663, 9, REL[2])
    elsewhere = (1700, 9, 20000)
    small = SmallStore(tmp_path, [(MAIN, [page_with(2, 0)])])
    small.add(*(create(relation) for relation in (left, both, elsewhere)))
    before = small.put(image(4, 44, both), image(0, 45, left))
    end = small.put(Record(4, 0x00, main=struct.pack("<4I", 9, 1663, REL[1], 1663)))
    for _ in range(2):
        assert small.store.exists(*left, 0, before)
        assert not small.store.exists(*left, 0, end)
        assert small.store.exists(*elsewhere, 0, end)
        assert small.store.nblocks(*both, 0, end) == 1
        assert tuples(small.page(0, end, both)) == 2
        small.flush()
        small.reopen()


def test_an_image_and_an_init_apply_whatever_the_page_says(tmp_path):
    """XLogReadBufferForRedo looks at no LSN there; and behind them nothing is skipped."""
    future = 16 * MIB + 9 * PAGE
    small = SmallStore(tmp_path, [(MAIN, [page_with(5, future), page_with(5, future)])])
    end = small.put(image(0, 10), insert(1, 1, init=True), insert(1, 2))
    assert end < future
    assert small.mark(0, end) == 10
    assert tuples(small.page(1, end)) == 2


def test_a_map_bit_is_cleared_whatever_the_page_says(tmp_path):
    """heap_xlog_delete clears before it looks at an LSN."""
    full = heap_page(0, 16 * MIB + 9 * PAGE)[:24] + b"\xff" * (PAGE - 24)
    small = SmallStore(tmp_path, [(MAIN, [heap_page(1)] * 8), (relation_key(*REL, 2), [full])])
    main = struct.pack("<IHBB", 700, 1, 0, 1)
    end = small.put(Record(10, 0x10, 700, main, [Reference(0, REL, 6)]))
    assert small.page(0, end, fork=2)[24:26] == b"\xff\xcf"


def test_a_file_that_was_gone_when_the_backup_came_to_it(tmp_path):
    """Records for its pages are legal up to the backup's end, if a drop or truncation follows."""
    small = SmallStore(tmp_path, backup_bytes=2 * PAGE)
    small.add(insert(3, 2))
    small.ingest()
    end = small.put(truncate(1), insert(0, 1, init=True))
    small.add(*(Record(21, 0, main=bytes(200)) for _ in range(100)))
    ready = small.ingest()
    assert ready > small.store.horizon_lsn > end
    for lsn in (small.store.horizon_lsn, ready):
        assert small.store.nblocks(*REL, 0, lsn) == 1
        assert tuples(small.page(0, lsn)) == 1


def test_behind_the_backup_a_page_that_was_never_written_is_an_error(tmp_path):
    small = SmallStore(tmp_path)
    end = small.put(create(), insert(3, 2))
    with pytest.raises(LookupError, match="never written"):
        small.page(3, end)
    assert small.page(2, end) == bytes(PAGE)
    repaired = small.put(image(3, 7))
    assert small.mark(3, repaired) == 7


def test_no_page_is_materialised_before_the_backups_end(tmp_path, monkeypatch):
    """An image would end the fuzziness that the records behind it count on."""
    monkeypatch.setattr("engine.version_store.HOT_RECORDS", 4)
    records = [insert(0, n) for n in range(1, 13)]
    ends = ends_of(*records)
    small = SmallStore(
        tmp_path, [(MAIN, [page_with(12, ends[-1])])], backup_bytes=ends[-1] - 16 * MIB
    )
    for record in records:
        small.put(record)
    assert tuples(small.page(0, ends[-1])) == 12
    more = small.put(*(insert(0, n) for n in range(13, 18)))
    assert tuples(small.page(0, more)) == 17


def test_a_torn_page_is_unreadable_until_it_is_replaced(tmp_path):
    def fill(store):
        store.add_pages(MAIN, 0, heap_page(1) + heap_page(2))
        store.mark_torn(MAIN, 1)
        store.chunk_size(MAIN, 2)

    small = SmallStore(tmp_path, fill=fill)
    end = small.put(create((1663, 5, 1)))
    assert small.mark(0, end) == 1
    with pytest.raises(LookupError, match="torn"):
        small.page(1, end)
    repaired = small.put(image(1, 9))
    assert small.mark(1, repaired) == 9


def test_sizes_are_those_of_the_last_segment(tmp_path):
    """Segments come in any order; a file that was empty exists."""
    empty = (1663, 5, 50)
    small = SmallStore(tmp_path, [
        (ChunkKey(1, *REL, 0, 2), [heap_page(9)]),
        (relation_key(*empty, 0), []),
        (MAIN, [heap_page(1)]),
        (ChunkKey(ChunkKind.SLRU, 0, 0, 0, 0, 3), [b"\x55" * PAGE, bytes(PAGE)]),
    ])  # fmt: skip
    end = small.put(create((1663, 5, 1)))
    for _ in range(2):
        assert small.store.nblocks(*REL, 0, end) == 262145
        assert small.mark(262144, end) == 9
        assert small.page(5, end) == bytes(PAGE)
        assert small.store.nblocks(*empty, 0, end) == 0
        assert small.store.slru_segments(end) == [(0, 3, 2)]
        assert small.store.slru_segment(0, 3, end) == b"\x55" * PAGE + bytes(PAGE)
        small.flush()
        small.reopen()
