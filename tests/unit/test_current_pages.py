"""Pages kept current: what is applied to which page, what is loaded, and what a cut leaves."""

import pytest

from engine.chunk_table import ChunkTable
from engine.ingest_target import IngestTarget
from engine.memtable import Memtable
from formats import version
from formats.chunk import BLOCK_BYTES
from formats.errors import CorruptionError
from tools.bench.current_pages import CurrentPages

BASE = bytes([9]) * BLOCK_BYTES


class Pages:
    """One relation, a memtable, and shards of its pages."""

    def __init__(self, shard_count: int = 1) -> None:
        self.target = IngestTarget(ChunkTable())
        self.target.memtable = self.memtable = Memtable(1 << 20, 256, 256, 1 << 30, 1 << 30)
        self.chunk = self.target.chunks.intern(1, 1663, 5, 16384, 2, 0)
        self.loaded: list[tuple[int, int]] = []
        self.shards = [
            CurrentPages(self.target.chunks, 18, 64, 256, self.load, number, shard_count)
            for number in range(shard_count)
        ]

    def load(self, chunk: int, block: int, lsn: int) -> bytes | None:
        self.loaded.append((block, lsn))
        return BASE if block < 4 else None

    def put(self, block: int, lsn: int, payload: bytes) -> None:
        self.memtable.put(self.chunk, block, lsn, memoryview(payload), payload[0] < 8)

    def redo(self) -> None:
        for shard in self.shards:
            shard.redo(self.memtable)
        self.memtable.clear()

    def page(self, block: int) -> bytes | None:
        (page,) = (s.page(self.chunk, block) for s in self.shards if s.owns(self.chunk, block))
        return page


def image(mark: int) -> bytes:
    return version.image_exact(bytes([mark]) * BLOCK_BYTES)


def clear(heap_block: int) -> bytes:
    return version.effect(version.VM_CLEAR, [(heap_block, 3, 0)])


def test_versions_are_applied_in_order_to_pages_that_are_loaded_once() -> None:
    pages = Pages()
    pages.put(0, 10, clear(0))
    pages.put(1, 20, image(5))
    pages.put(0, 30, clear(1))
    pages.redo()
    pages.put(1, 40, clear(2))
    pages.redo()
    assert pages.loaded == [(0, 10)]
    assert pages.page(0) == BASE[:24] + bytes([9 & 0xF0]) + BASE[25:]
    assert pages.page(1) == bytes([5]) * 24 + bytes([5 & 0xCF]) + bytes([5]) * 8167
    assert pages.page(2) is None


def test_what_no_base_has_begins_as_zeros() -> None:
    pages = Pages()
    pages.put(7, 10, clear(0))
    pages.redo()
    assert pages.page(7) == bytes(BLOCK_BYTES)


def test_of_one_record_the_last_version_of_a_page_counts() -> None:
    pages = Pages()
    pages.put(0, 10, image(1))
    pages.put(1, 10, image(2))
    pages.put(0, 10, image(3))
    pages.redo()
    assert pages.page(0) == bytes([3]) * BLOCK_BYTES
    assert pages.page(1) == bytes([2]) * BLOCK_BYTES
    assert pages.shards[0].applied == 2


def test_a_cut_makes_zeros_of_what_lies_behind_it() -> None:
    pages = Pages(3)
    for block in range(6):
        pages.put(block, 10, image(block + 1))
    pages.target.cut(pages.chunk, 1, 2, 2, 20, 20)
    pages.put(4, 30, image(40))
    pages.redo()
    marks = [(pages.page(block) or b"?")[0] for block in range(6)]
    assert marks == [1, 2, 0, 0, 40, 0]


def test_each_page_is_of_one_shard() -> None:
    pages = Pages(3)
    for block in range(40):
        pages.put(block, 10, image(block + 1))
    pages.redo()
    assert sum(shard.applied for shard in pages.shards) == 40
    assert all(shard.applied for shard in pages.shards)
    assert [pages.page(block) for block in range(40)] == [
        bytes([block + 1]) * BLOCK_BYTES for block in range(40)
    ]


def test_many_pages_are_found_again_after_the_table_has_grown() -> None:
    pages = Pages()
    pages.shards = [CurrentPages(pages.target.chunks, 18, 700, 256, pages.load)]
    for first in range(0, 700, 100):
        for block in range(first, first + 100):
            pages.put(block, 10, version.image_exact(block.to_bytes(2, "little") * 4096))
        pages.redo()
    assert all(pages.page(b) == b.to_bytes(2, "little") * 4096 for b in range(700))
    pages.put(700, 10, image(1))
    with pytest.raises(MemoryError, match="no room for another page"):
        pages.redo()


def test_an_error_names_the_page() -> None:
    pages = Pages()
    pages.put(3, 0x20, bytes([version.UNREADABLE, 77, 0, 0]))
    with pytest.raises(CorruptionError, match="block 3.*redo up to 0/20.*no redo"):
        pages.redo()
