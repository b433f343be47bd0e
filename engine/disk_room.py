"""Room on the disk: whether there is enough for what is written in bulk, and waiting for it.

    |<------------------- the file system ------------------->|
    | used                          | free, for all | reserve  |

Journal, bundles and what else comes in megabytes stop at the reserve, so that the few kilobytes of
the manifest and the index, which make the rest count, still find room. Others may fill the disk
all the same, so a write that fails for want of room is no fault here: it is waited out and done
again. Any other error of the disk is, and nobody tries again by himself.
"""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from engine.errors import IngestStopped, UnreachableError
from engine.storage import Storage

RESERVE_SHARE = 20  # of the file system: a reserve is never more of a small one
RETRY_SECONDS = 0.5
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MIB = 1 << 20

Result = TypeVar("Result")


class DiskFullError(OSError):
    """There may be room, but only the reserve."""

    def __str__(self) -> str:
        return str(self.strerror)


def is_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no room, which somebody can mend while we run."""
    return isinstance(error, OSError) and error.errno in _FULL


def will_pass(error: BaseException | None) -> bool:
    """Whether nothing is wrong with what is here: the disk is full, or the bucket does not answer,
    and the same may be done again."""
    return is_full(error) or isinstance(error, UnreachableError)


class DiskRoom:
    """The file system that the data directory lies on; any thread."""

    def __init__(self, storage: Storage, directory: Path, reserve_bytes: int) -> None:
        self.problem: OSError | None = None  # what `persist` waits for at the moment
        self._storage = storage
        self._directory = directory
        self._reserve_bytes = reserve_bytes

    def free_bytes(self) -> int:
        return self._storage.space(self._directory).free

    def shortage(self, length: int) -> str:
        """Why `length` bytes must not be written now, "" if they may."""
        space = self._storage.space(self._directory)
        reserve = min(self._reserve_bytes, space.total // RESERVE_SHARE)
        if space.free - length >= reserve:
            return ""
        return (
            f"{self._directory} has {space.free / _MIB:.1f} MiB left, of which "
            f"{reserve / _MIB:.1f} MiB are kept in reserve (disk_reserve_bytes): make room there, "
            "and it goes on by itself"
        )

    def require(self, length: int) -> None:
        """DiskFullError unless `length` bytes may be written in bulk."""
        shortage = self.shortage(length)
        if shortage:
            raise DiskFullError(errno.ENOSPC, shortage, str(self._directory))

    def explain(self, error: OSError) -> str:
        """The same words for a write that found no room."""
        if isinstance(error, DiskFullError | UnreachableError):
            return str(error)
        return f"{error.filename}: {error.strerror}: make room there, and it goes on by itself"

    def persist(self, action: Callable[[], Result], is_given_up: Callable[[], bool]) -> Result:
        """Do what can be done again, until the disk has room for it, and the bucket answers;
        IngestStopped if given up."""
        try:
            while True:
                try:
                    return action()
                except OSError as error:
                    if not will_pass(error):
                        raise
                    self.problem = error
                if is_given_up():
                    what = "disk full" if is_full(self.problem) else "bucket unreachable"
                    raise IngestStopped(f"{what}: {self.explain(self.problem)}")
                time.sleep(RETRY_SECONDS)
        finally:
            self.problem = None
