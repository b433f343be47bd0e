"""CREATE DATABASE by file copy: the new database's relations as image layers at the record's LSN.

The record says only from where to where. PostgreSQL's redo copies the files as they are then; this
reads every page of the source as of the record's end, in runs, and writes it under the new key.
What cannot be read, because this server does not hold it or it is unreadable itself, is unreadable
in the copy (design invariant 10) until something self-contained overwrites it: an UNREADABLE
version in the image layer, which stands for its whole stripe: nothing below it is looked at.

That is for good, so no error that passes may lead to it. What the disk fails to read is asked for
again. Then it counts as unreadable if the disk says that the place is bad; a shortage of memory or
descriptors says nothing of it, and ends the copy, which the next start makes anew.
"""

import errno
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from engine.bundle_writer import BundleInfo, BundleWriter, run_of
from engine.cluster_records import ClusterRecords
from engine.disk_room import will_pass
from engine.errors import IngestStopped, RequestError
from engine.ingest import Ingest
from engine.version_store import VersionStore
from formats import version
from formats.chunk import SEGMENT_BLOCKS, ChunkKey, ChunkKind, SmallFile, small_file
from formats.chunk import relation as relation_key
from formats.file_name import FileKind

RUN_BLOCKS = 128
DATABASE_RMGR = 4
READ_ATTEMPTS = 60  # of one copy, after errors of the disk
RETRY_SECONDS = 0.5
_BAD_PLACE = (errno.EIO, errno.ENODATA, errno.EBADMSG, errno.EUCLEAN)
_UNREADABLE = bytes([version.UNREADABLE, DATABASE_RMGR, 0, 0])

_Read = TypeVar("_Read")
_log = logging.getLogger("pageserver.ingest")

Fork = tuple[int, int, int, int]  # of a relation: tablespace, database, relation, fork


