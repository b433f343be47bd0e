"""The process that backs a simulated machine up, and the server's end of the pipes to it.

The uploader and the server's link are the real ones; what they say to each other lies in between
until somebody reads it, as in a pipe. What the uploader's threads send are tasks of their own.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from random import Random
from typing import Any

from engine.page_store import PageStore
from engine.storage import Storage
from formats.file_name import FileName
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import FencedError
from server.backup.local_state import Position
from server.backup.object_store import ObjectStore
from server.backup.upload_messages import FENCED, REFUSED, BackupSettings, UploadStatus, config_of
from server.backup.uploader import Uploader
from server.backup.uploader_link import UploaderLink
from server.config import Settings
from tests.fixtures.faulty_storage import CrashError
from tests.fixtures.uploading import URL
from tests.simulation.scheduler import Scheduler
from tests.simulation.shared_bucket import SharedBucket

BACKUP = "backup"  # how names of tasks of the process begin


class TaskExecutor(Executor):
    """What it is given becomes a task."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.name = BACKUP  # how names of its tasks begin
        self._scheduler = scheduler
        self._count = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def do() -> None:
            try:
                future.set_result(work(*args, **kwargs))
            except CrashError:
                raise
            except Exception as error:
                future.set_exception(error)

        self._count += 1
        self._scheduler.start(f"{self.name} sender {self._count}", do)
        return future


class BackupProcess:
    """One process's life; `run` is a task."""

    def __init__(
        self,
        scheduler: Scheduler,
        directory: Path,
        storage: Storage,
        store: ObjectStore,
        settings: BackupSettings,
        clock: Callable[[], float],
        random: Random,
        nonce: str,
    ) -> None:
        self.told: Position | None = None  # nothing yet
        self.said: list[str] = []  # lines that the server has not read
        self.is_over = False
        self.is_finishing = False
        self.executor = TaskExecutor(scheduler)
        self._make = lambda: Uploader(
            directory, store, URL, f"{random.getrandbits(32):08x}", settings,
            self.executor, clock=clock, storage=storage, random=random,
            nonce=nonce,
        )  # fmt: skip
        self._uploader: Uploader | None = None
        self.status: UploadStatus | None = None  # that it said last
        self._named: Mapping[FileName, int] = {}

    @property
    def is_idle(self) -> bool:
        """Whether the bucket has all that it was told of, as far as it says."""
        uploader = self._uploader
        return uploader is not None and uploader.status.state == "idle" and uploader.is_done

    def run(self, steps: int) -> None:
        """As server/backup/upload_process.py does."""
        for _ in range(steps):
            if self.is_over or self.told is None:
                return
            try:
                self._step()
            except FencedError as error:
                self._end(FENCED, error)
            except NotDescendedError as error:
                self._end(REFUSED, error)

    def _step(self) -> None:
        if self._uploader is None:
            self._uploader = self._make()
        uploader = self._uploader
        assert self.told is not None
        uploader.tell(self.told)
        if self.is_finishing:
            uploader.hasten()
        uploader.step()
        named, self._named = self._named, uploader.uploaded
        new = {n.text: epoch for n, epoch in self._named.items() if n not in named}
        if new:
            self._say({"uploaded": new})
        if uploader.status != self.status:
            self.status = uploader.status
            self._say(uploader.status._asdict())

    def _end(self, how: str, error: Exception) -> None:
        self._say({"end": how, "reason": str(error)})
        self.is_over = True

    def _say(self, values: dict[str, Any]) -> None:
        self.said.append(json.dumps(values))


class Link:
    """The server's end."""

    def __init__(
        self, store: PageStore, directory: Path, bucket: SharedBucket, totals: Counter[str]
    ) -> None:
        self._link = UploaderLink(store, config_of(directory, URL, None, 1, Settings()))
        self._store = store
        self._bucket = bucket
        self._totals = totals

    def on_uploaded(self, note: Callable[[Mapping[FileName, int]], None]) -> None:
        self._link.on_uploaded = note

    @property
    def is_over(self) -> bool:
        """Whether no process is to be started any more: another server has the bucket."""
        return self._link._is_over

    @property
    def reason(self) -> str:
        return self._link.reason

    def talk(self, process: BackupProcess) -> None:
        """Tell what is fsynced, and hear what there is to be heard."""
        process.told = self._link._position()
        lines, process.said = process.said, []
        for line in lines:
            self._hear(json.loads(line))

    def _hear(self, values: dict[str, Any]) -> None:
        remote = self._store.remote
        before, was_fenced = remote.lsn, remote.is_fenced
        self._link._hear(values)
        if "end" in values:
            self._totals[f"writers {values['end']}"] += 1
        if remote.lsn != before:
            assert not was_fenced, "it was fenced off, and acknowledges"
            self._bucket.check_told(values["epoch"], remote.lsn)
