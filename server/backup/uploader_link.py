"""The page server's side of backup: the uploader's process, what it is told and what it says.

    store: manifest serial, flushed LSN, timeline ──> stdin of upload_process
    RemoteWal: remote LSN, fenced                 <── its stdout

A process that ends by itself is started again, after a pause. One that another server has fenced
off is not: from then on nothing is acknowledged here, and reads go on.
"""

import contextlib
import json
import logging
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from engine.page_store import PageStore
from formats.file_name import FileName
from formats.lsn import show as show_lsn
from server.backup.local_state import Position
from server.backup.upload_messages import FENCED, FINISHED, REFUSED, UploadConfig

TELL_SECONDS = 0.5  # between two announcements; each wakes the uploader
LOOK_SECONDS = 0.1  # whether the server stops while it waits for a word
QUIET_SECONDS_MAX = 10.0  # without one, until the log says so
FINISH_SECONDS_MAX = 10.0
END_SECONDS_MAX = 3.0
PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.5, 30.0
STEADY_SECONDS = 60.0  # who ran so long is started again at once
COMMAND = (sys.executable, "-m", "server.backup.upload_process")
_log = logging.getLogger("pageserver.backup")


class BackupRefusedError(Exception):
    """The server must not start with this bucket; the text says what to do."""


