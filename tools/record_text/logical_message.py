"""LogicalMessage records in words (src/include/replication/message.h, logicalmsgdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record


def _message(record: Record) -> str:
    cursor = Cursor(record.main)
    transactional, prefix_length, length = cursor.fields("4x?3xQQ")
    prefix = Cursor(cursor.piece(prefix_length), "prefix").string()
    payload = cursor.piece(length).hex(" ").upper()
    kind = "transactional" if transactional else "non-transactional"
    return f'{kind}, prefix "{prefix}"; payload ({length} bytes): {payload}'


def describers(version: int) -> dict[int, Describe]:
    return {0x00: _message}
