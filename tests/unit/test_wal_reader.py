"""The WAL reader over made-up WAL: where records start and end, what is skipped, what is refused.

Any chunking gives the same result: tests/property/test_wal_reader.py. Real WAL against
pg_waldump: tests/integration/test_wal_decode.py.
"""

import mmap
import struct

import crc32c
import pytest

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn
from formats.errors import CorruptionError
from tests.fixtures.wal_builder import (
    MIB,
    PAGE,
    SYSTEM_IDENTIFIER,
    Image,
    Record,
    Reference,
    WalBuilder,
    encode,
    rows,
)

SMALL = Record(rmgr=10, xid=9, main=b"small", references=[Reference(0, (1663, 5, 9), 1)])


def large(length: int) -> Record:
    return Record(main=bytes(i & 0xFF for i in range(length)))


def reader_for(wal: WalBuilder, **arguments) -> WalReader:
    arguments.setdefault("version", wal.version)
    return WalReader(wal.start, wal.segment_size, **arguments)


def drain(reader: WalReader, records_max: int = 100) -> list:
    batch = RecordBatch(records_max, records_max + 40)
    found = []
    while reader.decode(batch):
        found += rows(batch)
    return found


def read(wal: WalBuilder, chunk: int = MIB, **arguments) -> tuple[list, WalReader]:
    reader = reader_for(wal, **arguments)
    found = []
    for pos in range(0, len(wal.data), chunk):
        reader.feed(reader.lsn, memoryview(bytes(wal.data[pos : pos + chunk])))
        found += drain(reader)
    return found, reader


def test_records_of_every_size_over_pages_and_segments():
    wal = WalBuilder()
    for length in (0, 1, 7, 8, 300, 8192, 50_000, 3, 1_200_000, 5):
        wal.add(large(length))
        wal.add(SMALL)
    assert wal.lsn > 2 * wal.segment_size
    found, reader = read(wal)
    assert found == wal.placed
    assert reader.end_lsn == reader.lsn == wal.lsn
    assert not reader.pending


@pytest.mark.parametrize("chunk", [1, 13, 8192, 10_000])
def test_chunks(chunk):
    wal = WalBuilder(start=MIB - 2 * PAGE)
    for length in (10, 9000, 0, 8000, 100):
        wal.add(large(length))
    found, reader = read(wal, chunk)
    assert found == wal.placed
    assert reader.end_lsn == wal.lsn


def test_before_the_first_record():
    reader = WalReader(MIB, MIB)
    assert (reader.lsn, reader.end_lsn, reader.pending) == (MIB, MIB + 40, False)
    assert WalReader(MIB + PAGE, MIB).end_lsn == MIB + PAGE + 24
    assert WalReader(MIB + PAGE + 48, MIB, version=15).end_lsn == MIB + PAGE + 48
    assert drain(reader) == []


def test_a_record_that_fills_its_page_ends_below_the_next_header():
    wal = WalBuilder()
    wal.fill_page()
    wal.add(SMALL)
    (_, end, _), (start, _, _) = wal.placed
    assert (end, start) == (MIB + PAGE, MIB + PAGE + 24)
    found, _ = read(wal)
    assert found == wal.placed
    wal.data = wal.data[:PAGE]
    _, reader = read(wal)
    assert (reader.end_lsn, reader.pending) == (start, False)


def test_a_record_that_fills_its_segment():
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page()
    found, reader = read(wal)
    assert found[-1][1] == 2 * MIB
    assert reader.end_lsn == 2 * MIB + 40


def test_a_record_that_starts_with_eight_bytes_on_its_page():
    """Its length is on one page, the rest of its header on the next."""
    wal = WalBuilder()
    wal.fill_page(leave=8)
    wal.add(SMALL)
    wal.add(SMALL)
    assert wal.placed[1][0] == MIB + PAGE - 8
    found, _ = read(wal)
    assert found == wal.placed


