"""A data directory whose bundles lie in a bucket, as far as they are not here.

A bundle that is not in layers/ and of which the manifest says that it was uploaded is opened all
the same, and read by range requests (engine/remote_blocks.py). What is above sees a file: it is
listed, has a size, and is removed for good by `remove`. A local one comes first.

Bundles never change, and an object's name is never used twice, so what is kept of one stays true.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from engine.block_cache import BlockCache
from engine.remote_blocks import RemoteBlocks, RemoteObject
from engine.remote_files import RemoteFiles
from engine.storage import File, Storage
from formats import layer_file
from formats.bucket import LayerObject
from formats.errors import CorruptionError
from formats.file_name import SUFFIX, FileName
from formats.manifest import Manifest

CACHE_NAME = "cache"
TAIL_BYTES_MIN = 128 << 10  # of a bundle, fetched before it is opened: what it has of itself
TAIL_SHARE = 128  # or this part of it, if that is more: tables take 1/140 of a bundle, or less


class RemoteFile(File):
    """An open one that is not here."""

    is_local = False

    def __init__(self, path: Path, source: RemoteObject) -> None:
        super().__init__(path, -1, source.size)
        self.source = source


class LazyStorage(Storage):
    """Of one data directory. `learn` says what the bucket has."""

    is_lazy = True

    def __init__(self, directory: Path, files: RemoteFiles, cache_bytes: int) -> None:
        super().__init__()
        self._layers = directory / "layers"
        self._remote: dict[str, RemoteObject] = {}  # by the name of the bundle
        self.blocks = RemoteBlocks(files, BlockCache(self, directory / CACHE_NAME, cache_bytes))

    def learn(self, manifest: Manifest) -> None:
        """Which bundles are in the bucket, of those that count."""
        for name, epoch in manifest.uploaded.items():
            self.add(name, epoch, manifest.files[name].bytes_total)

    def add(self, name: FileName, epoch: int, size: int) -> None:
        """A bundle is in the bucket, whether it is here or not."""
        there = LayerObject(epoch, name).text
        if name.text not in self._remote or self._remote[name.text].name != there:
            self._remote[name.text] = RemoteObject(there, size)

    def evict(self, path: Path) -> None:
        """Remove the local file of a bundle that is in the bucket; who has it open reads on."""
        if self.source_of(path) is None:
            raise ValueError(f"{path} is only here")
        super().remove(path)

    def bundles_here(self) -> list[FileName]:
        """The local ones."""
        names = super().list(self._layers)
        return [FileName.parse(name) for name in names if name.endswith(SUFFIX)]

    def is_here(self, path: Path) -> bool:
        """Whether a file is local."""
        return super().exists(path)

    def source_of(self, path: Path) -> RemoteObject | None:
        """Where the bucket has a bundle."""
        return self._remote.get(path.name) if path.parent == self._layers else None

    def open(self, path: Path, writable: bool = False) -> File:
        try:
            return super().open(path, writable)
        except FileNotFoundError:
            source = self.source_of(path)
            if source is None or writable:
                raise
        return RemoteFile(path, source)

    def close(self, file: File) -> None:
        if not isinstance(file, RemoteFile):
            super().close(file)

    def pread(self, file: File, offset: int, length: int) -> bytes:
        if isinstance(file, RemoteFile):
            return self.blocks.read(file.source, offset, length)
        return super().pread(file, offset, length)

    def pread_once(self, file: File, offset: int, length: int) -> bytes:
        if isinstance(file, RemoteFile):
            return self.blocks.read_once(file.source, offset, length)
        return super().pread_once(file, offset, length)

    def doubt(self, file: File, offset: int, length: int) -> bool:
        if not isinstance(file, RemoteFile):
            return super().doubt(file, offset, length)
        self.blocks.doubt(file.source, offset, length)
        return True

    def foreseeing(self, bring: Callable[[], None]) -> AbstractContextManager[None]:
        return self.blocks.foreseeing(bring)

    def bring(self, parts: Iterable[tuple[File, int, int]]) -> None:
        self.blocks.bring(
            (file.source, offset, length)
            for file, offset, length in parts
            if isinstance(file, RemoteFile)
        )

    def expect(self, paths: Sequence[Path]) -> None:
        """Two rounds of requests: the ends of all, then what their footers say lies before."""
        absent = [path for path in paths if not self.is_here(path)]
        sources = [(path, source) for path in absent if (source := self.source_of(path))]
        starts = [_tail_start(source) for _, source in sources]
        self.blocks.bring(
            (source, start, source.size - start)
            for (_, source), start in zip(sources, starts, strict=True)
        )
        rest = []
        for (path, source), start in zip(sources, starts, strict=True):
            first = self._directory_offset(path, source)
            rest.append((source, first, start - first))
        self.blocks.bring(part for part in rest if part[2] > 0)

    def _directory_offset(self, path: Path, source: RemoteObject) -> int:
        """Where a bundle's layer directory begins; its end if nobody can tell: who opens it says
        why."""
        name = FileName.parse(path.name)
        with contextlib.suppress(CorruptionError, OSError):
            end = source.size - layer_file.TRAILER_BYTES
            trailer = self.blocks.read(source, end, layer_file.TRAILER_BYTES)
            length, crc = layer_file.unpack_trailer(trailer, str(path))
            body = self.blocks.read(source, max(0, end - length), length)
            identity = layer_file.identity_of(name)
            return layer_file.unpack_footer(body, crc, identity, name, str(path)).directory_offset
        return source.size

    def stream(self, source: RemoteObject) -> Iterator[bytes]:
        """All of an object."""
        return self.blocks.stream(source)

    def remove(self, path: Path) -> None:
        """For good."""
        if self.source_of(path) is None or self.is_here(path):
            super().remove(path)
        if path.parent == self._layers:
            self._remote.pop(path.name, None)

    def list(self, path: Path) -> list[str]:
        names = super().list(path)
        return names if path != self._layers else sorted({*names, *list(self._remote)})

    def exists(self, path: Path) -> bool:
        return self.source_of(path) is not None or super().exists(path)

    def file_size(self, path: Path) -> int:
        source = self.source_of(path)
        return super().file_size(path) if source is None else source.size


def _tail_start(source: RemoteObject) -> int:
    return max(0, source.size - max(TAIL_BYTES_MIN, source.size // TAIL_SHARE))
