"""A stopped PostgreSQL data directory as pages: its relation forks, SLRU segments, relation maps.

global/                                     tablespace 1664, database 0
base/<db>/                                  tablespace 1663
pg_tblspc/<spc>/PG_<major>_<catalog>/<db>/  the others
  <rel>[_fsm|_vm|_init][.<segment>]         1 GiB each but the last
  t<backend>_<rel>…                         temporary relations: not in WAL
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from formats.chunk import BLOCK_BYTES, FORK_NAMES, SEGMENT_BLOCKS, Fork, Slru

DEFAULT_TABLESPACE, GLOBAL_TABLESPACE = 1663, 1664

SLRU_DIRECTORIES = {
    Slru.XACT: "pg_xact",
    Slru.MULTIXACT_MEMBERS: "pg_multixact/members",
    Slru.MULTIXACT_OFFSETS: "pg_multixact/offsets",
    Slru.COMMIT_TS: "pg_commit_ts",
}

_RELATION_FILE = re.compile(r"(t\d+_)?(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?")
_OTHER_FILE = re.compile(
    r"pg_filenode\.map|pg_internal\.init(\.\d+)?|PG_VERSION|pg_control"
    r"|pgsql_tmp"
)
_FORKS = {name: fork for fork, name in FORK_NAMES.items()}


class RelationFork(NamedTuple):
    """Which fork of which relation."""

    spc: int
    db: int
    rel: int
    fork: int


@dataclass
class Contents:
    """What a data directory holds, by path relative to it."""

    forks: dict[RelationFork, list[Path]] = field(default_factory=dict)
    """The segment files of each fork, in order."""
    temporary: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    databases: dict[tuple[int, int], Path] = field(default_factory=dict)
    """(spc, db) → directory; global/ is (1664, 0)."""


def scan(data_dir: Path) -> Contents:
    """Everything in a data directory that could be a relation."""
    contents = Contents()
    for spc, db, directory in _database_directories(data_dir):
        contents.databases[spc, db] = directory.relative_to(data_dir)
        segments: dict[RelationFork, dict[int, Path]] = {}
        for path in sorted(directory.iterdir()):
            match = _RELATION_FILE.fullmatch(path.name)
            relative = path.relative_to(data_dir)
            if match is None:
                if not _OTHER_FILE.fullmatch(path.name):
                    contents.unknown.append(relative)
            elif match[1]:
                contents.temporary.append(relative)
            else:
                fork = RelationFork(spc, db, int(match[2]), _FORKS[match[3] or "main"])
                segments.setdefault(fork, {})[int(match[4] or 0)] = relative
        for fork, files in segments.items():
            contents.forks[fork] = [files[number] for number in sorted(files)]
            if sorted(files) != list(range(len(files))):
                contents.unknown.extend(files.values())
    return contents


def _database_directories(data_dir: Path) -> Iterator[tuple[int, int, Path]]:
    yield GLOBAL_TABLESPACE, 0, data_dir / "global"
    for directory in (data_dir / "base").iterdir():
        if directory.name.isdigit():
            yield DEFAULT_TABLESPACE, int(directory.name), directory
    for tablespace in (data_dir / "pg_tblspc").iterdir():
        for directory in tablespace.glob("PG_*/*"):
            if directory.name.isdigit():
                yield int(tablespace.name), int(directory.name), directory


class ForkFile:
    """The blocks of one fork, read across its segment files."""

    def __init__(self, data_dir: Path, segments: list[Path]) -> None:
        self.path = segments[0]
        self._segments = [data_dir / path for path in segments]
        sizes = [path.stat().st_size for path in self._segments]
        self.n_blocks = sum(sizes) // BLOCK_BYTES
        self.is_whole = all(size == SEGMENT_BLOCKS * BLOCK_BYTES for size in sizes[:-1]) and (
            sizes[-1] % BLOCK_BYTES == 0
        )

    def read(self, first_block: int, count: int) -> bytes:
        """Blocks that lie in one segment."""
        segment, block = divmod(first_block, SEGMENT_BLOCKS)
        with open(self._segments[segment], "rb") as file:
            file.seek(block * BLOCK_BYTES)
            return file.read(count * BLOCK_BYTES)


def fork_path(fork: RelationFork) -> str:
    """Where a fork would lie, for one that the directory does not have."""
    suffix = "" if fork.fork == Fork.MAIN else "_" + FORK_NAMES[Fork(fork.fork)]
    if fork.spc == GLOBAL_TABLESPACE:
        return f"global/{fork.rel}{suffix}"
    if fork.spc == DEFAULT_TABLESPACE:
        return f"base/{fork.db}/{fork.rel}{suffix}"
    return f"pg_tblspc/{fork.spc}/*/{fork.db}/{fork.rel}{suffix}"


def slru_segments(data_dir: Path, kind: Slru) -> dict[int, Path]:
    """Segment number → path relative to the data directory."""
    directory = data_dir / SLRU_DIRECTORIES[kind]
    return {
        int(path.name, 16): path.relative_to(data_dir)
        for path in sorted(directory.iterdir())
        if re.fullmatch("[0-9A-F]{4,6}", path.name)
    }