def test_padding_counts_as_part_of_the_record():
    wal = WalBuilder()
    wal.add(Record(main=b"abc"))  # 29 bytes
    start, end, _ = wal.placed[0]
    assert end == start + 32
    reader = reader_for(wal)
    reader.feed(MIB, memoryview(bytes(wal.data[:-1])))
    assert drain(reader) == []
    assert reader.pending
    reader.feed(wal.lsn - 1, memoryview(bytes(wal.data[-1:])))
    assert drain(reader) == wal.placed
    assert not reader.pending


def test_a_switch_skips_the_rest_of_its_segment():
    wal = WalBuilder()
    wal.add(SMALL)
    wal.switch()
    wal.add(SMALL)
    assert wal.placed[1][1] == 2 * MIB
    for chunk in (MIB, 2 * MIB, 4096, 4100, MIB + 10):
        found, reader = read(wal, chunk)
        assert found == wal.placed
        assert reader.end_lsn == wal.lsn


def test_after_a_switch_the_next_record_starts_in_the_next_segment():
    wal = WalBuilder()
    wal.switch()
    wal.data = wal.data[:128]
    _, reader = read(wal)
    assert (reader.lsn, reader.end_lsn, reader.pending) == (MIB + 128, 2 * MIB + 40, False)


def test_whatever_stands_behind_a_switch_is_skipped():
    wal = WalBuilder()
    wal.switch()
    wal.data[64:] = b"\xee" * (MIB - 64)
    wal.add(SMALL)
    found, _ = read(wal, 5000)
    assert found == wal.placed


def test_a_switch_at_the_very_end_of_its_segment():
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=24)
    wal.switch()
    wal.add(SMALL)
    assert wal.placed[1][:2] == (2 * MIB - 24, 2 * MIB)
    found, _ = read(wal)
    assert found == wal.placed


@pytest.mark.parametrize("length", [100, 8000, 40_000, 1_500_000])
def test_a_segment_that_begins_inside_of_a_record(length):
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=48)
    wal.add(large(length))
    for _ in range(3):
        wal.add(SMALL)
    data = bytes(wal.data[PAGE:])
    for chunk in (2 * MIB, 1000):
        found, reader = read_from(2 * MIB, data, chunk)
        assert found == wal.placed[2:]
        assert reader.end_lsn == lsn.record_start(wal.lsn, MIB)


def test_nothing_is_ready_before_the_rest_of_the_record_is_there():
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=48)
    end = wal.add(large(20_000))
    data = bytes(wal.data[PAGE:])
    _, reader = read_from(2 * MIB, data[:-1], 1000)
    assert (reader.end_lsn, reader.pending) == (2 * MIB + 40, True)
    _, reader = read_from(2 * MIB, data, 1000)
    assert (reader.end_lsn, reader.pending) == (end, False)


def read_from(start: int, data: bytes, chunk: int) -> tuple[list, WalReader]:
    reader = WalReader(start, MIB)
    found = []
    for pos in range(0, len(data), chunk):
        reader.feed(reader.lsn, memoryview(data[pos : pos + chunk]))
        found += drain(reader)
    return found, reader


def test_the_rest_of_a_record_up_to_the_end_of_its_page():
    """The rest that is skipped fills its page, so the first record starts on the next one."""
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=48)
    body = 48 + (PAGE - 40) - 24 - 5
    wal.add(large(body))
    assert wal.placed[1][1] == 2 * MIB + PAGE
    wal.add(SMALL)
    found, _ = read_from(2 * MIB, bytes(wal.data[PAGE:]), MIB)
    assert found == wal.placed[2:]
    _, reader = read_from(2 * MIB, bytes(wal.data[PAGE : 2 * PAGE]), MIB)
    assert reader.end_lsn == 2 * MIB + PAGE + 24


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_a_record_that_was_never_finished(pages):
    wal = WalBuilder()
    wal.add(SMALL)
    wal.abandon(large(100_000), pages)
    wal.add(SMALL)
    for chunk in (MIB, 100, 8192):
        found, reader = read(wal, chunk)
        assert found == wal.placed
        assert reader.end_lsn == wal.lsn