class UploaderLink:
    """Of one server. `state`, `epoch` and `pending_bytes` are for its status."""

    def __init__(
        self, store: PageStore, config: UploadConfig, command: Sequence[str] = COMMAND
    ) -> None:
        self.state = "connecting"
        self.reason = ""  # why it is fenced, or ended
        self.epoch: int | None = None
        self.pending_bytes: int | None = None
        self.on_uploaded: Callable[[dict[FileName, int]], None] = lambda names: None
        """Is told which files the bucket's manifest names, by the epochs of who put them."""
        self.on_begin: Callable[[], None] = lambda: None
        """Is called before an uploader begins, who says anew what the bucket's manifest names."""
        self._store = store
        self._config = config
        self._command = command
        self._thread = threading.Thread(target=self._run, name="backup", daemon=True)
        self._stopping = threading.Event()
        self._finishing = threading.Event()
        self._heard = threading.Event()  # enough to know whether the server may go on
        self._deciding = threading.Lock()  # whether it may
        self._refusal: str | None = None
        self._is_over = False

    def start(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Start the process, and wait until it has the bucket, or knows that it cannot for now, or
        the server stops.

        However long that takes: a process that is starved has nothing to say of a directory that
        another server has taken over from, and what is acknowledged of that would be lost. One that
        asks a bucket which does not answer says so when its requests are given up, and one that
        ends is noticed.

        BackupRefusedError: it must not have it, or the store will not let it.
        """
        self._thread.start()
        began, is_told = time.monotonic(), False
        while not self._heard.wait(LOOK_SECONDS) and not is_stopping():
            if not is_told and time.monotonic() - began > QUIET_SECONDS_MAX:
                _log.warning("no word from %s yet: no WAL is taken before", self._config.url)
                is_told = True
        with self._deciding:
            self._heard.set()  # what is refused from now on is refused to a running server
        if self._refusal is not None:
            raise BackupRefusedError(self._refusal)

    def finish(self) -> None:
        """Let it send what WAL is flushed, for so long; the end of the process."""
        if self._thread.ident is None:
            return
        self._finishing.set()
        self._thread.join(FINISH_SECONDS_MAX)
        self._stopping.set()
        self._thread.join()
        lacking = self._position().flushed_lsn - self._store.remote.lsn
        if lacking > 0 and self._store.is_complete and self._refusal is None:
            _log.warning(
                "the bucket lacks %d bytes of WAL behind %s, which are in the journal here (%s)",
                lacking, show_lsn(self._store.remote.lsn), self.state,
            )  # fmt: skip

    def status(self) -> dict[str, object]:
        """Its part of `pageserver status`."""
        remote, ready = self._store.remote.lsn, self._store.ready_lsn
        lag = max(0, ready - remote) if self._store.is_complete else None
        return {
            "backup": self.state,
            "backup_lag_bytes": lag,
            "backup_pending_bytes": self.pending_bytes,
            "epoch": self.epoch,
        }

    def _position(self) -> Position:
        """What is fsynced now; nothing before there is a base backup."""
        store = self._store
        if not store.is_complete:
            return Position()
        journal, serial = store.journal, store.manifest.state.serial
        while True:  # what is flushed is of this timeline
            timeline, flushed = journal.timeline, journal.flushed_lsn
            if timeline == journal.timeline:
                return Position(serial, flushed, timeline)

    # The thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = PAUSE_SECONDS_MIN
        while not self._is_over:
            begin = time.monotonic()
            try:
                self._run_process()
            except Exception as error:
                # A fault of ours must not end the thread: nobody would know of a server fenced off.
                _log.exception("fault beside the uploader")
                self.state = f"retrying: {type(error).__name__}: {error}"
                self._heard.set()
            if self._is_over or self._stopping.is_set() or self._finishing.is_set():
                return
            if time.monotonic() - begin > STEADY_SECONDS:
                pause = PAUSE_SECONDS_MIN
            _log.warning("the uploader is started again in %.1f s: %s", pause, self.state)
            self._finishing.wait(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _run_process(self) -> None:
        """One process's life."""
        self.on_begin()
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        self._ended = False
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(self._config.line)
                self._talk(process.stdin.fileno(), process.stdout.fileno())
        finally:
            process.stdin.close()  # that ends it, if it has not ended
            process.stdout.close()
            code = _ended(process)
        if not self._ended and not self._stopping.is_set():
            self.state = f"retrying: the uploader ended with status {code}"
        self._heard.set()

    def _talk(self, to: int, heard_from: int) -> None:
        told: Position | None = None
        has_said_finish = False
        next_word = time.monotonic()
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(heard_from, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if time.monotonic() >= next_word:
                    next_word = time.monotonic() + TELL_SECONDS
                    position = self._position()
                    if position != told and _write(to, position._asdict()):
                        told = position
                    elif self._finishing.is_set() and not has_said_finish:
                        has_said_finish = _write(to, {"finish": True})
                if selector.select(max(0.0, next_word - time.monotonic())):
                    data = os.read(heard_from, 1 << 16)
                    if not data:
                        return
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self._hear(json.loads(line))

    def _hear(self, values: dict[str, Any]) -> None:
        if "end" in values:
            self._hear_end(values["end"], values["reason"])
            return
        if "uploaded" in values:
            self.on_uploaded({FileName.parse(n): epoch for n, epoch in values["uploaded"].items()})
            return
        self.state, self.epoch = values["state"], values["epoch"]
        self.pending_bytes = values["pending_bytes"]
        if values["is_refused"]:
            self._refuse(f"{self._config.url} cannot be used: {self.state}")
        elif self.epoch is not None and values["timeline"]:
            self._move(values["remote_lsn"], values["timeline"])
        if self.state != "connecting":
            self._heard.set()

    def _hear_end(self, how: str, reason: str) -> None:
        self._ended, self.reason = True, reason
        self._is_over = how in (FENCED, REFUSED, FINISHED)
        if how == FINISHED:
            self.state = "-"
        elif how == REFUSED and self._refuse(reason):
            return
        elif self._is_over:
            self.state = "fenced" if how == FENCED else f"stopped: {reason}"
            self._store.remote.is_fenced = True
            _log.error("%s: WAL is neither taken nor acknowledged any more, reads go on", reason)
        else:
            self.state = f"stopped: {reason}"
            _log.error("backup: %s", reason)
        self._heard.set()

    def _refuse(self, reason: str) -> bool:
        """Let the server not start; False: it runs already."""
        with self._deciding:
            if self._heard.is_set():
                return False
            self._refusal, self._is_over = reason, True
            self._stopping.set()
            self._heard.set()
            return True

    def _move(self, lsn: int, timeline: int) -> None:
        """What the bucket has moved: so may what is waited for, and the journal go."""
        remote, size = self._store.remote, self._store.journal.segment_bytes
        before = remote.lsn
        remote.move(lsn, timeline)
        if remote.is_waited_for and before // size != remote.lsn // size:
            self._store.trim_journal()


def _write(to: int, values: dict[str, Any]) -> bool:
    """A line, if the pipe has room for it: it takes all or nothing of one so short."""
    try:
        os.write(to, json.dumps(values).encode() + b"\n")
    except BlockingIOError:
        return False
    return True


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """The exit status of a process whose stdin has ended; it is killed if that does not end it."""
    try:
        return process.wait(END_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
