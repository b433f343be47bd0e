"""Local bundles that the bucket has too, and that go when there is too little room for all.

    bundle is in the bucket ──> file_uploaded in the manifest, fsynced ──> the local file goes

The record comes first: whatever ends the process between the two, the bundle is here or is known to
be in the bucket, or both. L0 bundles stay, as every read looks into them. Of the others those go
first that nobody has read since the start, the oldest of them first, then those whose last read is
longest ago. Whoever has a file open goes on reading it.
"""

import threading
from collections.abc import Mapping

from engine.layer_store import LayerStore
from engine.lazy_storage import LazyStorage
from formats.file_name import FileName

EVICTED_AT_ONCE = 64  # by one record


class Eviction:
    """Of one store. `note` from any thread, `step` from the one that compacts, as it unlinks."""

    def __init__(self, storage: LazyStorage, bytes_max: int) -> None:
        """`bytes_max`: of bundles that stay here; 0: all do."""
        self.evicted = 0  # files, since the start
        self._storage = storage
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._uploaded: dict[FileName, int] = {}  # by their epochs, as the bucket was last heard
        self._looked_at = (-1, -1)  # serial of the manifest, bundles that were noted

    def note(self, uploaded: Mapping[FileName, int]) -> None:
        """An entry of the bucket's manifest that will stay names these, by the writers' epochs."""
        with self._lock:
            self._uploaded.update(uploaded)

    def forget_noted(self) -> None:
        """What the bucket has is to be heard anew, all of it; by any thread."""
        with self._lock:
            self._uploaded = {}

    def look_anew(self) -> None:
        """Files have come here; by any thread."""
        self._looked_at = (-1, -1)

    def epoch_of(self, layers: LayerStore, name: FileName) -> int | None:
        """Under which the bucket has a bundle, None: it has not, as far as is known here."""
        return self._uploaded.get(name, layers.state.uploaded.get(name))

    def step(self, layers: LayerStore) -> bool:
        """Let some go if there are too many; whether there were."""
        state = layers.state
        now = state.serial, len(self._uploaded)
        if not self._bytes_max or now == self._looked_at:
            return False
        self._looked_at = now
        with self._lock:
            for name in [name for name in self._uploaded if name not in state.files]:
                del self._uploaded[name]
        here = [name for name in self._storage.bundles_here() if name in state.files]
        excess = sum(state.files[name].bytes_total for name in here) - self._bytes_max
        if excess <= 0:
            return False
        going: dict[FileName, int] = {}
        for name in self._coldest_first(layers, here):
            # What the manifest here says of the bucket is not enough: it may have been emptied.
            epoch = self._uploaded.get(name)
            if excess <= 0 or len(going) == EVICTED_AT_ONCE:
                break
            if epoch is not None:
                going[name] = epoch
                excess -= state.files[name].bytes_total
        self._evict(layers, going)
        return bool(going)

    def _coldest_first(self, layers: LayerStore, here: list[FileName]) -> list[FileName]:
        l0 = {bundle.reader.name for bundle in layers.map.l0}
        last_read = {name: place for place, name in enumerate(layers.map.by_last_read())}
        below = [name for name in here if name not in l0]
        return sorted(below, key=lambda name: (last_read.get(name, -1), name[1:]))

    def _evict(self, layers: LayerStore, going: Mapping[FileName, int]) -> None:
        for name in layers.note_uploaded(going):
            self._storage.add(name, going[name], layers.state.files[name].bytes_total)
            layers.map.forget(name)
            self._storage.evict(layers.directory / name.text)
            self.evicted += 1
