"""One record in words: `describe` finds who knows its resource manager and opcode.

The words are those of pg_waldump of the same major version, behind the opcode's name: of 15 and 18
compared with it record by record (tests/integration/test_record_text.py), of 16 and 17 with
pg_walinspect.
"""

from functools import cache
from types import ModuleType

from formats import rmgr
from tools.record_text import (
    brin,
    btree,
    clog,
    commit_ts,
    database,
    generic,
    gin,
    gist,
    hash,
    heap,
    heap2,
    logical_message,
    multixact,
    relmap,
    replication_origin,
    sequence,
    spgist,
    standby,
    storage,
    tablespace,
    transaction,
    xlog,
)
from tools.record_text.cursor import MalformedData
from tools.record_text.record import Describe, Record

MODULES: tuple[ModuleType, ...] = (
    xlog, transaction, storage, clog, database, tablespace, multixact, relmap,
    standby, heap2, heap, btree, hash, gin, gist, sequence, spgist, brin,
    commit_ts, replication_origin, generic, logical_message,
)  # fmt: skip
"""By number of the resource manager."""

OPCODE_BITS = dict.fromkeys((rmgr.TRANSACTION, rmgr.HEAP, rmgr.HEAP2, rmgr.BRIN), 0x70)
"""Where it is not the upper four: the fourth is then a flag."""
OPCODE_BITS[rmgr.GENERIC] = 0  # has no opcodes


@cache
def _describers(version: int, manager: int) -> dict[int, Describe]:
    found: dict[int, Describe] = MODULES[manager].describers(version)
    return found


def describe(record: Record) -> str:
    """What the record says; of data that is not what its opcode has, what is wrong with it.

    Nothing is known of the records of extensions and of opcodes that their version does not have.
    """
    if record.rmgr >= rmgr.CUSTOM_MIN:
        return f"rmid: {record.rmgr}"
    if record.rmgr >= len(MODULES):
        return ""
    opcode = record.info & OPCODE_BITS.get(record.rmgr, 0xF0)
    known = _describers(record.version, record.rmgr).get(opcode)
    if known is None:
        return ""
    try:
        return known(record)
    except MalformedData as error:
        return f"malformed: {error}"
