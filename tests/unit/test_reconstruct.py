"""A page from its versions: images, the interlock over fuzzy ones, records, and what is refused."""

import struct

import pytest

from engine.reconstruct import Reconstruct
from engine.redo import dispatch
from engine.version_set import VersionSet
from formats import page as layout
from formats import version
from tests.fixtures.gist_parts import (
    FOLLOW_RIGHT,
    LEAF,
    PAGE_UPDATE,
    gist_page,
    special,
    update,
)
from tests.fixtures.redo_parts import Row, heap_page, row

HEAP, HEAP2, GIST, GENERIC = 10, 9, 14, 20
LOCK, INIT_INSERT = 0x60, 0x80
VISIBLE, FREEZE = 0x40, 0x20


def record(
    info: int,
    main: bytes,
    data: bytes = b"",
    *,
    rmgr: int = HEAP,
    block_id: int = 0,
    flags: int = 0,
) -> bytes:
    head = bytes([version.RECORD, rmgr, info, block_id, 2, flags])
    head += struct.pack("<HII", len(data), 700, len(main))
    return head + struct.pack("<BIBI", 0, 5, 1, 6) + main + data


def lock(xmax: int) -> bytes:
    return record(LOCK, struct.pack("<IHBB", xmax, 1, 2 | 4, 0))


def insert(*, flags: int) -> bytes:
    """Of the first tuple of a new page."""
    return record(
        INIT_INSERT,
        struct.pack("<HB", 1, 0),
        struct.pack("<HHB", 2, 0x802, 24) + b"\0x",
        flags=flags,
    )


def visible(block_id: int, info: int = VISIBLE) -> bytes:
    return record(info, struct.pack("<IB", 9, 1), rmgr=HEAP2, block_id=block_id, flags=2)


def image(kind: int, page: bytes, hole: int = 0, length: int = 0) -> bytes:
    head = bytes([kind, 0]) + struct.pack("<HH", hole, length)
    return head + page[:hole] + page[hole + length :]


def one_row(lsn: int = 0) -> bytes:
    view = heap_page(Row(content=b"\0row"))
    layout.set_lsn(view, lsn)
    return bytes(view)


def rebuild(
    *versions: tuple[int, bytes], base: bytes | None = None, new_page_lsn_max: int = 0
) -> memoryview:
    """The page, from versions given oldest first; the bytes beside it must not change."""
    chain = VersionSet(64, 2)
    for lsn, payload in reversed(versions):
        chain.push(memoryview(b"\xee" + payload), 1, len(payload), lsn)
    out = memoryview(bytearray(b"\xee" * (8192 + 20)))
    if base is not None:
        out[10:-10] = base
    reconstruct = Reconstruct(18)
    assert reconstruct.new_page_lsn_max == 0
    reconstruct.new_page_lsn_max = new_page_lsn_max
    assert reconstruct.page(chain, chain.oldest, out, 10, base is not None) == 0
    assert bytes(out[:10]) == bytes(out[-10:]) == b"\xee" * 10
    return out[10:-10]


def test_no_version_is_zeros_or_the_base() -> None:
    assert not any(rebuild())
    assert bytes(rebuild(base=one_row(7))) == one_row(7)


def test_an_image_from_wal_gets_its_lsn_and_an_exact_one_keeps_its_own() -> None:
    assert bytes(rebuild((50, image(version.IMAGE_WAL, one_row(7))))) == one_row(50)
    assert bytes(rebuild((50, image(version.IMAGE_EXACT, one_row(7))))) == one_row(7)
    assert bytes(rebuild((50, image(version.IMAGE_FUZZY, one_row(7))))) == one_row(7)


def test_a_new_page_from_wal_stays_without_lsn() -> None:
    assert not any(rebuild((50, image(version.IMAGE_WAL, bytes(8192)))))


@pytest.mark.parametrize(("hole", "length"), [(0, 0), (0, 8192), (1, 8191), (100, 4000), (8191, 1)])
def test_the_hole_of_an_image_is_zeros(hole: int, length: int) -> None:
    page = bytes(range(256)) * 32
    expected = page[:hole] + bytes(length) + page[hole + length :]
    found = rebuild((50, image(version.IMAGE_EXACT, page, hole, length)))
    assert bytes(found) == expected
    assert (
        bytes(rebuild((50, image(version.IMAGE_EXACT, page, hole, length)), base=page)) == expected
    )


