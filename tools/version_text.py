"""Versions of pages in words: what `layertool dump` says of each one in a layer.

Bytes that are no version are described as such: nothing here raises.
"""

from collections.abc import Callable
from typing import NamedTuple

from formats import rmgr, timestamp, version
from formats.lsn import show as show_lsn
from tools.record_text.cursor import Cursor, MalformedData
from tools.record_text.describe import describe
from tools.record_text.multixact import member_status
from tools.record_text.record import Block, Record, time_text

IMAGES = {
    version.IMAGE_WAL: "image of WAL",
    version.IMAGE_EXACT: "exact image",
    version.IMAGE_FUZZY: "fuzzy image",
}
FLAGS = {version.FLAG_INIT: "init", version.FLAG_HINT_BITS_LOGGED: "hints"}
RECORD_HEADER = "xBBBBBHII"
EFFECT_ITEM = "HHI"
MAP_BITS = {1: "all-visible", 2: "all-frozen", 3: "all-visible and all-frozen"}
STATUSES = ("in progress", "committed", "aborted", "sub-committed")
ITEMS_SHOWN_MAX = 32

Item = tuple[int, int, int]


class VersionText(NamedTuple):
    """A version: its kind, or of a record resource manager and opcode; and what it says."""

    kind: str
    description: str
    tx: int | None = None  # of records alone: the transaction,
    reference: int | None = None  # which of the record's references this block is,
    flags: str = ""  # and whether the page is initialised, and hint bits are logged


def describe_version(payload: bytes, postgres: int, has_pages: bool = True) -> VersionText:
    """A version's payload; `postgres` is the major version, SLRU segments have no page headers."""
    kind = payload[0] if payload else 0
    cursor = Cursor(payload, "version")
    try:
        if kind in IMAGES:
            return VersionText(IMAGES[kind], _image(cursor, has_pages))
        if kind == version.FILE:
            return VersionText("file", f"block of a file of {cursor.fields('4xI')[0]} bytes")
        if kind == version.RECORD:
            return _record(cursor, postgres)
        if kind == version.EFFECT:
            return _effect(cursor)
        if kind == version.UNREADABLE:
            return VersionText("unreadable", _unreadable(cursor, postgres))
        if kind == version.HISTORY:
            exists, blocks = cursor.fields("x?2xI")
            return VersionText("history", f"exists, {blocks} blocks" if exists else "dropped")
        if kind == version.TIME:
            return VersionText("time", _time(cursor))
    except MalformedData as error:
        return VersionText(f"kind {kind}", f"malformed: {error}")
    return VersionText(f"kind {kind}", "malformed: no such kind")


def _image(cursor: Cursor, has_pages: bool) -> str:
    """pd_lsn as it stands in the page: readers of an image of WAL are given the version's LSN."""
    hole, length = cursor.fields("2xHH")
    text = f"{cursor.left} bytes, hole {hole}..{hole + length}"
    if has_pages and cursor.left >= 8:
        high, low = cursor.fields("II")
        text += f", pd_lsn {show_lsn(high << 32 | low)}"
    return text


def _record(cursor: Cursor, postgres: int) -> VersionText:
    header = cursor.fields(RECORD_HEADER)
    manager, info, block, reference_count, bits, data_length, xid, main_length = header
    references = [cursor.fields("BI")[0] for _ in range(reference_count)]
    main = cursor.piece(main_length)
    data = cursor.piece(data_length)
    blocks = {reference: Block() for reference in references}
    blocks[block] = Block(data)
    record = Record(postgres, manager, info, main, blocks)
    flags = " ".join(name for bit, name in FLAGS.items() if bits & bit)
    name = rmgr.show(postgres, manager, info)
    return VersionText(name, describe(record), xid, block, flags)


def _unreadable(cursor: Cursor, postgres: int) -> str:
    manager, info = cursor.fields("xBB")
    if manager == version.TORN:
        return "torn in the base backup"
    return f"from here on, by {rmgr.show(postgres, manager, info)}"


def _time(cursor: Cursor) -> str:
    record_bytes, at = cursor.fields("4xIQ")
    what = f"a transaction ended, record of {record_bytes} bytes" if record_bytes else "checkpoint"
    return f"{timestamp.show(at)}: {what}"


def _effect(cursor: Cursor) -> VersionText:
    number, count = cursor.fields("xBH")
    kind, describe_items = EFFECTS.get(number, (f"class {number}", _unknown))
    items: list[Item] = []
    for _ in range(count):
        index, argument, value = cursor.fields(EFFECT_ITEM)
        items.append((index, argument, value))
    return VersionText(f"effect: {kind}", describe_items(items))


def _listed(words: list[str]) -> str:
    """All of a short list; of a long one the first, and how many more there are."""
    shown = words[:ITEMS_SHOWN_MAX]
    if len(words) > len(shown):
        shown.append(f"and {len(words) - len(shown)} more")
    return ", ".join(shown)


def _map_clear(items: list[Item]) -> str:
    return _listed(
        [f"heap block {block} not {MAP_BITS.get(bits, bits)}" for block, bits, _ in items]
    )


def _map_truncate(items: list[Item]) -> str:
    return _listed([f"{blocks} heap blocks are left" for _, _, blocks in items])


def _transaction_status(items: list[Item]) -> str:
    return _listed([f"transaction {index} {STATUSES[bits & 3]}" for index, bits, _ in items])


def _multixact_offset(items: list[Item]) -> str:
    return _listed([f"multixact {index} at {offset}" for index, _, offset in items])


def _multixact_member(items: list[Item]) -> str:
    return _listed(
        [f"member {index} is {xid} ({member_status(status)})" for index, status, xid in items]
    )


def _commit_timestamp(items: list[Item]) -> str:
    """Two items for origin and time, then one for each transaction."""
    if len(items) < 2:
        raise MalformedData("a commit without its time")
    (_, origin, low), (_, _, high) = items[:2]
    at = int.from_bytes((high << 32 | low).to_bytes(8, "little"), "little", signed=True)
    transactions = _listed([str(index) for index, _, _ in items[2:]])
    return f"{transactions} committed at {time_text(at)}, origin {origin}"


def _unknown(items: list[Item]) -> str:
    return f"malformed: no such class, {len(items)} items"


EFFECTS: dict[int, tuple[str, Callable[[list[Item]], str]]] = {
    version.VM_CLEAR: ("map bits", _map_clear),
    version.VM_TRUNCATE: ("map truncation", _map_truncate),
    version.CLOG_SET: ("status", _transaction_status),
    version.MULTIXACT_OFFSET: ("multixact offsets", _multixact_offset),
    version.MULTIXACT_MEMBER: ("multixact members", _multixact_member),
    version.COMMIT_TIMESTAMP: ("commit time", _commit_timestamp),
}
"""By class: a name, and its items in words. Indexes count from the start of the page."""
