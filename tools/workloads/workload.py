"""What a workload is: a name, a function, and the server that it needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tools.postgres import Server

LOGICAL = {
    "wal_level": "logical",
    "max_prepared_transactions": "20",
    "track_commit_timestamp": "on",
    "autovacuum": "off",
}
"""So that every kind of record that an ordinary server may write is written."""


class WorkloadSkipped(Exception):
    """It cannot be had for this version or on this machine; the text says why."""


@dataclass(frozen=True)
class Workload:
    name: str
    run: Callable[[Server, int, float], object]
    """`run(server, seed, seconds)`: about so many seconds, where the load has no end of its own.
    Returns None or something that can be said of it in a line.

    Raises WorkloadSkipped, or ProgramFailed if a program of PostgreSQL failed.
    """
    settings: Mapping[str, str] = field(default_factory=lambda: {"autovacuum": "off"})
    checksums: bool = True

    def initdb_arguments(self, major: int) -> tuple[str, ...]:
        if self.checksums:
            return ("--data-checksums",)
        return ("--no-data-checksums",) if major >= 18 else ()
