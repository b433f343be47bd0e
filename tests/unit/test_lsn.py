"""LSN text and arithmetic, against figures from real servers and a byte-by-byte walk."""

import pytest

from formats import lsn

MIB = 1 << 20
SEGMENT = 16 * MIB


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0/0", 0),
        ("0/16B3748", 0x16B3748),
        ("1/0", 1 << 32),
        ("16/B374D848", 0x16_B374D848),
        ("FFFFFFFF/FFFFFFFF", lsn.LSN_MAX),
    ],
)
def test_text_both_ways(text: str, value: int) -> None:
    assert lsn.parse(text) == value
    assert lsn.show(value) == text


def test_lower_case_is_read() -> None:
    assert lsn.parse("a/bc") == 0xA_0000_00BC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "/",
        "0/",
        "/0",
        "0/0/0",
        "123456789/0",
        "0/123456789",
        "g/0",
        "-1/0",
        " 0/0",
        "0/0 ",
        "0x1/0",
        "1_0/0",
    ],
)
def test_what_is_no_lsn(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        lsn.parse(text)


def test_segments() -> None:
    place = lsn.parse("2/3000028")
    assert lsn.segment_number(place, SEGMENT) == 0x203
    assert lsn.segment_offset(place, SEGMENT) == 0x28
    assert lsn.segment_start(0x203, SEGMENT) == lsn.parse("2/3000000")


@pytest.mark.parametrize("size", [MIB, SEGMENT, 1 << 30])
def test_segment_sizes_that_exist(size: int) -> None:
    assert lsn.is_segment_size(size)


@pytest.mark.parametrize("size", [0, -MIB, MIB - 1, MIB + 1, 3 * MIB, MIB // 2, 1 << 31])
def test_segment_sizes_that_do_not_exist(size: int) -> None:
    assert not lsn.is_segment_size(size)


def test_align() -> None:
    assert [lsn.align(n) for n in (0, 1, 7, 8, 9, lsn.LSN_MAX - 8)] == [
        0,
        8,
        8,
        8,
        16,
        lsn.LSN_MAX - 7,
    ]


def test_a_record_starts_behind_the_header() -> None:
    assert lsn.record_start(SEGMENT, SEGMENT) == SEGMENT + 40
    assert lsn.record_start(SEGMENT + 8192, SEGMENT) == SEGMENT + 8192 + 24
    assert lsn.record_start(SEGMENT + 8184, SEGMENT) == SEGMENT + 8184
    assert lsn.record_start(3 * MIB, MIB) == 3 * MIB + 40


@pytest.mark.parametrize("segment_size", [MIB, 2 * MIB])
def test_usable_bytes_agree_with_a_walk(segment_size: int) -> None:
    """Walk over two segments and count; the formulas must agree at every page's edges."""
    usable = 0
    for page in range(0, 2 * segment_size, lsn.PAGE_BYTES):
        header = 24 if page % segment_size else 40
        for inside in (0, 1, header):
            assert lsn.usable_before(page + inside, segment_size) == usable
        assert lsn.start_after(usable, segment_size) == page + header
        assert lsn.usable_before(page + header + 5, segment_size) == usable + 5
        usable += lsn.PAGE_BYTES - header
        assert lsn.end_after(usable, segment_size) == page + lsn.PAGE_BYTES
        assert lsn.start_after(usable - 1, segment_size) == page + lsn.PAGE_BYTES - 1
