"""Properties of the WAL reader over random WAL: chunking, batch sizes and starts do not matter.

Random records (sizes around everything that has an edge: the 8 bytes of alignment, what is left of
a page, pages, more than one) with random references, segment switches and unfinished records;
segments of 1 MiB, starting a few pages before the end of one so that segments are crossed.
Invariants:

  - fed in any pieces and taken in batches of any size, the rows are those that were written;
  - at every cut, `end_lsn` is where the next record starts, and `pending` says whether a part of
    one is there;
  - a reader that starts at any record's start finds the rest, and so does one that starts at a
    segment;
  - one damaged byte never gives another row: the rows are those before it, then an error, or all
    of them when the byte is one that means nothing (padding, skipped bytes).
"""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn
from formats.errors import CorruptionError
from tests.fixtures.wal_builder import (
    MIB,
    PAGE,
    Image,
    Record,
    Reference,
    WalBuilder,
    rows,
)

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

LENGTHS = st.one_of(
    st.integers(0, 80),
    st.integers(PAGE - 120, PAGE + 120),
    st.integers(3 * PAGE - 150, 3 * PAGE + 150),
)
RELATIONS = st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 3)
IMAGES = st.one_of(
    st.none(),
    st.builds(lambda hole, at: Image(b"i" * (PAGE - hole), at, hole, 3),
              st.integers(PAGE - 300, PAGE - 200), st.integers(1, 200)),
    st.builds(lambda size: Image(b"z" * size, 0, 0, 6), st.integers(1, 300)),
)  # fmt: skip


@st.composite
def records(draw) -> Record:
    references = []
    for n in range(draw(st.sampled_from([0, 0, 1, 1, 2, 5]))):
        same = n > 0 and draw(st.booleans())
        references.append(
            Reference(
                2 * n,
                references[-1].relation if same else draw(RELATIONS),
                draw(st.integers(0, 0xFFFFFFFF)),
                draw(st.integers(0, 3)),
                bytes(draw(st.sampled_from([0, 1, 100]))),
                draw(IMAGES),
                draw(st.booleans()),
                same,
            )
        )
    return Record(
        rmgr=draw(st.sampled_from([1, 10, 21, 200])),
        info=draw(st.sampled_from([0, 0x20, 0xF3])),
        xid=draw(st.integers(0, 0xFFFFFFFF)),
        main=b"m" * draw(LENGTHS),
        references=references,
        origin=draw(st.sampled_from([0, 0, 0xFFFF])),
        toplevel_xid=draw(st.sampled_from([None, 5])),
    )


STEPS = st.one_of(
    records(), records(), records(), records(), st.sampled_from(["fill", "switch", "abandon"])
)


@st.composite
def wals(draw) -> WalBuilder:
    wal = WalBuilder(start=2 * MIB - draw(st.integers(1, 4)) * PAGE, previous=8)
    for step in draw(st.lists(STEPS, min_size=1, max_size=12)):
        if isinstance(step, Record):
            wal.add(step)
        elif step == "fill":
            wal.fill_page(leave=draw(st.sampled_from([0, 8, 16, 24, 32])))
        elif step == "abandon":
            wal.abandon(Record(main=bytes(3 * PAGE)), pages=draw(st.integers(1, 2)))
        elif wal.lsn < 2 * MIB:
            wal.switch()
    return wal


def pieces(draw, total: int) -> list[int]:
    """Where to cut `total` bytes: anywhere, often into very small pieces at one place."""
    cuts = set(draw(st.lists(st.integers(0, total), max_size=12)))
    around = draw(st.integers(0, total))
    cuts |= set(range(around, min(total, around + draw(st.integers(0, 60)))))
    return sorted(cuts | {total})


def drain(reader: WalReader, batch: RecordBatch, records_max: int) -> list:
    found = []
    while reader.decode(batch, records_max):
        found += rows(batch)
    return found


@SETTINGS
@given(wal=wals(), data=st.data())
def test_any_chunking_and_any_batch_give_the_same_rows(wal, data):
    reader = WalReader(wal.start, MIB)
    batch = RecordBatch(data.draw(st.integers(1, 20)), data.draw(st.integers(33, 60)))
    records_max = data.draw(st.integers(1, 30))
    whole = memoryview(bytes(wal.data))
    found, pos = [], 0
    for cut in pieces(data.draw, len(whole)):
        reader.feed(wal.start + pos, whole[pos:cut])
        pos = cut
        found += drain(reader, batch, records_max)
        check_position(wal, reader, len(found))
    assert found == wal.placed
    assert reader.lsn == wal.lsn
    assert not reader.pending


def check_position(wal: WalBuilder, reader: WalReader, count: int) -> None:
    # Every record that is wholly there has been taken.
    assert all(end > reader.lsn for _, end, _ in wal.placed[count:])
    start = lsn.record_start(wal.placed[count - 1][1] if count else wal.start, MIB)
    # What replaces an unfinished record starts behind it.
    starts = {start, *(placed_start for placed_start, _, _ in wal.placed[count : count + 1])}
    assert reader.end_lsn in starts
    assert reader.pending == (reader.lsn > reader.end_lsn)


@SETTINGS
@given(wal=wals(), data=st.data())
def test_reading_may_start_at_any_record_and_at_any_segment(wal, data):
    whole = memoryview(bytes(wal.data))
    n = data.draw(st.integers(0, len(wal.placed) - 1))
    start, _, _ = wal.placed[n]
    batch = RecordBatch(100, 600)
    reader = WalReader(start, MIB, version=18)
    reader.feed(start, whole[start - wal.start :])
    assert drain(reader, batch, 100) == wal.placed[n:]
    if wal.lsn > 2 * MIB:
        reader = WalReader(2 * MIB, MIB)
        reader.feed(2 * MIB, whole[2 * MIB - wal.start :])
        assert drain(reader, batch, 100) == [row for row in wal.placed if row[0] >= 2 * MIB]


@settings(SETTINGS, max_examples=300)
@given(wal=wals(), place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_one_damaged_byte_never_gives_another_row(wal, place, mask):
    damaged = bytearray(wal.data)
    damaged[int(place * len(damaged))] ^= mask
    reader = WalReader(wal.start, MIB)
    batch = RecordBatch(5, 40)
    found, error = [], None
    reader.feed(wal.start, memoryview(damaged))
    try:
        while reader.decode(batch):
            found += rows(batch)
    except CorruptionError as raised:
        error = raised
    assert found == wal.placed[: len(found)]
    # A length that says more than there is, on the last page, looks like a record still to come.
    assert error or reader.pending or len(found) == len(wal.placed)
