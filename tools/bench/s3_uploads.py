"""The uploader beside a page store of this process, until the bucket has all that the store has."""

import threading
import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.page_store import PageStore
from engine.retention import KEEP_ALL
from formats.file_name import FileName
from server.background import Background
from server.backup.local_state import Position
from server.backup.s3_client import Traffic
from server.backup.s3_store import S3Store
from server.backup.upload_messages import BackupSettings
from server.backup.uploader import Uploader
from tools.bench.bench import MEMORY_BYTES_MAX, MIB
from tools.bench.settled_store import NEVER_SECONDS, settle, wait_until_durable

UPLOAD_SETTINGS = BackupSettings()
POLL_SECONDS = 0.01


class Following:
    """An uploader in a thread of its own, as long as the context lasts.

    `position` and `files` say what the directory has now.
    """

    def __init__(
        self,
        directory: Path,
        store: S3Store,
        position: Callable[[], Position],
        files: Callable[[], Set[FileName]],
    ) -> None:
        self._position = position
        self._files = files
        self._is_new = threading.Event()
        self._is_done, self._is_over = threading.Event(), threading.Event()
        self._awaited: Set[FileName] | None = None
        self._error: Exception | None = None
        self._threads = ThreadPoolExecutor(UPLOAD_SETTINGS.parallel + 1)
        self._uploader = Uploader(
            directory,
            store,
            store.location.url,
            "00000000",
            UPLOAD_SETTINGS,
            self._threads,
            clock=time.monotonic,
            on_sent=self._is_new.set,
        )
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._threads.shutdown()

    def wait(self) -> None:
        """Until the bucket has all WAL that there is, and the files that there are."""
        self._awaited = self._files()
        self._is_done.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                self._step()
                self._is_new.wait(POLL_SECONDS)
                self._is_new.clear()
        except Exception as error:  # any: it is the other thread's to raise
            self._error = error
            self._is_done.set()

    def _step(self) -> None:
        awaited, uploader = self._awaited, self._uploader
        uploader.tell(self._position())
        uploader.step()
        if awaited is not None and uploader.is_done and awaited == uploader.uploaded.keys():
            self._is_done.set()


def load_followed(directory: Path, end_lsn: int, s3_store: S3Store) -> Position:
    """Ingest, flush and compact up to `end_lsn`, and back it up; what is on disk then.

    The journal must have a record behind `end_lsn`, which tells that a switch there is over.
    """
    store = PageStore(directory, MEMORY_BYTES_MAX)
    background = Background(store, NEVER_SECONDS, KEEP_ALL)
    background.start()
    try:
        manifest = store.manifest
        with Following(
            directory,
            s3_store,
            lambda: position_of(store),
            lambda: set(manifest.state.files),
        ) as following:
            wait_until_durable(store, background, end_lsn)
            settle(store, background)
            following.wait()
    finally:
        background.stop()
        store.close()
    return position_of(store)


def position_of(store: PageStore) -> Position:
    """What of a page store is fsynced."""
    return Position(store.manifest.state.serial, store.journal.flushed_lsn, store.journal.timeline)


def cost_of(traffic: Traffic, wal_bytes: int) -> str:
    """What is paid for, by gigabyte of WAL."""
    gigabytes = wal_bytes / 1e9
    each = sorted(traffic.requests.items(), key=lambda item: -item[1])
    requests = ", ".join(f"{count / gigabytes:.0f} {kind}" for kind, count in each)
    return (
        f"each GB of WAL: {sum(traffic.requests.values()) / gigabytes:.0f} requests ({requests}), "
        f"{traffic.bytes_sent / gigabytes / MIB:.0f} MB sent (of {gigabytes:.2f} GB, as fast as it "
        "is taken in, compaction included)"
    )
