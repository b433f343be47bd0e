"""The only file I/O of the engine. Every other module is handed a `Storage`; tests hand over one
that fails, tears, or forgets what was not synced.

An error names its path. A file whose append or fsync failed is *poisoned*: what its end holds, or
what of it the disk has, is not known any more, and the kernel reports a failed fsync only once, so
every later append or fsync of it fails too. Only opening it anew, and checking it, goes on.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

Bytes = bytes | bytearray | memoryview
_VECTOR_MAX = 1024  # IOV_MAX of Linux
_NOTHING = nullcontext()


class DirectoryInUseError(Exception):
    """Another process holds the directory's lock."""


class PoisonedFileError(OSError):
    """An earlier append or fsync of this file failed."""


class Space(NamedTuple):
    """Of a file system, in bytes."""

    free: int  # what we may still write
    total: int


class File:
    """An open file. Closed when nobody holds it any more, or by `Storage.close`."""

    is_local = True

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = size
        self.is_poisoned = False

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the path into errors of calls that know only a descriptor."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


class Storage:
    """Files and directories of the local disk."""

    is_lazy = False  # whether files may be elsewhere, so that to foresee reads is worth its while

    def create(self, path: Path) -> File:
        """A new file for appending; FileExistsError if there is one."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return File(path, os.open(path, flags, 0o600), 0)

    def open(self, path: Path, writable: bool = False) -> File:
        """An existing file; `writable` for appending at its end."""
        flags = os.O_RDWR | os.O_APPEND if writable else os.O_RDONLY
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        return File(path, descriptor, os.fstat(descriptor).st_size)

    def close(self, file: File) -> None:
        descriptor, file.descriptor = file.descriptor, -1
        with _naming(file.path):
            os.close(descriptor)

    def pread(self, file: File, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`; fewer only where the file ends."""
        with _naming(file.path):
            data = os.pread(file.descriptor, length, offset)
            while len(data) < length:
                more = os.pread(file.descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        return data

    def pread_once(self, file: File, offset: int, length: int) -> bytes:
        """`pread` of one who goes through the file and will not come back: what follows may be
        read ahead, and nothing need be kept."""
        return self.pread(file, offset, length)

    def doubt(self, file: File, offset: int, length: int) -> bool:
        """What was read there does not check. True: another read may give other bytes."""
        return False

    def expect(self, paths: Sequence[Path]) -> None:
        """These bundles are about to be opened, and their directories and tables read."""

    def foreseeing(self, bring: Callable[[], None]) -> AbstractContextManager[None]:
        """Within, `bring` may be called by the calling thread's `pread`, once or more: to tell by
        `expect` and `bring` what else it is going to read."""
        return _NOTHING

    def bring(self, parts: Iterable[tuple[File, int, int]]) -> None:
        """(file, offset, length) are about to be read, the first ones first."""

    def scratch(self, path: Path, size: int) -> File:
        """A file of `size` bytes for `write_at`. It has lost its name when it is open: whatever
        ends the process, the disk has its bytes back."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        file = File(path, os.open(path, flags, 0o600), size)
        with _naming(path):
            os.unlink(path)
            os.ftruncate(file.descriptor, size)
        return file

    def write_at(self, file: File, offset: int, data: Bytes) -> None:
        """Write all of `data` at a place of a scratch file."""
        rest = memoryview(data)
        with _naming(file.path):
            while rest:
                written = os.pwrite(file.descriptor, rest, offset)
                rest, offset = rest[written:], offset + written

    def read_all(self, path: Path) -> bytes:
        file = self.open(path)
        try:
            return self.pread(file, 0, file.size)
        finally:
            self.close(file)

    def append(self, file: File, parts: Sequence[Bytes]) -> None:
        """Write all parts at the file's end, in order."""
        self._refuse_poisoned(file)
        try:
            with _naming(file.path):
                for start in range(0, len(parts), _VECTOR_MAX):
                    self._append_vector(file, parts[start : start + _VECTOR_MAX])
        except BaseException:
            file.is_poisoned = True
            raise

    def _append_vector(self, file: File, parts: Sequence[Bytes]) -> None:
        length = sum(len(part) for part in parts)
        written = self._write(file, parts)
        file.size += written
        if written == length:
            return
        rest = memoryview(b"".join(parts))[written:]
        while rest:
            written = self._write(file, [rest])
            file.size += written
            rest = rest[written:]

    def _write(self, file: File, parts: Sequence[Bytes]) -> int:
        """One system call, which may take less than all; how much it took."""
        return os.writev(file.descriptor, parts)

    def truncate(self, file: File, size: int) -> None:
        """Cut the file to `size` bytes."""
        self._refuse_poisoned(file)
        with _naming(file.path):
            os.ftruncate(file.descriptor, size)
        file.size = size

    def sync(self, file: File) -> None:
        """fsync: data and size."""
        self._refuse_poisoned(file)
        try:
            with _naming(file.path):
                self._flush(file)
        except BaseException:
            file.is_poisoned = True
            raise

    def _flush(self, file: File) -> None:
        os.fsync(file.descriptor)

    def _refuse_poisoned(self, file: File) -> None:
        if file.is_poisoned:
            raise PoisonedFileError(
                5, "an earlier write or fsync failed; the file must be opened anew", str(file.path)
            )

    def sync_directory(self, path: Path) -> None:
        """fsync of a directory: the names in it."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _naming(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name in the same file system; FileExistsError if there is one."""
        os.link(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def remove_directory(self, path: Path) -> None:
        """An empty directory."""
        path.rmdir()

    def make_directory(self, path: Path) -> None:
        """A directory, if it is not there yet; its parent must be."""
        path.mkdir(mode=0o700, exist_ok=True)

    def list(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        return sorted(os.listdir(path))

    def exists(self, path: Path) -> bool:
        return path.exists()

    def is_at(self, file: File, path: Path) -> bool:
        """Whether `path` names this open file, and not one that took its place, or none."""
        found = os.fstat(file.descriptor)
        try:
            named = os.stat(path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == (named.st_dev, named.st_ino)

    def file_size(self, path: Path) -> int:
        return os.stat(path).st_size

    @contextmanager
    def committing(self, path: Path) -> Iterator[None]:
        """Around a transaction of the LMDB environment in directory `path`: on disk when left.

        LMDB does its own I/O; here it only says when.
        """
        yield

    def space(self, path: Path) -> Space:
        """What the file system that `path` lies on has."""
        found = os.statvfs(path)
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def allocate(self, path: Path, size: int) -> None:
        """Give a file `size` bytes of disk at once, zeros where it has none; it may be new.

        For a file that is written by way of memory: where the disk is full by then, it kills.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _naming(path):
                os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)

    def lock(self, path: Path) -> File:
        """Hold the lock file `path` until the result is closed; DirectoryInUseError if another
        process holds it. The lock dies with the process."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file = File(path, descriptor, 0)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUseError(
                f"{path.parent} is in use by another process; stop it first"
            ) from None
        return file
