"""What WalReader may find wrong, and the errors that say so.

The reader's kernels cannot build messages without the GIL. They note a fault: a number from here,
an LSN, and two integers, the one expected and the one found; `explain` makes the error of it.
"""

from formats import lsn as lsns
from formats import postgres_versions, wal_record
from formats.errors import CorruptionError

MAGIC, FLAGS, ADDRESS, SYSTEM, SEGMENT_SIZE, PAGE_SIZE, TIMELINE_BACK, TIMELINE_AHEAD = range(1, 9)
NO_CONTINUATION, CONTINUATION, REMAINING, ZEROS, LENGTH, PREVIOUS, PREVIOUS_AHEAD = range(9, 16)
RMGR, OVERWRITTEN, VERSION, RECORD = range(16, 20)  # RECORD + n: fault n of formats.wal_record

# Fault -> what it is about, expected, found. {} stands for the integer, {lsn} for it as an LSN.
_MESSAGES = {
    MAGIC: ("magic number of the WAL page", "{:#06x}", "{:#06x}"),
    VERSION: (
        "magic number of the WAL page",
        f"that of PostgreSQL {postgres_versions.NAMED}",
        "{:#06x}",
    ),
    FLAGS: ("flags of the WAL page", "known ones, a long header where a segment starts", "{:#06x}"),
    ADDRESS: ("address that the WAL page claims", "{lsn}", "{lsn}"),
    SYSTEM: ("system identifier of the WAL page", "{}", "{}"),
    SEGMENT_SIZE: ("segment size that the WAL page claims", "{}", "{}"),
    PAGE_SIZE: ("page size that the WAL page claims", "{}", "{}"),
    TIMELINE_BACK: ("timeline of the WAL page", "at least {}, which came before it", "{}"),
    TIMELINE_AHEAD: ("timeline of the WAL page", "at most {}", "{}"),
    NO_CONTINUATION: ("flags of the WAL page", "the rest of the record at {lsn}", "{:#06x}"),
    CONTINUATION: ("flags of the WAL page", "a page that begins with a record", "{:#06x}"),
    REMAINING: ("rest of a record that the WAL page claims", "{} bytes", "{} bytes"),
    ZEROS: ("WAL record", "a record", "zeros"),
    LENGTH: ("length of the WAL record", "24 bytes to 1 GiB", "{} bytes"),
    PREVIOUS: ("link of the WAL record to the one before it", "{lsn}", "{lsn}"),
    PREVIOUS_AHEAD: ("link of the WAL record to the one before it", "less than {lsn}", "{lsn}"),
    RMGR: ("resource manager of the WAL record", "0 to 21, from PostgreSQL 15 on 128 to 255", "{}"),
    OVERWRITTEN: ("record that OVERWRITE_CONTRECORD is about", "{lsn}", "{lsn}"),
}


def explain(fault: int, lsn: int, expected: int, found: int) -> CorruptionError:
    """The error for a fault at `lsn`."""
    where = f"LSN {lsns.show(lsn)}"
    if fault > RECORD:
        what, expectation, finding = wal_record.describe(fault - RECORD, expected, found)
        return CorruptionError(what, where, expectation, finding)
    what, expectation, finding = _MESSAGES[fault]
    return CorruptionError(
        what,
        where,
        expectation.format(expected, lsn=lsns.show(expected)),
        finding.format(found, lsn=lsns.show(found)),
    )
