"""Database records in words (src/include/commands/dbcommands_xlog.h, rmgrdesc/dbasedesc.c).

14 knows one way to create a database, and drops one with the opcode of 15's other way.
"""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed


def _drop(record: Record) -> str:
    cursor = Cursor(record.main)
    database, count = cursor.fields("Ii")
    return "dir" + "".join(f" {tablespace}/{database}" for tablespace in cursor.array("I", count))


def describers(version: int) -> dict[int, Describe]:
    copy = fixed("IIII", "copy dir {3}/{2} to {1}/{0}")
    if version < 15:
        return {0x00: copy, 0x10: _drop}
    return {
        0x00: copy,  # CREATE_FILE_COPY
        0x10: fixed("II", "create dir {1}/{0}"),  # CREATE_WAL_LOG
        0x20: _drop,
    }
