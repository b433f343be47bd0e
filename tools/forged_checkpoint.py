"""Sets a stopped server's counters forward or back: by a shutdown checkpoint record of our own.

pg_resetwal does it too, but there is none for some majors, and it ends the WAL that a follower
reads. This appends one more CHECKPOINT_SHUTDOWN record behind the server's own, with other
counters, and makes pg_control name it. The server starts from it as from any other; standbys and
page servers that follow meet it in WAL.

A transaction or multixact id that jumps needs the SLRU segments in which it now is: they are made,
all zeros. How far it may jump is PostgreSQL's rule: less than 2^31 from the oldest that some row
may have. `near_wrap` goes around the whole of it in steps, with everything frozen after each.
"""

import os
import struct
from pathlib import Path

import crc32c

from formats import lsn, wal_page
from formats.control_file import parse_control_file, with_checkpoint_at
from tools.postgres import Server
from tools.postgres_binaries import ProgramFailed

SLRU_SEGMENT_BYTES = 32 * 8192
XACTS_PER_SEGMENT = 32 * 32768
TIMESTAMPS_PER_SEGMENT = 32 * 819
OFFSETS_PER_SEGMENT = 32 * 2048
MEMBERS_PER_SEGMENT = 32 * 1636
_RECORD_HEADER_BYTES = 24
_SHUTDOWN_CHECKPOINT = 0x00
_MAIN_DATA_SHORT = 255
# Where the counters are in a checkpoint record (CheckPoint, pg_control.h, the same in 14 to 18).
_NEXT_XID, _NEXT_OID, _NEXT_MULTIXACT, _NEXT_OFFSET = 24, 32, 36, 40


def set_counters(
    server: Server,
    *,
    next_xid: int | None = None,
    next_oid: int | None = None,
    next_multixact: int | None = None,
    next_offset: int | None = None,
) -> None:
    """Append the record to the WAL of a server that was stopped cleanly; `next_xid` has an epoch.

    ProgramFailed if it does not fit into what is left of the WAL segment (start the server, call
    pg_switch_wal(), and stop it again).
    """
    end = server.shutdown_checkpoint_end()
    path = server.data_dir / "global" / "pg_control"
    control = path.read_bytes()
    facts = parse_control_file(control)
    start = lsn.record_start(end, facts.wal_segment_bytes)
    main = bytearray(control[40:128])
    struct.pack_into("<Q", main, 0, start)  # a shutdown checkpoint's redo LSN is its own
    for position, value, form in (
        (_NEXT_XID, next_xid, "<Q"),
        (_NEXT_OID, next_oid, "<I"),
        (_NEXT_MULTIXACT, next_multixact, "<I"),
        (_NEXT_OFFSET, next_offset, "<I"),
    ):
        if value is not None:
            struct.pack_into(form, main, position, value)
    _append(server, end, _record(bytes(main), facts.checkpoint_lsn))
    path.write_bytes(with_checkpoint_at(control, start, bytes(main)))
    xid, multi, offset = struct.unpack_from("<I8xII", main, _NEXT_XID)
    for directory, segment in (
        ("pg_xact", xid // XACTS_PER_SEGMENT),
        ("pg_multixact/offsets", multi // OFFSETS_PER_SEGMENT),
        ("pg_multixact/members", offset // MEMBERS_PER_SEGMENT),
    ):
        _have_segment(server.data_dir / directory / f"{segment:04X}")


def near_wrap(server: Server, xids: int, multixacts: int, members: int) -> None:
    """Bring a stopped server of a fresh cluster to so many ids before each of them wraps.

    Transaction ids and multixacts can go less than 2^31 at a time, so there are three steps, with
    everything frozen after each.
    """
    for step in (1, 2, 3):
        xid, multi = (2**32 - xids) * step // 3, (2**32 - multixacts) * step // 3
        set_counters(server, next_xid=xid, next_multixact=multi, next_offset=2**32 - members)
        server.start()
        server.sql("ALTER DATABASE template0 ALLOW_CONNECTIONS true")
        for name in ("postgres", "template1", "template0"):
            server.sql("VACUUM (FREEZE)", name)
        server.stop()


def _record(main: bytes, previous: int) -> bytes:
    """The WAL record as bytes (xlogrecord.h): header, one short block of main data."""
    body = bytes([_MAIN_DATA_SHORT, len(main)]) + main
    length = _RECORD_HEADER_BYTES + len(body)
    header = struct.pack("<IIQBBH", length, 0, previous, _SHUTDOWN_CHECKPOINT, 0, 0)
    return header + struct.pack("<I", crc32c.crc32c(header, crc32c.crc32c(body))) + body


def _append(server: Server, end: int, record: bytes) -> None:
    """Write a record behind `end`, across pages where it must be."""
    facts = parse_control_file((server.data_dir / "global" / "pg_control").read_bytes())
    size = facts.wal_segment_bytes
    number = lsn.segment_number(end, size)
    if lsn.segment_number(end + len(record) + 64, size) != number or end % size == 0:
        raise ProgramFailed(f"no room in the WAL segment at {lsn.show(end)}")
    path = server.data_dir / "pg_wal" / wal_page.file_name(facts.timeline, number, size)
    with open(path, "r+b") as file:
        magic = int.from_bytes(file.read(2), "little")
        position, left = end, record
        while left:
            if position % 8192 == 0:
                continues = wal_page.CONTINUES if left is not record else 0
                remaining = len(left) if continues else 0
                file.seek(position % size)
                file.write(struct.pack("<HHIQI4x", magic, continues, facts.timeline, position,
                                       remaining))  # fmt: skip
                position += 24
            room = 8192 - position % 8192
            file.seek(position % size)
            file.write(left[:room])
            position += len(left[:room])
            left = left[room:]
        file.write(bytes(-position % 8192))


def _have_segment(path: Path) -> None:
    if not path.exists():
        path.write_bytes(bytes(SLRU_SEGMENT_BYTES))
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
