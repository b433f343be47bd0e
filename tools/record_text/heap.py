"""Heap records in words (src/include/access/heapam_xlog.h, rmgrdesc/heapdesc.c).

16 changed all of the wording; 18 gave in-place updates their invalidations.
"""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, array_text, fixed
from tools.record_text.standby import invalidations

INSERT, DELETE, UPDATE, TRUNCATE, HOT_UPDATE, CONFIRM, LOCK, INPLACE = range(0, 0x80, 0x10)
INFOBITS = ("IS_MULTI", "LOCK_ONLY", "EXCL_LOCK", "KEYSHR_LOCK", "KEYS_UPDATED")
TRUNCATE_FLAGS = ("CASCADE", "RESTART_SEQS")


def names_of(bits: int, names: tuple[str, ...]) -> list[str]:
    return [name for index, name in enumerate(names) if bits >> index & 1]


def lock_fields(record: Record) -> str:
    """A transaction, an offset, infomask bits and flags, as several heap records begin."""
    xmax, offset, bits, flags = Cursor(record.main).fields("IHBB")
    infobits = ", ".join(names_of(bits, INFOBITS))
    return f"xmax: {xmax}, off: {offset}, infobits: [{infobits}], flags: 0x{flags:02X}"


def _update(record: Record) -> str:
    old_xmax, old_offset, bits, flags, new_xmax, new_offset = Cursor(record.main).fields("IHBBIH")
    infobits = ", ".join(names_of(bits, INFOBITS))
    return (
        f"old_xmax: {old_xmax}, old_off: {old_offset}, old_infobits: [{infobits}], "
        f"flags: 0x{flags:02X}, new_xmax: {new_xmax}, new_off: {new_offset}"
    )


def _truncate(record: Record) -> str:
    cursor = Cursor(record.main)
    count, bits = cursor.fields("4xIB3x")
    relations = cursor.array("I", count)
    flags = ", ".join(names_of(bits, TRUNCATE_FLAGS))
    return f"flags: [{flags}], nrelids: {count}, relids:{array_text(relations)}"


def _inplace_of_18(record: Record) -> str:
    cursor = Cursor(record.main)
    offset, database, tablespace, init_file, count = cursor.fields("H2xII?3xi")
    messages = invalidations(cursor, count, database, tablespace, init_file)
    return f"off: {offset}{messages}"


def infobits_until_15(bits: int) -> str:
    return "".join(f"{name} " for name in names_of(bits, INFOBITS))


def _delete_until_15(record: Record) -> str:
    _, offset, bits, flags = Cursor(record.main).fields("IHBB")
    return f"off {offset} flags 0x{flags:02X} {infobits_until_15(bits)}"


def _update_until_15(record: Record) -> str:
    old_xmax, old_offset, bits, flags, new_xmax, new_offset = Cursor(record.main).fields("IHBBIH")
    return (
        f"off {old_offset} xmax {old_xmax} flags 0x{flags:02X} {infobits_until_15(bits)}"
        f"; new off {new_offset} xmax {new_xmax}"
    )


def _truncate_until_15(record: Record) -> str:
    cursor = Cursor(record.main)
    count, bits = cursor.fields("4xIB3x")
    flags = "".join(f"{name.lower()} " for name in names_of(bits, TRUNCATE_FLAGS))
    relations = "".join(f" {relation}" for relation in cursor.array("I", count))
    return f"{flags}nrelids {count} relids{relations}"


def _lock_until_15(record: Record) -> str:
    xid, offset, bits, flags = Cursor(record.main).fields("IHBB")
    return f"off {offset}: xid {xid}: flags 0x{flags:02X} {infobits_until_15(bits)}"


def describers(version: int) -> dict[int, Describe]:
    """By opcode, without the bit that says that the page is initialised."""
    if version < 16:
        return {
            INSERT: fixed("HB", "off {} flags 0x{:02X}"),
            DELETE: _delete_until_15,
            UPDATE: _update_until_15,
            HOT_UPDATE: _update_until_15,
            TRUNCATE: _truncate_until_15,
            CONFIRM: fixed("H", "off {}"),
            LOCK: _lock_until_15,
            INPLACE: fixed("H", "off {}"),
        }
    return {
        INSERT: fixed("HB", "off: {}, flags: 0x{:02X}"),
        DELETE: lock_fields,
        UPDATE: _update,
        HOT_UPDATE: _update,
        TRUNCATE: _truncate,
        CONFIRM: fixed("H", "off: {}"),
        LOCK: lock_fields,
        INPLACE: _inplace_of_18 if version >= 18 else fixed("H", "off: {}"),
    }
