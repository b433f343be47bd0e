"""Btree records in words (src/include/access/nbtxlog.h, rmgrdesc/nbtdesc.c).

16 changed the wording and lists what a page loses; 17 says whether the table is a catalog.
"""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Describe, Record, array_text, fixed, full_xid

(
    INSERT_LEAF,
    INSERT_UPPER,
    INSERT_META,
    SPLIT_L,
    SPLIT_R,
    INSERT_POST,
    DEDUP,
    DELETE,
    UNLINK_PAGE,
    UNLINK_PAGE_META,
    NEWROOT,
    MARK_PAGE_HALFDEAD,
    VACUUM,
    REUSE_PAGE,
    META_CLEANUP,
) = range(0, 0xF0, 0x10)

SPLIT = "IHHH"
DELETION = "IHH"
HALFDEAD = "4xIIII"  # leaf, left, right, top parent


def _losses(record: Record, deleted_count: int, updated_count: int) -> str:
    """The tuples that go, and the TIDs that go from posting lists."""
    data = record.page_data()
    if not data.left:
        return ""
    deleted = data.array("H", deleted_count)
    updates = []
    for offset in data.array("H", updated_count):
        (count,) = data.fields("H")
        tids = ", ".join(map(str, data.array("H", count)))
        updates.append(f"{{ off: {offset}, nptids: {count}, ptids: [{tids}] }}")
    return f", deleted:{array_text(deleted)}, updated:{array_text(updates) if updates else ' []'}"


def _vacuum(record: Record) -> str:
    deleted_count, updated_count = Cursor(record.main).fields("HH")
    losses = _losses(record, deleted_count, updated_count)
    return f"ndeleted: {deleted_count}, nupdated: {updated_count}{losses}"


def _delete(record: Record) -> str:
    cursor = Cursor(record.main)
    horizon, deleted_count, updated_count = cursor.fields(DELETION)
    text = (
        f"snapshotConflictHorizon: {horizon}, ndeleted: {deleted_count}, nupdated: {updated_count}"
    )
    if record.version >= 17:
        text += f", isCatalogRel: {'FT'[cursor.fields('?')[0]]}"
    return text + _losses(record, deleted_count, updated_count)


def _unlink(text: str) -> Describe:
    def describe(record: Record) -> str:
        left, right, level, safe_xid, *leaf = Cursor(record.main).fields("III4xQIII")
        return text.format(left, right, level, full_xid(safe_xid), *leaf)

    return describe


def _reuse(record: Record) -> str:
    cursor = Cursor(record.main)
    tablespace, database, number, horizon = cursor.fields("III4xQ")
    relation = f"{tablespace}/{database}/{number}"
    if record.version < 16:
        return f"rel {relation}; latestRemovedXid {full_xid(horizon)}"
    text = f"rel: {relation}, snapshotConflictHorizon: {full_xid(horizon)}"
    if record.version >= 17:
        text += f", isCatalogRel: {'FT'[cursor.fields('?')[0]]}"
    return text


def _meta_cleanup(text: str) -> Describe:
    def describe(record: Record) -> str:
        return text.format(*record.page_data().fields("20xI"))

    return describe


def describers(version: int) -> dict[int, Describe]:
    if version < 16:
        insert = fixed("H", "off {}")
        split = fixed(SPLIT, "level {}, firstrightoff {}, newitemoff {}, postingoff {}")
        unlink = _unlink(
            "left {}; right {}; level {}; safexid {}; "
            "leafleft {}; leafright {}; leaftopparent {}"
        )  # fmt: skip
        others: dict[int, Describe] = {
            DEDUP: fixed("H", "nintervals {}"),
            DELETE: fixed(DELETION, "latestRemovedXid {}; ndeleted {}; nupdated {}"),
            NEWROOT: fixed("4xI", "lev {}"),
            MARK_PAGE_HALFDEAD: fixed(HALFDEAD, "topparent {3}; leaf {0}; left {1}; right {2}"),
            VACUUM: fixed("HH", "ndeleted {}; nupdated {}"),
            META_CLEANUP: _meta_cleanup("last_cleanup_num_delpages {}"),
        }
    else:
        insert = fixed("H", "off: {}")
        split = fixed(SPLIT, "level: {}, firstrightoff: {}, newitemoff: {}, postingoff: {}")
        unlink = _unlink(
            "left: {}, right: {}, level: {}, safexid: {}, "
            "leafleft: {}, leafright: {}, leaftopparent: {}"
        )
        others = {
            DEDUP: fixed("H", "nintervals: {}"),
            DELETE: _delete,
            NEWROOT: fixed("4xI", "level: {}"),
            MARK_PAGE_HALFDEAD: fixed(HALFDEAD, "topparent: {3}, leaf: {0}, left: {1}, right: {2}"),
            VACUUM: _vacuum,
            META_CLEANUP: _meta_cleanup("last_cleanup_num_delpages: {}"),
        }
    return {
        **dict.fromkeys((INSERT_LEAF, INSERT_UPPER, INSERT_META, INSERT_POST), insert),
        **dict.fromkeys((SPLIT_L, SPLIT_R), split),
        **dict.fromkeys((UNLINK_PAGE, UNLINK_PAGE_META), unlink),
        REUSE_PAGE: _reuse,
        **others,
    }
