"""Heap2 records in words (src/include/access/heapam_xlog.h, rmgrdesc/heapdesc.c).

16 changed all of the wording; 17 has one kind of record in place of PRUNE, VACUUM and FREEZE_PAGE.
"""

from tools.record_text.cursor import Cursor
from tools.record_text.heap import infobits_until_15, lock_fields
from tools.record_text.record import (
    Describe,
    Record,
    array_text,
    block_number,
    fixed,
    nothing,
)

REWRITE, PRUNE, VACUUM, FREEZE_PAGE, VISIBLE, MULTI_INSERT, LOCK_UPDATED, NEW_CID = range(
    0, 0x80, 0x10
)
PRUNE_ON_ACCESS, PRUNE_VACUUM_SCAN, PRUNE_VACUUM_CLEANUP = PRUNE, VACUUM, FREEZE_PAGE
INIT_PAGE = 0x80
PLAN = "IHHBxH"  # xmax, infomask2, infomask, freeze flags, count of tuples

# Flags of 17's records.
CATALOG, _, HORIZON, PLANS, REDIRECTIONS, DEAD, UNUSED = (1 << bit for bit in range(1, 8))


def plans_text(cursor: Cursor, plans: list[tuple[int, ...]]) -> str:
    """Freeze plans, with the offsets of their tuples, which follow in the data."""
    return array_text(
        [
            f"{{ xmax: {xmax}, infomask: {infomask}, infomask2: {infomask2}, ntuples: {count}, "
            f"offsets:{array_text(cursor.array('H', count))} }}"
            for xmax, infomask2, infomask, _, count in plans
        ]
    )


def redirections_text(offsets: tuple[int, ...]) -> str:
    pairs = zip(offsets[::2], offsets[1::2], strict=True)
    return array_text([f"{source}->{target}" for source, target in pairs])


def _prune_of_17(record: Record) -> str:
    cursor = Cursor(record.main)
    (flags,) = cursor.fields("xB")
    text = ""
    if flags & HORIZON:
        text = f"snapshotConflictHorizon: {cursor.fields('I')[0]}"
    text += f", isCatalogRel: {'FT'[bool(flags & CATALOG)]}"
    data = record.page_data()
    if not data.left:
        return text

    def items(flag: int, each: int) -> tuple[int, ...]:
        return data.array("H", each * data.fields("H")[0]) if flags & flag else ()

    plans = []
    if flags & PLANS:
        (count,) = data.fields("H2x")
        plans = [data.fields(PLAN) for _ in range(count)]
    redirected, dead, unused = items(REDIRECTIONS, 2), items(DEAD, 1), items(UNUSED, 1)
    text += (
        f", nplans: {len(plans)}, nredirected: {len(redirected) // 2}, "
        f"ndead: {len(dead)}, nunused: {len(unused)}"
    )
    if plans:
        text += f", plans:{plans_text(data, plans)}"
    if redirected:
        text += f", redirected:{redirections_text(redirected)}"
    if dead:
        text += f", dead:{array_text(dead)}"
    if unused:
        text += f", unused:{array_text(unused)}"
    return text


def _multi_insert(record: Record) -> str:
    cursor = Cursor(record.main)
    flags, count = cursor.fields("BxH")
    text = f"ntuples: {count}, flags: 0x{flags:02X}"
    if record.page_data().left and not record.info & INIT_PAGE:
        text += f", offsets:{array_text(cursor.array('H', count))}"
    return text


def _new_cid(text: str) -> Describe:
    def describe(record: Record) -> str:
        fields = Cursor(record.main).fields("4xIIIIIIHHH")
        cmin, cmax, combo, tablespace, database, relation, high, low, offset = fields
        return text.format(
            relation=f"{tablespace}/{database}/{relation}",
            tid=f"{block_number(high, low)}/{offset}",
            commands=f"cmin: {cmin}, cmax: {cmax}, combo: {combo}",
        )

    return describe


def _prune_of_16(record: Record) -> str:
    horizon, redirect_count, dead_count = Cursor(record.main).fields("IHH")
    text = f"snapshotConflictHorizon: {horizon}, nredirected: {redirect_count}, ndead: {dead_count}"
    data = record.page_data()
    if not data.left:
        return text
    redirected = data.array("H", 2 * redirect_count)
    dead = data.array("H", dead_count)
    unused = data.array("H", data.left // 2)
    return (
        f"{text}, nunused: {len(unused)}, redirected:{redirections_text(redirected)}, "
        f"dead:{array_text(dead)}, unused:{array_text(unused)}"
    )


def _vacuum_of_16(record: Record) -> str:
    (count,) = Cursor(record.main).fields("H")
    data = record.page_data()
    unused = f", unused:{array_text(data.array('H', count))}" if data.left else ""
    return f"nunused: {count}{unused}"


def _freeze_of_16(record: Record) -> str:
    horizon, count = Cursor(record.main).fields("IH")
    text = f"snapshotConflictHorizon: {horizon}, nplans: {count}"
    data = record.page_data()
    if not data.left:
        return text
    return text + f", plans:{plans_text(data, [data.fields(PLAN) for _ in range(count)])}"


def _lock_updated_until_15(record: Record) -> str:
    xmax, offset, bits, flags = Cursor(record.main).fields("IHBB")
    return f"off {offset}: xmax {xmax}: flags 0x{flags:02X} {infobits_until_15(bits)}"


UNTIL_15: dict[int, Describe] = {
    REWRITE: nothing,
    PRUNE: fixed("IHH", "latestRemovedXid {} nredirected {} ndead {}"),
    VACUUM: fixed("H", "nunused {}"),
    FREEZE_PAGE: fixed("IH", "cutoff xid {} ntuples {}"),
    VISIBLE: fixed("IB", "cutoff xid {} flags 0x{:02X}"),
    MULTI_INSERT: fixed("BxH", "{1} tuples flags 0x{0:02X}"),
    LOCK_UPDATED: _lock_updated_until_15,
    NEW_CID: _new_cid("rel {relation}; tid {tid}; {commands}"),
}
OF_16: dict[int, Describe] = {
    REWRITE: nothing,
    PRUNE: _prune_of_16,
    VACUUM: _vacuum_of_16,
    FREEZE_PAGE: _freeze_of_16,
    VISIBLE: fixed("IB", "snapshotConflictHorizon: {}, flags: 0x{:02X}"),
    MULTI_INSERT: _multi_insert,
    LOCK_UPDATED: lock_fields,
    NEW_CID: _new_cid("rel: {relation}, tid: {tid}, {commands}"),
}
OF_17: dict[int, Describe] = {
    **OF_16,
    PRUNE_ON_ACCESS: _prune_of_17,
    PRUNE_VACUUM_SCAN: _prune_of_17,
    PRUNE_VACUUM_CLEANUP: _prune_of_17,
}


def describers(version: int) -> dict[int, Describe]:
    """By opcode, without the bit that says that the page is initialised."""
    if version < 16:
        return UNTIL_15
    return OF_16 if version < 17 else OF_17
