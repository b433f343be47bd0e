"""The WAL reader over made-up WAL: where records start and end, and what is skipped.

What is refused: tests/unit/test_wal_reader_errors.py. Any chunking gives the same result:
tests/property/test_wal_reader.py. Real WAL against pg_waldump:
tests/integration/test_wal_decode.py.
"""

import mmap

import pytest

from engine.record_batch import RecordBatch
from engine.wal_reader import WalReader
from formats import lsn
from formats.errors import CorruptionError
from tests.fixtures.wal_builder import (
    MIB,
    PAGE,
    XLOG,
    Record,
    Reference,
    WalBuilder,
    encode,
    rows,
)
from tests.fixtures.wal_reading import SMALL, drain, large, read, reader_for

BUFFER_BYTES = 1 << 18  # of engine/wal_buffer.py, while no record needs more


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


@pytest.mark.parametrize("leave", [8, 16])
@pytest.mark.parametrize("chunk", [4 * MIB, 8192, 48, 1000])
def test_a_segment_that_begins_inside_of_a_switch(leave, chunk):
    """The zeros behind the rest of it are no end of WAL: the next segment goes on."""
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=leave)
    wal.switch()
    wal.add(SMALL)
    assert wal.placed[1][:2] == (2 * MIB - leave, 3 * MIB)
    data = bytes(wal.data[PAGE:])
    found, reader = read_from(2 * MIB, data, chunk)
    assert found == wal.placed[2:]
    assert reader.end_lsn == wal.lsn
    # Not even the first of the zeros, and then one page of them.
    rest = 40 + 24 - leave
    _, reader = read_from(2 * MIB, data[:rest], chunk)
    assert (reader.end_lsn, reader.pending) == (2 * MIB + rest, False)
    _, reader = read_from(2 * MIB, data[:PAGE], chunk)
    assert (reader.end_lsn, reader.pending) == (3 * MIB + 40, False)


def test_zeros_behind_the_rest_of_another_record_are_refused():
    """Of one that is no switch; and of one that ends like one, but began pages before."""
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=8)
    wal.append_bytes(encode(Record(XLOG, 0x20), wal.previous))
    with pytest.raises(CorruptionError, match="WAL record"):
        read_from(2 * MIB, bytes(wal.data[PAGE:]) + bytes(100), MIB)
    wal = WalBuilder(start=2 * MIB - PAGE)
    wal.fill_page(leave=48)
    body = 24 + (PAGE - 40) + 8 - 5
    wal.append_bytes(encode(Record(main=bytes(body - 8) + b"\x40" + bytes(7)), wal.previous))
    assert wal.lsn == 2 * MIB + PAGE + 24 + 8
    with pytest.raises(CorruptionError, match="WAL record"):
        read_from(2 * MIB, bytes(wal.data[PAGE:]) + bytes(100), MIB)


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


def test_a_batch_is_valid_until_the_next_decode():
    """Also where it ends because the reader's buffer is full, in the middle of a record."""
    wal = WalBuilder()
    for n in range(600):
        wal.add(large(n * 5))
    assert len(wal.data) > 3 * BUFFER_BYTES
    reader = reader_for(wal)
    reader.feed(MIB, memoryview(bytes(wal.data)))
    batch = RecordBatch(1000, 1000)
    counts, found = [], []
    while count := reader.decode(batch):
        counts.append(count)
        found += rows(batch)
    assert found == wal.placed
    assert len(counts) > 3
    assert not reader.pending


def test_what_was_fed_is_let_go_when_all_is_decoded():
    wal = WalBuilder()
    for n in range(300):
        wal.add(large(n * 10))
    reader = reader_for(wal)
    reader.feed(MIB, memoryview(wal.data))
    batch = RecordBatch(1000, 1000)
    while reader.decode(batch):
        with pytest.raises(BufferError):
            wal.data.append(0)
    wal.data.append(0)
    assert reader.lsn == wal.lsn - 1


@pytest.mark.parametrize("chunk", [1, 5000, 300_000])
def test_fed_again_before_all_is_decoded(chunk):
    wal = WalBuilder(start=MIB - 2 * PAGE)
    for n in range(60 if chunk == 1 else 600):
        wal.add(large(n * 5))
    reader = reader_for(wal)
    batch = RecordBatch(10, 50)
    found = []
    for pos in range(0, len(wal.data), chunk):
        reader.feed(reader.lsn, memoryview(bytes(wal.data[pos : pos + chunk])))
        if pos // chunk % 3 == 0 and reader.decode(batch):
            found += rows(batch)
    assert reader.lsn == wal.lsn
    assert found + drain(reader) == wal.placed
    assert not reader.pending


def test_a_very_large_record_is_read_in_small_pieces():
    """The buffer grows to hold it and shrinks again."""
    wal = WalBuilder()
    wal.add(SMALL)
    wal.add(large(6 * MIB))
    wal.add(SMALL)
    for chunk in (200_000, 8 * MIB):
        found, reader = read(wal, chunk)
        assert found == wal.placed
        assert not reader.pending
    batch = RecordBatch(10, 50)
    reader.decode(batch)
    assert len(batch.data) > 6 * MIB
    reader.feed(wal.lsn, memoryview(b""))
    reader.decode(batch)
    assert len(batch.data) == BUFFER_BYTES


def test_more_than_positions_can_say():
    """4 GiB may be fed at once, but not be kept undecoded."""
    reader = WalReader(MIB, MIB)
    area = mmap.mmap(-1, 1 << 32)
    with memoryview(area) as view:
        reader.feed(MIB, view)
        with pytest.raises(ValueError, match="must fit into 32 bits"):
            reader.feed(reader.lsn, memoryview(b""))
        assert reader.lsn == MIB + (1 << 32)
        del reader
    area.close()


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
