"""One WAL record into columns: every kind of fragment, all versions' image bits, bad records."""

import random
import struct

import pytest

from formats import wal_record
from formats.wal_record import RecordColumns
from tests.fixtures.wal_builder import (
    APPLY,
    HAS_HOLE,
    LZ4,
    PGLZ,
    ZSTD,
    Image,
    Record,
    Reference,
    encode,
    encode_body,
    row,
    seal,
)

REL, OTHER = (1663, 5, 16384), (1663, 5, 16390)
PREVIOUS = 0x1234_5678_9ABC_DEF0
PAGE = random.Random(1).randbytes(8192)


def parse(data: bytes, version: int = 18, records_max: int = 4) -> RecordColumns:
    columns = RecordColumns(records_max, 64)
    columns.data = memoryview(b"before!!" + data + b"behind")
    fault = wal_record.parse(columns, 8, len(data), version)
    if fault:
        assert columns.count == 0
        assert columns.reference_count == 0
        what = wal_record.describe(fault, columns.fault_about, columns.fault_found)
        raise ValueError(" | ".join(what))
    return columns


RECORDS = {
    "nothing": Record(rmgr=0, info=0x40),
    "short main data": Record(rmgr=1, info=0x80, xid=0xFFFFFFFF, main=b"m" * 255),
    "long main data": Record(rmgr=21, main=PAGE * 40),
    "long form of short main data": Record(rmgr=21, main=b"abc", long_main=True),
    "origin and top-level xid": Record(
        rmgr=10, xid=7, main=b"main", origin=0xFFFE, toplevel_xid=0xEEEEEEEE
    ),
    "origin and nothing else": Record(rmgr=1, origin=3),
    "one reference": Record(rmgr=10, references=[Reference(0, REL, 7, data=b"tuple")]),
    "reference without data": Record(rmgr=10, main=b"m", references=[Reference(0, REL, 0)]),
    "all-ones": Record(
        rmgr=255,
        info=255,
        xid=0xFFFFFFFF,
        main=b"\xff" * 9,
        references=[Reference(32, (0xFFFFFFFF,) * 3, 0xFFFFFFFF, fork=3, data=b"\xff" * 65535)],
        origin=0xFFFF,
    ),
    "same relation, other forks, gaps in the ids": Record(
        rmgr=10,
        main=b"main data",
        references=[
            Reference(0, REL, 1, data=b"zero"),
            Reference(2, REL, 2, fork=1, will_init=True, same_relation=True),
            Reference(5, OTHER, 3, fork=2, data=b"five!"),
            Reference(6, OTHER, 4, same_relation=True, data=b"six"),
        ],
    ),
    "images": Record(
        rmgr=0,
        info=0xB0,
        references=[
            Reference(0, REL, 1, image=Image(PAGE)),
            Reference(1, REL, 2, image=Image(PAGE[:192], 24, 8000, HAS_HOLE | APPLY), data=b"d"),
            Reference(2, REL, 3, image=Image(PAGE[:8191], 8191, 1, HAS_HOLE)),
            Reference(3, REL, 4, image=Image(b"p" * 90, 0, 0, PGLZ | APPLY)),
            Reference(4, REL, 5, image=Image(b"q" * 91, 40, 8152, PGLZ | HAS_HOLE | APPLY)),
        ],
    ),
    "33 references": Record(
        rmgr=20, references=[Reference(i, REL, i, data=bytes([i]) * (i + 1)) for i in range(33)]
    ),
}


@pytest.mark.parametrize("version", [14, 15, 18])
@pytest.mark.parametrize("name", RECORDS)
def test_every_part_of_a_record(name, version):
    record = RECORDS[name]
    data = encode(record, PREVIOUS, version)
    columns = parse(data, version)
    assert columns.count == 1
    assert columns.reference_count == len(record.references)
    assert columns.record_pos[0] == 8
    assert columns.record_length[0] == len(data)
    assert row(columns, 0) == record


