"""What backup asks of a bucket: a few calls on objects below one prefix.

server/backup/s3_store.py is the one on S3, tests/fixtures/memory_bucket.py one in memory that is
late, twice or never there. Names are those of formats/bucket.py, without the prefix. Any thread may
call.

An object is read back as soon as its PUT was answered (S3 is strongly consistent). A call that
failed with a TransientError may have done its work all the same: whoever calls must bear that.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class StoreError(Exception):
    """A call failed; the text names the call, the object and what the store said."""


class TransientError(StoreError):
    """A timeout, a lost connection, an overloaded store: the same call may do better later."""


class RefusedError(StoreError):
    """The store will not do it however often it is asked: credentials, rights, no such bucket."""


class NotThereError(StoreError):
    """There is no such object."""


class TakenError(StoreError):
    """A conditional PUT met an object of that name, perhaps an earlier attempt's."""


class ObjectInfo(NamedTuple):
    name: str
    size: int
    modified: float  # seconds since 1970, by the store's clock


class ObjectStore(Protocol):
    def put(self, name: str, data: bytes) -> None:
        """Store an object; CRC-32C is sent and checked by the store."""

    def put_new(self, name: str, data: bytes) -> None:
        """The same, unless there is one of that name: TakenError."""

    def put_stream(self, name: str, pieces: Iterator[bytes], size: int) -> None:
        """Store `size` bytes that come in pieces, in parts if they are many. What `pieces` raises
        ends it, and no object is there."""

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """An object, or `length` bytes of it from `start`; fewer only where it ends.
        NotThereError."""

    def get_stream(self, name: str) -> Iterator[bytes]:
        """An object piece by piece. NotThereError."""

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose names begin with `prefix` and sort behind `after`, in order of names."""

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; those that are not there are no error."""

    def now(self) -> float:
        """The store's clock, in seconds since 1970, as its last answer had it."""
