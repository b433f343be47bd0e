"""The disk of a simulated machine whose layers may be in a bucket, as a server with --s3 has it."""

from collections.abc import Callable
from pathlib import Path

from engine.block_cache import BlockCache
from engine.lazy_storage import CACHE_NAME, LazyStorage
from engine.remote_blocks import RemoteBlocks, RemoteObject
from server.backup.bucket_files import BucketFiles
from tests.fixtures.memory_bucket import MemoryBucket
from tests.fixtures.uploading import InlineExecutor
from tests.simulation.disk import Disk
from tests.simulation.scheduler import Scheduler


class OneByOne(BucketFiles):
    """Has no threads of its own, which nobody would let take turns."""

    def __init__(self, client: MemoryBucket) -> None:
        super().__init__(client)
        self._threads = InlineExecutor()


class LazyDisk(LazyStorage, Disk):
    """Of one machine, which outlives its processes."""

    def __init__(
        self,
        scheduler: Scheduler,
        directory: Path,
        client: MemoryBucket,
        cache_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        """`clock`: seconds."""
        Disk.__init__(self, scheduler)
        self._layers = directory / "layers"
        self._cache_path = directory / CACHE_NAME
        self._objects = OneByOne(client)
        self._cache_bytes = cache_bytes
        self._clock = clock
        self._remote: dict[str, RemoteObject] = {}

    def begin_process(self) -> None:
        """It knows nothing of the bucket, and its cache is empty."""
        self._remote = {}
        cache = BlockCache(self, self._cache_path, self._cache_bytes)
        self.blocks = RemoteBlocks(self._objects, cache, self._clock)
