"""global/pg_control: what a cluster says about itself.

PostgreSQL writes this file as one C struct, so the offsets below are those that a 64-bit compiler
gives the struct; majors differ only behind `data_checksum_version`, where the CRC moves. The
version number stands at the same place in every major, and a machine of the other byte order is
recognised by it. The CRC-32C covers everything before itself. `postgres -D … -C` is no substitute:
the copy inside a base backup is the only one that belongs to that backup.
"""

import struct
from dataclasses import dataclass

import crc32c

from formats.errors import CorruptionError

# pg_control_version -> (offset of the CRC, PostgreSQL majors that write it)
_CRC_OFFSET = {1300: 288, 1700: 288, 1800: 292}

STATES = (
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
)
WAL_LEVELS = ("minimal", "replica", "logical")

# field -> (offset, struct format); the copy of the checkpoint record stands at 40 to 128
_FIELDS = {
    "system_identifier": (0, "Q"),
    "control_version": (8, "I"),
    "catalog_version": (12, "I"),
    "state": (16, "I"),
    "checkpoint_lsn": (32, "Q"),
    "redo_lsn": (40, "Q"),
    "timeline": (48, "I"),
    "previous_timeline": (52, "I"),
    "full_page_writes": (56, "?"),
    "next_xid": (64, "Q"),
    "next_oid": (72, "I"),
    "next_multixact": (76, "I"),
    "next_multixact_offset": (80, "I"),
    "oldest_xid": (84, "I"),
    "oldest_xid_database": (88, "I"),
    "oldest_multixact": (92, "I"),
    "oldest_multixact_database": (96, "I"),
    "checkpoint_time": (104, "q"),
    "oldest_commit_timestamp_xid": (112, "I"),
    "newest_commit_timestamp_xid": (116, "I"),
    "oldest_active_xid": (120, "I"),
    "minimum_recovery_lsn": (136, "Q"),
    "minimum_recovery_timeline": (144, "I"),
    "wal_level": (172, "I"),
    "wal_log_hints": (176, "?"),
    "track_commit_timestamp": (200, "?"),
    "block_bytes": (216, "I"),
    "relation_segment_blocks": (220, "I"),
    "wal_block_bytes": (224, "I"),
    "wal_segment_bytes": (228, "I"),
    "checksum_version": (252, "I"),
}


class ControlVersionError(CorruptionError):
    """pg_control of a major version or a byte order that is not kept here."""


@dataclass(frozen=True)
class ControlFile:
    """The facts of pg_control that the page server uses."""

    system_identifier: int
    control_version: int
    catalog_version: int
    state: str
    checkpoint_lsn: int
    redo_lsn: int
    timeline: int
    previous_timeline: int
    full_page_writes: bool
    next_xid: int  # with its epoch in the upper half
    next_oid: int
    next_multixact: int
    next_multixact_offset: int
    oldest_xid: int
    oldest_xid_database: int
    oldest_multixact: int
    oldest_multixact_database: int
    checkpoint_time: int  # seconds since 1970
    oldest_commit_timestamp_xid: int
    newest_commit_timestamp_xid: int
    oldest_active_xid: int
    minimum_recovery_lsn: int
    minimum_recovery_timeline: int
    wal_level: str
    wal_log_hints: bool
    track_commit_timestamp: bool
    block_bytes: int
    relation_segment_blocks: int
    wal_block_bytes: int
    wal_segment_bytes: int
    checksum_version: int

    @property
    def checksums(self) -> bool:
        return self.checksum_version != 0


def parse_control_file(data: bytes, where: str = "global/pg_control") -> ControlFile:
    """The facts in the bytes of pg_control, its CRC checked first."""
    if len(data) < 16:
        raise CorruptionError("control file", where, "at least 16 bytes", f"{len(data)} bytes")
    version = int.from_bytes(data[8:12], "little")
    if version not in _CRC_OFFSET:
        known = ", ".join(str(number) for number in sorted(_CRC_OFFSET))
        swapped = int.from_bytes(data[8:12], "big")
        found = f"{swapped} in big-endian byte order" if swapped in _CRC_OFFSET else str(version)
        raise ControlVersionError("control file version", where, f"one of {known}", found)
    crc_offset = _CRC_OFFSET[version]
    if len(data) < crc_offset + 4:
        raise CorruptionError(
            "control file", where, f"{crc_offset + 4} bytes", f"{len(data)} bytes"
        )
    stored = int.from_bytes(data[crc_offset : crc_offset + 4], "little")
    computed = crc32c.crc32c(data[:crc_offset])
    if stored != computed:
        raise CorruptionError("control file CRC", where, f"{computed:08x}", f"{stored:08x}")
    fields = {
        name: struct.unpack_from("<" + form, data, offset)[0]
        for name, (offset, form) in _FIELDS.items()
    }
    fields["state"] = _name(STATES, fields["state"], "cluster state", where)
    fields["wal_level"] = _name(WAL_LEVELS, fields["wal_level"], "wal_level", where)
    return ControlFile(**fields)


def with_parameters(data: bytes, record: bytes) -> bytes:
    """pg_control after an XLOG_PARAMETER_CHANGE record (xlog_redo): five limits, wal_level, two
    flags; struct.error if the record is cut off."""
    *limits, wal_level, wal_log_hints, track_commit_timestamp = struct.unpack_from("<6i2?", record)
    changed = bytearray(data)
    struct.pack_into("<i?3x5i?", changed, 172, wal_level, wal_log_hints, *limits,
                     track_commit_timestamp)  # fmt: skip
    return _with_crc(changed)


def with_checkpoint(data: bytes, record: bytes) -> bytes:
    """pg_control after a checkpoint record: its next transaction, as xlog_redo notes it."""
    changed = bytearray(data)
    changed[64:72] = checkpoint_next_xid(record).to_bytes(8, "little")
    return _with_crc(changed)


def with_checkpoint_at(data: bytes, lsn: int, record: bytes) -> bytes:
    """pg_control that names the checkpoint record at `lsn` and holds a copy of it."""
    changed = bytearray(data)
    changed[32:40] = lsn.to_bytes(8, "little")
    changed[40 : 40 + len(record)] = record
    return _with_crc(changed)


def checkpoint_next_xid(record: bytes) -> int:
    """The next transaction of a checkpoint record, with its epoch (CheckPoint, pg_control.h);
    struct.error if the record is cut off."""
    next_xid: int = struct.unpack_from("<Q", record, 24)[0]
    return next_xid


def _with_crc(changed: bytearray) -> bytes:
    crc_offset = _CRC_OFFSET[int.from_bytes(changed[8:12], "little")]
    struct.pack_into("<I", changed, crc_offset, crc32c.crc32c(bytes(changed[:crc_offset])))
    return bytes(changed)


def _name(names: tuple[str, ...], number: int, what: str, where: str) -> str:
    if number >= len(names):
        raise CorruptionError(what, where, f"0 to {len(names) - 1}", str(number))
    return names[number]
