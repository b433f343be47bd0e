"""ReplicationOrigin records in words (src/include/replication/origin.h, replorigindesc.c)."""

from formats import lsn
from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed


def _set(record: Record) -> str:
    remote_lsn, node, force = Cursor(record.main).fields("QH?")
    return f"set {node}; lsn {lsn.show(remote_lsn)}; force: {int(force)}"


def describers(version: int) -> dict[int, Describe]:
    return {0x00: _set, 0x10: fixed("H", "drop {}")}
