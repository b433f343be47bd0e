"""Tablespace records in words (src/include/commands/tablespace.h, rmgrdesc/tblspcdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed


def _create(record: Record) -> str:
    cursor = Cursor(record.main)
    (number,) = cursor.fields("I")
    return f'{number} "{cursor.string()}"'


def describers(version: int) -> dict[int, Describe]:
    return {0x00: _create, 0x10: fixed("I", "{}")}