def test_an_unfinished_record_up_to_the_end_of_a_segment():
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.abandon(large(100_000))
    wal.abandon(large(9_000))
    found, _ = read(wal)
    assert found == wal.placed
    # A reader that begins with the segment knows nothing of the unfinished record.
    found, _ = read_from(2 * MIB, bytes(wal.data[PAGE:]), MIB)
    assert found == wal.placed


def test_a_replacement_for_another_record():
    wal = WalBuilder()
    wal.add(SMALL)
    start = wal.abandon(large(100_000), claims=MIB + 0x1000)
    place = MIB + PAGE + 24
    message = f"OVERWRITE_CONTRECORD is about at LSN 0/{place:X}: expected 0/{start:X}"
    reader = refused(wal, message, good=1)
    assert reader.end_lsn == place


def refused(wal: WalBuilder, message: str, good: int = -1, **arguments) -> WalReader:
    """Damage is reported after the records before it, and again by every later call."""
    reader = reader_for(wal, **arguments)
    batch = RecordBatch(100, 140)
    reader.feed(wal.start, memoryview(bytes(wal.data)))
    found = []
    try:
        while reader.decode(batch):
            found += rows(batch)
        pytest.fail("no error")
    except CorruptionError as error:
        caught = str(error)
    assert message in caught
    assert found == wal.placed[: len(found)]
    if good >= 0:
        assert len(found) == good
    if found:
        assert reader.end_lsn >= found[-1][1]
    with pytest.raises(CorruptionError) as again:
        reader.decode(batch)
    assert str(again.value) == caught
    with pytest.raises(CorruptionError) as again:
        reader.feed(reader.lsn, memoryview(b""))
    assert str(again.value) == caught
    return reader


# Where the second record of two_pages() starts, and what of it is on the second page.
SECOND, REST = 0x100060, 8200 + 29 - (8192 - 0x60)


def two_pages() -> WalBuilder:
    """A record on the first page of a segment, one over two pages, one on the second page."""
    wal = WalBuilder()
    wal.add(SMALL)
    wal.add(large(8200))
    wal.add(SMALL)
    return wal


def put(wal: WalBuilder, at: int, layout: str, *values: int) -> None:
    struct.pack_into(layout, wal.data, at - wal.start, *values)


@pytest.mark.parametrize(
    ("at", "layout", "value", "message"),
    [
        (MIB, "<H", 0xD117, "magic number of the WAL page at LSN 0/100000: expected 0xd118"),
        (MIB + PAGE, "<H", 0xD110, "magic number of the WAL page at LSN 0/102000: expected 0xd118"),
        (MIB, "<H", 0, "magic number"),
        (MIB + 2, "<H", 0, "flags of the WAL page at LSN 0/100000"),
        (MIB + 2, "<H", 0x12, "found 0x0012"),
        (MIB + PAGE + 2, "<H", 3, "flags of the WAL page at LSN 0/102000"),
        (MIB + 8, "<Q", 0x200000, "expected 0/100000, found 0/200000"),
        (MIB + PAGE + 8, "<Q", 0x2000, "expected 0/102000, found 0/2000"),
        (MIB + PAGE + 4, "<I", 0, "timeline of the WAL page at LSN 0/102000: expected at least 1"),
        (MIB + 32, "<I", 16 * MIB, "segment size that the WAL page claims at LSN 0/100000"),
        (MIB + 36, "<I", 4096, "expected 8192, found 4096"),
        (MIB + PAGE + 2, "<H", 0, "expected the rest of the record at 0/100060, found 0x0000"),
        (MIB + PAGE + 16, "<I", 78, f"expected {REST} bytes, found 78 bytes"),
        (MIB + PAGE + 16, "<I", 0, f"expected {REST} bytes, found 0 bytes"),
    ],
)
def test_bad_page_headers(at, layout, value, message):
    wal = two_pages()
    put(wal, at, layout, value)
    refused(wal, message, good=1 if at >= MIB + PAGE else 0)


