"""Redo of BRIN index records: every opcode and block, wrong records."""

import struct

import pytest

from engine.redo import brin
from formats import index_tuples, page
from tests.fixtures.redo_parts import items, make_part

CREATE, INSERT, UPDATE, SAMEPAGE, EXTEND, DESUMMARIZE, INIT = (
    0x00,
    0x10,
    0x20,
    0x30,
    0x40,
    0x50,
    128,
)
META, REVMAP, REGULAR = 0xF091, 0xF092, 0xF093
BLOCKS = {0: 0x10004, 1: 2, 2: 6}


def brin_page(kind: int, lower: int = 24, body: bytes = b"", flags: int = 0) -> memoryview:
    head = bytes(12) + struct.pack("<HHHHI", lower, 8184, 8184, 8192 | 4, 0)
    content = (head + body).ljust(8184, b"\0") + struct.pack("<IHH", 0, flags, kind)
    return memoryview(bytearray(content))


def meta_page(per_range: int = 128, version: int = 1, last: int = 0) -> memoryview:
    return brin_page(META, 40, struct.pack("<IIII", 0xA8109CFA, version, per_range, last))


def summary(heap_block: int, length: int = 24) -> bytes:
    return struct.pack("<IB", heap_block, 8).ljust(length, b"s")


def regular(*held: bytes) -> memoryview:
    view = brin_page(REGULAR)
    for one in held:
        assert page.add_item(view, memoryview(one), 0, len(one), 0, False, False) > 0
    return view


def summaries(view: memoryview) -> list[bytes | None]:
    found: list[bytes | None] = []
    for number, (state, at) in enumerate(items(view), 1):
        found.append(bytes(view[at : at + page.item_length(view, number)]) if state else None)
    return found


def insertion(heap_block: int, per_range: int, number: int) -> bytes:
    return struct.pack("<IIH", heap_block, per_range, number)


def update(old_number: int, heap_block: int, per_range: int, number: int) -> bytes:
    return struct.pack("<HH", old_number, 0xEEEE) + insertion(heap_block, per_range, number)


@pytest.mark.parametrize("info", [CREATE, CREATE | INIT])
def test_new_index(info: int) -> None:
    view = memoryview(bytearray(b"\xff" * 8192))
    assert brin.redo(make_part(view, info, struct.pack("<IH", 0x10020, 1))) == 1
    assert bytes(view) == bytes(meta_page(0x10020))


@pytest.mark.parametrize(("info", "main"), [(INSERT, b""), (UPDATE, b"\7\0\xee\xee")])
def test_summary_is_added(info: int, main: bytes) -> None:
    view = regular(summary(0))
    main += insertion(64, 32, 2)
    assert brin.redo(make_part(view, info, main, summary(64, 21), BLOCKS)) == 1
    assert summaries(view) == [summary(0), summary(64, 21)]
    assert items(view) == [(1, 8160), (1, 8136)]


@pytest.mark.parametrize(("info", "main"), [(INSERT, b""), (UPDATE, b"\7\0\xee\xee")])
def test_summary_on_a_new_page(info: int, main: bytes) -> None:
    view = memoryview(bytearray(8192))
    main += insertion(64, 32, 1)
    assert brin.redo(make_part(view, info | INIT, main, summary(64), BLOCKS)) == 1
    assert bytes(view) == bytes(regular(summary(64)))


def test_summary_takes_an_unused_line_pointer() -> None:
    view = regular(summary(0), summary(32), summary(64))
    index_tuples.delete_no_compact(view, 2)
    assert brin.redo(make_part(view, INSERT, insertion(96, 32, 2), summary(96), BLOCKS)) == 1
    assert summaries(view) == [summary(0), summary(96), summary(64)]


@pytest.mark.parametrize("number", [0, 1, 3, 0xFFFF])
def test_summary_does_not_take_a_used_line_pointer(number: int) -> None:
    main = insertion(64, 32, number)
    with pytest.raises(ValueError, match="summary does not fit"):
        brin.redo(make_part(regular(summary(0)), INSERT, main, summary(64), BLOCKS))


