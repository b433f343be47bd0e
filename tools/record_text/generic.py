"""Generic records in words (src/backend/access/transam/generic_xlog.c, rmgrdesc/genericdesc.c).

What PostgreSQL describes is a list of regions in the main data. It writes them as data of blocks,
so there are none to describe.
"""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record


def _regions(record: Record) -> str:
    cursor = Cursor(record.main)
    regions = []
    while cursor.left > 0:
        offset, length = cursor.fields("HH")
        cursor.piece(length)
        regions.append(f"offset {offset}, length {length}")
    return "; ".join(regions)


def describers(version: int) -> dict[int, Describe]:
    return {0x00: _regions}