def test_a_page_that_should_begin_with_a_record():
    wal = WalBuilder()
    wal.fill_page()
    wal.add(SMALL)
    put(wal, MIB + PAGE + 2, "<H", 1)
    refused(wal, "at LSN 0/102000: expected a page that begins with a record", good=1)


def test_a_start_inside_a_segment_is_the_start_of_a_record():
    wal = two_pages()
    data = memoryview(bytes(wal.data[PAGE:]))
    reader = WalReader(MIB + PAGE, MIB)
    reader.feed(MIB + PAGE, data)
    with pytest.raises(CorruptionError, match="expected a page that begins with a record"):
        drain(reader)


def test_whose_wal_it_is():
    wal = two_pages()
    found, reader = read(wal)
    assert reader.system_identifier == SYSTEM_IDENTIFIER
    found, _ = read(wal, system_identifier=SYSTEM_IDENTIFIER, timeline=1)
    assert found == wal.placed
    refused(wal, f"expected 77, found {SYSTEM_IDENTIFIER}", good=0, system_identifier=77)


def test_the_system_identifier_stays():
    wal = WalBuilder()
    wal.switch()
    wal.add(SMALL)
    put(wal, 2 * MIB + 24, "<Q", 5)
    refused(wal, f"expected {SYSTEM_IDENTIFIER}, found 5", good=1)


def test_the_version_comes_from_the_first_page_or_is_given():
    wal = WalBuilder(version=15)
    wal.add(SMALL)
    reader = WalReader(MIB, MIB)
    reader.feed(MIB, memoryview(bytes(wal.data)))
    assert len(drain(reader)) == 1
    assert reader.version == 15
    refused(wal, "expected 0xd118, found 0xd110", good=0, version=18)


def test_a_version_nobody_knows():
    wal = WalBuilder()
    wal.add(SMALL)
    put(wal, MIB, "<H", 0xD119)
    refused(wal, "expected that of PostgreSQL 14 to 18, found 0xd119", good=0, version=None)


def test_14_image_bits():
    wal = WalBuilder(version=14)
    image = Image(b"\x01" * 192, 192, 8000, 3)
    wal.add(Record(rmgr=0, info=0xB0, references=[Reference(0, (1, 2, 3), 4, image=image)]))
    found, _ = read(wal)
    assert found == wal.placed


def test_timelines_may_rise_up_to_the_one_that_is_read():
    wal = WalBuilder()
    wal.fill_page()
    wal.timeline = 3
    wal.fill_page()
    found, _ = read(wal, timeline=3)
    assert found == wal.placed
    refused(wal, "at LSN 0/102000: expected at most 2, found 3", good=1, timeline=2)
    wal.timeline = 2
    wal.add(SMALL)
    refused(wal, "at LSN 0/104000: expected at least 3", good=2)


def test_a_raised_timeline_is_followed():
    wal = WalBuilder()
    wal.fill_page()
    wal.timeline = 2
    wal.add(SMALL)
    reader = reader_for(wal, timeline=1)
    reader.feed(MIB, memoryview(bytes(wal.data[:PAGE])))
    assert len(drain(reader)) == 1
    reader.timeline = 2
    reader.feed(reader.lsn, memoryview(bytes(wal.data[PAGE:])))
    assert len(drain(reader)) == 1


def test_wal_that_does_not_continue():
    wal = two_pages()
    for gap in (-8192, -1, 1, MIB):
        reader = reader_for(wal)
        reader.feed(MIB, memoryview(bytes(wal.data[:100])))
        with pytest.raises(CorruptionError) as caught:
            reader.feed(MIB + 100 + gap, memoryview(b"12345678"))
        assert "expected 0/100064" in str(caught.value)
        assert f"found 0/{MIB + 100 + gap:X}" in str(caught.value)
        reader.feed(MIB + 100, memoryview(bytes(wal.data[100:])))
        assert drain(reader) == wal.placed