@pytest.mark.parametrize(
    ("heap_block", "per_range", "at"),
    [(0, 1, 24), (1359, 1, 24 + 6 * 1359), (1360, 1, 24), (0xFFFFFFFF, 16, 24 + 6 * 15)],
)
@pytest.mark.parametrize("info", [INSERT, UPDATE])
def test_revmap_names_the_summary(info: int, heap_block: int, per_range: int, at: int) -> None:
    view = brin_page(REVMAP)
    main = insertion(heap_block, per_range, 3)
    main = main if info == INSERT else b"\7\0\xee\xee" + main
    assert brin.redo(make_part(view, info, main, b"", BLOCKS, block_id=1)) == 1
    expected = brin_page(REVMAP)
    expected[at : at + 6] = struct.pack("<HHH", 1, 4, 3)
    assert bytes(view) == bytes(expected)


@pytest.mark.parametrize(("number", "blocks"), [(0, BLOCKS), (3, {1: 2})])
def test_revmap_does_not_name_nothing(number: int, blocks: dict[int, int]) -> None:
    main = insertion(64, 32, number)
    with pytest.raises(ValueError, match="does not say where"):
        brin.redo(make_part(brin_page(REVMAP), INSERT, main, b"", blocks, block_id=1))


def test_old_summary_goes() -> None:
    held = [summary(0, 40), summary(32), summary(64, 32)]
    view = regular(*held)
    assert brin.redo(make_part(view, UPDATE, update(2, 32, 32, 1), b"", BLOCKS, 2)) == 1
    assert summaries(view) == [held[0], None, held[2]]
    assert items(view) == [(1, 8144), (0, 0), (1, 8112)]
    assert brin.redo(make_part(view, UPDATE, update(3, 64, 32, 1), b"", BLOCKS, 2)) == 1
    assert summaries(view) == [held[0], None]
    assert int.from_bytes(view[14:16], "little") == 8144


@pytest.mark.parametrize("number", [0, 2, 4])
def test_old_summary_must_be_there(number: int) -> None:
    view = regular(summary(0), summary(32), summary(64))
    index_tuples.delete_no_compact(view, 2)
    with pytest.raises((ValueError, IndexError), match="line pointer"):
        brin.redo(make_part(view, UPDATE, update(number, 32, 32, 1), b"", BLOCKS, 2))
    with pytest.raises((ValueError, IndexError), match="line pointer"):
        brin.redo(make_part(view, SAMEPAGE, number.to_bytes(2, "little"), summary(1)))


@pytest.mark.parametrize("length", [17, 24, 31, 40])
def test_summary_changes_where_it_is(length: int) -> None:
    view = regular(summary(0), summary(32), summary(64))
    assert brin.redo(make_part(view, SAMEPAGE, b"\2\0", summary(33, length))) == 1
    assert summaries(view) == [summary(0), summary(33, length), summary(64)]


def test_summary_too_large_for_its_page() -> None:
    view = regular(summary(0, 8000), summary(32))
    with pytest.raises(ValueError, match="summary does not fit"):
        brin.redo(make_part(view, SAMEPAGE, b"\2\0", summary(32, 200)))
    with pytest.raises(ValueError, match="summary does not fit"):
        brin.redo(make_part(view, INSERT, insertion(64, 32, 3), summary(64, 200), BLOCKS))


def test_revmap_grows() -> None:
    main = struct.pack("<I", 0x10002)
    view = meta_page(last=0x10001)
    view[12] = 24
    assert brin.redo(make_part(view, EXTEND, main)) == 1
    assert bytes(view) == bytes(meta_page(last=0x10002))
    view = memoryview(bytearray(b"\xff" * 8192))
    assert brin.redo(make_part(view, EXTEND, main, b"", BLOCKS, 1)) == 1
    assert bytes(view) == bytes(brin_page(REVMAP))


