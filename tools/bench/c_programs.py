"""The C programs of the benchmarks: compiled when first needed, started, measured."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import sysconf
from pathlib import Path

SOURCES = Path(__file__).parent
BUILD = SOURCES.parent.parent / "build" / "bench"
BARE = "bare"


class ProgramError(Exception):
    """A program did not compile or failed; the text holds its last words."""


@dataclass(frozen=True)
class Load:
    """What a client asked for and got."""

    pages: int
    seconds: float
    client_cpu_seconds: float
    checked: int
    server_cpu_seconds: float

    @property
    def pages_per_second(self) -> float:
        return self.pages / self.seconds

    @property
    def server_cpu_us(self) -> float:
        """Of the server, for each page; clock ticks of 10 ms, so only for runs of seconds."""
        return 1e6 * self.server_cpu_seconds / max(1, self.pages)

    @property
    def client_cores(self) -> float:
        return self.client_cpu_seconds / self.seconds


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / sysconf("SC_CLK_TCK")


class CPrograms:
    def __init__(self) -> None:
        self._built: set[str] = set()

    def path(self, name: str) -> Path:
        """The program of `name`.c, compiled with `cc` if that was not done in this run."""
        target = BUILD / name
        if name not in self._built:
            BUILD.mkdir(parents=True, exist_ok=True)
            source = SOURCES / f"{name}.c"
            command = ["cc", "-O2", "-Wall", "-pthread", "-o", str(target), str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise ProgramError(f"cc {source} ended with {done.returncode}:\n{done.stderr}")
            self._built.add(name)
        return target

    @contextmanager
    def peer(self, mode: str, page_count: int) -> Iterator[tuple[int, int]]:
        """A running page_peer: its process id and port."""
        command = [str(self.path("page_peer")), mode, str(page_count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield process.pid, int(process.stdout.readline())
            finally:
                process.kill()

    def check(self, port: int, frames: Path, query: str) -> None:
        """Ask for every page once; each must come, and be what was asked for."""
        self._run_load(port, 1, 32, 0, frames, query)

    def load(
        self,
        server: tuple[int, int],
        frames: Path,
        query: str,
        *,
        seconds: float,
        connections: int = 1,
        depth: int = 1,
    ) -> Load:
        """Ask `server` (process id, port) for the pages of `frames` for so long."""
        pid, port = server
        before = cpu_seconds(pid)
        values = self._run_load(port, connections, depth, seconds, frames, query)
        used = cpu_seconds(pid) - before
        return Load(
            int(values["pages"]),
            values["seconds"],
            values["client_cpu_seconds"],
            int(values["checked"]),
            used,
        )

    def _run_load(self, *words: object) -> dict[str, float]:
        command = [str(self.path("page_load")), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise ProgramError(f"page_load ended with {done.returncode}:\n{done.stderr}")
        values: dict[str, float] = json.loads(done.stdout)
        return values
