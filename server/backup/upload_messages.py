"""What the page server and the uploader's process say to each other, a line of JSON each."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from server.config import Settings

FENCED, REFUSED, STOPPED, FINISHED = "fenced", "refused", "stopped", "finished"
"""How the process ends: the last word it says, beside a reason."""


@dataclass(frozen=True)
class BackupSettings:
    """Those of server/config.py that begin with `backup_`."""

    journal_seconds: float = 10.0
    journal_bytes: int = 16 << 20
    parallel: int = 4
    grace_seconds: float = 86_400.0


class UploadStatus(NamedTuple):
    """What it tells the server."""

    state: str
    epoch: int | None
    remote_lsn: int
    pending_bytes: int
    is_refused: bool  # by the store, before the epoch was taken
    timeline: int  # whose WAL the bucket has up to the remote LSN; 0: not known yet


@dataclass(frozen=True)
class UploadConfig:
    """What the server says first."""

    directory: str
    url: str
    endpoint: str | None
    server_id: str
    has_fencing: bool
    journal_seconds: float
    journal_bytes: int
    parallel: int
    bytes_per_second: int
    grace_seconds: float

    @property
    def settings(self) -> BackupSettings:
        return BackupSettings(
            self.journal_seconds, self.journal_bytes, self.parallel, self.grace_seconds
        )

    @property
    def line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


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
