"""What readers take of memory: bounded by bytes, and given back."""

import struct
from pathlib import Path

import pytest

from engine import index_rebuild
from engine.page_reader import BATCH_BYTES_MAX
from engine.version_set import VersionSet
from formats import pagestream
from formats.pagestream import GET_PAGE, PageBatch
from tests.fixtures.small_store import REL, SmallStore, create, image, insert
from tests.fixtures.wal_builder import Record, Reference

BLOCKS = 100
PIECE = 7000
RECORD = bytes([8, 0, 0, 0, 0, 0, 0, 0]) + bytes(PIECE)  # a version that needs an older one


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def test_a_set_of_versions_has_a_bound() -> None:
    versions = VersionSet(1000, 8)
    versions.bytes_max = 3 * len(RECORD)
    for lsn in (3, 2, 1):
        assert not versions.push(RECORD, 0, len(RECORD), lsn)
    assert len(versions.data) <= versions.bytes_max
    with pytest.raises(OverflowError, match="one batch"):
        versions.push(RECORD, 0, len(RECORD), 0)
    assert versions.payload(1) == RECORD
    versions.bytes_max = 0
    for lsn in range(100):
        versions.push(RECORD, 0, len(RECORD), lsn)
    assert len(versions.data) >= 100 * len(RECORD)
    versions.reset()
    assert len(versions.data) == 1000
    assert len(versions.lsn) == 8
    versions.push(RECORD, 0, len(RECORD), 9)
    assert versions.payload(1) == RECORD


def lock(block: int, size: int) -> Record:
    """HEAP LOCK of the first tuple, with data that redo has no use for."""
    main = struct.pack("<IHBB", 900, 1, 0, 0)
    return Record(10, 0x60, 900, main, [Reference(0, REL, block, data=bytes(size))])


def batch_of(blocks: range, lsn: int) -> tuple[PageBatch, memoryview]:
    size = pagestream.PAGE_REPLY_BYTES
    out = memoryview(bytearray(len(blocks) * size))
    batch = PageBatch(len(blocks), out, out)
    for i, block in enumerate(blocks):
        batch.spc[i], batch.db[i], batch.rel[i] = REL
        batch.fork[i], batch.block[i], batch.lsn[i] = 0, block, lsn
        batch.out_pos[i], batch.status[i] = i * size, 0
    batch.tag, batch.count = GET_PAGE, len(blocks)
    return batch, out


def read(small: SmallStore, blocks: range, lsn: int) -> list[bytes | str]:
    """The blocks in one batch: pages or errors."""
    batch, out = batch_of(blocks, lsn)
    small.store.get_pages(batch, len(blocks), out)
    size = pagestream.PAGE_REPLY_BYTES
    return [
        batch.errors[i] if batch.status[i] else bytes(out[i * size : i * size + 8192])
        for i in range(len(blocks))
    ]


@pytest.mark.parametrize("flushed", [False, True])
def test_a_batch_that_needs_too_much_is_read_in_smaller_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flushed: bool
) -> None:
    """The same pages and the same errors, and no more memory than the bound."""
    small = SmallStore(tmp_path)
    small.add(create())
    for block in range(BLOCKS):
        small.add(insert(block, 1, b"text %d" % block, init=True), lock(block, 55_000))
    small.add(lock(BLOCKS, 10))  # of a page that was never written
    end = small.put(image(BLOCKS + 2, 1))
    if flushed:
        small.flush()
    counts: list[int] = []
    versions = small.store.versions
    real = versions._get_pages

    def noting(batch: PageBatch, count: int, out: memoryview) -> None:
        counts.append(count)
        real(batch, count, out)

    monkeypatch.setattr(versions, "_get_pages", noting)
    found = read(small, range(BLOCKS + 4), end)
    assert counts == [BLOCKS + 4, *[1] * (BLOCKS + 4)]
    gathered = versions.page_reader().versions
    assert len(gathered.data) <= BATCH_BYTES_MAX
    small.reopen()
    assert found == [read(small, range(block, block + 1), end)[0] for block in range(BLOCKS + 4)]
    assert [isinstance(page, str) for page in found] == [
        block in (BLOCKS, BLOCKS + 3) for block in range(BLOCKS + 4)
    ]
    assert len({page for page in found if isinstance(page, bytes)}) == BLOCKS + 2
    out = memoryview(bytearray(BLOCKS * 8192))
    chunk = small.store.table.intern(1, *REL, 0, 0)
    assert not small.store.versions.read_blocks([(chunk, i, end) for i in range(BLOCKS)], out, 8192)
    assert [bytes(out[8192 * i : 8192 * (i + 1)]) for i in range(BLOCKS)] == found[:BLOCKS]
    small.let_go()
