"""Redo of hash index records on bucket pages: every opcode, what moves pd_lsn, wrong records."""

import struct

import pytest

from engine.redo import hash_index
from tests.fixtures.hash_parts import (
    ADD_OVERFLOW,
    BEING_SPLIT,
    BLOCKS,
    BUCKET,
    CLEANUP,
    DEAD,
    DELETE,
    EXTENDED,
    GARBAGE,
    INIT_BITMAP,
    INIT_META,
    INSERT,
    MOVE,
    NONE,
    OVERFLOW,
    POPULATED,
    SPLIT_ALLOCATE,
    SPLIT_CLEANUP,
    SPLIT_COMPLETE,
    SPLIT_PAGE,
    SQUEEZE,
    UPDATE_META,
    VACUUM_ONE_PAGE,
    bucket_page,
    empty_page,
    entry,
    meta_page,
    special,
    tuples,
)
from tests.fixtures.redo_parts import make_part


def test_insert() -> None:
    view = bucket_page(entry(1), entry(3))
    assert hash_index.redo(make_part(view, INSERT, b"\2\0", entry(2))) == 1
    assert tuples(view) == [entry(1), entry(2), entry(3)]
    view = meta_page(41.0)
    assert hash_index.redo(make_part(view, INSERT, b"\2\0", b"", BLOCKS, 1)) == 1
    assert bytes(view) == bytes(meta_page(42.0))


def test_insert_into_a_page_of_many() -> None:
    held = [entry(n) for n in range(406)]
    view = bucket_page(*held)
    hash_index.redo(make_part(view, INSERT, (407).to_bytes(2, "little"), entry(9)))
    assert tuples(view) == [*held, entry(9)]


@pytest.mark.parametrize(
    ("number", "data"), [(0, entry(2)), (3, entry(2)), (1, b""), (1, bytes(7)), (1, bytes(8160))]
)
def test_insert_that_does_not_fit_is_refused(number: int, data: bytes) -> None:
    main = number.to_bytes(2, "little")
    with pytest.raises(ValueError, match="hash tuple"):
        hash_index.redo(make_part(bucket_page(entry(1)), INSERT, main, data))


def test_overflow_page() -> None:
    view = memoryview(bytearray(GARBAGE))
    bucket = struct.pack("<I", 0x20003)
    assert hash_index.redo(make_part(view, ADD_OVERFLOW, EXTENDED, bucket, BLOCKS)) == 1
    assert bytes(view) == empty_page(OVERFLOW, 0x20003, 0x10007)
    view = bucket_page(entry(1), flags=BUCKET | DEAD)
    assert hash_index.redo(make_part(view, ADD_OVERFLOW, EXTENDED, b"", BLOCKS, 1)) == 1
    assert view[8176:] == special(BUCKET | DEAD, following=4)
    assert tuples(view) == [entry(1)]


def test_split_begins() -> None:
    main = struct.pack("<IHHB", 0x30005, BUCKET | BEING_SPLIT, BUCKET | POPULATED, 0)
    view = bucket_page(entry(1), following=6)
    assert hash_index.redo(make_part(view, SPLIT_ALLOCATE, main)) == 1
    assert view[8176:] == special(BUCKET | BEING_SPLIT, previous=0x30005, following=6)
    assert tuples(view) == [entry(1)]
    view = memoryview(bytearray(GARBAGE))
    assert hash_index.redo(make_part(view, SPLIT_ALLOCATE, main, block_id=1)) == 1
    assert bytes(view) == empty_page(BUCKET | POPULATED, 0x30005, 0x30005)


def test_split_comes_with_images_alone() -> None:
    with pytest.raises(ValueError, match="without the page's image"):
        hash_index.redo(make_part(bucket_page(), SPLIT_PAGE, b""))


@pytest.mark.parametrize(("block_id", "flags"), [(0, BUCKET | CLEANUP), (1, BUCKET)])
def test_split_ends(block_id: int, flags: int) -> None:
    view = bucket_page(entry(1), flags=BUCKET | BEING_SPLIT)
    main = struct.pack("<HH", BUCKET | CLEANUP, BUCKET)
    part = make_part(view, SPLIT_COMPLETE, main, b"", BLOCKS, block_id)
    assert hash_index.redo(part) == 1
    assert view[8176:] == special(flags)


