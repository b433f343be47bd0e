"""GiST records in words (src/include/access/gistxlog.h, rmgrdesc/gistdesc.c)."""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, fixed, full_xid, nothing, of_version

DELETE: dict[int, Describe] = {
    14: fixed("IH", "delete: latestRemovedXid {}, nitems: {}"),
    16: fixed("IH", "delete: snapshotConflictHorizon {}, nitems: {}"),
    17: fixed("IH?", "delete: snapshotConflictHorizon {}, nitems: {}, isCatalogRel {}"),
}
"""By the version that brought it."""


def _page_reuse(record: Record) -> str:
    cursor = Cursor(record.main)
    tablespace, database, number, block, horizon = cursor.fields("IIIIQ")
    name = "latestRemovedXid" if record.version < 16 else "snapshotConflictHorizon"
    text = f"rel {tablespace}/{database}/{number}; blk {block}; {name} {full_xid(horizon)}"
    if record.version >= 17:
        text += f", isCatalogRel {'FT'[cursor.fields('?')[0]]}"
    return text


def _page_delete(record: Record) -> str:
    xid, downlink = Cursor(record.main).fields("QH")
    return f"deleteXid {full_xid(xid)}; downlink {downlink}"


def describers(version: int) -> dict[int, Describe]:
    return {
        0x00: nothing,  # PAGE_UPDATE
        0x10: of_version(DELETE, version),
        0x20: _page_reuse,
        0x30: fixed("18xH", "page_split: splits to {} pages"),  # PAGE_SPLIT
        0x60: _page_delete,
        0x70: nothing,  # ASSIGN_LSN
    }
