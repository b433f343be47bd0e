"""Prepared transactions, commit timestamps, replication origins and tablespaces, as read back."""

import struct

import crc32c
import pytest

from engine import index_rebuild
from engine.errors import RequestError
from engine.transaction_records import pack_origins, parse_origins
from formats import chunk
from formats.errors import CorruptionError
from tests.fixtures.small_store import SmallStore, control_file
from tests.fixtures.wal_builder import Record

COMMIT_TS = 3
ORIGINS = "pg_logical/replorigin_checkpoint"
TIME = 0x0002_F00D_CAFE_BABE


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)


def prepare(xid: int, origin_lsn: int = 0, name: bytes = b"one\0", origin: int = 0) -> Record:
    main = struct.pack("<IIIIqI6iBxHQq", 0x57F94534, 0, xid, 5, TIME, 10, 0, 0, 0, 0, 0, 0, 0,
                       len(name), origin_lsn, TIME) + name  # fmt: skip
    return Record(1, 0x10, xid, main, origin=origin)


def end_prepared(xid: int, operation: int = 0x30, name: bytes = b"one\0") -> Record:
    main = struct.pack("<qII", TIME, 16 | 128, xid) + name
    return Record(1, operation | 0x80, 0, main)


def commit(xid: int, subxids: tuple[int, ...] = (), origin: int = 0, origin_lsn: int = 0) -> Record:
    info = (2 if subxids else 0) | (32 if origin else 0)
    main = struct.pack("<q", TIME)
    if info:
        main += struct.pack("<I", info)
    if subxids:
        main += struct.pack(f"<i{len(subxids)}I", len(subxids), *subxids)
    if origin:
        main += struct.pack("<Qq", origin_lsn, TIME + 1)
    return Record(1, 0x80 if info else 0, xid, main, origin=origin)


def parameter_change(*, tracks: bool) -> Record:
    main = struct.pack("<6i2?", 200, 8, 10, 0, 64, 1, False, tracks)
    return Record(0, 0x60, main=main)


def checkpoint(next_xid: int) -> Record:
    return Record(0, 0x10, main=struct.pack("<24xQ", next_xid) + bytes(56))


@pytest.mark.parametrize(
    ("major", "epoch", "name"), [(15, 3, "000002BC"), (17, 0, "00000000000002BC"),
                                 (18, 3, "00000003000002BC")],
)  # fmt: skip
@pytest.mark.parametrize("operation", [0x30, 0x40])
def test_a_prepared_transaction_is_a_file_until_it_ends(tmp_path, major, epoch, name, operation):
    small = SmallStore(tmp_path, major=major)
    small.add(checkpoint((epoch << 32) + 690))
    record = prepare(700)
    prepared = small.put(record)
    path = f"pg_twophase/{name}"
    expected = record.main + crc32c.crc32c(record.main).to_bytes(4, "little")
    assert small.store.file(path, prepared) == expected
    small.flush()
    small.reopen()
    ended = small.put(end_prepared(700, operation))
    assert small.store.file(path, prepared) == expected
    assert path not in small.store.files(ended)
    with pytest.raises(RequestError, match=f"no file {path} at"):
        small.store.file(path, ended)


def test_a_prepared_transaction_of_the_epoch_before(tmp_path):
    small = SmallStore(tmp_path)
    small.add(checkpoint((4 << 32) + 5))
    end = small.put(prepare(0xFFFFFFF0))
    assert "pg_twophase/00000003FFFFFFF0" in small.store.files(end)


def test_a_large_prepared_transaction(tmp_path):
    small = SmallStore(tmp_path)
    record = prepare(700, name=bytes(range(1, 256)) * 100 + b"\0")
    end = small.put(record)
    small.flush()
    assert small.store.file("pg_twophase/00000000000002BC", end)[:-4] == record.main


def timestamp(small: SmallStore, xid: int, lsn: int) -> tuple[int, int]:
    segment, index = divmod(xid, 819 * 32)
    content = small.store.slru_segment(COMMIT_TS, segment, lsn)
    page, entry = divmod(index, 819)
    found: tuple[int, int] = struct.unpack_from("<qH", content, 8192 * page + 10 * entry)
    return found


def tracking(major: int = 18) -> bytes:
    data = bytearray(control_file(major))
    data[200] = 1
    end = 292 if major >= 18 else 288
    struct.pack_into("<I", data, end, crc32c.crc32c(bytes(data[:end])))
    return bytes(data)


@pytest.mark.parametrize("major", [14, 18])
def test_commits_leave_their_time(tmp_path, major):
    """Of the subtransactions too, wherever their pages and segments are."""
    small = SmallStore(tmp_path, major=major, control=tracking(major))
    subxids = (818, 819, 820, 26207, 26208, 26209)
    before = small.put(commit(700))
    end = small.put(commit(817, subxids))
    assert timestamp(small, 700, before) == (TIME, 0)
    for _ in range(2):
        assert [timestamp(small, xid, end) for xid in (817, *subxids)] == [(TIME, 0)] * 7
        assert timestamp(small, 816, end) == (0, 0)
        small.flush()
        small.reopen()


