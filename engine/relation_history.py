"""What exists at an LSN and how large it is, and from which LSN on versions of a block count.

Every size event of a relation is a version of its *history chunk*, block 0; the cuts (creation,
truncation, drop) are versions of block 1 as well, and stand in memory besides, since every read of
an older state asks for them, as long as one can (`forget`). The present state stands in the chunk
table and needs none of this. SLRU segments and small files have a history of the same form.
"""

from collections.abc import Callable, Iterator

from engine.bundle_merge import Retained
from engine.chunk_table import ChunkTable
from engine.errors import RequestError
from engine.garbage import needed_cuts
from engine.store_lock import StoreLock
from engine.version_set import VersionSet
from formats.chunk import ChunkKey, ChunkKind, Fork
from formats.lsn import show as show_lsn

Collect = Callable[[int, int, int, int, VersionSet], None]


class RelationHistory:
    """Reads histories; called without the store's lock, which it takes for moments."""

    def __init__(
        self,
        table: ChunkTable,
        cuts: dict[int, list[tuple[int, int]]],
        collect: Collect,
        lock: StoreLock,
    ) -> None:
        """`cuts`: root -> [(LSN, blocks)], oldest first, kept up by ingest.

        `collect(chunk, block, lsn_floor, lsn_max, versions)` gathers a block's versions.
        """
        self.table = table
        self.cuts = cuts
        self.collect = collect
        self.lock = lock

    def state(self, root: int, lsn: int) -> tuple[bool, int]:
        """(whether the relation existed, its blocks) at an LSN."""
        table = self.table
        with self.lock:
            if table.change_lsn[root] <= lsn:
                return bool(table.exists[root]), table.blocks[root]
        versions = VersionSet(4096, 16)
        self.collect(table.history[root], 0, 0, lsn, versions)
        if not versions.count:
            return False, 0
        payload = versions.payload(1)
        return bool(payload[1]), int.from_bytes(payload[4:8], "little")

    def floor(self, root: int, block: int, lsn: int) -> int:
        """The last LSN <= `lsn` at which the relation did not have this block; 0 if it always had.

        Versions of the block at or below it are of an earlier life of the block.
        """
        for cut_lsn, cut_blocks in reversed(self.cuts.get(root, ())):
            if cut_lsn <= lsn and cut_blocks <= block:
                return cut_lsn
        return 0

    def forget(self, key: ChunkKey, retained: Retained, past: int) -> None:
        """Drop the cuts of a relation, SLRU segment or file for which nobody can ask any more: by
        what must stay readable, and all up to `past`, where it exists at no such LSN."""
        root = self.find(*key)
        cuts = self.cuts.get(root)
        if not cuts or (len(cuts) == 1 and not past):
            return
        with self.lock:
            cuts = self.cuts[root]
            needed = needed_cuts(cuts, sorted(retained.lsns), retained.horizon)
            # A new list: who reads floors has the old one, and is not stopped by the lock.
            left = [cut for cut, is_needed in zip(cuts, needed, strict=True) if is_needed]
            left = [cut for cut in left if cut[0] > past]
            if left:
                self.cuts[root] = left
            else:
                del self.cuts[root]

    def find(self, kind: int, spc: int, db: int, rel: int, fork: int, seg: int) -> int:
        """The root of a relation, SLRU segment or file; -1 if it was never heard of."""
        with self.lock:
            root: int = self.table.find(kind, spc, db, rel, fork, seg)
        return root

    def blocks(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> int | None:
        """A relation fork's size at an LSN, None if it did not exist then."""
        root = self.find(ChunkKind.REL, spc, db, rel, fork, 0)
        if root < 0:
            return None
        exists, blocks = self.state(root, lsn)
        return blocks if exists else None

    def existing(self, kind: int, lsn: int) -> Iterator[tuple[tuple[int, ...], int]]:
        """(chunk key, blocks) of every root of a kind that exists at an LSN."""
        table = self.table
        with self.lock:
            kinds, root = table.kind, table.root  # each look at a kernel's column makes a view
            roots = [
                number
                for number in range(table.count)
                if kinds[number] == kind and root[number] == number
            ]
        for number in roots:
            exists, blocks = self.state(number, lsn)
            if exists:
                yield table.key(number), blocks

    def missing_relation(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> RequestError:
        """The error for a relation that does not exist at an LSN."""
        name = f"relation {spc}/{db}/{rel}"
        if fork == Fork.MAIN and self.blocks(spc, db, rel, Fork.INIT, lsn) is not None:
            return RequestError(f"{name} is unlogged: its main fork is not in WAL, not kept here")
        return RequestError(f"{name} has no {Fork(fork).name.lower()} fork at {show_lsn(lsn)}")
