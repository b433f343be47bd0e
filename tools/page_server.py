"""The page server as a process, as a user starts it; for the demonstration and the tests."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from formats import lsn as lsn_text
from server.client import ConnectError, PageClient, PageServerError
from tools.loopback_ports import free_port

READY_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0
_POLL_SECONDS = 0.1


class PageServerFailed(Exception):
    """The server ended, or did not get where it had to in time; the text has its last words."""


class PageServer:
    """`pageserver serve` on a data directory; its output goes to a file beside that."""

    def __init__(self, data_dir: Path, wal_source: str, *options: str) -> None:
        self.data_dir = data_dir
        self.address = f"127.0.0.1:{free_port()}"
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self._arguments = ["serve", "--data-dir", str(data_dir), "--wal-source", wal_source,
                           "--listen", self.address, *options]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the process and wait for nothing."""
        self.data_dir.mkdir(exist_ok=True)
        installed = Path(sys.executable).with_name("pageserver")
        command = [str(installed)] if installed.exists() else [sys.executable, "-m", "server.cli"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parent.parent,
                start_new_session=True,
            )

    def client(self) -> PageClient:
        return PageClient(self.address)

    def wait_until_ready(self, lsn: int = 0, timeout_seconds: float = READY_SECONDS_MAX) -> int:
        """Wait until the base backup is complete and `lsn` can be read; the ready LSN."""
        deadline = time.monotonic() + timeout_seconds
        said = "it does not answer"
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                code = None if self.process is None else self.process.returncode
                raise PageServerFailed(f"the page server ended with {code}:\n{self.log_tail()}")
            try:
                with self.client() as client:
                    status = client.status()
            except (ConnectError, PageServerError) as error:
                said = str(error)
            else:
                ready, horizon = (_lsn(status[name]) for name in ("ready_lsn", "horizon_lsn"))
                if ready is not None and horizon is not None and ready >= max(lsn, horizon):
                    return ready
                said = f"ready at {status['ready_lsn']}, horizon at {status['horizon_lsn']}"
            time.sleep(_POLL_SECONDS)
        raise PageServerFailed(
            f"the page server was not ready at {lsn_text.show(lsn)} within "
            f"{timeout_seconds:.0f} s ({said}):\n{self.log_tail()}"
        )

    def stop(self) -> int:
        """SIGTERM: it flushes and ends; its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PageServerFailed(
                f"the page server did not stop within {STOP_SECONDS_MAX:.0f} s:\n{self.log_tail()}"
            ) from None

    def kill(self) -> None:
        """SIGKILL, for processes that it started as well."""
        if self.process is not None and self.running:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def log_tail(self, line_count: int = 30) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-line_count:])


def _lsn(value: object) -> int | None:
    return None if value is None else lsn_text.parse(str(value))
