"""What a commit left undone, as when the disk was full: finished before the next one.

manifest    a record of which nobody knows whether it was written: it is not true
index       behind the manifest: caught up with it, as at a start, and the layer map with it
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.index import Index
from engine.index_rebuild import catch_up
from engine.layer_map import LayerMap
from engine.manifest_log import ManifestLog
from engine.storage import Storage


class CommitMending:
    """Used with the lock that lets one commit at a time."""

    def __init__(self, storage: Storage, directory: Path) -> None:
        """`directory` is where the bundles lie."""
        self._storage = storage
        self._directory = directory
        self._is_due = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Around each commit: one that fails is to be mended."""
        try:
            yield
        except BaseException:
            self._is_due = True
            raise

    def mend(self, manifest: ManifestLog, index: Index, layers: LayerMap) -> bool:
        """Whether anything had to be; OSError while there is no room for it: to be called again."""
        if not self._is_due:
            return False
        manifest.mend()
        catch_up(index, self._storage, manifest.state, self._directory)
        layers.reload(manifest.state.removed)
        self._is_due = False
        return True
