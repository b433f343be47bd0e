"""When a page of pg_multixact/offsets begins, in WAL of both generations of minor releases.

The expectations are what multixact_redo and RecordNewMultiXact (multixact.c, 15.18 and 18.6) do.
"""

import struct

import pytest

from engine import index_rebuild
from formats import chunk
from formats.chunk import Slru
from tests.fixtures.small_store import SmallStore
from tests.fixtures.wal_builder import PAGE, Record

OFFSETS = Slru.MULTIXACT_OFFSETS
LAST_PAGE = 0xFFFFFFFF // 2048


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def begins(page: int) -> Record:
    return Record(6, 0x00, main=struct.pack("<q", page))


def multixact(multi: int, offset: int, count: int = 2) -> Record:
    members = b"".join(struct.pack("<Ii", 700 + i, 1) for i in range(count))
    return Record(6, 0x20, 700, struct.pack("<IIi", multi, offset, count) + members)


def small_store(tmp_path, pages: int) -> SmallStore:
    """A base backup that has so many pages of offsets, each full of fives."""
    return SmallStore(
        tmp_path,
        [(chunk.slru(OFFSETS, 0), [b"\x05" * PAGE] * pages)] if pages else [],
        fill=lambda store: store.add_file("PG_VERSION", b"18\n"),
    )


def page_of(small: SmallStore, page: int, lsn: int) -> dict[int, int]:
    """What in a page is not zero, by its index."""
    segment, block = divmod(page, 32)
    content = small.store.slru_segment(OFFSETS, segment, lsn)[block * PAGE : (block + 1) * PAGE]
    return {index: value for index, (value,) in enumerate(struct.iter_unpack("<I", content))
            if value}  # fmt: skip


def test_a_page_that_the_base_backup_has_begins_anew(tmp_path):
    """The backup may have taken it later than the record was written, or it may be an old one."""
    small = small_store(tmp_path, 2)
    assert page_of(small, 1, small.put(begins(1))) == {}


def test_a_page_of_the_base_backup_is_begun_early_behind_one_that_wal_began(tmp_path):
    """Older WAL: the record of page 1 comes behind the multixact that writes its first entry."""
    small = small_store(tmp_path, 2)
    small.add(begins(0), multixact(2046, 11))
    early = small.put(multixact(2047, 13))
    assert page_of(small, 0, early) == {2046: 11, 2047: 13}
    assert page_of(small, 1, early) == {0: 15}
    assert page_of(small, 1, small.put(begins(1))) == {0: 15}
    assert page_of(small, 1, small.put(multixact(2048, 15))) == {0: 15, 1: 17}


def test_without_an_earlier_page_in_wal_one_that_exists_is_kept(tmp_path):
    """The first crossing after the base backup: whether the page is there decides."""
    small = small_store(tmp_path, 2)
    crossed = page_of(small, 1, small.put(multixact(2047, 13)))
    assert crossed[0] == 15
    assert len(crossed) == 2048


def test_without_an_earlier_page_in_wal_one_that_is_missing_is_begun(tmp_path):
    small = small_store(tmp_path, 1)
    assert page_of(small, 1, small.put(multixact(2047, 13))) == {0: 15}


@pytest.mark.parametrize("restart", [False, True])
def test_newer_wal_begins_the_page_first(tmp_path, restart):
    """A page that began in time is not begun again by the multixact that reaches it."""
    small = small_store(tmp_path, 1)
    small.add(begins(1), multixact(2048, 20))
    small.ingest()
    if restart:
        small.flush()
        small.reopen()
    end = small.put(multixact(2047, 18))  # two backends: the later multixact was logged first
    assert page_of(small, 1, end) == {0: 20, 1: 22}


@pytest.mark.parametrize("restart", [False, True])
def test_around_the_wrap(tmp_path, restart):
    """The last multixact is followed by 1, in a page that is begun early for it."""
    small = small_store(tmp_path, 0)
    small.add(begins(LAST_PAGE), multixact(0xFFFFFFFE, 11))
    early = small.put(multixact(0xFFFFFFFF, 0xFFFFFFFE, 3))
    if restart:
        small.flush()
        small.reopen()
    assert page_of(small, 0, early) == {1: 1}
    assert page_of(small, 0, small.put(begins(0))) == {1: 1}
    assert page_of(small, LAST_PAGE, early) == {2046: 11, 2047: 0xFFFFFFFE}


def test_only_one_record_is_passed_over(tmp_path):
    """Any other multixact ends the waiting for the page's own record."""
    small = small_store(tmp_path, 1)
    small.add(begins(0), multixact(2047, 13), multixact(2048, 15))
    assert page_of(small, 1, small.put(begins(1))) == {}


def test_a_page_that_is_missing_is_not_begun_by_its_own_multixact(tmp_path):
    """It reads as zeros, as in PostgreSQL; its record zeroes it whenever it comes."""
    small = small_store(tmp_path, 1)
    found = small.put(multixact(4100, 30))
    assert page_of(small, 2, found) == {4: 30, 5: 32}
    assert page_of(small, 2, small.put(begins(2))) == {}
