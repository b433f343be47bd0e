"""Records in words: layouts by hand where no server here writes or describes them, and garbage.

What 15 to 18 write is compared with PostgreSQL's own words in integration/test_record_text.py. The
words of 14 are in its server's binary; the layouts are those of its headers.
"""

import random
import struct
import time

import pytest

from formats import rmgr
from formats.postgres_versions import VERSIONS
from tools.record_text.describe import describe
from tools.record_text.record import Block, Record, relation_path, time_text

PG14, PG15, PG16, PG17, PG18 = VERSIONS


def pack(layout: str, *values: object) -> bytes:
    return struct.pack("<" + layout, *values)


def text(version: int, manager: int, info: int, main: bytes, data: bytes = b"") -> str:
    return describe(Record(version, manager, info, main, {0: Block(data)}))


@pytest.fixture
def half_past(monkeypatch: pytest.MonkeyPatch):
    """A time zone that is not the machine's."""
    monkeypatch.setenv("TZ", "ABC+3:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


FREEZE_PLAN = pack("IHHBxH", 0, 3, 0x0B02, 0, 2)
FREEZE_TEXT = "{ xmax: 0, infomask: 2818, infomask2: 3, ntuples: 2, offsets: [7, 9] }"
INVALIDATIONS = pack("bxxxIIxxxx", 21, 5, 77) + pack("bxxxIIxxxx", -2, 5, 16384)


@pytest.mark.parametrize(
    ("version", "manager", "info", "main", "data", "expected"),
    [
        (PG14, rmgr.DATABASE, 0x00, pack("IIII", 5, 1663, 1, 1664), b"",
         "copy dir 1664/1 to 1663/5"),
        (PG14, rmgr.DATABASE, 0x10, pack("IiII", 5, 2, 1663, 16400), b"", "dir 1663/5 16400/5"),
        (PG15, rmgr.DATABASE, 0x10, pack("II", 5, 1663), b"", "create dir 1663/5"),
        (PG15, rmgr.DATABASE, 0x20, pack("IiI", 5, 1, 1663), b"", "dir 1663/5"),
        (PG14, rmgr.HEAP2, 0x10, pack("IHH", 700, 1, 2), b"\0" * 8,
         "latestRemovedXid 700 nredirected 1 ndead 2"),
        (PG16, rmgr.HEAP2, 0x10, pack("IHH?", 700, 1, 2, True), pack("6H", 1, 2, 3, 4, 5, 6),
         "snapshotConflictHorizon: 700, nredirected: 1, ndead: 2, nunused: 2, "
         "redirected: [1->2], dead: [3, 4], unused: [5, 6]"),
        (PG16, rmgr.HEAP2, 0x10, pack("IHH?", 700, 0, 0, True), pack("H", 5),
         "snapshotConflictHorizon: 700, nredirected: 0, ndead: 0, nunused: 1, "
         "redirected: [], dead: [], unused: [5]"),
        (PG16, rmgr.HEAP2, 0x10, pack("IHH?", 700, 1, 2, True), b"",
         "snapshotConflictHorizon: 700, nredirected: 1, ndead: 2"),
        (PG14, rmgr.HEAP2, 0x20, pack("H", 2), pack("2H", 5, 6), "nunused 2"),
        (PG16, rmgr.HEAP2, 0x20, pack("H", 2), pack("2H", 5, 6), "nunused: 2, unused: [5, 6]"),
        (PG14, rmgr.HEAP2, 0x30, pack("IH", 700, 4), b"", "cutoff xid 700 ntuples 4"),
        (PG16, rmgr.HEAP2, 0x30, pack("IH?", 700, 1, False), FREEZE_PLAN + pack("2H", 7, 9),
         f"snapshotConflictHorizon: 700, nplans: 1, plans: [{FREEZE_TEXT}]"),
        (PG17, rmgr.HEAP2, 0x20, pack("BBI", 1, 0xFA, 700),
         pack("Hxx", 1) + FREEZE_PLAN + pack("3H", 1, 2, 3) + pack("2H", 1, 4) + pack("2H", 1, 5)
         + pack("2H", 7, 9),
         "snapshotConflictHorizon: 700, isCatalogRel: T, nplans: 1, nredirected: 1, ndead: 1, "
         f"nunused: 1, plans: [{FREEZE_TEXT}], redirected: [2->3], dead: [4], unused: [5]"),
        (PG17, rmgr.HEAP2, 0x30, pack("BB", 2, 0), b"", ", isCatalogRel: F"),
        (PG14, rmgr.HEAP, 0x70, pack("H", 3), b"", "off 3"),
        (PG17, rmgr.HEAP, 0x70, pack("H", 3), b"", "off: 3"),
        (PG18, rmgr.HEAP, 0x70, pack("HxxII?xxxi", 3, 5, 1663, True, 2) + INVALIDATIONS, b"",
         "off: 3; relcache init file inval dbid 5 tsid 1663; "
            "inval msgs: catcache 21 relcache 16384"),
        (PG14, rmgr.HEAP, 0x60, pack("IHBB", 700, 3, 0x15, 1), b"",
         "off 3: xid 700: flags 0x01 IS_MULTI EXCL_LOCK KEYS_UPDATED "),
        (PG16, rmgr.HEAP, 0x60, pack("IHBB", 700, 3, 0x15, 1), b"",
         "xmax: 700, off: 3, infobits: [IS_MULTI, EXCL_LOCK, KEYS_UPDATED], flags: 0x01"),
        (PG14, rmgr.HEAP, 0x30, pack("IIBxxxII", 5, 2, 3, 60, 61), b"",
         "cascade restart_seqs nrelids 2 relids 60 61"),
        (PG18, rmgr.HEAP, 0x30, pack("IIBxxxII", 5, 2, 3, 60, 61), b"",
         "flags: [CASCADE, RESTART_SEQS], nrelids: 2, relids: [60, 61]"),
        (PG14, rmgr.BTREE, 0x70, pack("IHH", 700, 2, 1), pack("5H", 1, 2, 3, 1, 6),
         "latestRemovedXid 700; ndeleted 2; nupdated 1"),
        (PG16, rmgr.BTREE, 0x70, pack("IHH?", 700, 2, 1, True), pack("6H", 1, 2, 3, 2, 6, 8),
         "snapshotConflictHorizon: 700, ndeleted: 2, nupdated: 1, deleted: [1, 2], "
         "updated: [{ off: 3, nptids: 2, ptids: [6, 8] }]"),
        (PG17, rmgr.BTREE, 0x70, pack("IHH?", 700, 0, 0, True), b"",
         "snapshotConflictHorizon: 700, ndeleted: 0, nupdated: 0, isCatalogRel: T"),
        (PG16, rmgr.BTREE, 0xD0, pack("IIIIQ?", 1663, 5, 9, 4, 3 << 32 | 7, False), b"",
         "rel: 1663/5/9, snapshotConflictHorizon: 3:7"),
        (PG17, rmgr.BTREE, 0xD0, pack("IIIIQ?", 1663, 5, 9, 4, 3 << 32 | 7, False), b"",
         "rel: 1663/5/9, snapshotConflictHorizon: 3:7, isCatalogRel: F"),
        (PG14, rmgr.GIST, 0x10, pack("IH", 700, 4), b"", "delete: latestRemovedXid 700, nitems: 4"),
        (PG16, rmgr.GIST, 0x10, pack("IH?", 700, 4, True), b"",
         "delete: snapshotConflictHorizon 700, nitems: 4"),
        (PG17, rmgr.GIST, 0x10, pack("IH?", 700, 4, True), b"",
         "delete: snapshotConflictHorizon 700, nitems: 4, isCatalogRel T"),
        (PG14, rmgr.GIST, 0x20, pack("IIIIQ", 1663, 5, 9, 4, 7), b"",
         "rel 1663/5/9; blk 4; latestRemovedXid 0:7"),
        (PG14, rmgr.HASH, 0xC0, pack("Ii", 700, 4), b"", "ntuples 4, latestRemovedXid 700"),
        (PG16, rmgr.HASH, 0xC0, pack("IH?", 700, 4, True), b"",
         "ntuples 4, snapshotConflictHorizon 700"),
        (PG17, rmgr.HASH, 0xC0, pack("IH?", 700, 4, True), b"",
         "ntuples 4, snapshotConflictHorizon 700, isCatalogRel T"),
        (PG14, rmgr.HASH, 0x00, pack("dIH", 1e7, 400, 75), b"", "num_tuples 1e+07, fillfactor 75"),
        (PG14, rmgr.SPGIST, 0x80, pack("HHI", 1, 2, 700), b"",
         "ntoplaceholder: 1, firstplaceholder: 2, newestredirectxid: 700"),
        (PG14, rmgr.STANDBY, 0x10, pack("ii?xxxIIII", 1, 0, True, 9, 8, 7, 8), b"",
         "nextXid 9 latestCompletedXid 7 oldestRunningXid 8; 1 xacts: 8; subxid ovf"),
        (PG16, rmgr.STANDBY, 0x10, pack("ii?xxxIIIII", 1, 1, True, 9, 8, 7, 8, 6), b"",
         "nextXid 9 latestCompletedXid 7 oldestRunningXid 8; 1 xacts: 8; subxid overflowed; "
         "1 subxacts: 6"),
        (PG16, rmgr.CLOG, 0x10, pack("iII", 31, 1000, 5), b"", "page 31; oldestXact 1000"),
        (PG17, rmgr.CLOG, 0x10, pack("qII", 31, 1000, 5), b"", "page 31; oldestXact 1000"),
        (PG16, rmgr.COMMIT_TS, 0x10, pack("iI", 31, 1000), b"", "pageno 31, oldestXid 1000"),
        (PG17, rmgr.COMMIT_TS, 0x10, pack("qI", 31, 1000), b"", "pageno 31, oldestXid 1000"),
        (PG18, rmgr.MULTIXACT, 0x30, pack("IIIII", 5, 1, 65536, 3, 9), b"",
         "offsets [1, 65536), members [3, 9)"),
        (PG18, rmgr.MULTIXACT, 0x20, pack("IIiIIII", 9, 70, 2, 700, 1, 701, 6), b"",
         "9 offset 70 nmembers 2: 700 (sh) 701 (unk) "),
        (PG14, rmgr.REPLICATION_ORIGIN, 0x00, pack("QH?", 0x1_0000_00AB, 3, True), b"",
         "set 3; lsn 1/AB; force: 1"),
        (PG14, rmgr.XLOG, 0x20, b"", b"", ""),
        (PG18, 200, 0x30, b"whatever", b"", "rmid: 200"),
        (PG18, rmgr.HEAP2, 0x00, b"whatever", b"", ""),
        (PG14, rmgr.DATABASE, 0x20, b"whatever", b"", ""),
    ],
)  # fmt: skip
def test_words_and_layouts(
    version: int, manager: int, info: int, main: bytes, data: bytes, expected: str
) -> None:
    assert text(version, manager, info, main, data) == expected


def commit(flags: int, *parts: bytes) -> bytes:
    return pack("qI", -1, flags) + b"".join(parts)


@pytest.mark.usefixtures("half_past")
def test_a_commit_with_everything() -> None:
    dropped = {
        PG14: b"",
        PG15: pack("iiII", 1, 2, 5, 4000),
        PG18: pack("iiIII", 1, 2, 5, 4000, 1),
    }
    words = {PG14: "", PG15: "; dropped stats: 2/5/4000", PG18: "; dropped stats: 2/5/4294971296"}
    for version, statistics in dropped.items():
        main = commit(
            0xE0000000 | 0x0BF | (0x100 if statistics else 0),
            pack("II", 5, 1663),
            pack("iII", 2, 701, 702),
            pack("iIIIIII", 2, 1663, 5, 9, 1664, 0, 10),
            statistics,
            pack("i", 2) + INVALIDATIONS,
            pack("I", 700) + b"a name\0",
            pack("Qq", 0x2_0000_0001, 1),
        )
        feedback = "" if version == PG14 else "; apply_feedback"
        # 3 h 30 min behind; PostgreSQL's remainder of a negative number is negative.
        assert describe(Record(version, rmgr.TRANSACTION, 0xB0, main, origin=3)) == (
            "700: 1999-12-31 20:30:00.-00001 ABC; rels: base/5/9 global/10; subxacts: 701 702"
            f"{words[version]}; relcache init file inval dbid 5 tsid 1663; "
            f"inval msgs: catcache 21 relcache 16384{feedback}; sync; "
            "origin: node 3, lsn 2/1, at 1999-12-31 20:30:00.000001 ABC"
        )


@pytest.mark.usefixtures("half_past")
def test_14_says_the_origin_of_commits_alone() -> None:
    """As its standby's log showed."""
    time_of_2000 = "1999-12-31 20:30:00.000000 ABC"
    abort = pack("qIIQq", 0, 0x30, 700, 0x2A, 0)
    prepare = pack("IIIIqIiiii?xHQq", 0, 0, 700, 5, 0, 10, 0, 0, 0, 0, False, 2, 0x2A, 0) + b"g\0"
    prepare_of_15 = prepare[:40] + bytes(8) + prepare[40:]
    origin = f"; origin: node 3, lsn 0/2A, at {time_of_2000}"
    for version, info, main, expected in (
        (PG14, 0xB0, abort, f"700: {time_of_2000}{origin}"),
        (PG14, 0xC0, abort, f"700: {time_of_2000}"),
        (PG15, 0xC0, abort, f"700: {time_of_2000}{origin}"),
        (PG14, 0x10, prepare.ljust(72, b"\0"), f"gid g: {time_of_2000}"),
        (PG15, 0x10, prepare_of_15.ljust(80, b"\0"), f"gid g: {time_of_2000}{origin}"),
    ):
        assert describe(Record(version, rmgr.TRANSACTION, info, main, origin=3)) == expected


@pytest.mark.usefixtures("half_past")
def test_a_prepared_transaction_of_14_has_no_statistics() -> None:
    behind = b"gid\0".ljust(8, b"\0") + pack("IIII4x", 701, 702, 1663, 5)
    head = pack("IIIIqIi", 0, 0, 700, 5, 0, 10, 2)
    tail = pack("?xHQq", False, 4, 0x30, 0)
    relation = b"gid\0".ljust(8, b"\0") + pack("IIIII4x", 701, 702, 1663, 5, 9)
    of_14 = head + pack("iii", 1, 0, 0) + tail + relation
    of_15 = head + pack("iiiii", 1, 0, 1, 0, 0) + tail + relation + pack("iII", 2, 5, 9)
    midnight = "gid gid: 1999-12-31 20:30:00.000000 ABC; rels(commit): base/5/9"
    assert text(PG14, rmgr.TRANSACTION, 0x10, of_14) == f"{midnight}; subxacts: 701 702"
    assert text(PG15, rmgr.TRANSACTION, 0x10, of_15) == (
        f"{midnight}; commit dropped stats: 2/5/9; subxacts: 701 702"
    )
    assert text(PG15, rmgr.TRANSACTION, 0x10, of_15[:-1]).startswith("malformed: main data of")
    assert text(PG14, rmgr.TRANSACTION, 0x10, head + tail + behind).startswith("malformed")


@pytest.mark.usefixtures("half_past")
def test_records_of_xlog() -> None:
    checkpoint = pack("QII?xxxiQIIIIIIIxxxxqIII", 0x2A, 2, 1, True, 1, 7 << 32 | 9, 10, 11, 12, 13,
                      14, 15, 16, 17, 18, 19, 20)  # fmt: skip
    begin, rest = (
        "redo 0/2A; tli 2; prev tli 1; fpw true;",
        (
            " xid 7:9; oid 10; multi 11; offset 12; oldest xid 13 in DB 14; "
            "oldest multi 15 in DB 16; oldest/newest commit timestamp xid: 18/19; "
            "oldest running xid 20; "
        ),
    )
    assert text(PG16, rmgr.XLOG, 0x00, checkpoint) == f"{begin}{rest}shutdown"
    assert text(PG17, rmgr.XLOG, 0x10, checkpoint) == f"{begin} wal_level replica;{rest}online"
    end = pack("qIIi", 0, 2, 1, 9)
    time_of_2000 = "1999-12-31 20:30:00.000000 ABC"
    assert text(PG16, rmgr.XLOG, 0x90, end) == f"tli 2; prev tli 1; time {time_of_2000}"
    assert text(PG17, rmgr.XLOG, 0x90, end) == (
        f"tli 2; prev tli 1; time {time_of_2000}; wal_level ?"
    )
    assert text(PG14, rmgr.XLOG, 0xD0, pack("Qq", 0x2A, 0)) == f"lsn 0/2A; time {time_of_2000}"
    assert text(PG17, rmgr.XLOG, 0xE0, pack("i", 2)) == "wal_level logical"


@pytest.mark.usefixtures("half_past")
def test_times_and_paths_beyond_reason() -> None:
    assert time_text(2**63 - 1) == "294277-01-09 00:30:54.775807 ABC"
    assert time_text(-(2**63)).startswith("-290278-")
    assert relation_path(16, (70000, 5, 9), 2) == "pg_tblspc/70000/PG_16_202307071/5/9_vm"
    assert relation_path(16, (1663, 5, 9), 77) == "base/5/9_77"


def test_an_index_record_whose_page_is_another_s() -> None:
    """A layer keeps a part of a record: the data of other blocks is not there."""
    assert describe(Record(18, rmgr.GIN, 0x20, pack("HHHHH", 0, 0, 1, 0, 2), {})) == (
        "isdata: F isleaf: F children: 1/2"
    )
    image = {0: Block(has_image=True, applies=True)}
    assert describe(Record(18, rmgr.GIN, 0x90, b"", image)) == " (full page image)"
    assert describe(Record(18, rmgr.GIN, 0x90, b"", {0: Block(pack("HBB", 1, 3, 9))})) == (
        " 1 segments: 3 unknown action 9 ???"
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_garbage_is_described_as_such(version: int) -> None:
    """Every opcode with random data of every length: a text, no longer than they warrant."""
    choice = random.Random(version)
    malformed = 0
    for manager in range(len(rmgr.NAMES)):
        for info in range(0, 256, 16):
            for _ in range(12):
                main = choice.randbytes(choice.choice([0, 1, 7, 24, 90, 300]))
                if choice.random() < 0.5:  # counts that are not all absurd
                    main = bytes(byte if choice.random() < 0.2 else 0 for byte in main)
                blocks = {0: Block(choice.randbytes(choice.choice([0, 2, 9, 40])))}
                said = describe(Record(version, manager, info, main, blocks, 7))
                assert len(said) < 400 + 12 * (len(main) + len(blocks[0].data))
                malformed += said.startswith("malformed: ")
    assert malformed > 200


@pytest.mark.parametrize("version", VERSIONS)
def test_every_opcode_has_its_words(version: int) -> None:
    """An empty record is malformed, but for opcodes of which nothing is said."""
    wordless = {
        "XLOG/NOOP", "XLOG/SWITCH", "XLOG/FPI", "XLOG/FPI_FOR_HINT", "Heap2/REWRITE",
        "Hash/SPLIT_PAGE", "Hash/SPLIT_CLEANUP", "Gin/CREATE_PTREE", "Gin/VACUUM_PAGE",
        "Gin/DELETE_PAGE", "Gin/UPDATE_META_PAGE", "Gin/INSERT_LISTPAGE",
        "Gin/VACUUM_DATA_LEAF_PAGE", "Gist/PAGE_UPDATE", "Gist/ASSIGN_LSN", "Generic/Generic",
    }  # fmt: skip
    silent = {
        rmgr.show(version, *kind) for kind in rmgr.OPCODES[version] if not text(version, *kind, b"")
    }
    assert silent == wordless
