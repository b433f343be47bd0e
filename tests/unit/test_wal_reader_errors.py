"""What the WAL reader refuses: bad pages, bad records, WAL that does not follow."""

import struct

import crc32c
import pytest

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
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
from tests.fixtures.wal_reading import SMALL, drain, large, read, reader_for


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


def test_a_replacement_for_another_record():
    wal = WalBuilder()
    wal.add(SMALL)
    start = wal.abandon(large(100_000), claims=MIB + 0x1000)
    place = MIB + PAGE + 24
    message = f"OVERWRITE_CONTRECORD is about at LSN 0/{place:X}: expected 0/{start:X}"
    reader = refused(wal, message, good=1)
    assert reader.end_lsn == place


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


def test_no_wal_starts_at_zero():
    with pytest.raises(ValueError, match="no WAL record can start at 0/0"):
        WalReader(0, MIB, version=18)