def test_split_is_cleaned_up() -> None:
    view = bucket_page(entry(1), flags=0xFFFF)
    assert hash_index.redo(make_part(view, SPLIT_CLEANUP, b"")) == 1
    assert view[8176:] == special(0xFFFF - CLEANUP)


def added(*held: tuple[int, bytes]) -> bytes:
    """The data of a block to which tuples go: numbers, then tuples."""
    numbers = struct.pack(f"<{len(held)}H", *[number for number, _ in held])
    return numbers + b"".join(one.ljust((len(one) + 7) // 8 * 8, b"\0") for _, one in held)


MOVE_MAIN = struct.pack("<HB", 2, 0)


def test_tuples_move() -> None:
    view = bucket_page(entry(1), entry(4))
    data = added((2, entry(2)), (4, entry(5, 24)))
    assert hash_index.redo(make_part(view, MOVE, MOVE_MAIN, data, BLOCKS, 1)) == 1
    assert tuples(view) == [entry(1), entry(2), entry(4), entry(5, 24)]
    view = bucket_page(entry(2), entry(3), entry(5), flags=OVERFLOW | DEAD)
    data = struct.pack("<HH", 1, 3)
    assert hash_index.redo(make_part(view, MOVE, MOVE_MAIN, data, BLOCKS, 2)) == 1
    assert tuples(view) == [entry(3)]
    assert view[8176:] == special(OVERFLOW | DEAD)


def test_a_tuple_of_an_odd_length_takes_whole_words() -> None:
    view = bucket_page()
    data = added((1, entry(2, 21)), (2, entry(3)))
    hash_index.redo(make_part(view, MOVE, MOVE_MAIN, data, BLOCKS, 1))
    assert tuples(view) == [entry(2, 21) + bytes(3), entry(3)]


@pytest.mark.parametrize("info", [MOVE, SQUEEZE, DELETE])
def test_a_page_that_is_only_locked_stays_as_it_is(info: int) -> None:
    view = bucket_page(entry(1), flags=BUCKET | DEAD)
    before = bytes(view)
    assert hash_index.redo(make_part(view, info, b"\1" * 12, b"", BLOCKS, 0)) == 0
    assert bytes(view) == before


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (1, b""),
        (1, added((1, entry(2))) + b"\0"),
        (2, added((1, entry(2)))),
        (1, added((1, entry(2)), (2, entry(3)))),
        (0, added((1, entry(2)))),
        (1, added((1, entry(2)))[:-1]),
        (1, b"\1\0" + bytes(16)),
        (1, added((0, entry(2)))),
        (1, added((3, entry(2)))),
    ],
)
@pytest.mark.parametrize("info", [MOVE, SQUEEZE])
def test_wrong_tuples_to_add_are_refused(info: int, count: int, data: bytes) -> None:
    squeeze = struct.pack("<IIHBB", 9, NONE, count, 0, 0)
    main = struct.pack("<HB", count, 0) if info == MOVE else squeeze
    with pytest.raises(ValueError, match="hash"):
        hash_index.redo(make_part(bucket_page(entry(1)), info, main, data, BLOCKS, 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\1\0" + entry(2)[:7], "tuple is cut off"),
        (b"\1\0" + entry(2)[:8], "too short or cut off"),
        (b"\1\0" + entry(2)[:15], "too short or cut off"),
        (b"\1\0" + bytes(16), "too short or cut off"),
        (b"\1\0" + entry(2, 24)[:23], "too short or cut off"),
    ],
)
def test_a_tuple_that_is_cut_off_is_refused(data: bytes, reason: str) -> None:
    main = struct.pack("<HB", 1, 0)
    with pytest.raises(ValueError, match=reason):
        hash_index.redo(make_part(bucket_page(), MOVE, main, data, BLOCKS, 1))