@pytest.mark.parametrize("compression", [LZ4, ZSTD])
def test_compressions_that_14_does_not_have(compression):
    image = Image(b"c" * 100, 30, 5000, compression | HAS_HOLE | APPLY)
    record = Record(references=[Reference(0, REL, 1, image=image)])
    assert row(parse(encode(record, 0, 15), 15), 0) == record


def test_14_numbers_the_image_bits_otherwise():
    body = struct.pack("<BBHHHBH", 0, 0x10, 0, 3, 20, 0b011, 100)  # has a hole, compressed
    body += struct.pack("<IIII", *REL, 9) + b"img"
    data = seal(Record(), body, 0)
    columns = parse(data, 14)
    assert columns.ref_image_info[0] == HAS_HOLE | PGLZ
    assert columns.ref_hole_length[0] == 100
    body = body.replace(struct.pack("<HHBH", 3, 20, 0b011, 100), struct.pack("<HHB", 8092, 20, 5))
    columns = parse(seal(Record(), body[:-3] + bytes(8092), 0), 14)
    assert columns.ref_image_info[0] == HAS_HOLE | APPLY
    assert columns.ref_hole_length[0] == 100


def test_records_are_appended_one_after_the_other():
    columns = RecordColumns(3, 99)
    chosen = [RECORDS["images"], RECORDS["nothing"], RECORDS["33 references"]]
    encoded = [encode(record, 0) for record in chosen]
    columns.data = memoryview(b"".join(encoded))
    for n, data in enumerate(encoded):
        pos = sum(map(len, encoded[:n]))
        assert wal_record.parse(columns, pos, len(data), 18) == 0
    assert [row(columns, r) for r in range(3)] == chosen
    assert list(columns.first_reference) == [0, 5, 5, 38]
    columns.clear()
    assert wal_record.parse(columns, len(encoded[0]), 24, 18) == 0
    assert (columns.count, columns.reference_count) == (1, 0)
    assert list(columns.first_reference[:2]) == [0, 0]


def test_a_full_batch_takes_no_more():
    data = encode(RECORDS["one reference"], 0)
    for records_max, references_max in ((1, 64), (9, 33)):
        columns = RecordColumns(records_max, references_max)
        columns.data = memoryview(data)
        assert wal_record.parse(columns, 0, len(data), 18) == 0
        with pytest.raises(IndexError, match="no room"):
            wal_record.parse(columns, 0, len(data), 18)


@pytest.mark.parametrize("room", [(0, 33), (1, 32), (-1, 33)])
def test_batches_that_could_hold_nothing(room):
    with pytest.raises(ValueError, match="room for a record"):
        RecordColumns(*room)


@pytest.mark.parametrize(("pos", "length"), [(-1, 24), (0, 23), (0, 25), (1, 24), (1 << 60, 24)])
def test_bounds(pos, length):
    columns = RecordColumns(1, 33)
    columns.data = memoryview(encode(Record(), 0))
    with pytest.raises(IndexError):
        wal_record.parse(columns, pos, length, 18)


def test_the_crc_covers_every_byte_but_the_padding():
    record = RECORDS["same relation, other forks, gaps in the ids"]
    data = encode(record, PREVIOUS)
    for pos in range(4, len(data)):  # the length says how many bytes there are: not to be flipped
        damaged = bytearray(data)
        damaged[pos] ^= 0x10
        with pytest.raises(ValueError, match=r"CRC-32C of the WAL record \| 0x"):
            parse(bytes(damaged))


def bad(body: bytes, version: int = 18) -> str:
    with pytest.raises(ValueError, match=r"\|") as caught:
        parse(seal(Record(), body, 0), version)
    return str(caught.value)


def block_header(
    id: int = 0, flags: int = 0, length: int = 0, image: bytes = b"", relation: bool = True
) -> bytes:
    head = struct.pack("<BBH", id, flags, length) + image
    return head + (struct.pack("<III", *REL) if relation else b"") + struct.pack("<I", 1)


def image_header(length: int, hole_offset: int, info: int, hole_length: int | None = None) -> bytes:
    head = struct.pack("<HHB", length, hole_offset, info)
    return head if hole_length is None else head + struct.pack("<H", hole_length)