def test_a_prepared_and_an_origins_commit_leave_theirs(tmp_path):
    small = SmallStore(tmp_path, control=tracking())
    small.add(prepare(700), end_prepared(700))
    end = small.put(commit(701, (702,), 7, 0x1234))
    assert timestamp(small, 700, end) == (TIME, 0)
    assert [timestamp(small, xid, end) for xid in (701, 702)] == [(TIME + 1, 7)] * 2


@pytest.mark.parametrize(
    "record",
    [
        Record(1, 0x20, 701, struct.pack("<q", TIME)),
        Record(1, 0xA0, 701, struct.pack("<qIi3I", TIME, 4, 1, 1663, 5, 16384)),
        end_prepared(701, 0x40),
    ],
)
def test_an_abort_leaves_no_time(tmp_path, record):
    small = SmallStore(tmp_path, control=tracking())
    small.add(commit(700))
    end = small.put(record)
    assert timestamp(small, 701, end) == (0, 0)


def test_tracking_begins_and_ends(tmp_path):
    """At its beginning the page of the next transaction is there; at its end all are gone."""
    small = SmallStore(tmp_path)
    small.add(checkpoint((1 << 32) + 819 * 40 + 3))
    none = small.put(commit(700))
    assert segments(small, none) == []
    on = small.put(parameter_change(tracks=True))
    assert segments(small, on) == [(1, 9)]
    again = small.put(parameter_change(tracks=True))
    small.flush()
    small.reopen()
    end = small.put(commit(819 * 40 + 3))
    assert timestamp(small, 819 * 40 + 3, end) == (TIME, 0)
    off = small.put(parameter_change(tracks=False))
    assert segments(small, again) == [(1, 9)]
    assert segments(small, off) == []
    assert segments(small, small.put(commit(819 * 40 + 4))) == []


def test_tracking_that_goes_on_begins_no_page(tmp_path):
    """ActivateCommitTs does nothing where it is active, wherever the next transaction is."""
    small = SmallStore(tmp_path, control=tracking())
    first = small.put(commit(700))
    small.add(checkpoint(819 * 400))
    assert segments(small, small.put(parameter_change(tracks=True))) == segments(small, first)


def test_a_page_of_times_that_is_there_stays(tmp_path):
    """Tracking begins on a page that exists: it is not zeroed (ActivateCommitTs)."""
    small = SmallStore(tmp_path, [(chunk.slru(COMMIT_TS, 0), [b"\x05" * 8192])])
    end = small.put(checkpoint(700), parameter_change(tracks=True))
    assert small.store.slru_segment(COMMIT_TS, 0, end) == b"\x05" * 8192


def segments(small: SmallStore, lsn: int) -> list[tuple[int, int]]:
    return [key[1:] for key in small.store.slru_segments(lsn) if key[0] == COMMIT_TS]


@pytest.mark.parametrize("major", [14, 18])
def test_pages_of_times_begin_and_are_truncated(tmp_path, major):
    number = "<q" if major >= 17 else "<i"
    small = SmallStore(tmp_path, major=major)
    pages = [Record(18, 0x00, main=struct.pack(number, page)) for page in (0, 31, 32, 64)]
    before = small.put(*pages)
    main = struct.pack(number, 40) + struct.pack("<I", 40 * 819)
    end = small.put(Record(18, 0x10, main=main))
    assert segments(small, before) == [(0, 32), (1, 1), (2, 1)]
    assert segments(small, end) == [(1, 1), (2, 1)]


def origins(small: SmallStore, lsn: int) -> dict[int, int]:
    return parse_origins(small.store.file(ORIGINS, lsn))


def set_origin(origin: int, lsn: int, *, force: bool = False) -> Record:
    return Record(19, 0x00, main=struct.pack("<QH?", lsn, origin, force))


def test_origins_progress_by_commits_aborts_and_prepares(tmp_path):
    small = SmallStore(tmp_path)
    first = small.put(commit(700, (), 3, 100))
    second = small.put(commit(701, (), 4, 200), commit(702, (), 3, 90))
    assert origins(small, first) == {3: 100}
    assert origins(small, second) == {3: 100, 4: 200}
    prepared = small.put(prepare(703, 150, origin=3))
    assert origins(small, prepared) == {3: 150, 4: 200}
    aborted = struct.pack("<qIQq", TIME, 32, 300, TIME)
    end = small.put(Record(1, 0xA0, 704, aborted, origin=4))
    assert origins(small, end) == {3: 150, 4: 300}
    small.flush()
    small.reopen()
    assert origins(small, small.put(commit(705, (), 5, 1))) == {3: 150, 4: 300, 5: 1}


