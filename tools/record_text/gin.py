"""GIN records in words (src/include/access/ginxlog.h, rmgrdesc/gindesc.c).

A record says more of its page than its flags only where it has no image of it.
"""

from tools.record_text.cursor import Cursor
from tools.record_text.record import Block, Describe, Record, block_number, fixed, nothing

IS_DATA, IS_LEAF, ROOT_SPLIT = 1, 2, 4
SEGMENT_DELETE, SEGMENT_INSERT, SEGMENT_REPLACE, SEGMENT_ADD_ITEMS = 1, 2, 3, 4
ITEM_BYTES = 6
POSTING_LIST = "6xH"  # first item; length in bytes of those that follow it


def letter(flags: int, bit: int) -> str:
    return "FT"[bool(flags & bit)]


def _recompress(data: Cursor) -> str:
    """What is done to the segments of a leaf of a posting tree."""
    (count,) = data.fields("H")
    text = f" {count} segments:"
    for _ in range(count):
        segment, action = data.fields("BB")
        if action == SEGMENT_ADD_ITEMS:
            (items,) = data.fields("H")
            data.piece(items * ITEM_BYTES)
            text += f" {segment} (add {items} items)"
        elif action == SEGMENT_DELETE:
            text += f" {segment} (delete)"
        elif action in (SEGMENT_INSERT, SEGMENT_REPLACE):
            (length,) = data.fields(POSTING_LIST)
            data.piece(length + length % 2)
            text += f" {segment} ({'insert' if action == SEGMENT_INSERT else 'replace'})"
        else:
            return f"{text} {segment} unknown action {action} ???"
    return text


def _of_page(record: Record, changes: Describe) -> str:
    """That there is an image of block 0, or what changes in it; of another block's part nothing."""
    block = record.blocks.get(0, Block())
    if block.has_image:
        return " (full page image)" if block.applies else " (full page image, for WAL verification)"
    return changes(record) if block.data else ""


def _inserted(record: Record) -> str:
    (flags,) = Cursor(record.main).fields("H")
    data = record.page_data()
    if not flags & IS_DATA:
        return " isdelete: {}".format("FT"[data.fields("2x?")[0]])
    if flags & IS_LEAF:
        return _recompress(data)
    child_high, child_low, high, low, offset = data.fields("2xHHHHH")
    return f" pitem: {block_number(child_high, child_low)}-{block_number(high, low)}/{offset}"


def _insert(record: Record) -> str:
    cursor = Cursor(record.main)
    (flags,) = cursor.fields("H")
    text = f"isdata: {letter(flags, IS_DATA)} isleaf: {letter(flags, IS_LEAF)}"
    if not flags & IS_LEAF:
        left_high, left_low, right_high, right_low = cursor.fields("HHHH")
        left, right = block_number(left_high, left_low), block_number(right_high, right_low)
        text += f" children: {left}/{right}"
    return text + _of_page(record, _inserted)


def _split(record: Record) -> str:
    (flags,) = Cursor(record.main).fields("24xH")
    return (
        f"isrootsplit: {letter(flags, ROOT_SPLIT)} isdata: {letter(flags, IS_DATA)} "
        f"isleaf: {letter(flags, IS_LEAF)}"
    )


def _vacuum_data_leaf(record: Record) -> str:
    return _of_page(record, lambda record: _recompress(record.page_data()))


def describers(version: int) -> dict[int, Describe]:
    return {
        0x10: nothing,  # CREATE_PTREE
        0x20: _insert,
        0x30: _split,
        0x40: nothing,  # VACUUM_PAGE
        0x50: nothing,  # DELETE_PAGE
        0x60: nothing,  # UPDATE_META_PAGE
        0x70: nothing,  # INSERT_LISTPAGE
        0x80: fixed("56xi", "ndeleted: {}"),  # DELETE_LISTPAGE
        0x90: _vacuum_data_leaf,
    }
