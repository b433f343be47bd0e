"""How far a base backup is: a bar where somebody watches, else a line in the log now and then."""

import logging
import time

from rich.console import Console

from server.base_backup import BackupReport
from server.byte_bar import ByteBar

BAR_SECONDS = 0.1
LOG_SECONDS = 10.0

_log = logging.getLogger(__name__)


class BackupProgress(ByteBar):
    """Shows the reports it is called with; a context manager around one or more attempts."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__("base backup", console)
        self._shown_time = 0.0

    def __call__(self, report: BackupReport) -> None:
        now = time.monotonic()
        interval = BAR_SECONDS if self._is_watched else LOG_SECONDS
        is_last = report.seconds > 0
        if now - self._shown_time < interval and not is_last:
            return
        self._shown_time = now
        # The source's estimate is from before it began, and may be too low.
        total = report.bytes_received if is_last else report.bytes_total
        self._bar.update(self._task, total=total, completed=report.bytes_received)
        if not self._is_watched:
            done, expected = report.bytes_received >> 20, report.bytes_total >> 20
            _log.info("base backup: %d of about %d MiB", done, expected)
