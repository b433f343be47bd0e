"""Names new bundles and begins them: no name is ever used twice."""

import threading
from collections.abc import Callable
from pathlib import Path

from engine.bundle_writer import BundleWriter
from engine.cluster_identity import Ids
from engine.storage import Storage
from formats.file_name import FileKind, FileName


class BundleFactory:
    """Used by any thread, once `ids` and `run` say whose bundles these are."""

    def __init__(
        self, storage: Storage, directory: Path, require_room: Callable[[int], None]
    ) -> None:
        """`require_room(bytes)` raises an OSError where the disk has none to spare."""
        self.ids: Ids | None = None
        self.run = 1  # of the data directory; a base backup is its first
        self._storage = storage
        self._directory = directory
        self._require_room = require_room
        self._lock = threading.Lock()
        self.sequence = 0  # of the last one

    def create(self, kind: FileKind) -> BundleWriter:
        ids = self.ids
        if ids is None:
            raise LookupError("the base backup has not begun: the cluster is not known yet")
        with self._lock:
            self.sequence += 1
            name = FileName(kind, 0, self.run, self.sequence)
        return BundleWriter(
            self._storage, self._directory, name, ids.tenant, ids.timeline, ids.pg_version,
            require_room=self._require_room,
        )  # fmt: skip
