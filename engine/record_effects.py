"""What the rarer records do to files: sizes, drops, effects on pages, small files.

engine/cluster_records.py and its handlers decide; this writes it into the chunk table and the open
memtable. The caller holds the store's lock.
"""

from collections.abc import Collection

from engine.chunk_table import ChunkTable
from engine.ingest import Ingest
from formats import version
from formats.chunk import ChunkKind, Fork

HEAP_BLOCKS_PER_MAP_PAGE = 32672
SLRU_PAGES_PER_SEGMENT = 32


class RecordEffects:
    def __init__(self, table: ChunkTable, ingest: Ingest) -> None:
        self.table = table
        self.ingest = ingest

    # Relations

    def exists(self, spc: int, db: int, rel: int, fork: int) -> bool:
        root = self.table.find(ChunkKind.REL, spc, db, rel, fork, 0)
        return root >= 0 and bool(self.table.exists[root])

    def create(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> None:
        root = self.table.intern(ChunkKind.REL, spc, db, rel, fork, 0)
        if not self.table.exists[root]:
            self.ingest.target.cut(root, 1, 0, 0, lsn, lsn)

    def truncate(self, spc: int, db: int, rel: int, fork: int, blocks: int, lsn: int) -> None:
        root = self.table.find(ChunkKind.REL, spc, db, rel, fork, 0)
        if root >= 0 and self.table.exists[root] and self.table.blocks[root] > blocks:
            self.ingest.target.cut(root, 1, blocks, blocks, lsn, lsn)

    def truncate_map(self, spc: int, db: int, rel: int, heap_blocks: int, lsn: int) -> None:
        """Cut the visibility map, and clear the bits of removed blocks in its last page.

        visibilitymap_prepare_truncate, src/backend/access/heap/visibilitymap.c.
        """
        root = self.table.find(ChunkKind.REL, spc, db, rel, Fork.VM, 0)
        if root < 0 or not self.table.exists[root]:
            return
        blocks, kept = divmod(heap_blocks, HEAP_BLOCKS_PER_MAP_PAGE)
        if kept:
            if blocks >= self.table.blocks[root]:
                return
            self.effect(
                self.ingest.target.touch(spc, db, rel, Fork.VM, blocks, lsn),
                blocks & 0x1FFFF,
                version.effect(version.VM_TRUNCATE, [(0, 0, kept)]),
                lsn,
            )
            blocks += 1
        self.truncate(spc, db, rel, Fork.VM, blocks, lsn)

    def drop(self, kind: int, spc: int, db: int, rel: int, fork: int, seg: int, lsn: int) -> None:
        root = self.table.find(kind, spc, db, rel, fork, seg)
        if root >= 0 and self.table.exists[root]:
            self.ingest.target.cut(root, 0, 0, 0, lsn, lsn)

    def effect(self, number: int, block: int, payload: bytes, lsn: int) -> None:
        if self.table.held[number]:
            self.ingest.target.memtable.put(number, block, lsn, memoryview(payload), False)

    def of_databases(self, databases: Collection[int]) -> list[int]:
        """Roots of the relations and small files that exist in databases with these OIDs."""
        table = self.table
        kind, db, root, exists = table.kind, table.db, table.root, table.exists
        return [
            number
            for number in range(table.count)
            if db[number] in databases
            and exists[number]
            and root[number] == number
            and kind[number] in (ChunkKind.REL, ChunkKind.FILE)
        ]

    # SLRU pages

    def has_slru_page(self, slru: int, page: int) -> bool:
        segment, block = divmod(page, SLRU_PAGES_PER_SEGMENT)
        root = self.table.find(ChunkKind.SLRU, 0, 0, slru, 0, segment)
        if root < 0 or not self.table.exists[root]:
            return False
        return bool(self.table.blocks[root] > block)

    def zero_slru_page(self, slru: int, page: int, lsn: int, start: bytes = b"") -> None:
        """A page begins: zeros behind the bytes of `start`."""
        number = self.ingest.target.touch_slru(slru, page, lsn)
        if self.table.held[number]:
            image = version.image_exact_before_zeros(start)
            block = page % SLRU_PAGES_PER_SEGMENT
            self.ingest.target.memtable.put(number, block, lsn, memoryview(image), True)

    def slru_effect(
        self, slru: int, page: int, effect_class: int, items: list[tuple[int, int, int]], lsn: int
    ) -> None:
        number = self.ingest.target.touch_slru(slru, page, lsn)
        payload = version.effect(effect_class, items)
        self.effect(number, page % SLRU_PAGES_PER_SEGMENT, payload, lsn)

    def slru_segments(self, slrus: Collection[int]) -> list[int]:
        """The numbers of the segments that exist, of one or several SLRUs."""
        table = self.table
        kind, rel, seg, exists = table.kind, table.rel, table.seg, table.exists
        return [
            seg[number]
            for number in range(table.count)
            if kind[number] == ChunkKind.SLRU and rel[number] in slrus and exists[number]
        ]

    # Small files

    def put_file(
        self, spc: int, db: int, code: int, content: bytes, lsn: int, *, seg: int = 0
    ) -> None:
        """A new version of a small file, whole."""
        number = self.table.intern(ChunkKind.FILE, spc, db, code, 0, seg)
        blocks = max(1, -(-len(content) // 8192))
        self.ingest.target.cut(number, 1, blocks, 0, lsn, lsn - 1)
        for block in range(blocks):
            payload = version.file_block(len(content), content[8192 * block : 8192 * (block + 1)])
            self.ingest.target.memtable.put(number, block, lsn, memoryview(payload), True)

    def drop_file(self, spc: int, db: int, code: int, lsn: int, *, seg: int = 0) -> None:
        self.drop(ChunkKind.FILE, spc, db, code, 0, seg, lsn)
