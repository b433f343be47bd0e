"""SP-GiST records in words (src/include/access/spgxlog.h, rmgrdesc/spgdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed, of_version


def with_remarks(*remarks: tuple[bool, str]) -> str:
    """The remarks that hold, each in parentheses."""
    return "".join(f" ({remark})" for holds, remark in remarks if holds)


def _add_leaf(record: Record) -> str:
    new_page, nulls, leaf, head, parent, node = Cursor(record.main).fields("??HHHH")
    remarks = with_remarks((new_page, "newpage"), (nulls, "nulls"))
    return f"off: {leaf}, headoff: {head}, parentoff: {parent}, nodeI: {node}{remarks}"


def _move_leafs(record: Record) -> str:
    moves, new_page, replace_dead, nulls, parent, node = Cursor(record.main).fields("H???xHH")
    remarks = with_remarks((new_page, "newpage"), (replace_dead, "replacedead"), (nulls, "nulls"))
    return f"nmoves: {moves}, parentoff: {parent}, nodeI: {node}{remarks}"


def _add_node(record: Record) -> str:
    offset, new_offset, new_page, block, parent, node = Cursor(record.main).fields("HH?bHH")
    return (
        f"off: {offset}, newoff: {new_offset}, parentBlk: {block}, parentoff: {parent}, "
        f"nodeI: {node}{with_remarks((new_page, 'newpage'))}"
    )


def _split_tuple(record: Record) -> str:
    prefix, postfix, new_page, same_block = Cursor(record.main).fields("HH??")
    remarks = with_remarks((new_page, "newpage"), (same_block, "same"))
    return f"prefixoff: {prefix}, postfixoff: {postfix}{remarks}"


def _picksplit(record: Record) -> str:
    fields = Cursor(record.main).fields("?xHH2xHx??xHH")
    root_split, deleted, inserted, inner, nulls, inner_is_parent, parent, node = fields
    remarks = with_remarks(
        (inner_is_parent, "innerIsParent"), (nulls, "nulls"), (root_split, "isRootSplit")
    )
    return (
        f"ndelete: {deleted}, ninsert: {inserted}, inneroff: {inner}, "
        f"parentoff: {parent}, nodeI: {node}{remarks}"
    )


_REDIRECT = "ntoplaceholder: {}, firstplaceholder: {}, "
VACUUM_REDIRECT: dict[int, Describe] = {
    14: fixed("HHI", _REDIRECT + "newestredirectxid: {}"),
    16: fixed("HHI", _REDIRECT + "snapshotConflictHorizon: {}"),
    17: fixed("HHI?", _REDIRECT + "snapshotConflictHorizon: {}, isCatalogRel: {}"),
}
"""By the version that brought it."""


def describers(version: int) -> dict[int, Describe]:
    return {
        0x10: _add_leaf,
        0x20: _move_leafs,
        0x30: _add_node,
        0x40: _split_tuple,
        0x50: _picksplit,
        # VACUUM_LEAF, VACUUM_ROOT, VACUUM_REDIRECT
        0x60: fixed("HHHH", "ndead: {}, nplaceholder: {}, nmove: {}, nchain: {}"),
        0x70: fixed("H", "ndelete: {}"),
        0x80: of_version(VACUUM_REDIRECT, version),
    }