def test_an_origin_is_known_by_a_transaction_that_names_no_lsn(tmp_path):
    """A session with an origin that never said how far it is: replorigin_advance all the same."""
    small = SmallStore(tmp_path)
    assert origins(small, small.put(commit(700, (), 3, 0))) == {3: 0}
    assert origins(small, small.put(prepare(701, 0, origin=4))) == {3: 0, 4: 0}
    assert origins(small, small.put(prepare(702, 0, origin=0xFFFF), commit(703))) == {3: 0, 4: 0}


def test_origins_set_and_dropped(tmp_path):
    small = SmallStore(tmp_path)
    small.add(set_origin(3, 100), set_origin(0xFFFF, 100))
    back = small.put(set_origin(3, 50))
    assert origins(small, back) == {3: 100}
    forced = small.put(set_origin(3, 50, force=True))
    assert origins(small, forced) == {3: 50}
    dropped = small.put(Record(19, 0x10, main=struct.pack("<H", 3)))
    assert origins(small, dropped) == {}
    assert origins(small, forced) == {3: 50}


def test_the_file_of_origins_is_as_postgresql_writes_it():
    """magic, then u16, padding, u64 for each, then the CRC of all before."""
    content = bytes.fromhex("deda5712 0100000000000000 2a00000000000000")
    content += crc32c.crc32c(content).to_bytes(4, "little")
    assert parse_origins(content) == {1: 42}
    assert pack_origins({1: 42}) == content
    with pytest.raises(CorruptionError, match="replication origins"):
        parse_origins(content[:-1] + b"\0")


def test_tablespaces_come_and_go(tmp_path):
    small = SmallStore(
        tmp_path, fill=lambda store: store.add_file("tablespace_map", b"9 /a\\\nb\n")
    )
    added = small.put(Record(5, 0x00, main=struct.pack("<I", 20000) + b"/data/b\\c\0"))
    assert small.store.file("tablespace_map", added) == b"9 /a\\\nb\n20000 /data/b\\\\c\n"
    small.flush()
    small.reopen()
    end = small.put(Record(5, 0x10, main=struct.pack("<I", 9)))
    assert small.store.file("tablespace_map", end) == b"20000 /data/b\\\\c\n"
    in_place = small.put(Record(5, 0x00, main=struct.pack("<I", 20001) + b"\0"))
    assert small.store.file("tablespace_map", in_place) == b"20000 /data/b\\\\c\n"


def test_a_tablespace_inside_the_data_directory_needs_no_map(tmp_path):
    """allow_in_place_tablespaces: its path is empty (do_pg_backup_start takes links alone)."""
    small = SmallStore(tmp_path, fill=lambda store: store.add_file("tablespace_map", b"9 /a\n"))
    end = small.put(Record(5, 0x00, main=struct.pack("<I", 20000) + b"\0"))
    assert small.store.file("tablespace_map", end) == b"9 /a\n"


def offsets_record(page: int) -> Record:
    return Record(6, 0x00, main=struct.pack("<q", page))


def multixact(multi: int, offset: int) -> Record:
    return Record(6, 0x20, 700, struct.pack("<IIiIiIi", multi, offset, 2, 700, 1, 701, 1))


@pytest.mark.parametrize("restart", [False, True])
def test_a_page_of_offsets_zeroed_after_its_first_offset(tmp_path, restart):
    """As older minor releases log it: the first offset of the page must survive."""
    small = SmallStore(tmp_path)
    small.add(offsets_record(0), multixact(2046, 11))
    small.put(multixact(2047, 13))
    if restart:
        small.flush()
        small.reopen()
    zeroed = small.put(offsets_record(1))
    assert first_offset(small, zeroed) == 15
    end = small.put(multixact(2048, 15))
    assert first_offset(small, end) == 15


def test_a_page_of_offsets_zeroed_before_its_first_offset(tmp_path):
    """As minor releases of 2026 log it; a page that is there already is zeroed, too."""
    small = SmallStore(tmp_path)
    small.add(offsets_record(0), offsets_record(1))
    end = small.put(multixact(2047, 13))
    assert first_offset(small, end) == 15
    assert first_offset(small, small.put(offsets_record(1))) == 0


def first_offset(small: SmallStore, lsn: int) -> int:
    content = small.store.slru_segment(2, 0, lsn)
    return int.from_bytes(content[8192:8196], "little")


def test_drop_database_of_14(tmp_path):
    small = SmallStore(tmp_path, major=14)
    made = small.put(Record(2, 0x10, main=struct.pack("<IIIi", 1663, 7, 16400, 0)))
    assert small.store.exists(1663, 7, 16400, 0, made)
    end = small.put(Record(4, 0x10, main=struct.pack("<IiI", 7, 1, 1663)))
    assert not small.store.exists(1663, 7, 16400, 0, end)
