"""CREATE DATABASE by file copy: the new database's relations as image layers at the record's LSN.

The record says only from where to where. PostgreSQL's redo copies the files as they are then; this
reads every page of the source as of the record's end, in runs, and writes it under the new key.
Relations of a source that this server does not hold are not copied: their pages are unreadable
(design invariant 10) until something self-contained overwrites them.
"""

from engine.bundle_writer import BundleInfo, BundleWriter
from engine.version_store import VersionStore
from formats import version
from formats.chunk import SEGMENT_BLOCKS, ChunkKey, ChunkKind
from formats.chunk import relation as relation_key

RUN_BLOCKS = 128
DBASE_RMGR = 4


class DatabaseCopy:
    """Copies one database; used by the ingest thread, without the store's lock."""

    def __init__(self, versions: VersionStore, lsn: int) -> None:
        self._versions = versions
        self._lsn = lsn
        self.sizes: list[tuple[ChunkKey, int]] = []
        self.unreadable: list[tuple[ChunkKey, int]] = []

    def write(
        self, source: tuple[int, int], target: tuple[int, int], writer: BundleWriter
    ) -> BundleInfo | None:
        """Copy all relations of `source` (tablespace, database); None if there is no page."""
        pages = 0
        for spc, db, rel, fork, blocks in self._versions.relations(self._lsn):
            if (spc, db) != source:
                continue
            self.sizes.append((relation_key(*target, rel, fork), blocks))
            for segment in range(0, blocks, SEGMENT_BLOCKS):
                number = segment // SEGMENT_BLOCKS
                key = relation_key(*target, rel, fork, number)
                count = min(SEGMENT_BLOCKS, blocks - segment)
                if self._holds(relation_key(spc, db, rel, fork, number)):
                    self._copy_segment((spc, db, rel, fork), key, count, writer)
                    pages += count
                else:
                    self.unreadable.append((key, count))
        if not pages:
            writer.abort()
            return None
        return writer.finish()

    def _holds(self, key: ChunkKey) -> bool:
        with self._versions.lock:
            number = self._versions.table.intern(*key)
            return bool(self._versions.table.held[number])

    def _copy_segment(
        self,
        source: tuple[int, int, int, int],
        key: ChunkKey,
        count: int,
        writer: BundleWriter,
    ) -> None:
        if not self._holds(key):
            return
        for block in range(0, count, RUN_BLOCKS):
            run = min(RUN_BLOCKS, count - block)
            data = self._versions.read_relation(
                *source, key.seg * SEGMENT_BLOCKS + block, run, self._lsn
            )
            writer.add_pages(key.pack(), block, self._lsn, version.IMAGE_EXACT, data)

    def files(self, source: tuple[int, int]) -> list[tuple[int, bytes]]:
        """(code, content) of the small files of the source database."""
        found = []
        for key, _ in self._versions.history.existing(ChunkKind.FILE, self._lsn):
            chunk = ChunkKey(*key)
            if (chunk.spc, chunk.db) == source:
                found.append((chunk.rel, self._versions.read_file(chunk, self._lsn)))
        return found
