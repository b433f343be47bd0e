"""WAL page headers and segment file names, against bytes that real servers wrote."""

import pytest

from formats import wal_page
from formats.wal_page import PageHeader

# As two servers wrote them: the first pages of a segment of 18, and of one of 15 that was set up
# with segments of 1 MiB; and a page inside of the first.
LONG_18 = bytes.fromhex(
    "18d10700 01000000 0000001200000000 670f0000 00000000 7d87d52a0107036b 00000001 00200000"
)
LONG_15 = bytes.fromhex(
    "10d10700 01000000 0000400000000000 3f000000 00000000 a43a3b52d00c036b 00001000 00200000"
)
SHORT_18 = bytes.fromhex("18d10500 01000000 0020001200000000 650d0000 00000000")


def load(data: bytes) -> PageHeader:
    header = PageHeader()
    header.load(memoryview(data), 0)
    return header


def test_long_header() -> None:
    header = load(LONG_18)
    assert wal_page.major_version(header.magic) == 18
    assert (header.flags, header.timeline, header.lsn) == (7, 1, 0x12000000)
    assert header.remaining == 0xF67
    assert header.system_identifier == 0x6B0307012AD5877D
    assert (header.segment_size, header.page_size) == (16 << 20, 8192)


def test_long_header_of_a_small_segment() -> None:
    header = load(LONG_15)
    assert wal_page.major_version(header.magic) == 15
    assert header.lsn == 0x400000
    assert header.remaining == 0x3F
    assert header.segment_size == 1 << 20


def test_a_short_header_has_no_long_fields() -> None:
    header = load(LONG_18)
    header.load(memoryview(SHORT_18), 0)
    assert (header.flags, header.lsn, header.remaining) == (5, 0x12002000, 0xD65)
    assert (header.system_identifier, header.segment_size, header.page_size) == (0, 0, 0)


@pytest.mark.parametrize("data", [b"", SHORT_18[:19], LONG_18[:39]])
def test_a_header_that_is_cut_off(data: bytes) -> None:
    with pytest.raises(IndexError):
        load(data)


def test_magics() -> None:
    magics = {14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}
    for version, magic in magics.items():
        assert wal_page.magic(version) == magic
        assert wal_page.major_version(magic) == version
    assert [wal_page.magic(version) for version in (0, 13, 19, -1)] == [0, 0, 0, 0]
    assert [wal_page.major_version(magic) for magic in (0, 0xD106, 0xD119, 0xFFFF)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("timeline", "segment", "size", "name"),
    [
        (1, 1, 16 << 20, "000000010000000000000001"),
        (1, 0xFF, 16 << 20, "0000000100000000000000FF"),
        (1, 0x100, 16 << 20, "000000010000000100000000"),
        (0x2A, 0x12345, 16 << 20, "0000002A0000012300000045"),
        (1, 0xFFF, 1 << 20, "000000010000000000000FFF"),
        (1, 0x1000, 1 << 20, "000000010000000100000000"),
        (0xFFFFFFFF, (1 << 34) - 1, 1 << 30, "FFFFFFFFFFFFFFFF00000003"),
    ],
)
def test_segment_file_names(timeline: int, segment: int, size: int, name: str) -> None:
    assert wal_page.file_name(timeline, segment, size) == name
    assert wal_page.is_file_name(name)
    assert wal_page.parse_file_name(name, size) == (timeline, segment)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "00000001000000000000000",
        "0000000100000000000000010",
        "00000001000000000000000g",
        "00000001000000000000000a",
        "000000010000000000000001.partial",
        "00000002.history",
        "archive_status",
    ],
)
def test_other_names(name: str) -> None:
    assert not wal_page.is_file_name(name)
    with pytest.raises(ValueError, match="not the name of a WAL segment"):
        wal_page.parse_file_name(name, 16 << 20)


def test_a_segment_number_that_this_size_does_not_have() -> None:
    with pytest.raises(ValueError, match="not the name of a WAL segment"):
        wal_page.parse_file_name("000000010000000000000100", 16 << 20)
