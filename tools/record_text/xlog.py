"""XLOG records in words (pg_control.h and xlog_internal.h in src/include, rmgrdesc/xlogdesc.c)."""

from formats import lsn
from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed, full_xid, nothing, time_text

CHECKPOINT_SHUTDOWN = 0x00
LEVELS = ("minimal", "replica", "logical")


def level_text(level: int) -> str:
    return LEVELS[level] if 0 <= level < len(LEVELS) else "?"


def _checkpoint(record: Record) -> str:
    """From 17 on it says the wal_level, in what was padding before."""
    fields = Cursor(record.main).fields("QII?3xiQIIIIIII12xIII")
    redo, timeline, previous, images, level, next_xid, oid, multi, offset, *oldest = fields
    xid, xid_database, old_multi, multi_database, old_time_xid, new_time_xid, running = oldest
    level_known = f" wal_level {level_text(level)};" if record.version >= 17 else ""
    kind = "shutdown" if record.info & 0xF0 == CHECKPOINT_SHUTDOWN else "online"
    return (
        f"redo {lsn.show(redo)}; tli {timeline}; prev tli {previous}; "
        f"fpw {'true' if images else 'false'};{level_known} xid {full_xid(next_xid)}; oid {oid}; "
        f"multi {multi}; offset {offset}; oldest xid {xid} in DB {xid_database}; "
        f"oldest multi {old_multi} in DB {multi_database}; "
        f"oldest/newest commit timestamp xid: {old_time_xid}/{new_time_xid}; "
        f"oldest running xid {running}; {kind}"
    )


def _backup_end(record: Record) -> str:
    return lsn.show(*Cursor(record.main).fields("Q"))


def _parameter_change(record: Record) -> str:
    *numbers, level, hints, times = Cursor(record.main).fields("iiiiii??")
    connections, workers, senders, prepared, locks = numbers
    return (
        f"max_connections={connections} max_worker_processes={workers} "
        f"max_wal_senders={senders} max_prepared_xacts={prepared} max_locks_per_xact={locks} "
        f"wal_level={level_text(level)} wal_log_hints={'on' if hints else 'off'} "
        f"track_commit_timestamp={'on' if times else 'off'}"
    )


def _restore_point(record: Record) -> str:
    cursor = Cursor(record.main)
    cursor.fields("8x")
    return cursor.string()


def _images_change(record: Record) -> str:
    (images,) = Cursor(record.main).fields("?")
    return "true" if images else "false"


def _end_of_recovery(record: Record) -> str:
    cursor = Cursor(record.main)
    at, timeline, previous = cursor.fields("qII")
    text = f"tli {timeline}; prev tli {previous}; time {time_text(at)}"
    if record.version >= 17:
        text += f"; wal_level {level_text(*cursor.fields('i'))}"
    return text


def _overwrite(record: Record) -> str:
    overwritten, at = Cursor(record.main).fields("Qq")
    return f"lsn {lsn.show(overwritten)}; time {time_text(at)}"


def _checkpoint_redo(record: Record) -> str:
    return f"wal_level {level_text(*Cursor(record.main).fields('i'))}"


def describers(version: int) -> dict[int, Describe]:
    return {
        CHECKPOINT_SHUTDOWN: _checkpoint,
        0x10: _checkpoint,  # CHECKPOINT_ONLINE
        0x20: nothing,  # NOOP
        0x30: fixed("I", "{}"),  # NEXTOID
        0x40: nothing,  # SWITCH
        0x50: _backup_end,
        0x60: _parameter_change,
        0x70: _restore_point,
        0x80: _images_change,  # FPW_CHANGE
        0x90: _end_of_recovery,
        0xA0: nothing,  # FPI_FOR_HINT
        0xB0: nothing,  # FPI
        0xD0: _overwrite,  # OVERWRITE_CONTRECORD
        0xE0: _checkpoint_redo,  # of 17 and later
    }
