"""How far a restore or a scrub is: a bar where somebody watches, else a line at times."""

import logging
import threading
import time

from rich.console import Console

from server.byte_bar import ByteBar

LOG_SECONDS = 10.0
_log = logging.getLogger("pageserver.transfer")


class TransferProgress(ByteBar):
    """Any thread may say how far it is."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__("", console)
        self._lock = threading.Lock()
        self._what, self._done, self._total = "", 0, 0
        self._logged_at = time.monotonic()

    def expect(self, what: str, bytes_total: int) -> None:
        """What comes next, and its size."""
        with self._lock:
            self._what, self._done, self._total = what, 0, bytes_total
            self._bar.reset(self._task, total=bytes_total, description=what)

    def advance(self, count: int) -> None:
        """So many bytes more; less, if some are to come once more."""
        with self._lock:
            self._done += count
            self._bar.update(self._task, completed=self._done)
            now = time.monotonic()
            if not self._is_watched and now - self._logged_at >= LOG_SECONDS:
                self._logged_at = now
                _log.info("%s: %d of %d MiB", self._what, self._done >> 20, self._total >> 20)