def test_range_loses_its_summary() -> None:
    main = struct.pack("<IIH", 32, 65, 1)
    view = brin_page(REVMAP, body=b"\1\0" * 4080)
    assert brin.redo(make_part(view, DESUMMARIZE, main)) == 1
    body = b"\1\0" * 6 + b"\xff\xff\xff\xff\0\0" + b"\1\0" * 4071
    assert bytes(view) == bytes(brin_page(REVMAP, body=body))
    view = regular(summary(64), summary(0))
    assert brin.redo(make_part(view, DESUMMARIZE, main, b"", BLOCKS, 1)) == 1
    assert summaries(view) == [None, summary(0)]


@pytest.mark.parametrize(
    ("info", "main", "block_id"),
    [(INSERT, insertion(64, 0, 1), 1), (DESUMMARIZE, struct.pack("<IIH", 0, 64, 1), 0)],
)
def test_ranges_of_no_pages_are_refused(info: int, main: bytes, block_id: int) -> None:
    with pytest.raises(ValueError, match="ranges of no pages"):
        brin.redo(make_part(brin_page(REVMAP), info, main, b"", BLOCKS, block_id))


MAINS = {CREATE: 6, INSERT: 10, UPDATE: 14, SAMEPAGE: 2, EXTEND: 4, DESUMMARIZE: 10}


@pytest.mark.parametrize("info", MAINS)
def test_short_main_data_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="main data is too short"):
        brin.redo(make_part(regular(), info, bytes(MAINS[info] - 1), summary(0)))


@pytest.mark.parametrize("info", MAINS)
def test_unexpected_block_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        brin.redo(make_part(regular(), info, bytes(20), b"", {9: 1}, block_id=9))


@pytest.mark.parametrize("info", [0x60, 0x70, 0xE0])
def test_unknown_opcode_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="unknown opcode"):
        brin.redo(make_part(regular(), info, bytes(20)))


@pytest.mark.parametrize(
    ("info", "main", "block_id", "view"),
    [
        (INSERT, insertion(64, 32, 1), 0, brin_page(REVMAP)),
        (INSERT, insertion(64, 32, 1), 1, regular()),
        (UPDATE, update(1, 64, 32, 1), 2, meta_page()),
        (SAMEPAGE, b"\1\0", 0, brin_page(REVMAP)),
        (EXTEND, bytes(4), 0, brin_page(REVMAP)),
        (DESUMMARIZE, struct.pack("<IIH", 32, 64, 1), 0, regular(summary(64))),
        (DESUMMARIZE, struct.pack("<IIH", 32, 64, 1), 1, brin_page(REVMAP)),
        (SAMEPAGE, b"\1\0", 0, memoryview(bytearray(8192))),
    ],
)
def test_page_of_another_kind_is_refused(
    info: int, main: bytes, block_id: int, view: memoryview
) -> None:
    with pytest.raises(ValueError, match="another kind"):
        brin.redo(make_part(view, info, main, summary(64), BLOCKS, block_id))


def test_all_bytes_of_a_number_of_pages_or_of_a_block() -> None:
    view = memoryview(bytearray(8192))
    brin.redo(make_part(view, CREATE, struct.pack("<IH", 0x01020304, 1)))
    assert bytes(view) == bytes(meta_page(0x01020304))
    brin.redo(make_part(view, EXTEND, struct.pack("<I", 0x05060708), b"", BLOCKS))
    assert bytes(view) == bytes(meta_page(0x01020304, last=0x05060708))


def test_revmap_takes_any_block_number() -> None:
    view = brin_page(REVMAP)
    brin.redo(make_part(view, INSERT, insertion(0, 32, 3), b"", {0: 0, 1: 2}, block_id=1))
    assert bytes(view[24:30]) == struct.pack("<HHH", 0, 0, 3)


def test_more_summaries_than_a_heap_page_has_tuples() -> None:
    view = regular(*(bytes([n & 0xFF]) * 8 for n in range(400)))
    assert brin.redo(make_part(view, INSERT, insertion(96, 32, 401), b"12345678", BLOCKS)) == 1
    assert summaries(view)[400:] == [b"12345678"]
