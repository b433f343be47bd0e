"""A pd_lsn that differs from a primary's is excused where the WAL record itself says so."""

import struct
from pathlib import Path

import pytest

from formats import lsn as lsn_text
from formats import rmgr, wal_page
from formats.chunk import BLOCK_BYTES, Fork
from tests.fixtures.wal_builder import APPLY, PAGE, Image, Record, Reference, WalBuilder
from tools.data_directory import RelationFork
from tools.excuses import Excuse, Rules, explain
from tools.masks import Pair
from tools.primary_wal import PrimaryWal, WalGone
from tools.wal_positions import SEGMENT_BYTES

RELATION, BLOCK = (1663, 5, 16384), 9
FORK = RelationFork(*RELATION, Fork.MAIN)
FPI_FOR_HINT, FPI, SQUEEZE_PAGE, DELETE = 0xA0, 0xB0, 0x80, 0x90
EARLIER = 0x500


def squeeze(
    tuples: int = 0, is_primary: bool = True, is_previous: bool = False, block: int = BLOCK,
    number: int = 1, info: int = APPLY, opcode: int = SQUEEZE_PAGE,
) -> Record:  # fmt: skip
    """A page of a hash bucket that gets tuples from another, with an image of it."""
    main = struct.pack("<IIHBB", 7, 8, tuples, is_primary, is_previous)
    image = Image(bytes(PAGE), info=info)
    return Record(rmgr.HASH, opcode, 0, main, [Reference(number, RELATION, block, image=image)])


def hint(
    relation: tuple[int, int, int] = RELATION, block: int = BLOCK, fork: int = 0,
    image: bool = False, opcode: int = FPI_FOR_HINT,
) -> Record:  # fmt: skip
    content = Image(bytes(PAGE)) if image else None
    return Record(0, opcode, references=[Reference(0, relation, block, fork, image=content)])


def wal_with(directory: Path, *records: Record) -> tuple[PrimaryWal, list[int]]:
    """Kept WAL of two segments that ends with these records, and where each of them ends."""
    wal = WalBuilder(SEGMENT_BYTES, SEGMENT_BYTES)
    ends = [wal.add(record) for record in records]
    for number in range(1, 1 + -(-len(wal.data) // SEGMENT_BYTES)):
        data = bytes(wal.data[(number - 1) * SEGMENT_BYTES : number * SEGMENT_BYTES])
        name = wal_page.file_name(1, number, SEGMENT_BYTES)
        (directory / name).write_bytes(data.ljust(SEGMENT_BYTES, b"\0"))
    return PrimaryWal(directory), ends


def page(lsn: int, content: int = 0) -> bytearray:
    """A heap page without tuples."""
    made = bytearray(BLOCK_BYTES)
    struct.pack_into(
        "<IIHHHHHHI", made, 0, lsn >> 32, lsn & 0xFFFFFFFF, 0, 0, 24, 8184, 8192, 8196, 0
    )
    made[8190] = content
    return made


def differs(ours: bytearray, theirs: bytearray, rules: Rules) -> set[object] | None:
    """None if there is a difference left, else what explained it."""
    pair = Pair(bytearray(ours), bytes(theirs), BLOCK)
    explain(pair, FORK, rules)
    return pair.used if pair.first_difference() is None else None


def test_what_a_record_justifies(tmp_path):
    wal, (squeezed, hinted) = wal_with(tmp_path, squeeze(), hint())
    rules = Rules("primary", wal=wal)
    assert differs(page(squeezed), page(EARLIER), rules) == {Excuse.IMAGE_LSN}
    assert differs(page(EARLIER), page(hinted), rules) == {Excuse.HINT_LSN}
    assert differs(page(squeezed), page(hinted), rules) == {Excuse.HINT_LSN}


def test_only_pd_lsn_may_differ_and_only_from_a_primary(tmp_path):
    wal, (squeezed, hinted) = wal_with(tmp_path, squeeze(), hint())
    for ours, theirs in ((squeezed, EARLIER), (EARLIER, hinted)):
        assert differs(page(ours, 1), page(theirs), Rules("primary", wal=wal)) is None
        assert differs(page(ours), page(theirs), Rules("primary")) is None
        assert differs(page(ours), page(theirs), Rules("standby", wal=wal)) is None
        assert differs(page(theirs), page(ours), Rules("primary", wal=wal)) is None


def test_the_second_of_two_images_of_a_hint(tmp_path):
    """The primary has the first one's pd_lsn, redo the second one's."""
    wal, (first, second) = wal_with(tmp_path, hint(image=True), hint(image=True))
    rules = Rules("primary", wal=wal)
    assert differs(page(second), page(first), rules) == {Excuse.HINT_RACE}
    assert differs(page(first), page(second), rules) is None
    assert differs(page(second, 1), page(first), rules) is None


@pytest.mark.parametrize(
    "record",
    [
        squeeze(tuples=1),
        squeeze(is_primary=False),
        squeeze(is_previous=True),
        squeeze(block=BLOCK + 1),
        squeeze(number=2),
        squeeze(info=0),
        squeeze(opcode=DELETE),
        hint(image=True, block=BLOCK + 1),
        hint(image=True, opcode=FPI),
        hint(),
    ],
)
def test_an_image_that_does_not_justify_ours(tmp_path, record):
    wal, (end,) = wal_with(tmp_path, record)
    assert differs(page(end), page(EARLIER), Rules("primary", wal=wal)) is None


@pytest.mark.parametrize(
    "record",
    [
        hint(image=True),
        hint(block=BLOCK + 1),
        hint(relation=(1663, 5, 16385)),
        hint(fork=2),
        hint(opcode=FPI),
        squeeze(),
    ],
)
def test_a_hint_that_does_not_justify_theirs(tmp_path, record):
    wal, (end,) = wal_with(tmp_path, record)
    assert differs(page(EARLIER), page(end), Rules("primary", wal=wal)) is None


def test_lsns_at_which_no_record_ends(tmp_path):
    wal, (end,) = wal_with(tmp_path, hint())
    for lsn in (end - 8, end + 8, EARLIER):
        assert wal.record_ending_at(lsn) is None
        assert differs(page(EARLIER - 8), page(lsn), Rules("primary", wal=wal)) is None


def test_wal_that_is_gone_is_named(tmp_path):
    wal, (end,) = wal_with(tmp_path, hint())
    for lsn in (9 * SEGMENT_BYTES, 2 * SEGMENT_BYTES + end):
        with pytest.raises(WalGone, match="is gone"):
            wal.record_ending_at(lsn)
        pair = Pair(page(EARLIER), bytes(page(lsn)), BLOCK)
        explain(pair, FORK, Rules("primary", wal=wal))
        assert pair.first_difference() is not None
        assert pair.remark.endswith(f"the WAL that ends at {lsn_text.show(lsn)} is gone")


def test_a_record_that_began_in_the_segment_before(tmp_path):
    filling = [Record(main=bytes(1 << 20))] * 15
    wal, ends = wal_with(tmp_path, *filling, Record(main=bytes(1 << 21)), hint())
    assert ends[14] < 2 * SEGMENT_BYTES < ends[15]
    for end in ends[14:]:
        found = wal.record_ending_at(end)
        assert found is not None
    assert differs(page(EARLIER), page(ends[-1]), Rules("primary", wal=wal)) == {Excuse.HINT_LSN}
