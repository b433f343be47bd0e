"""Standby records, and cache invalidations wherever they stand (rmgrdesc/standbydesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record

LOCK, RUNNING_XACTS, INVALIDATIONS = 0x00, 0x10, 0x20
SMGR, RELMAP = -3, -4
MESSAGES = {-1: "catalog", -2: "relcache", -5: "snapshot", -6: "relsync"}
"""Those that name a relation or catalog (src/include/storage/sinval.h); relsync is new in 18."""
MESSAGE_LAYOUT = "b3xII4x"  # kind or number of a cache, database, what it is about


def invalidations(
    cursor: Cursor, count: int, database: int, tablespace: int, init_file: bool
) -> str:
    """The next `count` invalidation messages, 16 bytes each; nothing if there are none."""
    if count <= 0:
        return ""
    text = f"; relcache init file inval dbid {database} tsid {tablespace}" if init_file else ""
    text += "; inval msgs:"
    for _ in range(count):
        kind, of_database, about = cursor.fields(MESSAGE_LAYOUT)
        if kind >= 0:
            text += f" catcache {kind}"
        elif kind in MESSAGES:
            text += f" {MESSAGES[kind]} {about}"
        elif kind == SMGR:
            text += " smgr"
        elif kind == RELMAP:
            text += f" relmap db {of_database}"
        else:
            text += f" unrecognized id {kind}"
    return text


def _lock(record: Record) -> str:
    cursor = Cursor(record.main)
    (count,) = cursor.fields("i")
    locks = (cursor.fields("III") for _ in range(count))
    return "".join(f"xid {xid} db {database} rel {number} " for xid, database, number in locks)


def _running(record: Record) -> str:
    cursor = Cursor(record.main)
    count, sub_count, overflowed, next_xid, oldest, latest = cursor.fields("ii?3xIII")
    text = f"nextXid {next_xid} latestCompletedXid {latest} oldestRunningXid {oldest}"
    if count > 0:
        text += f"; {count} xacts:" + "".join(f" {xid}" for xid in cursor.array("I", count))
    if overflowed:
        text += "; subxid overflowed" if record.version >= 16 else "; subxid ovf"
    if record.version >= 16 and sub_count > 0:
        subxids = "".join(f" {xid}" for xid in cursor.array("I", sub_count))
        text += f"; {sub_count} subxacts:{subxids}"
    return text


def _invalidations(record: Record) -> str:
    cursor = Cursor(record.main)
    database, tablespace, init_file, count = cursor.fields("II?3xi")
    return invalidations(cursor, count, database, tablespace, init_file)


def describers(version: int) -> dict[int, Describe]:
    return {LOCK: _lock, RUNNING_XACTS: _running, INVALIDATIONS: _invalidations}