def test_the_shortest_tuple() -> None:
    view = bucket_page()
    main, data = struct.pack("<HB", 1, 0), b"\1\0" + entry(2, 8)[:6] + b"\x08\0"
    hash_index.redo(make_part(view, MOVE, main, data, BLOCKS, 1))
    assert tuples(view) == [data[2:]]


@pytest.mark.parametrize(
    ("count", "is_before", "version", "result"),
    [
        (1, 0, 18, 1),
        (0, 1, 18, 1),
        (2, 1, 17, 1),
        (0, 0, 17, 0),
        (0, 0, 16, 1),
        (0, 0, 14, 1),
        (1, 0, 16, 1),
    ],
)
def test_squeeze_into_a_page(count: int, is_before: int, version: int, result: int) -> None:
    view = bucket_page(entry(1), following=4)
    held = [entry(2), entry(3)][:count]
    data = added(*enumerate(held, 2))
    main = struct.pack("<IIHBB", 9, 0x10008, count, 1, is_before)
    part = make_part(view, SQUEEZE, main, data, BLOCKS, 1, version=version)
    assert hash_index.redo(part) == result
    assert tuples(view) == [entry(1), *held]
    assert view[8176:] == special(BUCKET, following=0x10008 if is_before else 4)


def test_squeezed_page_and_its_neighbours() -> None:
    main = struct.pack("<IIHBB", 0x10009, 0x10008, 0, 0, 0)
    view = bucket_page(entry(1), entry(2), flags=OVERFLOW, following=6)
    assert hash_index.redo(make_part(view, SQUEEZE, main, b"", BLOCKS, 2)) == 1
    assert bytes(view) == empty_page(0, NONE, NONE)
    view = bucket_page(entry(1), following=6)
    assert hash_index.redo(make_part(view, SQUEEZE, main, b"", BLOCKS, 3)) == 1
    assert view[8176:] == special(BUCKET, following=0x10008)
    view = bucket_page(entry(1), following=6)
    assert hash_index.redo(make_part(view, SQUEEZE, main, b"", BLOCKS, 4)) == 1
    assert view[8176:] == special(BUCKET, previous=0x10009, following=6)
    view = meta_page()
    assert hash_index.redo(make_part(view, SQUEEZE, main, b"\7\0\0\0", BLOCKS, 6)) == 1
    assert bytes(view) == bytes(meta_page(first_free=7))


def test_the_page_before_is_named_once() -> None:
    main = struct.pack("<IIHBB", 9, 8, 0, 0, 1)
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        hash_index.redo(make_part(bucket_page(), SQUEEZE, main, b"", BLOCKS, 3))


@pytest.mark.parametrize(("none_left", "flags"), [(0, BUCKET | DEAD), (1, BUCKET)])
def test_deletion(none_left: int, flags: int) -> None:
    held = [entry(n) for n in range(1, 7)]
    for numbers in ([], [2], [1, 6], [1, 3, 4, 5], [1, 2, 3, 4, 5, 6]):
        view = bucket_page(*held, flags=BUCKET | DEAD)
        data = struct.pack(f"<{len(numbers)}H", *numbers)
        main = bytes([none_left, 1])
        assert hash_index.redo(make_part(view, DELETE, main, data, BLOCKS, 1)) == 1
        assert tuples(view) == [one for n, one in enumerate(held, 1) if n not in numbers]
        assert view[8176:] == special(flags)


@pytest.mark.parametrize("data", [b"\1", b"\1\0\2\0\3\0", b"\2\0" * 2, b"\3\0", bytes(2)])
def test_deletion_of_what_is_not_there_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        hash_index.redo(
            make_part(bucket_page(entry(1), entry(2)), DELETE, b"\0\1", data, BLOCKS, 1)
        )


