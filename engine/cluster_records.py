"""Records -> versions: the rarer half of ingest, a Python call per record.

These records create, truncate, drop or copy whole files: relations, SLRU segments, databases,
relation maps. engine/ingest.py hands them over after it has taken the blocks they reference (most
have none). Those of the SLRUs, of transactions and of tablespaces have modules of their own. Field
layouts are PostgreSQL's, read from the headers named beside each; where major versions differ,
`self.major` decides.
"""

import struct
from collections.abc import Callable, Collection, Mapping

from engine.chunk_table import ChunkTable
from engine.ingest import Ingest
from engine.multixact_records import MEMBERS_PER_PAGE
from engine.record_effects import RecordEffects
from engine.slru_records import SlruRecords
from engine.tablespaces import TablespaceRecords
from engine.transaction_records import TransactionRecords
from formats import control_file
from formats.chunk import Fork, Slru, SmallFile
from formats.control_file import ControlFile, parse_control_file
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn

FSM_LEAVES_PER_PAGE = 4069  # fsm_internals.h: LeafNodesPerPage with 8 KiB blocks
XLOG, TRANSACTION, STORAGE, CLOG, DATABASE, TABLESPACE, MULTIXACT, RELATION_MAP = range(8)
COMMIT_TIMESTAMP, REPLICATION_ORIGIN = 18, 19
HANDLED = frozenset((*range(8), COMMIT_TIMESTAMP, REPLICATION_ORIGIN))


