"""Transaction records in words (src/include/access/xact.h, rmgrdesc/xactdesc.c).

15 has statistics that are dropped with their objects, whose ids have 64 bits from 18 on. 14 says
the replication origin of commits alone.
"""

from typing import NamedTuple

from formats import lsn
from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, relation_path, time_text
from tools.record_text.standby import invalidations

HAS_INFO = 0x80  # of the info byte

# What a commit or abort says beside its time, in this order.
DATABASE, SUBXACTS, RELATIONS, INVALIDATIONS, TWO_PHASE, ORIGIN = (1 << bit for bit in range(6))
NAME, STATISTICS = 1 << 7, 1 << 8
APPLY_FEEDBACK, UPDATE_RELCACHE_FILE, FORCE_SYNC = 1 << 29, 1 << 30, 1 << 31


class Ending(NamedTuple):
    """A commit or abort, each part in words."""

    prepared: str
    time: str
    relations: str
    subxacts: str
    statistics: str
    invalidations: str
    completion: str
    origin: str


def relations_text(record: Record, cursor: Cursor, count: int, label: str = "rels") -> str:
    if count <= 0:
        return ""
    paths = (relation_path(record.version, cursor.fields("III")) for _ in range(count))
    return f"; {label}:" + "".join(f" {path}" for path in paths)


def subxacts_text(cursor: Cursor, count: int) -> str:
    xids = cursor.array("I", count)
    return "; subxacts:" + "".join(f" {xid}" for xid in xids) if xids else ""


def statistics_text(record: Record, cursor: Cursor, count: int, label: str = "") -> str:
    layout = "iIQ" if record.version >= 18 else "iII"
    items = [cursor.fields(layout) for _ in range(count)]
    listed = "".join(f" {kind}/{database}/{number}" for kind, database, number in items)
    return f"; {label}dropped stats:{listed}" if items else ""


def origin_text(origin: int, origin_lsn: int, time: int) -> str:
    return f"; origin: node {origin}, lsn {lsn.show(origin_lsn)}, at {time_text(time)}"


def _ending(record: Record) -> Ending:
    """Parts that a record lacks are empty."""
    cursor = Cursor(record.main)

    def number(flag: int) -> int:
        value: int = cursor.fields("i")[0] if flags & flag else 0
        return value

    time = time_text(*cursor.fields("q"))
    (flags,) = cursor.fields("I") if record.info & HAS_INFO else (0,)
    database, tablespace = cursor.fields("II") if flags & DATABASE else (0, 0)
    subxacts = subxacts_text(cursor, number(SUBXACTS))
    relations = relations_text(record, cursor, number(RELATIONS))
    statistics = statistics_text(record, cursor, number(STATISTICS))
    init_file = bool(flags & UPDATE_RELCACHE_FILE)
    messages = invalidations(cursor, number(INVALIDATIONS), database, tablespace, init_file)
    prepared = ""
    if flags & TWO_PHASE:
        (xid,) = cursor.fields("I")
        prepared = f"{xid}: " if xid else ""
        if flags & NAME:
            cursor.string()
    completion = "; apply_feedback" if flags & APPLY_FEEDBACK and record.version >= 15 else ""
    completion += "; sync" if flags & FORCE_SYNC else ""
    origin = origin_text(record.origin, *cursor.fields("Qq")) if flags & ORIGIN else ""
    return Ending(prepared, time, relations, subxacts, statistics, messages, completion, origin)


def _commit(record: Record) -> str:
    return "".join(_ending(record))


def _abort(record: Record) -> str:
    end = _ending(record)
    origin = end.origin if record.version >= 15 else ""
    return end.prepared + end.time + end.relations + end.subxacts + origin + end.statistics


def _prepare(record: Record) -> str:
    """Counts, and behind them what is counted, each at a multiple of 8."""
    cursor = Cursor(record.main)
    database, time, subxact_count = cursor.fields("12xIq4xi")
    committed, aborted = cursor.fields("ii")
    stats_committed, stats_aborted = cursor.fields("ii") if record.version >= 15 else (0, 0)
    messages, init_file, name_length, origin_lsn, origin_time = cursor.fields("i?xHQq")
    name = cursor.piece(name_length).partition(b"\0")[0]
    cursor.align()
    subxacts = subxacts_text(cursor, subxact_count)
    cursor.align()
    text = f"gid {name.decode('utf-8', 'backslashreplace')}: {time_text(time)}"
    for count, label in ((committed, "rels(commit)"), (aborted, "rels(abort)")):
        text += relations_text(record, cursor, count, label)
        cursor.align()
    for count, label in ((stats_committed, "commit "), (stats_aborted, "abort ")):
        text += statistics_text(record, cursor, count, label)
        cursor.align()
    text += subxacts + invalidations(cursor, messages, database, 0, init_file)
    if record.origin and record.version >= 15:
        text += origin_text(record.origin, origin_lsn, origin_time)
    return text


def _assignment(record: Record) -> str:
    cursor = Cursor(record.main)
    top, count = cursor.fields("Ii")
    subxacts = "".join(f" {xid}" for xid in cursor.array("I", count))
    return f"xtop {top}: subxacts:{subxacts}"


def _invalidation(record: Record) -> str:
    cursor = Cursor(record.main)
    (count,) = cursor.fields("i")
    return invalidations(cursor, count, 0, 0, False)


def describers(version: int) -> dict[int, Describe]:
    """By opcode, which is three bits here."""
    return {
        0x00: _commit,
        0x10: _prepare,
        0x20: _abort,
        0x30: _commit,  # COMMIT_PREPARED
        0x40: _abort,  # ABORT_PREPARED
        0x50: _assignment,
        0x60: _invalidation,
    }
