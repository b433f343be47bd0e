"""Ranges of objects as the storage engine asks for them: the bucket's errors in its words."""

import errno
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from engine.errors import UnreachableError
from server.backup.object_store import NotThereError, ObjectStore, StoreError

PARALLEL_REQUESTS = 16
LOST = "the bucket has lost an object that its manifest names"


class BucketFiles:
    """The RemoteFiles of engine/remote_files.py, in an ObjectStore."""

    def __init__(self, store: ObjectStore, gone: str = LOST) -> None:
        """`gone`: what is to be said of an object that is not there."""
        self._store = store
        self._gone = gone
        self._threads = ThreadPoolExecutor(PARALLEL_REQUESTS, thread_name_prefix="bucket-files")

    def read(self, name: str, start: int, length: int) -> bytes:
        with self._in_our_words(name):
            return self._store.get(name, start, length)

    def read_many(
        self,
        ranges: Sequence[tuple[str, int, int]],
        take: Callable[[int, bytes | OSError], None],
    ) -> None:
        failed: list[UnreachableError] = []

        def read(place: int) -> None:
            found: bytes | OSError
            try:
                found = failed[0] if failed else self.read(*ranges[place])
            except UnreachableError as error:
                failed.append(error)
                found = error
            except OSError as error:
                found = error
            take(place, found)

        for _ in self._threads.map(read, range(len(ranges))):
            pass

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
