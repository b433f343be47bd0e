"""Versions: what is kept for one (chunk, block, LSN), as bytes.

The LSN of a version is the END of the WAL record that made it, which is also what redo writes into
pd_lsn. The first byte is the kind; integers are little-endian. A version that needs no older one
is *self-contained*: a reader collects versions from the newest back to the first such one.

    kind           layout after the kind byte
    IMAGE_WAL      u8 0, u16 hole offset, u16 hole length, page without its hole; reading it sets
                   pd_lsn to the version's LSN unless the page is new (pd_upper = 0)
    IMAGE_EXACT    the same; the page is taken as it is (SLRU pages, materialised pages)
    IMAGE_FUZZY    the same; from a base backup: records that end at or below its pd_lsn are in it
    FILE           u8 0, u16 0, u32 length of the whole file, this 8 KiB block of it (the last one
                   short)
    RECORD         u8 rmgr, u8 info, u8 block id, u8 count of references, u8 flags, u16 length of
                   the block's data, u32 xid, u32 length of the main data; per reference u8 block id
                   and u32 block number (of the relation, as in WAL); main data; this block's data
                   Flags: 1 the page is initialised, 2 hint bits are logged (data checksums or
                   wal_log_hints), on which setting pd_lsn depends in one record
    EFFECT         u8 class, u16 count, then per item u16 index, u16 argument, u32 value: a change
                   of a visibility map or SLRU page that its record implies without naming the page
    UNREADABLE     u8 rmgr, u8 info, u8 0: a record changed the page and we have no redo for it;
                   or, rmgr 255, the base backup's page was torn
    HISTORY        u8 state (0 dropped, 1 exists), u16 0, u32 blocks: a relation's size from here on
    TIME           u8 0, u16 0, u32 bytes of WAL from the start of the record to its end, u64 time:
                   a transaction ended then, later than all before; of the chunk COMMIT_TIMES

A time is in microseconds since 2000, PostgreSQL's TimestampTz. There is a TIME for the first COMMIT
or ABORT, prepared or not, and then for each whose time is TIME_STEP or more after the last TIME: so
the times rise with the LSN, though clocks are set back, and a time in between is less than a step
above the TIME before it. Length 0: not a record but a base backup's checkpoint, whose time is in
whole seconds, rounded down.
"""

import struct

IMAGE_WAL = 1
IMAGE_EXACT = 2
IMAGE_FUZZY = 3
FILE = 4
RECORD = 8
EFFECT = 16
UNREADABLE = 32
HISTORY = 64
TIME = 65

PAGE_SIZE = 8192
IMAGE_HEADER_SIZE = 6
FILE_HEADER_SIZE = 8
RECORD_HEADER_SIZE = 16
REFERENCE_SIZE = 5
EFFECT_HEADER_SIZE = 4
EFFECT_ITEM_SIZE = 8
HISTORY_SIZE = 8
TIME_SIZE = 16

TIME_STEP = 10_000
TIME_STEP_OF_CHECKPOINT = 1_000_000

TORN = 255  # in the place of a resource manager, which has no such number

FLAG_INIT = 1
FLAG_HINT_BITS_LOGGED = 2

_TIME = struct.Struct("<BxxxIQ")

# Classes of EFFECT and what their items mean.
VM_CLEAR = 1  # index: heap block within the map page; argument: bits to clear
VM_TRUNCATE = 2  # value: heap blocks that the map page still covers; the bits above are cleared
CLOG_SET = 3  # index: transaction within the page; argument: its two status bits
MULTIXACT_OFFSET = 4  # index: multixact within the page; value: offset of its first member
MULTIXACT_MEMBER = 5  # index: member within the page; argument: status; value: xid
# First item: argument: replication origin; value: low half of the time. Second: high half. Then
COMMIT_TIMESTAMP = 6  # index: transaction within the page


def image_exact(page: bytes) -> bytes:
    """A whole page, kept as it is."""
    return bytes([IMAGE_EXACT, 0, 0, 0, 0, 0]) + page


def image_exact_before_zeros(start: bytes) -> bytes:
    """A page of zeros behind the bytes of `start`: they are its hole."""
    hole = len(start).to_bytes(2, "little") + (PAGE_SIZE - len(start)).to_bytes(2, "little")
    return bytes([IMAGE_EXACT, 0]) + hole + start


def file_block(file_length: int, block: bytes) -> bytes:
    """One 8 KiB block of a small file of `file_length` bytes."""
    return bytes([FILE, 0, 0, 0]) + file_length.to_bytes(4, "little") + block


def effect(effect_class: int, items: list[tuple[int, int, int]]) -> bytes:
    """An EFFECT of (index, argument, value) items."""
    head = bytes([EFFECT, effect_class]) + len(items).to_bytes(2, "little")
    return head + b"".join(
        index.to_bytes(2, "little") + argument.to_bytes(2, "little") + value.to_bytes(4, "little")
        for index, argument, value in items
    )


def history_word(exists: bool, n_blocks: int) -> int:
    """A HISTORY version as the little-endian u64 that it is."""
    return HISTORY | int(exists) << 8 | n_blocks << 32


def commit_time(record_bytes: int, time: int) -> bytes:
    """A TIME; `record_bytes` as above, `time` in microseconds since 2000."""
    return _TIME.pack(TIME, record_bytes, time)


def parse_commit_time(payload: bytes) -> tuple[int, int]:
    """(bytes of the record, time) of a TIME; ValueError if it is none."""
    if len(payload) != TIME_SIZE or payload[:4] != bytes([TIME, 0, 0, 0]):
        raise ValueError(f"not a TIME version: {payload[:TIME_SIZE].hex()}")
    _, record_bytes, time = _TIME.unpack(payload)
    return record_bytes, time
