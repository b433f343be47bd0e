"""What a server has beside its store for backup: how the uploader's process is told what to do, and
the worker that keeps WAL at the source until the bucket has it."""

from collections.abc import Sequence
from pathlib import Path

from engine.page_store import PageStore
from server.background import Worker
from server.backup.source_slot import SourceSlot
from server.backup.upload_messages import UploadConfig
from server.config import Settings
from server.replication import StopSignal

SLOT_LOOK_SECONDS = 1.0


def slot_worker(
    store: PageStore, wal_sources: Sequence[str], slot: str, bytes_max: int, stop: StopSignal
) -> Worker:
    """Moves the second slot, `slot` being the WAL receiver's; with 0 bytes, lets it go: nobody else
    would, and the source's disk would fill."""
    source, remote = SourceSlot(wal_sources, slot, bytes_max, stop), store.remote

    def step() -> bool:
        received = store.journal.received_lsn if remote.lsn else 0
        return not remote.is_fenced and source.step(remote.lsn, received)

    def wait() -> None:
        stop.wait(SLOT_LOOK_SECONDS)

    return Worker("source-slot", step, wait)


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
