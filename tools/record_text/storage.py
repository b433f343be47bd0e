"""Storage records in words (src/include/catalog/storage_xlog.h, rmgrdesc/smgrdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, relation_path


def _create(record: Record) -> str:
    *relation, fork = Cursor(record.main).fields("IIIi")
    tablespace, database, number = relation
    return relation_path(record.version, (tablespace, database, number), fork)


def _truncate(record: Record) -> str:
    blocks, tablespace, database, number, flags = Cursor(record.main).fields("IIIIi")
    path = relation_path(record.version, (tablespace, database, number))
    return f"{path} to {blocks} blocks flags {flags}"


def describers(version: int) -> dict[int, Describe]:
    return {0x10: _create, 0x20: _truncate}