@pytest.mark.parametrize(
    ("offset", "layout", "value", "message"),
    [
        (0, "<I", 23, "length of the WAL record at LSN 0/100060: expected 24 bytes to 1 GiB"),
        (0, "<I", 0x40000001, "found 1073741825 bytes"),
        (0, "<I", 8230, "rest of a record that the WAL page claims at LSN 0/102000"),
        (8, "<Q", MIB, "link of the WAL record to the one before it"),
        (17, "<B", 22, "resource manager of the WAL record at LSN 0/100060"),
        (17, "<B", 127, "found 127"),
        (16, "<B", 0x30, "CRC-32C of the WAL record at LSN 0/100060: expected 0x"),
        (20, "<I", 0, "found 0x00000000"),
        (30, "<B", 0xFF, "CRC-32C"),
    ],
)
def test_bad_records(offset, layout, value, message):
    wal = two_pages()
    assert wal.placed[1][0] == SECOND
    put(wal, SECOND + offset, layout, value)
    refused(wal, message, good=1)


def test_a_record_that_links_to_what_comes_later():
    wal = WalBuilder(previous=MIB + 40)
    wal.add(SMALL)
    refused(wal, "expected less than 0/100028, found 0/100028", good=0)


def test_a_first_record_may_link_to_anything_before_it():
    wal = WalBuilder(previous=0xFF000)
    wal.add(SMALL)
    found, _ = read(wal)
    assert found == wal.placed


def test_extensions_have_resource_managers_from_15_on():
    for version in (14, 15):
        wal = WalBuilder(version=version)
        wal.add(Record(rmgr=128, info=0x40, main=b"?"))
        if version == 14:
            refused(wal, "resource manager of the WAL record", good=0)
        else:
            assert read(wal)[0] == wal.placed


def test_a_record_whose_parts_do_not_add_up():
    wal = WalBuilder()
    wal.add(SMALL)
    start = wal.begin_record()
    content = bytearray(encode(Record(main=b"12345"), wal.previous))
    content[25] = 77  # the length of the main data
    struct.pack_into("<I", content, 20, crc_of(content))
    wal.append_bytes(bytes(content))
    wal.data += bytes(-len(wal.data) % 8)
    refused(wal, f"length of the record's fragments at LSN 0/{start:X}: expected no more", good=1)


def crc_of(content: bytes) -> int:
    return crc32c.crc32c(content[:20], crc32c.crc32c(content[24:]))


def test_zeros_in_a_stream_are_an_error():
    wal = two_pages()
    end = wal.lsn
    wal.data += bytes(64)
    refused(wal, f"WAL record at LSN 0/{end:X}: expected a record, found zeros", good=3)


@pytest.mark.parametrize("zeros", [8, 24, 8000, 8192, 100_000])
def test_zeros_at_the_end_of_a_file(zeros):
    wal = two_pages()
    end = wal.lsn
    wal.data += bytes(zeros)
    for chunk in (MIB, 997):
        reader = reader_for(wal, zeros_end=True)
        found = []
        for pos in range(0, len(wal.data), chunk):
            if reader.at_end:
                with pytest.raises(CorruptionError, match="no more after its end"):
                    reader.feed(reader.lsn, memoryview(b"x"))
                break
            reader.feed(reader.lsn, memoryview(bytes(wal.data[pos : pos + chunk])))
            found += drain(reader)
        assert found == wal.placed
        assert (reader.at_end, reader.end_lsn, reader.pending) == (True, end, False)


