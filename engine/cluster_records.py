"""Records -> versions: the rarer half of ingest, a Python call per record.

These records create, truncate, drop or copy whole files: relations, SLRU segments, databases,
relation maps. engine/ingest.py hands them over after it has taken the blocks they reference (most
have none). Field layouts are PostgreSQL's, read from the headers named beside each; where major
versions differ, `self.major` decides.

What has no effect on any page that is kept is counted in `ignored` under a name that `pageserver
status` shows, so that nothing is left out silently.
"""

import struct
from collections import Counter
from collections.abc import Collection

from engine.chunk_table import ChunkTable
from engine.ingest import Ingest
from formats import chunk as chunks_format
from formats import version
from formats.control_file import ControlFile, parse_control_file, with_parameters
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.transaction import parse_transaction

HEAP_BLOCKS_PER_MAP_PAGE = 32672
FSM_LEAVES_PER_PAGE = 4069  # fsm_internals.h: LeafNodesPerPage with 8 KiB blocks
MEMBERS_PER_PAGE = 1636
OFFSETS_PER_PAGE = 2048
PAGES_PER_SEGMENT = 32
MAX_MULTIXACT_OFFSET = 0xFFFFFFFF
MAIN, FSM, VM, INIT = range(4)
XACT, MEMBERS, OFFSETS = range(3)