@pytest.mark.parametrize(
    ("hole", "length", "n_bytes"),
    [(0, 0, 8191), (0, 0, 8193), (100, 4000, 4191), (8000, 193, 7999), (1, 8192, 0)],
)
def test_an_image_whose_hole_does_not_fit_is_refused(hole: int, length: int, n_bytes: int) -> None:
    payload = bytes([version.IMAGE_EXACT, 0]) + struct.pack("<HH", hole, length) + bytes(n_bytes)
    with pytest.raises(ValueError, match="its hole"):
        rebuild((50, payload))


def test_records_are_applied_oldest_first_and_set_the_lsn() -> None:
    page = rebuild((50, image(version.IMAGE_WAL, one_row())), (60, lock(111)), (70, lock(222)))
    assert row(page, 1).xmax == 222
    assert layout.lsn(page) == 70


@pytest.mark.parametrize(("lsn", "xmax"), [(99, 0), (100, 0), (101, 111)])
def test_over_a_fuzzy_image_records_apply_above_its_lsn_alone(lsn: int, xmax: int) -> None:
    page = rebuild((50, image(version.IMAGE_FUZZY, one_row(100))), (lsn, lock(111)))
    assert row(page, 1).xmax == xmax
    assert layout.lsn(page) == max(lsn, 100)


@pytest.mark.parametrize("kind", [version.IMAGE_WAL, version.IMAGE_EXACT])
def test_over_other_images_records_always_apply(kind: int) -> None:
    # What is exact may have any pd_lsn; that of a page from WAL is set before.
    page = rebuild((50, image(kind, one_row(100))), (60, lock(111)))
    assert (row(page, 1).xmax, layout.lsn(page)) == (111, 60)


@pytest.mark.parametrize("flags", [1, 3])
def test_an_image_or_initialisation_ends_fuzziness(flags: int) -> None:
    fuzzy = (50, image(version.IMAGE_FUZZY, one_row(100)))
    exact = (60, image(version.IMAGE_EXACT, one_row(100)))
    assert row(rebuild(fuzzy, exact, (70, lock(111))), 1).xmax == 111
    page = rebuild(fuzzy, (60, insert(flags=flags)), (70, lock(111)))
    assert (row(page, 1).xmax, layout.max_offset(page)) == (111, 1)


def test_fuzziness_lasts_while_records_are_skipped() -> None:
    page = rebuild((50, image(version.IMAGE_FUZZY, one_row(100))), (60, lock(1)), (70, lock(2)))
    assert (row(page, 1).xmax, layout.lsn(page)) == (0, 100)


def test_fuzziness_lasts_over_an_effect() -> None:
    fuzzy, effect = (
        image(version.IMAGE_FUZZY, one_row(100)),
        version.effect(version.VM_CLEAR, [(2000, 3, 0)]),
    )
    page = rebuild((50, fuzzy), (60, effect), (70, lock(2)))
    assert (row(page, 1).xmax, layout.lsn(page)) == (0, 100)


def test_a_full_page_is_not_a_new_one() -> None:
    full = heap_page(*(Row(content=bytes(177)) for _ in range(40)))
    assert full[14:18] == b"\xc0\0\0\x20"  # pd_upper, pd_special
    assert layout.lsn(rebuild((60, lock(1)), base=bytes(full))) == 60


def test_redo_is_told_the_lsn() -> None:
    """The page on the left of a GiST split gets it as its NSN."""
    left = gist_page(flags=LEAF | FOLLOW_RIGHT)
    main, data = update([], [])
    payload = record(PAGE_UPDATE, main, data, rmgr=GIST, block_id=1)
    page = rebuild((60, payload), base=bytes(left))
    assert special(page)[0] == layout.lsn(page) == 60


def test_an_initialisation_starts_from_zeros() -> None:
    page = rebuild((60, insert(flags=1)), base=b"\xff" * 8192)
    assert layout.lsn(page) == 60
    assert not any(page[28 : layout.item_offset(page, 1)])


def test_an_effect_does_not_set_the_lsn() -> None:
    effect = version.effect(version.VM_CLEAR, [(0, 3, 0)])
    assert (
        bytes(rebuild((60, effect), base=b"\xff" * 8192)) == b"\xff" * 24 + b"\xfc" + b"\xff" * 8167
    )