class ClusterRecords:
    """Applies one record at a time; the caller holds the store's lock."""

    def __init__(
        self,
        table: ChunkTable,
        ingest: Ingest,
        major: int,
        files: Mapping[int, bytes] | None = None,
    ) -> None:
        """`files`: pg_control, replorigin_checkpoint and tablespace_map, as far as they are there,
        as of the LSN at which ingest begins; without pg_control hint bits count as logged."""
        files = files or {}
        self.major = major
        self._effects = RecordEffects(table, ingest)
        self._slru = SlruRecords(self._effects, major)
        origins = files.get(SmallFile.REPLORIGIN_CHECKPOINT, b"")
        self._transactions = TransactionRecords(self._effects, major, origins)
        self._tablespaces = TablespaceRecords(
            self._effects, files.get(SmallFile.TABLESPACE_MAP, b"")
        )
        self._control = files.get(SmallFile.PG_CONTROL, b"")
        if self._control:
            self._transactions.next_xid = self._follow_control().next_xid
        self._handlers: dict[int, Callable[[int, bytes, int], None]] = {
            XLOG: self._xlog,
            STORAGE: self._storage,
            CLOG: self._slru.clog,
            DATABASE: self._database,
            TABLESPACE: self._tablespaces.apply,
            MULTIXACT: self._slru.multixact,
            RELATION_MAP: self._relation_map,
            COMMIT_TIMESTAMP: self._slru.commit_timestamp,
            REPLICATION_ORIGIN: self._transactions.replication_origin,
        }
        # (spc, db) -> (new spc, new db) at an LSN: CREATE DATABASE by file copy, the caller's to do
        self.pending_copy: tuple[tuple[int, int], tuple[int, int], int] | None = None

    def room(self, rmgr: int, info: int, main: bytes) -> tuple[int, int]:
        """Entries and bytes of memtable that a record can need, generously."""
        if rmgr not in HANDLED:
            return 0, 0
        effects = self._effects
        entries = 64 + 4 * (len(main) // (8 * MEMBERS_PER_PAGE))  # a multixact's pages
        if rmgr == TRANSACTION:
            entries += self._transactions.room(info, main)
        elif rmgr == CLOG and info & 0xF0 == 0x10:
            entries += 2 * len(effects.slru_segments((Slru.XACT,)))
        elif rmgr == MULTIXACT and info & 0xF0 == 0x30:
            slrus = (Slru.MULTIXACT_MEMBERS, Slru.MULTIXACT_OFFSETS)
            entries += 2 * len(effects.slru_segments(slrus))
        elif rmgr in (XLOG, COMMIT_TIMESTAMP):
            entries += 2 * len(effects.slru_segments((Slru.COMMIT_TS,)))
        elif rmgr == DATABASE:  # of the words of CREATE and DROP, the OIDs of databases are some
            words = struct.unpack_from(f"<{len(main) // 4}I", main)
            entries += 2 * len(effects.of_databases(words))
        return entries, 32 * entries + 3 * len(main) + 4 * 8192

    def apply(
        self, rmgr: int, info: int, xid: int, main: bytes, lsn: int, *, origin: int = 0
    ) -> None:
        """Take a record's effects, `main` being its main data and `lsn` its end."""
        if rmgr not in HANDLED:
            return
        try:
            if rmgr == TRANSACTION:
                self._transactions.apply(info & 0xF0, xid, origin, main, lsn)
            else:
                self._handlers[rmgr](info & 0xF0, main, lsn)
        except (struct.error, IndexError, OverflowError) as error:  # a page number below 0
            raise CorruptionError(
                "WAL record",
                f"record of rmgr {rmgr}, info 0x{info:02X}, that ends at {show_lsn(lsn)}",
                "main data of the size its kind has, and numbers that can be",
                f"{len(main)} bytes: {error}",
            ) from error

    # --- rmgr XLOG: src/include/catalog/pg_control.h, access/xlog_internal.h -------------------

    def _xlog(self, info: int, main: bytes, lsn: int) -> None:
        if not self._control:
            return
        if info in (0x00, 0x10):  # CHECKPOINT_SHUTDOWN, CHECKPOINT_ONLINE
            self._transactions.next_xid = control_file.checkpoint_next_xid(main)
            self._put_control(control_file.with_checkpoint(self._control, main), lsn)
        elif info == 0x60:  # PARAMETER_CHANGE
            pages = self._effects.ingest.transactions
            tracked = pages.tracks_timestamps
            self._put_control(control_file.with_parameters(self._control, main), lsn)
            if self._follow_control().wal_level == "minimal":
                raise CorruptionError(
                    "WAL",
                    show_lsn(lsn),
                    "wal_level replica or logical",
                    "wal_level minimal: set it to replica on the source and take a new base backup",
                )
            if pages.tracks_timestamps and not tracked:
                self._slru.track_commit_timestamps(self._transactions.next_xid, lsn)
            elif tracked and not pages.tracks_timestamps:
                self._slru.forget_commit_timestamps(lsn)

    def _put_control(self, content: bytes, lsn: int) -> None:
        self._control = content
        self._effects.put_file(0, 0, SmallFile.PG_CONTROL, content, lsn)

    def _follow_control(self) -> ControlFile:
        """What depends on it: whether setting a bit in the visibility map moves a page's LSN, and
        whether commits leave a timestamp."""
        control = parse_control_file(self._control)
        ingest = self._effects.ingest
        ingest.hint_bits_logged = control.checksums or control.wal_log_hints
        ingest.transactions.tracks_timestamps = control.track_commit_timestamp
        return control

    # --- rmgr Storage: src/include/catalog/storage_xlog.h --------------------------------------

    def _storage(self, info: int, main: bytes, lsn: int) -> None:
        effects = self._effects
        if info == 0x10:  # CREATE
            spc, db, rel, fork = struct.unpack_from("<IIIi", main)
            effects.create(spc, db, rel, fork, lsn)
        elif info == 0x20:  # TRUNCATE: heap, VM, FSM by flags 1, 2, 4
            blocks, spc, db, rel, flags = struct.unpack_from("<IIIIi", main)
            effects.create(spc, db, rel, Fork.MAIN, lsn)
            if flags & 1:
                effects.truncate(spc, db, rel, Fork.MAIN, blocks, lsn)
            if flags & 4:
                effects.truncate(spc, db, rel, Fork.FSM, fsm_blocks_after_truncate(blocks), lsn)
            if flags & 2:
                effects.truncate_map(spc, db, rel, blocks, lsn)

    # --- rmgr Database: src/include/commands/dbcommands_xlog.h ----------------------------------

    def _database(self, info: int, main: bytes, lsn: int) -> None:
        if self.major == 14 and info == 0x10:  # 14 copies by file only: DROP comes next
            info = 0x20
        if info == 0x00:  # CREATE_FILE_COPY
            db, spc, source_db, source_spc = struct.unpack_from("<4I", main)
            self.pending_copy = ((source_spc, source_db), (spc, db), lsn)
        elif info == 0x10:  # CREATE_WAL_LOG: its pages and map come in records of their own
            db, spc = struct.unpack_from("<2I", main)
            content = f"{self.major}\n".encode()
            self._effects.put_file(spc, db, SmallFile.PG_VERSION, content, lsn)
        elif info == 0x20:  # DROP
            db, count = struct.unpack_from("<Ii", main)
            self.drop_database(db, set(struct.unpack_from(f"<{count}I", main, 8)), lsn)

    def drop_database(
        self, db: int, tablespaces: set[int], lsn: int, kept: Collection[int] = ()
    ) -> None:
        """All relations and files that it has there, but for those with the roots `kept`."""
        effects = self._effects
        for number in effects.of_databases((db,)):
            if effects.table.spc[number] in tablespaces and number not in kept:
                effects.ingest.target.cut(number, 0, 0, 0, lsn, lsn)

    # --- rmgr RelMap ----------------------------------------------------------------------------

    def _relation_map(self, info: int, main: bytes, lsn: int) -> None:
        """UPDATE: database, tablespace, length, the whole new map (utils/relmapper.h)."""
        db, spc, length = struct.unpack_from("<IIi", main)
        content = main[12 : 12 + length]
        if len(content) != length:
            raise IndexError("the map is cut off")
        self._effects.put_file(spc, db, SmallFile.PG_FILENODE_MAP, content, lsn)

    def put_file(self, spc: int, db: int, code: int, content: bytes, lsn: int) -> None:
        """A new version of a small file, whole: a database copy's are not in WAL."""
        self._effects.put_file(spc, db, code, content, lsn)


def fsm_blocks_after_truncate(heap_blocks: int) -> int:
    """Free space map pages that remain for so many heap blocks (freespace.c).

    A three-level tree laid out depth first: before the n-th leaf page lie n leaves, one page of
    the middle level for each 4069 of them begun, and the root.
    """
    leaf, slot = divmod(heap_blocks, FSM_LEAVES_PER_PAGE)
    position = leaf + (leaf // FSM_LEAVES_PER_PAGE + 1) + 1
    return position + 1 if slot else position
