"""What the storage engine asks a bucket for: server/backup/bucket_files.py does it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol


class RemoteFiles(Protocol):
    """Objects of a bucket. Any thread may call.

    UnreachableError: the bucket does not answer, or refuses us. FileNotFoundError: it has no such
    object. The text says which, and what was asked.
    """

    def read(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only where the object ends."""

    def read_many(
        self,
        ranges: Sequence[tuple[str, int, int]],
        take: Callable[[int, bytes | OSError], None],
    ) -> None:
        """`read` of each (name, start, length), several at the same time. `take` gets the place of
        each in `ranges` with what came, or the error, when it comes and by any thread. After an
        UnreachableError none is asked for any more: they all have it."""

    def stream(self, name: str) -> Iterator[bytes]:
        """All of an object, in pieces."""