class ClusterRecords:
    """Applies one record at a time; the caller holds the store's lock."""

    def __init__(
        self, table: ChunkTable, ingest: Ingest, major: int, control: bytes | None = None
    ) -> None:
        """`control`: pg_control as of the LSN at which ingest begins; without it hint bits count
        as logged."""
        self.table = table
        self.ingest = ingest
        self.major = major
        self._control = control
        if control is not None:
            self._follow_control(control)
        # (spc, db) -> (new spc, new db) at an LSN: CREATE DATABASE by file copy, the caller's to do
        self.pending_copy: tuple[tuple[int, int], tuple[int, int], int] | None = None
        self.ignored: Counter[str] = Counter()
        self._handlers = {
            0: self._xlog,
            1: self._transaction,
            2: self._storage,
            3: self._clog,
            4: self._database,
            5: self._tablespace,
            6: self._multixact,
            7: self._relation_map,
            18: self._commit_timestamp,
            19: self._replication_origin,
        }

    def room(self, rmgr: int, info: int, main: bytes) -> tuple[int, int]:
        """Entries and bytes of memtable that a record can need, generously."""
        if rmgr not in self._handlers:
            return 0, 0
        entries = 64 + 4 * (len(main) // (8 * MEMBERS_PER_PAGE))  # a multixact's pages
        if rmgr == 1:
            entries += self._room_of_transaction(info, main)
        elif rmgr == 3 and info & 0xF0 == 0x10:
            entries += 2 * len(self._existing_segments((XACT,)))
        elif rmgr == 6 and info & 0xF0 == 0x30:
            entries += 2 * len(self._existing_segments((MEMBERS, OFFSETS)))
        elif rmgr == 4:  # of the words of CREATE and DROP, the OIDs of databases are some
            words = struct.unpack_from(f"<{len(main) // 4}I", main)
            entries += 2 * len(self._of_databases(words))
        return entries, 32 * entries + 3 * len(main) + 4 * 8192

    def _room_of_transaction(self, info: int, main: bytes) -> int:
        try:
            end = parse_transaction(info & 0x70, bool(info & 0x80), main, self.major)
        except struct.error:
            return 0  # `apply` says what is wrong
        dropped = [self._exists(*relation, fork) for relation in end.relations for fork in range(4)]
        pages = len({subxid >> 15 for subxid in end.subxids})
        return 2 * sum(dropped) + 3 * (pages + 1)

    def _exists(self, spc: int, db: int, rel: int, fork: int) -> bool:
        root = self.table.find(1, spc, db, rel, fork, 0)
        return root >= 0 and bool(self.table.exists[root])

    def _of_databases(self, databases: Collection[int]) -> list[int]:
        """Roots of the relations and small files that exist in databases with these OIDs."""
        table = self.table
        kind, db, root, exists = table.kind, table.db, table.root, table.exists
        return [
            number
            for number in range(table.count)
            if db[number] in databases
            and exists[number]
            and root[number] == number
            and kind[number] in (1, 3)
        ]

    def apply(self, rmgr: int, info: int, xid: int, main: bytes, lsn: int) -> None:
        """Take a record's effects, `main` being its main data and `lsn` its end."""
        handler = self._handlers.get(rmgr)
        if handler is not None:
            try:
                handler(info & 0xF0, xid, main, lsn)
            except (struct.error, IndexError) as error:
                raise CorruptionError(
                    "WAL record",
                    f"record of rmgr {rmgr}, info 0x{info:02X}, that ends at {show_lsn(lsn)}",
                    "main data of the size its kind has",
                    f"{len(main)} bytes: {error}",
                ) from error

    # --- rmgr XLOG: src/include/catalog/pg_control.h, access/xlog_internal.h -------------------

    def _xlog(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        if info == 0x60 and self._control is not None:  # PARAMETER_CHANGE
            self._control = with_parameters(self._control, main)
            if self._follow_control(self._control).wal_level == "minimal":
                raise CorruptionError(
                    "WAL",
                    show_lsn(lsn),
                    "wal_level replica or logical",
                    "wal_level minimal: set it to replica on the source and take a new base backup",
                )
            self.put_file(0, 0, chunks_format.SmallFile.PG_CONTROL, self._control, lsn)

    def _follow_control(self, content: bytes) -> ControlFile:
        """Redo depends on it: whether setting a bit in the visibility map moves a page's LSN."""
        control = parse_control_file(content)
        self.ingest.hint_bits_logged = control.checksums or control.wal_log_hints
        return control

    # --- rmgr Transaction: src/include/access/xact.h -------------------------------------------

    def _transaction(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        operation = info & 0x70
        if operation == 0x10:  # PREPARE
            self.ignored["two-phase state files"] += 1
            return
        end = parse_transaction(operation, bool(info & 0x80), main, self.major)
        for spc, db, rel in end.relations:
            for fork in (MAIN, FSM, VM, INIT):
                self._drop(chunks_format.ChunkKind.REL, spc, db, rel, fork, 0, lsn)
        if end.origin:
            self.ignored["replication origin progress"] += 1
        top = end.prepared_xid or xid
        if top:
            status = 1 if operation in (0x00, 0x30) else 2
            packed = struct.pack(f"<{len(end.subxids)}I", *end.subxids)
            self.ingest.set_status(top, memoryview(packed), 0, len(end.subxids), status, lsn)

    # --- rmgr Storage: src/include/catalog/storage_xlog.h --------------------------------------

    def _storage(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        if info == 0x10:  # CREATE
            spc, db, rel, fork = struct.unpack_from("<IIIi", main)
            self._create(spc, db, rel, fork, lsn)
        elif info == 0x20:  # TRUNCATE: heap, VM, FSM by flags 1, 2, 4
            blocks, spc, db, rel, flags = struct.unpack_from("<IIIIi", main)
            self._create(spc, db, rel, MAIN, lsn)
            if flags & 1:
                self._truncate(spc, db, rel, MAIN, blocks, lsn)
            if flags & 4:
                self._truncate(spc, db, rel, FSM, fsm_blocks_after_truncate(blocks), lsn)
            if flags & 2:
                self._truncate_map(spc, db, rel, blocks, lsn)

    def _create(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> None:
        root = self.table.intern(1, spc, db, rel, fork, 0)
        if not self.table.exists[root]:
            self.ingest.cut(root, 1, 0, 0, lsn, lsn)

    def _truncate(self, spc: int, db: int, rel: int, fork: int, blocks: int, lsn: int) -> None:
        root = self.table.find(1, spc, db, rel, fork, 0)
        if root >= 0 and self.table.exists[root] and self.table.blocks[root] > blocks:
            self.ingest.cut(root, 1, blocks, blocks, lsn, lsn)

    def _truncate_map(self, spc: int, db: int, rel: int, heap_blocks: int, lsn: int) -> None:
        """Cut the visibility map, and clear the bits of removed blocks in its last page.

        visibilitymap_prepare_truncate, src/backend/access/heap/visibilitymap.c.
        """
        root = self.table.find(1, spc, db, rel, VM, 0)
        if root < 0 or not self.table.exists[root]:
            return
        blocks, kept = divmod(heap_blocks, HEAP_BLOCKS_PER_MAP_PAGE)
        if kept:
            if blocks >= self.table.blocks[root]:
                return
            self._effect(
                self.ingest.touch(spc, db, rel, VM, blocks, lsn),
                blocks & 0x1FFFF,
                version.effect(version.VM_TRUNCATE, [(0, 0, kept)]),
                lsn,
            )
            blocks += 1
        self._truncate(spc, db, rel, VM, blocks, lsn)

    def _effect(self, number: int, block: int, payload: bytes, lsn: int) -> None:
        if self.table.held[number]:
            self.ingest.memtable.put(number, block, lsn, memoryview(payload), False)

    def _drop(self, kind: int, spc: int, db: int, rel: int, fork: int, seg: int, lsn: int) -> None:
        root = self.table.find(kind, spc, db, rel, fork, seg)
        if root >= 0 and self.table.exists[root]:
            self.ingest.cut(root, 0, 0, 0, lsn, lsn)

    # --- rmgr CLOG: src/include/access/clog.h --------------------------------------------------

    def _page_number(self, main: bytes) -> int:
        """SLRU page numbers became 64 bits wide in 17."""
        number: int = struct.unpack_from("<q" if self.major >= 17 else "<i", main)[0]
        return number

    def _clog(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        page = self._page_number(main)
        if info == 0x00:
            self._zero_slru_page(XACT, page, lsn)
        elif info == 0x10:
            self._truncate_slru(XACT, page, 32768, lsn)

    def _zero_slru_page(self, slru: int, page: int, lsn: int) -> None:
        number = self.ingest.touch_slru(slru, page, lsn)
        if self.table.held[number]:
            zeros = bytes([version.IMAGE_EXACT, 0, 0, 0]) + (8192).to_bytes(2, "little")
            self.ingest.memtable.put(number, page % PAGES_PER_SEGMENT, lsn, memoryview(zeros), True)

    def _truncate_slru(self, slru: int, cutoff_page: int, entries_per_page: int, lsn: int) -> None:
        """Drop the segments that wholly precede a page (SlruMayDeleteSegment, slru.c)."""
        for segment in self._existing_segments((slru,)):
            first = segment * PAGES_PER_SEGMENT
            if precedes(first, cutoff_page, entries_per_page) and precedes(
                first + PAGES_PER_SEGMENT - 1, cutoff_page, entries_per_page
            ):
                self._drop(chunks_format.ChunkKind.SLRU, 0, 0, slru, 0, segment, lsn)

    def _existing_segments(self, slrus: Collection[int]) -> list[int]:
        table = self.table
        kind, rel, seg, exists = table.kind, table.rel, table.seg, table.exists
        return [
            seg[number]
            for number in range(table.count)
            if kind[number] == 2 and rel[number] in slrus and exists[number]
        ]

    # --- rmgr MultiXact: src/include/access/multixact.h ----------------------------------------

    def _multixact(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        if info == 0x00:
            self._zero_slru_page(OFFSETS, self._page_number(main), lsn)
        elif info == 0x10:
            self._zero_slru_page(MEMBERS, self._page_number(main), lsn)
        elif info == 0x20:
            self._create_multixact(main, lsn)
        elif info == 0x30:
            _, _, end_offset, start_member, end_member = struct.unpack_from("<5I", main)
            self._truncate_members(start_member, end_member, lsn)
            previous = end_offset - 1 if end_offset > 1 else 0xFFFFFFFF
            self._truncate_slru(OFFSETS, previous // OFFSETS_PER_PAGE, OFFSETS_PER_PAGE, lsn)

    def _create_multixact(self, main: bytes, lsn: int) -> None:
        """Its offset, the next one's offset, and its members (RecordNewMultiXact, multixact.c)."""
        multi, offset, count = struct.unpack_from("<IIi", main)
        following = multi + 1 if multi < 0xFFFFFFFF else 1
        following_offset = (offset + count) % 2**32 or 1
        offsets: dict[int, list[tuple[int, int, int]]] = {}
        for one, value in ((multi, offset), (following, following_offset)):
            page, index = divmod(one, OFFSETS_PER_PAGE)
            offsets.setdefault(page, []).append((index, 0, value))
        for page, items in offsets.items():
            self._slru_effect(OFFSETS, page, version.MULTIXACT_OFFSET, items, lsn)
        members: dict[int, list[tuple[int, int, int]]] = {}
        for i in range(count):
            member_xid, status = struct.unpack_from("<Ii", main, 12 + 8 * i)
            page, index = divmod((offset + i) % 2**32, MEMBERS_PER_PAGE)
            members.setdefault(page, []).append((index, status, member_xid))
        for page, items in members.items():
            self._slru_effect(MEMBERS, page, version.MULTIXACT_MEMBER, items, lsn)

    def _slru_effect(
        self, slru: int, page: int, effect_class: int, items: list[tuple[int, int, int]], lsn: int
    ) -> None:
        number = self.ingest.touch_slru(slru, page, lsn)
        self._effect(number, page % PAGES_PER_SEGMENT, version.effect(effect_class, items), lsn)

    def _truncate_members(self, start: int, end: int, lsn: int) -> None:
        """Members are dropped segment by segment, around the wrap (PerformMembersTruncation)."""
        per_segment = MEMBERS_PER_PAGE * PAGES_PER_SEGMENT
        last = MAX_MULTIXACT_OFFSET // per_segment
        segment = start // per_segment
        while segment != end // per_segment:
            self._drop(chunks_format.ChunkKind.SLRU, 0, 0, MEMBERS, 0, segment, lsn)
            segment = 0 if segment == last else segment + 1

    # --- rmgr Database: src/include/commands/dbcommands_xlog.h (15 and later) -------------------

    def _database(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        if info == 0x00:  # CREATE_FILE_COPY
            db, spc, source_db, source_spc = struct.unpack_from("<4I", main)
            self.pending_copy = ((source_spc, source_db), (spc, db), lsn)
        elif info == 0x10:  # CREATE_WAL_LOG: its pages and map come in records of their own
            db, spc = struct.unpack_from("<2I", main)
            self.put_file(
                spc, db, chunks_format.SmallFile.PG_VERSION, f"{self.major}\n".encode(), lsn
            )
        elif info == 0x20:  # DROP
            db, count = struct.unpack_from("<Ii", main)
            self._drop_database(db, set(struct.unpack_from(f"<{count}I", main, 8)), lsn)

    def _drop_database(self, db: int, tablespaces: set[int], lsn: int) -> None:
        for number in self._of_databases((db,)):
            if self.table.spc[number] in tablespaces:
                self.ingest.cut(number, 0, 0, 0, lsn, lsn)

    # --- rmgr RelMap, and those that change no page kept so far --------------------------------

    def _relation_map(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        """UPDATE: database, tablespace, length, the whole new map (utils/relmapper.h)."""
        db, spc, length = struct.unpack_from("<IIi", main)
        content = main[12 : 12 + length]
        if len(content) != length:
            raise IndexError("the map is cut off")
        self.put_file(spc, db, chunks_format.SmallFile.PG_FILENODE_MAP, content, lsn)

    def put_file(self, spc: int, db: int, code: int, content: bytes, lsn: int) -> None:
        """A new version of a small file, whole."""
        number = self.table.intern(chunks_format.ChunkKind.FILE, spc, db, code, 0, 0)
        blocks = max(1, -(-len(content) // 8192))
        self.ingest.cut(number, 1, blocks, 0, lsn, lsn - 1)
        for block in range(blocks):
            payload = version.file_block(len(content), content[8192 * block : 8192 * (block + 1)])
            self.ingest.memtable.put(number, block, lsn, memoryview(payload), True)

    def _tablespace(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        self.ignored["tablespace records"] += 1

    def _commit_timestamp(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        self.ignored["commit timestamp records"] += 1

    def _replication_origin(self, info: int, xid: int, main: bytes, lsn: int) -> None:
        self.ignored["replication origin records"] += 1


def precedes(page: int, cutoff_page: int, entries_per_page: int) -> bool:
    """Whether an SLRU page lies wholly before another, modulo 2^32 entries.

    CLOGPagePrecedes and MultiXactOffsetPagePrecedes: both compare the page's first entry (past the
    reserved ones) with the first and the last entry of the cutoff page.
    """
    first = page * entries_per_page + 4
    cutoff = cutoff_page * entries_per_page + 4
    return _before(first, cutoff) and _before(first, cutoff + entries_per_page - 1)


def _before(a: int, b: int) -> bool:
    """Circular comparison of 32-bit identifiers."""
    return (a - b) % 2**32 >= 2**31


def fsm_blocks_after_truncate(heap_blocks: int) -> int:
    """Free space map pages that remain for so many heap blocks (freespace.c).

    A three-level tree laid out depth first: before the n-th leaf page lie n leaves, one page of
    the middle level for each 4069 of them begun, and the root.
    """
    leaf, slot = divmod(heap_blocks, FSM_LEAVES_PER_PAGE)
    position = leaf + (leaf // FSM_LEAVES_PER_PAGE + 1) + 1
    return position + 1 if slot else position