@pytest.mark.parametrize(("lsn", "is_refused"), [(99, False), (100, False), (101, True)])
def test_a_record_for_a_page_never_written(lsn: int, is_refused: bool) -> None:
    """Legal up to the end of the base backup: the relation was dropped or truncated later."""
    if is_refused:
        with pytest.raises(ValueError, match="never written"):
            rebuild((lsn, lock(1)), new_page_lsn_max=100)
    else:
        assert not any(rebuild((lsn, lock(1)), new_page_lsn_max=100))


def test_an_initialisation_of_any_kind_gets_a_page_of_zeros() -> None:
    ends = struct.pack("<HHHHH", 10, 6, 0, 8192, 8192)  # pd_flags, pd_lower, pd_upper
    payload = record(0, b"", ends, rmgr=GENERIC, flags=1)
    page = rebuild((60, payload), base=b"\xff" * 8192)
    assert (layout.lsn(page), bytes(page[10:16])) == (60, ends[4:])
    assert not any(page[8:10]) and not any(page[16:])


@pytest.mark.parametrize("info", [VISIBLE, VISIBLE | 3])
def test_visible_makes_a_map_page_of_zeros(info: int) -> None:
    page = rebuild((60, visible(0, info)))  # of heap block 6
    assert (layout.lsn(page), layout.is_new(page)) == (60, False)
    assert page[25] == sum(page[24:]) == 0b010000


@pytest.mark.parametrize(
    "payload",
    [
        visible(1),
        record(FREEZE, bytes(8), rmgr=HEAP2),
        record(0x50, bytes(8), rmgr=HEAP2),
        record(VISIBLE, struct.pack("<IB", 9, 1), rmgr=HEAP),
        record(VISIBLE, struct.pack("<IB", 9, 1), rmgr=HEAP + 1),
    ],
)
def test_nothing_else_makes_a_page_of_zeros(payload: bytes) -> None:
    with pytest.raises(ValueError, match="never written"):
        rebuild((60, payload))


@pytest.mark.parametrize(("flags", "lsn"), [(0, 0), (2, 60)])
def test_whether_hint_bits_are_logged_comes_with_the_record(flags: int, lsn: int) -> None:
    main = struct.pack("<IB", 9, 1)
    payload = record(VISIBLE, main, rmgr=HEAP2, block_id=1, flags=flags)
    assert layout.lsn(rebuild((60, payload), base=one_row())) == lsn


def test_what_cannot_be_redone_says_which_record_it_was() -> None:
    unreadable = bytes([version.UNREADABLE, 128, 0x70, 0])
    chain = VersionSet(64, 2)
    chain.push(memoryview(unreadable), 0, 4, 60)
    reconstruct = Reconstruct(18)
    out = memoryview(bytearray(8192))
    with pytest.raises(ValueError, match="no redo"):
        reconstruct.page(chain, 1, out, 0, False)
    found = (reconstruct.unreadable_rmgr, reconstruct.unreadable_info, reconstruct.unreadable_lsn)
    assert found == (128, 0x70, 60)
    reconstruct.page(chain, 0, out, 0, False)
    assert reconstruct.unreadable_rmgr == -1


@pytest.mark.parametrize("kind", [version.FILE, version.HISTORY, 0x7F, 9, 17])
def test_versions_that_pages_do_not_have(kind: int) -> None:
    with pytest.raises(ValueError, match="kind"):
        rebuild((60, bytes([kind]) + bytes(8198)))


def test_resource_managers_with_redo() -> None:
    supported = [number for number in range(256) if dispatch.is_supported(number)]
    assert supported == [9, 10, 11, 12, 13, 14, 15, 16, 17, 20]
    for number in set(range(30)) - set(supported):
        with pytest.raises(ValueError, match="no redo for"):
            rebuild((60, record(0, bytes(20), rmgr=number)), base=one_row())


@pytest.mark.parametrize("longer", [-1, 1])
def test_a_record_whose_lengths_do_not_add_up(longer: int) -> None:
    payload = lock(1) + b"\xee"
    with pytest.raises(IndexError, match="add up"):
        rebuild((60, payload[: len(payload) - 1 + longer]), base=one_row())
