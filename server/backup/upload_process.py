"""The uploader's process, a child of the page server: `python -m server.backup.upload_process`.

    stdin    one line of JSON: UploadConfig; then lines with what is fsynced (Position), as it
             changes, and at last {"finish": true}
    stdout   a line with UploadStatus whenever it changes, and {"uploaded": {name: epoch, ...}} with
             files that the bucket's manifest has come to name; at the end `end` and `reason`
    stderr   the log

A process of its own, because compressing, checksums and boto3 are Python and C that would take
turns with the threads that serve pages. It ends when stdin ends, at once: so it never outlives a
server that was killed. Signals that a terminal or a service manager sends to all processes are the
server's to act on.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from engine.storage import DirectoryInUseError, File, Storage
from formats.errors import CorruptionError
from formats.file_name import FileName
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import FencedError
from server.backup.conditional_put import probe
from server.backup.layer_shipping import FOLDER
from server.backup.local_state import Position
from server.backup.object_store import StoreError
from server.backup.s3_store import S3Store
from server.backup.upload_messages import (
    FENCED,
    FINISHED,
    REFUSED,
    STOPPED,
    UploadConfig,
    UploadStatus,
)
from server.backup.uploader import Uploader

LOCK_SECONDS_MAX = 10.0
NAMES_AT_ONCE = 1000
READERS = 8  # of entries of the chain, when it is read from its last snapshot on
POLITENESS = 10  # what it gives way to the server's threads by, as `nice` has it
PENDING_SECONDS = 0.5  # between two words of bytes that are pending: each wakes the server
_log = logging.getLogger("pageserver.backup")


class Told:
    """What came on stdin, taken by a thread that ends the process when that ends."""

    def __init__(self) -> None:
        self.position = Position()
        self.is_finishing = False
        self.something_is_new = threading.Event()

    def listen(self) -> None:
        for line in sys.stdin:
            values = json.loads(line)
            if values.pop("finish", False):
                self.is_finishing = True
            else:
                self.position = Position(**values)
            self.something_is_new.set()
        os._exit(0)  # nobody is there any more who could be told anything


class Said:
    """What the server knows of the uploader."""

    def __init__(self) -> None:
        self._status: UploadStatus | None = None
        self._at = 0.0

    def say(self, status: UploadStatus) -> None:
        """Tell it, if it is news."""
        now, known = time.monotonic(), self._status
        if known is not None and now - self._at < PENDING_SECONDS:
            known = known._replace(pending_bytes=status.pending_bytes)
        if status != known:
            self._status, self._at = status, now
            _say(status._asdict())


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _give_way()
    config = UploadConfig(**json.loads(sys.stdin.readline()))
    told = Told()
    threading.Thread(target=told.listen, daemon=True).start()
    try:
        lock = _lock(Storage(), Path(config.directory))
        _run(config, told)
        Storage().close(lock)
    except FencedError as error:
        _end(FENCED, error)
    except NotDescendedError as error:
        _end(REFUSED, error)
    except (CorruptionError, OSError, DirectoryInUseError, StoreError) as error:
        _end(STOPPED, error)
    else:
        _end(FINISHED, "all WAL is in the bucket")
    os._exit(0)  # threads may still be sending what nobody will name


def _give_way() -> None:
    """Take the processor less often than the server, and interrupt nobody for it: each wait for the
    bucket would else end in the middle of somebody's page. Threads that start later do the same."""
    os.nice(POLITENESS)
    with contextlib.suppress(OSError):  # a sandbox may not know of it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _lock(storage: Storage, directory: Path) -> File:
    """One uploader a directory: that of a server that was killed may still be ending."""
    storage.make_directory(directory / FOLDER)
    deadline = time.monotonic() + LOCK_SECONDS_MAX
    while True:
        try:
            return storage.lock(directory / FOLDER / "lock")
        except DirectoryInUseError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _run(config: UploadConfig, told: Told) -> None:
    """Until all is sent after the word that the end is near."""
    store = S3Store(
        config.url,
        config.endpoint,
        parallelism=config.parallel + 3 + READERS,
        bytes_per_second=config.bytes_per_second,
        conditional=config.has_fencing,
    )
    executor = ThreadPoolExecutor(config.parallel + 2, "upload")
    nonce = os.urandom(16).hex()
    uploader = Uploader(
        Path(config.directory),
        store,
        store.location.url,
        config.server_id,
        config.settings,
        executor,
        clock=_boottime,
        probe=partial(probe, store, nonce) if config.has_fencing else lambda: None,
        nonce=nonce,
        on_sent=told.something_is_new.set,
        in_parallel=ThreadPoolExecutor(READERS, "chain").map,
    )
    told.something_is_new.wait()  # else it would seem that there is no base backup
    said = Said()
    named: Mapping[FileName, int] = {}
    while True:
        uploader.tell(told.position)
        if told.is_finishing:
            uploader.hasten()
        wait = uploader.step()
        if uploader.uploaded is not named:
            _say_uploaded(named, uploader.uploaded)
            named = uploader.uploaded
        said.say(uploader.status)
        if told.is_finishing and uploader.is_done:
            traffic = store.traffic()
            _log.info("%d requests and %d bytes were sent to the bucket since the uploader's start",
                      sum(traffic.requests.values()), traffic.bytes_sent)  # fmt: skip
            return
        told.something_is_new.wait(wait)
        told.something_is_new.clear()


def _boottime() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _say_uploaded(before: Mapping[FileName, int], now: Mapping[FileName, int]) -> None:
    """Which files the bucket's manifest names that it did not name before."""
    new = [(name.text, epoch) for name, epoch in now.items() if name not in before]
    for start in range(0, len(new), NAMES_AT_ONCE):
        _say({"uploaded": dict(new[start : start + NAMES_AT_ONCE])})


def _say(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def _end(how: str, reason: object) -> None:
    _say({"end": how, "reason": str(reason)})


if __name__ == "__main__":
    main()
