"""A record as the modules of this package take it, and the words that several of them use."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tools.record_text.cursor import Cursor

UNIX_SECONDS_OF_2000 = 946_684_800
DEFAULT_TABLESPACE, GLOBAL_TABLESPACE = 1663, 1664
FORKS = ("main", "fsm", "vm", "init")
CATALOG_VERSIONS = {14: 202107181, 15: 202209061, 16: 202307071, 17: 202406281, 18: 202506291}
"""In the name of a tablespace's directory (src/include/catalog/catversion.h)."""


class Block(NamedTuple):
    """What a record carries for one block that it references."""

    data: bytes = b""
    has_image: bool = False
    applies: bool = False  # the image is for redo, not only to compare with what redo makes


class Record(NamedTuple):
    """A WAL record, or the part of one that a layer keeps: then blocks that others own are bare."""

    version: int  # PostgreSQL's major
    rmgr: int
    info: int
    main: bytes
    blocks: Mapping[int, Block] = {}
    origin: int = 0  # the replication origin that it names

    def page_data(self) -> Cursor:
        """What it carries for block 0; nothing where that is not known."""
        return Cursor(self.blocks.get(0, Block()).data, "data of block 0")


Describe = Callable[[Record], str]


def fixed(layout: str, text: str) -> Describe:
    """A description of fields at the start of the main data.

    `layout` has their letters of module struct, `text` their places for str.format; truth values
    are written T and F.
    """

    def describe(record: Record) -> str:
        return text.format(*map(letter_if_bool, Cursor(record.main).fields(layout)))

    return describe


def of_version(table: Mapping[int, Describe], version: int) -> Describe:
    """The entry for a version, from a table by the first version that an entry is of."""
    return table[max(first for first in table if first <= version)]


def page_letter(version: int) -> str:
    """The type of the number of an SLRU page, which 17 made wider."""
    return "q" if version >= 17 else "i"


def letter_if_bool(value: Any) -> Any:
    return "FT"[value] if isinstance(value, bool) else value


def nothing(record: Record) -> str:
    """Of a record about which nothing is said beyond its opcode."""
    return ""


def array_text(items: Sequence[object]) -> str:
    """Items as pg_waldump writes them since 16: a space, then the list."""
    return f" [{', '.join(map(str, items))}]"


def block_number(high: int, low: int) -> int:
    """A block number that is stored in two halves, the higher one first (storage/block.h)."""
    return high << 16 | low


def full_xid(value: int) -> str:
    """An epoch and a transaction."""
    return f"{value >> 32}:{value & 0xFFFFFFFF}"


def relation_path(version: int, relation: tuple[int, int, int], fork: int = 0) -> str:
    """The path of a relation's file below the data directory (src/common/relpath.c)."""
    tablespace, database, number = relation
    name = str(number)
    if fork:
        name += f"_{FORKS[fork] if 0 < fork < len(FORKS) else fork}"
    if tablespace == GLOBAL_TABLESPACE:
        return f"global/{name}"
    if tablespace == DEFAULT_TABLESPACE:
        return f"base/{database}/{name}"
    return f"pg_tblspc/{tablespace}/PG_{version}_{CATALOG_VERSIONS[version]}/{database}/{name}"


def time_text(microseconds: int) -> str:
    """A time since 2000, in the local time zone as pg_waldump has it (its compat.c)."""
    sign = -1 if microseconds < 0 else 1
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    try:
        local = time.localtime(sign * seconds + UNIX_SECONDS_OF_2000)
        day = time.strftime("%Y-%m-%d %H:%M:%S", local)
        return f"{day}.{sign * rest:06d} {time.strftime('%Z', local)}"
    except (OverflowError, ValueError, OSError):
        return f"{microseconds} microseconds after 2000"
