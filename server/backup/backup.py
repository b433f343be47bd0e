"""What a server with `--s3` has beside its store: the uploader's process, and a slot at the source.

UploaderLink    the process that ships what is fsynced here, and what it says
SourceSlot      keeps WAL at the source until the bucket has it
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from engine.page_store import PageStore
from server.backup.source_slot import SourceSlot
from server.backup.upload_messages import UploadConfig
from server.backup.uploader_link import UploaderLink
from server.config import Settings
from server.replication import StopSignal

SLOT_LOOK_SECONDS = 1.0


class Backup:
    """Of one server; started when the store is open."""

    def __init__(
        self,
        store: PageStore,
        config: UploadConfig,
        wal_sources: Sequence[str],
        slot: str,
        source_bytes_max: int,
        stop: StopSignal,
    ) -> None:
        """`slot`: of the WAL receiver; `source_bytes_max`: what the source may be made to keep for
        us, 0 for nothing."""
        self.link = UploaderLink(store, config)
        self._store = store
        self._stop = stop
        self._slot: SourceSlot | None = None
        if wal_sources and source_bytes_max:
            self._slot = SourceSlot(wal_sources, slot, source_bytes_max, stop)
        self._thread = threading.Thread(target=self._move_slot, name="source-slot", daemon=True)

    def start(self) -> None:
        """BackupRefusedError: the server must not start with this bucket."""
        self.link.start()
        if self._slot is not None:
            self._thread.start()

    def finish(self) -> None:
        """Send what WAL is flushed, within a bounded time; the stop signal is set."""
        self.link.finish()
        if self._thread.ident is not None:
            self._thread.join()

    def _move_slot(self) -> None:
        remote = self._store.remote
        assert self._slot is not None
        while not self._stop.wait(SLOT_LOOK_SECONDS):
            if remote.lsn and not remote.is_fenced:
                self._slot.step(remote.lsn, self._store.journal.received_lsn)


def config_of(
    directory: Path, url: str, endpoint: str | None, number: int, settings: Settings
) -> UploadConfig:
    """What the uploader's process is told; `number` is that of D/server_id."""
    return UploadConfig(
        directory=str(directory.resolve()),
        url=url,
        endpoint=endpoint,
        server_id=f"{number:08x}",
        has_fencing=settings.fencing == "on",
        journal_seconds=settings.backup_journal_seconds,
        journal_bytes=settings.backup_journal_bytes,
        parallel=settings.backup_parallel,
        bytes_per_second=settings.backup_bytes_per_second,
        grace_seconds=settings.backup_grace_seconds,
    )
