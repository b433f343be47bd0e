"""Who lives in a bucket's world: what it asks of them, be they small models or the real ones."""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Protocol

from formats.bucket_state import BucketState
from formats.manifest import Manifest
from server.backup.bucket_manifest import BucketManifest
from tests.fixtures.memory_bucket import Contents, MemoryBucket
from tests.simulation.timelines import Timelines

Acknowledge = Callable[[BucketState, int], None]
"""The state that a writer knows, and up to where its server takes its WAL to be in the bucket."""


class Machine(Protocol):
    """A server with its directory; it outlives the processes that back it up."""

    name: str

    @property
    def manifest(self) -> Manifest: ...

    @property
    def timeline(self) -> int: ...

    def open(self) -> None:
        """The server is started again."""

    def receive(self, records: int, part: float) -> None:
        """So many records, and the beginning of one more; on the source's timeline."""

    def flush(self) -> None: ...

    def compact(self, random: Random) -> None: ...

    def set_point(self) -> None: ...


class Writer(Protocol):
    """What backs a directory up."""

    @property
    def bucket(self) -> BucketManifest: ...

    def run(self) -> None: ...


class Cast(Protocol):
    """Makes those who live in a world; a directory that it is given is one that it made."""

    def begin(self) -> Timelines:
        """Another world, and its source's timelines."""

    def create(self, name: str) -> Machine: ...

    def copy(self, name: str, directory: Any) -> Machine:
        """As a backup tool does: it is a directory of its own, and knows nothing of that."""

    def restore(self, name: str, contents: Contents, state: BucketState) -> Machine: ...

    def forget(self, directory: Any) -> None:
        """It is gone."""

    def end(self) -> None:
        """The world is over."""

    def writer(
        self,
        directory: Any,
        client: MemoryBucket,
        name: str,
        clock: Callable[[], float],
        grace_seconds: float,
        random: Random,
        acknowledge: Acknowledge,
    ) -> Writer: ...

    def ranges(self, contents: Contents, state: BucketState) -> Iterable[tuple[int, int]]:
        """What WAL each object has, that the state names, as far as it counts on the source's
        timeline of now."""
