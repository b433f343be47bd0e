"""A Storage that counts: what is written to which kind of file, and what is read."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engine.storage import Bytes, File, Storage


class CountingStorage(Storage):
    """Everything as Storage does it, and counted; threads may count a little less than they do."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.reads = 0
        self.bytes_read = 0

    def append(self, file: File, parts: Sequence[Bytes]) -> None:
        super().append(file, parts)
        self.written[_kind(file.path)] += sum(len(part) for part in parts)

    def pread(self, file: File, offset: int, length: int) -> bytes:
        data = super().pread(file, offset, length)
        self.reads += 1
        self.bytes_read += len(data)
        return data


def _kind(path: Path) -> str:
    """`l0`, `l1` or `image` of a bundle, else the name of the file or of its directory."""
    if path.suffix == ".bundle":
        return path.name.partition("-")[0]
    return "journal" if path.parent.name == "journal" else path.name


def bytes_written_so_far() -> int:
    """By all write calls of this process, LMDB's too."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise ValueError("/proc/self/io does not say what was written")


def bytes_on_disk(directory: Path) -> int:
    """Of a tree, as allocated: the index is sparse."""
    return sum(512 * path.stat().st_blocks for path in directory.rglob("*") if path.is_file())
