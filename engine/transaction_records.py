"""Records of transactions that ingest cannot take by itself: prepared ones, and those that drop
relations or come from a replication origin; and the progress of replication origins.

A prepared transaction is a small file from PREPARE until it commits or aborts: PostgreSQL writes
the record's main data and a CRC to pg_twophase at the next checkpoint, here it is there at once.
Progress is what pg_logical/replorigin_checkpoint would hold if a checkpoint came now.
"""

import struct

import crc32c

from engine.record_effects import RecordEffects
from formats.chunk import ChunkKind, Fork, SmallFile
from formats.errors import CorruptionError
from formats.transaction import parse_transaction

COMMITTED, ABORTED = 1, 2
COMMIT, PREPARE, ABORT, COMMIT_PREPARED, ABORT_PREPARED = 0x00, 0x10, 0x20, 0x30, 0x40
_ORIGINS_MAGIC = 0x1257DADE
_ORIGIN = struct.Struct("<H6xQ")  # ReplicationStateOnDisk
_NO_ORIGINS = (0, 0xFFFF)  # none, and DoNotReplicateId, whose progress nobody keeps
_ORIGIN_LSN_IN_PREPARE = 56  # xl_xact_prepare


class TransactionRecords:
    def __init__(self, effects: RecordEffects, major: int, origins: bytes) -> None:
        """`origins`: pg_logical/replorigin_checkpoint where ingest begins, empty if not there."""
        self._effects = effects
        self._major = major
        self._origins = parse_origins(origins)
        self.next_xid = 0  # the last that is known, with its epoch

    def room(self, info: int, main: bytes) -> int:
        """Entries of memtable that a record can need."""
        try:
            end = parse_transaction(info & 0x70, bool(info & 0x80), main, self._major)
        except (struct.error, ValueError):
            return 0  # `apply` says what is wrong
        dropped = [
            self._effects.exists(*relation, fork) for relation in end.relations for fork in Fork
        ]
        pages = len({subxid // 819 for subxid in end.subxids})
        return 2 * sum(dropped) + 6 * (pages + 1)

    def apply(self, info: int, xid: int, origin: int, main: bytes, lsn: int) -> None:
        """rmgr Transaction: src/include/access/xact.h."""
        operation = info & 0x70
        if operation == PREPARE:
            self._prepare(xid, origin, main, lsn)
            return
        end = parse_transaction(operation, bool(info & 0x80), main, self._major)
        for relation in end.relations:
            for fork in Fork:
                self._effects.drop(ChunkKind.REL, *relation, fork, 0, lsn)
        status = COMMITTED if operation in (COMMIT, COMMIT_PREPARED) else ABORTED
        top = end.prepared_xid or xid
        if top:
            packed = memoryview(struct.pack(f"<{len(end.subxids)}I", *end.subxids))
            pages, count = self._effects.ingest.transactions, len(end.subxids)
            pages.set_status(top, packed, 0, count, status, lsn)
            if status == COMMITTED and pages.tracks_timestamps:
                low, high = end.time & 0xFFFFFFFF, end.time >> 32
                pages.set_timestamp(top, packed, 0, count, origin, low, high, lsn)
        if operation in (COMMIT_PREPARED, ABORT_PREPARED):
            self._effects.drop_file(*self._state_file(top), lsn, seg=top)
        if end.has_origin:
            self._advance(origin, end.origin_lsn, lsn, force=False)

    # Prepared transactions

    def _prepare(self, xid: int, origin: int, main: bytes, lsn: int) -> None:
        (origin_lsn,) = struct.unpack_from("<Q", main, _ORIGIN_LSN_IN_PREPARE)
        content = main + crc32c.crc32c(main).to_bytes(4, "little")
        self._effects.put_file(*self._state_file(xid), content, lsn, seg=xid)
        self._advance(origin, origin_lsn, lsn, force=False)

    def _state_file(self, xid: int) -> tuple[int, int, int]:
        """Where a transaction's state is: from 17 on its file's name has the epoch, too."""
        if self._major < 17:
            return 0, 0, SmallFile.PG_TWOPHASE
        ahead = (xid - self.next_xid + 2**31) % 2**32 - 2**31
        return 1, (self.next_xid + ahead) >> 32, SmallFile.PG_TWOPHASE

    # Replication origins

    def replication_origin(self, info: int, main: bytes, lsn: int) -> None:
        """rmgr ReplicationOrigin: src/include/replication/origin.h."""
        if info == 0x00:
            origin_lsn, origin, force = struct.unpack_from("<QH?", main)
            self._advance(origin, origin_lsn, lsn, force=force)
        elif info == 0x10:
            (origin,) = struct.unpack_from("<H", main)
            if self._origins.pop(origin, None) is not None:
                self._put_origins(lsn)

    def _advance(self, origin: int, origin_lsn: int, lsn: int, *, force: bool) -> None:
        if origin in _NO_ORIGINS:
            return
        if force or self._origins.get(origin, -1) < origin_lsn:
            self._origins[origin] = origin_lsn
            self._put_origins(lsn)

    def _put_origins(self, lsn: int) -> None:
        content = pack_origins(self._origins)
        self._effects.put_file(0, 0, SmallFile.REPLORIGIN_CHECKPOINT, content, lsn)


def parse_origins(content: bytes) -> dict[int, int]:
    """Origin -> LSN there up to which it was replicated (StartupReplicationOrigin, origin.c)."""
    if not content:
        return {}
    (magic,) = struct.unpack_from("<I", content)
    stored = int.from_bytes(content[-4:], "little")
    computed = crc32c.crc32c(content[:-4])
    if magic != _ORIGINS_MAGIC or (len(content) - 8) % _ORIGIN.size or stored != computed:
        raise CorruptionError(
            "replication origins", "pg_logical/replorigin_checkpoint",
            f"magic {_ORIGINS_MAGIC:08X}, CRC {computed:08X}", f"{magic:08X}, {stored:08X}",
        )  # fmt: skip
    return dict(_ORIGIN.iter_unpack(content[4:-4]))


def pack_origins(origins: dict[int, int]) -> bytes:
    """The same as a file; the order of origins means nothing."""
    content = _ORIGINS_MAGIC.to_bytes(4, "little")
    content += b"".join(_ORIGIN.pack(*item) for item in sorted(origins.items()))
    return content + crc32c.crc32c(content).to_bytes(4, "little")
