"""The directory that a restore fills: what it may find there, and what says that it is not done.

    D/restore      which restore this is: there from its first byte to its last
    D/layers/X     a whole bundle, checked and fsynced;  X.part: one that comes
    D/outlines     to make the index by, if the bucket has them; the first start removes it
    D/manifest     appears last, whole: from then on the directory can be served

So a restore that was cut off goes on where it was: what is in layers/ under its own name stays. The
file is a line of JSON and one with its CRC-32C in eight hex digits.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from crc32c import crc32c

from engine.errors import DirectoryRefusedError
from engine.storage import File, Storage
from formats import outline
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.lsn import show as show_lsn
from server.backup.restore_plan import RestoreRefusedError

MARK_NAME = "restore"
PART_SUFFIX = ".part"
BESIDE = {"lock", "pageserver.toml", "lost+found", MARK_NAME, MARK_NAME + ".new"}
"""What may lie in a directory that counts as empty."""


@dataclass(frozen=True)
class Wanted:
    """What a restore is of: one that is cut off is finished by the same again."""

    url: str
    lsn: int | None = None
    chunks: str | None = None
    lazy: bool = False

    def __str__(self) -> str:
        parts = [self.url]
        parts += [] if self.lsn is None else [f"as of {show_lsn(self.lsn)}"]
        parts += [] if self.chunks is None else [f"of chunks {self.chunks}"]
        return " ".join([*parts, *(["lazily"] if self.lazy else [])])


class Target:
    """Holds the directory's lock until it is closed."""

    def __init__(self, storage: Storage, directory: Path) -> None:
        self.storage = storage
        self.directory = directory
        self.layers = directory / "layers"
        self.journal = directory / "journal"
        self.manifest = directory / "manifest"
        storage.make_directory(directory)
        storage.sync_directory(directory.parent)
        self._lock: File = storage.lock(directory / "lock")

    def close(self) -> None:
        self.storage.close(self._lock)

    def begin(self, wanted: Wanted) -> bool:
        """Whether there is something to do: False if an earlier run has done all of it.

        RestoreRefusedError if the directory has anything but an unfinished restore of just this.
        """
        storage = self.storage
        if refuse_others(storage, self.directory, wanted) is None:
            self._write_mark(wanted)
        else:
            storage.sync_directory(self.directory)  # who wrote the mark may have come no further
        if storage.exists(self.manifest):
            self.finish()
            return False
        for path in (self.layers, self.journal):
            storage.make_directory(path)
        return True

    def finish(self) -> None:
        """The manifest is there: nothing is unfinished any more."""
        self.storage.remove(self.directory / MARK_NAME)
        self.storage.sync_directory(self.directory)

    def begin_anew(self, wanted: Wanted) -> None:
        """Forget what was restored here, of which nothing counts any more; `begin` goes on.

        In an order in which no index outlives the manifest whose files it knows.
        """
        storage, index = self.storage, self.directory / "index"
        self._write_mark(wanted)
        if storage.exists(index):
            for name in storage.list(index):
                storage.remove(index / name)
            storage.sync_directory(index)
        storage.remove(self.manifest)
        storage.sync_directory(self.directory)

    def _write_mark(self, wanted: Wanted) -> None:
        draft = self.directory / (MARK_NAME + ".new")
        line = json.dumps(asdict(wanted)).encode()
        self._write(draft, line + f"\n{crc32c(line):08x}\n".encode())
        self.storage.rename(draft, self.directory / MARK_NAME)
        self.storage.sync_directory(self.directory)

    def write_outlines(self, data: bytes) -> None:
        """Of bundles (formats/outline.py), some of these perhaps not this directory's."""
        self._write(self.directory / outline.FILE_NAME, data)

    def _write(self, path: Path, data: bytes) -> None:
        """A whole file, in the place of one that a run before this has left."""
        if self.storage.exists(path):
            self.storage.remove(path)
        file = self.storage.create(path)
        self.storage.append(file, [data])
        self.storage.sync(file)
        self.storage.close(file)

    def keep_bundles(self, sizes: dict[str, int]) -> set[str]:
        """Remove what is not one of these bundles, as a whole; the names of those that are there.

        `sizes`: bytes of each by name.
        """
        kept = set()
        for name in self.storage.list(self.layers):
            path = self.layers / name
            if self.storage.file_size(path) == sizes.get(name):
                kept.add(name)
            elif name.removesuffix(PART_SUFFIX) in sizes or _is_bundle(name):
                self.storage.remove(path)
        return kept


def read_mark(storage: Storage, directory: Path) -> Wanted | None:
    """Of which restore a directory is the unfinished result; None if it is none."""
    path = directory / MARK_NAME
    if not storage.exists(path):
        return None
    content = storage.read_all(path)
    line, _, rest = content.partition(b"\n")
    if rest != f"{crc32c(line):08x}\n".encode():
        raise CorruptionError("mark of a restore", str(path), f"{crc32c(line):08x}", rest)
    return Wanted(**json.loads(line))


def refuse_others(storage: Storage, directory: Path, wanted: Wanted) -> Wanted | None:
    """The restore that was begun here, which is just this one, if any was; RestoreRefusedError if
    the directory has anything else."""
    if not storage.exists(directory):
        return None
    begun = read_mark(storage, directory)
    if begun is None:
        found = [name for name in storage.list(directory) if name not in BESIDE]
        if found:
            raise RestoreRefusedError(
                f"{directory} is not empty: it has {found[0]}. Restore into an empty directory, or "
                "one that does not exist yet"
            )
    elif begun != wanted:
        raise RestoreRefusedError(
            f"{directory} has an unfinished restore of {begun}, and not of {wanted}: finish that "
            "one, or remove the directory"
        )
    return begun


def refuse_unfinished(storage: Storage, directory: Path) -> None:
    """DirectoryRefusedError if a restore was begun here that has no manifest yet."""
    if storage.exists(directory / "manifest"):
        return
    begun = read_mark(storage, directory)
    if begun is not None:
        raise DirectoryRefusedError(
            f"{directory} has an unfinished restore of {begun}: run `pageserver restore` once more "
            "with the same options, which finishes it, or remove the directory"
        )


def _is_bundle(name: str) -> bool:
    try:
        FileName.parse(name.removesuffix(PART_SUFFIX))
    except ValueError:
        return False
    return True
