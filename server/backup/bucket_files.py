"""Ranges of objects as the storage engine asks for them: the bucket's errors in its words."""

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from engine.errors import UnreachableError
from server.backup.object_store import NotThereError, ObjectStore, StoreError

PARALLEL_REQUESTS = 16
LOST = "the bucket has lost an object that its manifest names"


class BucketFiles:
    """The RemoteFiles of engine/remote_blocks.py, in an ObjectStore."""

    def __init__(self, store: ObjectStore, gone: str = LOST) -> None:
        """`gone`: what is to be said of an object that is not there."""
        self._store = store
        self._gone = gone
        self._threads = ThreadPoolExecutor(PARALLEL_REQUESTS, thread_name_prefix="bucket-files")

    def read(self, name: str, start: int, length: int) -> bytes:
        with self._in_our_words(name):
            return self._store.get(name, start, length)

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        return list(self._threads.map(lambda part: self.read(*part), ranges))

    def stream(self, name: str) -> Iterator[bytes]:
        with self._in_our_words(name):
            yield from self._store.get_stream(name)

    @contextmanager
    def _in_our_words(self, name: str) -> Iterator[None]:
        try:
            yield
        except NotThereError as error:
            raise FileNotFoundError(errno.ENOENT, f"{self._gone}: {error}", name) from error
        except StoreError as error:
            text = f"{name} is only in the bucket, which does not answer: {error}"
            raise UnreachableError(errno.EIO, text, name) from error
