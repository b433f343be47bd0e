"""CREATE DATABASE by file copy, as ingest comes to its record: bundles, their commit, histories.

By the ingest thread and without the store's lock. A full disk is waited out, and so is a bucket
that does not answer; ingest waits with it.
"""

from collections.abc import Callable
from pathlib import Path

from engine.bundle_writer import BundleInfo, BundleWriter
from engine.cluster_records import ClusterRecords
from engine.database_copy import DatabaseCopy
from engine.disk_room import DiskRoom
from engine.flush import wait_until_flushed
from engine.journal import Journal
from engine.storage import Storage
from engine.version_store import VersionStore
from formats.file_name import FileKind

Database = tuple[int, int]  # tablespace, database


class DatabaseCreation:
    def __init__(
        self,
        versions: VersionStore,
        room: DiskRoom,
        storage: Storage,
        directory: Path,
        create_bundle: Callable[[FileKind], BundleWriter],
        commit: Callable[[BundleInfo], None],
    ) -> None:
        """`directory` is where bundles lie; `commit` may be called again after an OSError."""
        self._versions = versions
        self._room = room
        self._storage = storage
        self._directory = directory
        self._create_bundle = create_bundle
        self._commit = commit

    def run(
        self,
        journal: Journal,
        cluster: ClusterRecords,
        source: Database,
        target: Database,
        lsn: int,
    ) -> None:
        """`target` becomes what `source` is at the record's end `lsn`."""
        wait_until_flushed(journal, lsn)
        copy = self._room.persist(lambda: self._write(source, target, lsn), self._is_given_up)
        while copy.bundles:
            self._room.persist(lambda: self._commit(copy.bundles[0]), self._is_given_up)
            del copy.bundles[0]
        files = self._room.persist(lambda: copy.files(source), self._is_given_up)
        copy.publish(target, files, self._versions.ingest, cluster)

    def _is_given_up(self) -> bool:
        return self._versions.no_flush

    def _write(self, source: Database, target: Database, lsn: int) -> DatabaseCopy:
        """The bundles of a copy, or none of them."""
        copy = DatabaseCopy(self._versions, lsn)
        try:
            copy.write(source, target, self._create_bundle)
        except OSError:
            for info in copy.bundles:
                self._storage.remove(self._directory / info.name.text)
            raise
        return copy
