"""The progress of a base backup, as somebody at a terminal and as a log see it."""

import io
import logging

import pytest
from rich.console import Console

from server.backup_progress import BackupProgress
from server.base_backup import BackupReport


def test_a_bar_at_a_terminal() -> None:
    out = io.StringIO()
    with BackupProgress(Console(file=out, force_terminal=True, width=100)) as progress:
        progress(BackupReport(bytes_received=50 << 20, bytes_total=100 << 20))
        # More came than was estimated: still not more than all of it.
        progress(BackupReport(bytes_received=110 << 20, bytes_total=100 << 20, seconds=2.0))
    assert "base backup" in out.getvalue()
    assert "115.3/115.3 MB" in out.getvalue()


def test_lines_in_the_log_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    with (
        caplog.at_level(logging.INFO),
        BackupProgress(Console(file=out, force_terminal=False)) as progress,
    ):
        for received in range(5):
            progress(BackupReport(bytes_received=received << 20, bytes_total=100 << 20))
        progress(BackupReport(bytes_received=100 << 20, bytes_total=100 << 20, seconds=2.0))
    assert [record.message for record in caplog.records] == [
        "base backup: 0 of about 100 MiB",
        "base backup: 100 of about 100 MiB",
    ]
    assert out.getvalue() == ""