class DatabaseCopy:
    """Copies one database; used by the ingest thread, without the store's lock."""

    def __init__(self, versions: VersionStore, lsn: int) -> None:
        self._versions = versions
        self._lsn = lsn
        self._attempts_left = READ_ATTEMPTS
        # While a base backup lasts the source's pages may be newer than the copy, and so then are
        # the copy's; PostgreSQL's recovery skips what such a page has already.
        is_fuzzy = lsn <= versions.backup_end_lsn
        self._image_kind = version.IMAGE_FUZZY if is_fuzzy else version.IMAGE_EXACT
        self.sizes: list[tuple[ChunkKey, int]] = []
        self.bundles: list[BundleInfo] = []

    def write(
        self,
        source: tuple[int, int],
        target: tuple[int, int],
        create_bundle: Callable[[FileKind], BundleWriter],
    ) -> None:
        """Copy all relations of `source` (tablespace, database) into bundles, which are durable.

        After an error `bundles` has those that were finished before."""
        writer = create_bundle(FileKind.IMAGE)
        try:
            copied = 0
            relations = self._patiently(partial(self._versions.relations, self._lsn))
            for spc, db, rel, fork, blocks in relations:
                if (spc, db) != source:
                    continue
                self.sizes.append((relation_key(*target, rel, fork), blocks))
                for segment in range(-(-blocks // SEGMENT_BLOCKS)):
                    key = relation_key(*target, rel, fork, segment)
                    count = min(SEGMENT_BLOCKS, blocks - segment * SEGMENT_BLOCKS)
                    copied += self._copy_segment((spc, db, rel, fork), key, count, writer)
            if copied:
                self.bundles.append(writer.finish())
        except BaseException:
            writer.abort()
            raise
        if not copied:
            writer.abort()

    def _holds(self, key: ChunkKey) -> bool:
        with self._versions.lock:
            number = self._versions.table.intern(*key)
            return bool(self._versions.table.held[number])

    def _copy_segment(self, source: Fork, key: ChunkKey, count: int, writer: BundleWriter) -> int:
        """Copy `count` blocks of a segment to `key`; how many are in the bundle now."""
        if not self._holds(key):
            return 0
        is_held = self._holds(relation_key(*source, key.seg))
        for block in range(0, count, RUN_BLOCKS):
            run = min(RUN_BLOCKS, count - block)
            if is_held:
                self._copy_run(source, key, block, run, writer)
            else:
                self._mark_unreadable(key, block, run, writer)
        return count

    def _copy_run(
        self, source: Fork, key: ChunkKey, block: int, count: int, writer: BundleWriter
    ) -> None:
        first = key.seg * SEGMENT_BLOCKS + block
        try:
            read = partial(self._versions.read_relation, *source, first, count, self._lsn)
            data = self._patiently(read)
        except (RequestError, OSError) as error:
            if isinstance(error, OSError) and (will_pass(error) or error.errno not in _BAD_PLACE):
                raise
            if count == 1:
                self._mark_unreadable(key, block, 1, writer)
            else:
                for i in range(count):
                    self._copy_run(source, key, block + i, 1, writer)
        else:
            writer.add_pages(key.pack(), block, self._lsn, self._image_kind, data)

    def _patiently(self, read: Callable[[], _Read]) -> _Read:
        """What `read` returns; OSError if the disk failed it too often, or a bucket is waited for,
        and IngestStopped if the server stops."""
        while True:
            try:
                return read()
            except OSError as error:
                if will_pass(error) or not self._attempts_left:
                    raise
                if self._attempts_left == READ_ATTEMPTS:
                    _log.warning("a copy of a database is read again: %s", error)
                if self._versions.no_flush:
                    raise IngestStopped(f"a copy of a database: {error}") from error
            self._attempts_left -= 1
            time.sleep(RETRY_SECONDS)

    def _mark_unreadable(self, key: ChunkKey, block: int, count: int, writer: BundleWriter) -> None:
        blocks = range(block, block + count)
        writer.add_run(run_of([(key.pack(), i, self._lsn, _UNREADABLE) for i in blocks]))

    def files(self, source: tuple[int, int]) -> list[tuple[int, bytes]]:
        """(code, content) of the small files of the source database."""
        found = []
        for key, _ in self._versions.history.existing(ChunkKind.FILE, self._lsn):
            chunk = ChunkKey(*key)
            if (chunk.spc, chunk.db) == source:
                read = partial(self._versions.read_file, chunk, self._lsn)
                found.append((chunk.rel, self._patiently(read)))
        return found

    def publish(
        self,
        target: tuple[int, int],
        files: list[tuple[int, bytes]],
        ingest: Ingest,
        cluster: ClusterRecords,
    ) -> None:
        """Let the new database be there, at the record's LSN; its bundles are committed."""
        versions = self._versions
        with versions.lock:
            versions.layers_lsn = max(versions.layers_lsn, self._lsn)
            try:
                self._begin(target, files, ingest, cluster)
            except BaseException:
                versions.abandon(0)
                raise
            versions.advance_ready(self._lsn)  # before a freeze may come

    def _begin(
        self,
        target: tuple[int, int],
        files: list[tuple[int, bytes]],
        ingest: Ingest,
        cluster: ClusterRecords,
    ) -> None:
        """The histories of what is in the new database; called with the store's lock.

        What its directory had before goes, as in PostgreSQL's redo.
        """
        spc, db = target
        table = self._versions.table
        copied = [(table.intern(*key), blocks) for key, blocks in self.sizes]
        kept = {root for root, _ in copied}
        kept |= {table.intern(*small_file(SmallFile(code), spc, db)) for code, _ in files}
        cluster.drop_database(db, {spc}, self._lsn, kept)
        for root, blocks in copied:
            ingest.target.cut(root, 1, blocks, 0, self._lsn, self._lsn - 1)
        for code, content in files:
            cluster.put_file(spc, db, code, content, self._lsn)