def test_a_page_of_zeros_at_the_end_of_a_file():
    wal = WalBuilder()
    wal.fill_page()
    end = wal.lsn
    wal.data += bytes(PAGE)
    found, reader = read(wal, zeros_end=True)
    assert found == wal.placed
    assert (reader.at_end, reader.end_lsn) == (True, end + 24)


def test_a_file_that_ends_inside_of_a_record():
    wal = two_pages()
    wal.data[PAGE:] = bytes(PAGE)
    found, reader = read(wal, zeros_end=True)
    assert found == wal.placed[:1]
    assert (reader.at_end, reader.end_lsn) == (True, wal.placed[1][0])


def test_a_recycled_segment_is_not_its_own():
    """Files may be reused: the page behind the end is right, but for another address."""
    wal = WalBuilder()
    wal.fill_page()
    end = wal.lsn
    old = WalBuilder(start=MIB - 100 * PAGE)
    old.fill_page()
    wal.data += old.data
    reader = refused(wal, f"at LSN 0/{end:X}: expected 0/{end:X}", good=1, zeros_end=True)
    assert not reader.at_end


def test_batches_take_what_they_have_room_for():
    wal = WalBuilder()
    for n in range(20):
        references = [Reference(i, (1, 2, 3), i) for i in range(n % 3)]
        wal.add(Record(rmgr=10, main=bytes([n]), references=references))
    data = memoryview(bytes(wal.data))
    for records_max, references_max in ((7, 100), (20, 35), (20, 33)):
        reader = reader_for(wal)
        reader.feed(MIB, data)
        batch = RecordBatch(records_max, references_max)
        found = []
        while count := reader.decode(batch):
            assert count == batch.count <= records_max
            assert batch.reference_count <= references_max
            found += rows(batch)
        assert found == wal.placed
    reader = reader_for(wal)
    reader.feed(MIB, data)
    batch = RecordBatch(20, 100)
    assert [reader.decode(batch, n) for n in (1, 5, 0, 100)] == [1, 5, 0, 14]


def test_a_batch_is_valid_until_the_next_feed():
    wal = WalBuilder()
    for n in range(300):
        wal.add(large(n * 10))
    reader = reader_for(wal)
    reader.feed(MIB, memoryview(bytes(wal.data)))
    first, second = RecordBatch(100, 140), RecordBatch(100, 140)
    reader.decode(first)
    reader.decode(second)
    assert rows(first) == wal.placed[:100]
    assert rows(second) == wal.placed[100:200]


def test_a_very_large_record_is_read_in_small_pieces():
    """The buffer grows to hold it and shrinks again."""
    wal = WalBuilder()
    wal.add(SMALL)
    wal.add(large(6 * MIB))
    wal.add(SMALL)
    found, reader = read(wal, 200_000)
    assert found == wal.placed
    assert not reader.pending


def test_more_than_positions_can_say():
    reader = WalReader(MIB, MIB)
    too_much = pytest.raises(ValueError, match="must fit into 32 bits")
    with mmap.mmap(-1, 1 << 32) as area, memoryview(area) as view, too_much:
        reader.feed(MIB, view)
    assert reader.lsn == MIB


@pytest.mark.parametrize(
    ("start", "segment_size", "version", "message"),
    [
        (MIB, 3 * MIB, 18, "no WAL segments of 3145728 bytes"),
        (MIB, 0, 18, "no WAL segments of 0 bytes"),
        (MIB + 32, MIB, 18, "no WAL record can start at 0/100020"),
        (MIB + PAGE + 16, MIB, 18, "no WAL record can start"),
        (MIB + 100, MIB, 18, "no WAL record can start"),
        (MIB + PAGE + 24, MIB, None, "needs PostgreSQL's major version"),
        (MIB, MIB, 13, "WAL of PostgreSQL 13"),
        (MIB, MIB, 19, "WAL of PostgreSQL 19"),
    ],
)
def test_what_no_reader_can_be_made_for(start, segment_size, version, message):
    with pytest.raises(ValueError, match=message):
        WalReader(start, segment_size, version=version)