def test_fragments_that_do_not_add_up():
    assert "length of the record's fragments" in bad(b"\xff\x05main")
    assert "exactly the record's own" in bad(b"\xff\x03main")
    assert "no more than" in bad(b"\xff")
    assert "no more than" in bad(b"\xfe\x01\x00\x00")
    assert "no more than" in bad(b"\xfe\xff\xff\xff\xffmain")
    assert "no more than" in bad(b"\xfd\x01")
    assert "no more than" in bad(b"\xfc\x01\x00\x00")
    assert "no more than" in bad(block_header(flags=0x20, length=9) + b"short")


@pytest.mark.parametrize("fragment", [33, 100, 251])
def test_unknown_fragments(fragment):
    assert bad(bytes([fragment]) + b"anything") == (
        f"fragment of the record | id 0..32 or 252..255 | {fragment}"
    )


def test_a_header_cut_off_at_every_byte():
    whole = block_header(flags=0x10, image=image_header(100, 20, PGLZ | HAS_HOLE, 50))
    for length in range(1, len(whole)):
        bad(whole[:length])


def test_block_references_that_contradict_themselves():
    assert "id of the block reference 1" in bad(block_header(1) + block_header(1))
    assert "id of the block reference 0" in bad(block_header(3) + block_header(0))
    assert "fork of the block reference 0 | 0..3 | 4" in bad(block_header(flags=4))
    assert "data length of the block reference 0" in bad(block_header(flags=0x20))
    assert "data length of the block reference 0" in bad(block_header(length=4) + b"data")
    assert "relation of the block reference 7" in bad(block_header(7, 0x80, relation=False))


@pytest.mark.parametrize(
    ("image", "size", "what"),
    [
        (image_header(8192, 0, 0x20), 8192, "image info"),
        (image_header(100, 0, PGLZ | LZ4), 100, "image info"),
        (image_header(100, 0, LZ4 | ZSTD), 100, "image info"),
        (image_header(100, 0, APPLY), 100, "image length"),
        (image_header(8193, 0, APPLY), 8193, "image length"),
        (image_header(8193, 100, HAS_HOLE), 8193, "image length"),
        (image_header(8192, 100, HAS_HOLE), 8192, "image length"),
        (image_header(0, 0, PGLZ), 0, "image length"),
        (image_header(8192, 0, PGLZ), 8192, "image length"),
        (image_header(192, 0, HAS_HOLE), 192, "hole"),
        (image_header(192, 193, HAS_HOLE), 192, "hole"),
        (image_header(8192, 7, APPLY), 8192, "hole"),
        (image_header(50, 7, ZSTD), 50, "hole"),
        (image_header(50, 0, ZSTD | HAS_HOLE, 100), 50, "hole"),
        (image_header(50, 100, ZSTD | HAS_HOLE, 0), 50, "hole"),
        (image_header(50, 8000, ZSTD | HAS_HOLE, 193), 50, "hole"),
    ],
)
def test_images_that_contradict_themselves(image, size, what):
    assert what in bad(block_header(flags=0x10, image=image) + bytes(size))


def test_14_has_fewer_image_bits():
    assert "image info" in bad(block_header(flags=0x10, image=image_header(8192, 0, 8)), 14)


def test_any_bytes_with_a_right_crc_give_a_record_or_a_fault():
    rng = random.Random(4)
    bodies = [encode_body(record) for record in RECORDS.values() if len(record.main) < 1000]
    outcomes = set()
    for _ in range(4000):
        body = bytearray(rng.choice(bodies)[: rng.randrange(40, 400)])
        for _ in range(rng.randrange(4)):
            if body:
                body[rng.randrange(min(len(body), 60))] = rng.choice([0, 1, 16, 32, 255, 254])
        try:
            outcomes.add(parse(seal(Record(), bytes(body), 0), rng.choice([14, 18])).count)
        except ValueError as error:
            outcomes.add(str(error).split(" | ")[0].rstrip("0123456789"))
    assert 1 in outcomes
    assert len(outcomes) > 6
