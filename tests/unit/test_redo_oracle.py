"""Oracle A on made-up WAL: that it sees a difference, what it cannot judge, what it forgets."""

import struct

import pytest

from engine.errors import IngestStopped
from formats.rmgr import DATABASE, HEAP, HEAP2
from tests.fixtures.small_store import REL, heap_page, insert
from tests.fixtures.wal_builder import MIB, Image, Record, Reference, WalBuilder
from tools.redo_oracle import Checker, Report

SEGMENT_BYTES = 16 * MIB
INSERT, INSERT_INIT, VISIBLE = (HEAP, 0x00), (HEAP, 0x80), (HEAP2, 0x40)


def checked(*records: Record, memory_bytes_max: int = 64 * MIB) -> Checker:
    wal = WalBuilder(SEGMENT_BYTES, SEGMENT_BYTES)
    for record in records:
        wal.add(record)
    checker = Checker(wal.start, 18, memory_bytes_max)
    checker.feed(wal.start, bytes(wal.data))
    return checker


def with_image(record: Record, page: bytes) -> Record:
    """The image of block 0 that is only to be compared with."""
    record.references[0].image = Image(page, info=0)
    return record


def page_after(*records: Record) -> bytes:
    checker = checked(*records)
    chunk = checker.store.table.find(1, *REL, 0, 0)
    return bytes(checker.page(chunk, 0, checker.store.ready_lsn))


def after_second_insert(page: bytes) -> Report:
    first, second = insert(0, 1, init=True), insert(0, 2)
    return checked(first, with_image(second, page)).report


def test_a_page_as_it_must_be() -> None:
    report = after_second_insert(page_after(insert(0, 1, init=True), insert(0, 2)))
    assert report.compared == {INSERT: 1}
    assert report.records == {INSERT: 1, INSERT_INIT: 1}
    assert report.count == 0


def test_a_byte_that_differs() -> None:
    page = bytearray(page_after(insert(0, 1, init=True), insert(0, 2)))
    page[-9] ^= 1
    report = after_second_insert(bytes(page))
    assert report.count == 1
    assert "first difference at byte 8183" in report.differences[0]
    assert report.differences[0].startswith("Heap/INSERT at ")


def test_what_a_mask_allows_is_no_difference() -> None:
    page = bytearray(page_after(insert(0, 1, init=True), insert(0, 2)))
    (item,) = struct.unpack_from("<I", page, 24)
    page[(item & 0x7FFF) + 21] ^= 0x01  # HEAP_XMIN_COMMITTED
    assert after_second_insert(bytes(page)).count == 0
    page[(item & 0x7FFF) + 21] ^= 0x03  # HEAP_XMIN_INVALID as well, which is frozen
    page[(item & 0x7FFF) + 21] |= 0x03
    assert after_second_insert(bytes(page)).count == 1


def test_a_page_that_was_never_written_is_a_difference() -> None:
    report = checked(with_image(insert(0, 2), heap_page(1))).report
    assert report.compared == {INSERT: 1}
    assert "never written" in report.differences[0]


def test_a_block_that_needs_no_image_may_lack_a_base() -> None:
    map_page = Reference(0, REL, 0, fork=2)
    heap_block = Reference(1, REL, 7, image=Image(heap_page(1), info=0))
    record = Record(*VISIBLE, main=struct.pack("<IB", 0, 1), references=[map_page, heap_block])
    report = checked(record).report
    assert report.baseless == {VISIBLE: 1}
    assert report.compared.total() == report.count == 0


def test_a_database_copied_by_files_is_no_error() -> None:
    copy = Record(DATABASE, 0x00, main=struct.pack("<4I", 7, 1663, 5, 1663))
    assert checked(copy).report.records == {(DATABASE, 0x00): 1}


def full_image(block: int) -> Record:
    return Record(0, 0xB0, references=[Reference(0, REL, block, image=Image(heap_page(block)))])


def test_what_came_before_a_checkpoint_is_forgotten() -> None:
    wal = WalBuilder(SEGMENT_BYTES, SEGMENT_BYTES)
    checker = Checker(wal.start, 18, 9 * MIB)  # memtables of 1 MiB
    fed = wal.start
    for block in range(1000):
        wal.add(full_image(block))
        if block % 50 == 49:
            checkpoint = struct.pack("<Q", wal.lsn) + bytes(80)
            wal.add(Record(0, 0x10, main=checkpoint))
            checker.feed(fed, bytes(wal.data[fed - wal.start :]))
            fed = wal.lsn
    assert checker.store.durable_lsn > wal.start
    chunk = checker.store.table.find(1, *REL, 0, 0)
    assert not checker.store.has_base((chunk, 0, wal.lsn))
    assert checker.store.has_base((chunk, 999, wal.lsn))


def test_checkpoints_that_are_too_far_apart() -> None:
    with pytest.raises(IngestStopped, match="max_wal_size"):
        checked(*map(full_image, range(600)), memory_bytes_max=9 * MIB)
