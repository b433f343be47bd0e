"""Bundles that are in a bucket, for a server with --s3: read there, let go here, brought back.

engine/lazy_storage.py reads those that are not here, engine/eviction.py lets go of those that are
in both places, engine/local_copies.py brings them back. Here is what these are made of, and what
`pageserver status` says of them.
"""

import threading
from collections.abc import Callable, Mapping

from engine.errors import RequestError
from engine.eviction import Eviction
from engine.lazy_storage import LazyStorage
from engine.local_copies import Counts, LocalCopies
from engine.page_store import PageStore
from engine.remote_blocks import RemoteObject
from formats.bucket import LayerObject
from formats.chunk_filter import ChunkFilter
from formats.file_name import FileName
from formats.manifest_record import FileAdded


class RemoteLayers:
    """Of one server."""

    def __init__(self, storage: LazyStorage, store: PageStore, cache_bytes_max: int) -> None:
        """`cache_bytes_max`: of bundles that stay here, 0: all."""
        self._storage = storage
        self._store = store
        self._eviction = Eviction(storage, cache_bytes_max)
        self._restoring = threading.Lock()

    def note_uploaded(self, uploaded: Mapping[FileName, int]) -> None:
        """A durable entry of the bucket's manifest names these, by the epochs of who put them."""
        self._eviction.note(uploaded)

    def forget_uploaded(self) -> None:
        """Who says so will say it anew: nothing goes until then."""
        self._eviction.forget_noted()

    def evict(self) -> bool:
        """Let bundles go if too many are here; by the thread that compacts."""
        store = self._store
        return (
            store.is_complete and not store.remote.is_fenced and self._eviction.step(store.layers)
        )

    def restore_chunks(self, wanted: ChunkFilter, check: Callable[[], None]) -> Counts:
        """Make every bundle with layers of these chunks local and sound; see LocalCopies."""
        if not self._store.is_complete:
            raise RequestError("base backup not complete: there are no layers yet")
        room = self._store.intake.room
        copies = LocalCopies(self._store.layers, self._storage, self._object_of, room.require)
        if not self._restoring.acquire(blocking=False):
            raise RequestError("another session restores chunks: try again when it is done")
        try:
            return copies.restore(wanted, check)
        finally:
            self._restoring.release()
            self._eviction.look_anew()
            if self._store.compactor is not None:
                self._store.compactor.look_anew()

    def _object_of(self, name: FileName, record: FileAdded) -> RemoteObject | None:
        epoch = self._eviction.epoch_of(self._store.layers, name)
        if epoch is None:
            return None
        return RemoteObject(LayerObject(epoch, name).text, record.bytes_total)

    def status(self) -> dict[str, object]:
        """Counts since the start."""
        blocks = self._storage.blocks
        return {
            "cache_bytes": blocks.cache.bytes_used,
            "cache_hit_count": blocks.hits,
            "cache_miss_count": blocks.misses,
            "evicted_count": self._eviction.evicted,
            "remote_read_requests": blocks.requests,
            "remote_read_bytes": blocks.bytes_fetched,
        }