@pytest.mark.parametrize(("version", "count"), [(14, "<i"), (15, "<i"), (16, "<HBx"), (18, "<HBx")])
def test_dead_tuples_make_room(version: int, count: str) -> None:
    number = struct.pack(count, *([3] if version < 16 else [3, 1]))
    main = struct.pack("<I", 700) + number + struct.pack("<HHH", 1, 3, 4)
    view = bucket_page(*[entry(n) for n in range(1, 5)], flags=0xFFFF)
    assert hash_index.redo(make_part(view, VACUUM_ONE_PAGE, main, version=version)) == 1
    assert tuples(view) == [entry(2)]
    assert view[8176:] == special(0xFFFF - DEAD)
    with pytest.raises(ValueError, match="main data is too short"):
        hash_index.redo(make_part(view, VACUUM_ONE_PAGE, main[:-1], version=version))
    view = meta_page(6.0)
    part = make_part(view, VACUUM_ONE_PAGE, main, b"", BLOCKS, 1, version=version)
    assert hash_index.redo(part) == 1
    assert bytes(view) == bytes(meta_page(3.0))


def test_a_count_of_tuples_beyond_any_page_is_refused() -> None:
    main = struct.pack("<Ii", 700, 0x10001) + b"\1\0"
    with pytest.raises(ValueError, match="more tuples than a page has"):
        hash_index.redo(make_part(bucket_page(entry(1)), VACUUM_ONE_PAGE, main, version=15))
    main = struct.pack("<IHH", 700, 2, 0) + b"\1\0"
    with pytest.raises(ValueError, match="main data is too short"):
        hash_index.redo(make_part(bucket_page(entry(1)), VACUUM_ONE_PAGE, main))


MAIN_LENGTHS = {
    **{INIT_META: 14, INIT_BITMAP: 2, INSERT: 2, ADD_OVERFLOW: 3, SPLIT_ALLOCATE: 9},
    **{SPLIT_COMPLETE: 4, MOVE: 3, SQUEEZE: 12, DELETE: 2, UPDATE_META: 8, VACUUM_ONE_PAGE: 8},
}


@pytest.mark.parametrize("info", MAIN_LENGTHS)
def test_short_main_data_is_refused(info: int) -> None:
    main = bytes(MAIN_LENGTHS[info] - 1)
    with pytest.raises(ValueError, match="main data is too short"):
        hash_index.redo(make_part(bucket_page(), info, main, entry(2)))


@pytest.mark.parametrize("info", [*MAIN_LENGTHS, SPLIT_CLEANUP])
def test_unexpected_block_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="block that its opcode does not have"):
        hash_index.redo(make_part(bucket_page(), info, bytes(36), b"", {9: 1}, block_id=9))


@pytest.mark.parametrize("block_id", [0, 1])
def test_overflow_page_without_its_neighbour_is_refused(block_id: int) -> None:
    data = bytes(4) if block_id == 0 else b""
    with pytest.raises(ValueError, match="without a block"):
        hash_index.redo(
            make_part(bucket_page(), ADD_OVERFLOW, EXTENDED, data, {block_id: 1}, block_id)
        )


@pytest.mark.parametrize("info", [0xD0, 0xE0, 0xF0])
def test_unknown_opcode_is_refused(info: int) -> None:
    with pytest.raises(ValueError, match="unknown opcode"):
        hash_index.redo(make_part(bucket_page(), info, bytes(36)))


REFERENCES = [(INSERT, 0), (SPLIT_COMPLETE, 0), (SQUEEZE, 3), (SQUEEZE, 4), (MOVE, 1), (MOVE, 2)]


@pytest.mark.parametrize(("info", "block_id"), [*REFERENCES, (DELETE, 1), (SPLIT_CLEANUP, 0)])
@pytest.mark.parametrize("mark", [0xFF81, 0])
def test_page_of_something_else_is_refused(info: int, block_id: int, mark: int) -> None:
    view = bucket_page(entry(1))
    view[8176:] = special(BUCKET, mark=mark)
    main = {INSERT: b"\1\0", MOVE: bytes(3)}.get(info, bytes(12))
    data = entry(2) if info == INSERT else b""
    with pytest.raises(ValueError, match="not one of a hash index"):
        hash_index.redo(make_part(view, info, main, data, BLOCKS, block_id))
