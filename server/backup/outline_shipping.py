"""Outlines of the bundles in the bucket (formats/outline.py), kept there in one object.

    a bundle is sent ─> its outline is made ─┐
    newest object of outlines, read once ────┴─> all of them, put anew when enough is new

They spare whoever begins with the bucket a request for each bundle, and are no part of the chain:
what they say of a bundle is true for ever, and what they lack the bundle itself says. So any writer
may put them at any time, and nothing waits for them.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.bundle_outline import outline_of
from engine.bundle_reader import BundleReader
from engine.storage import Storage
from formats.bucket import OUTLINES, is_outlines_name, outlines_name
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.manifest_record import FileAdded
from formats.outline import pack_outline, pack_outlines, size_of, split_outlines
from server.backup.object_store import NotThereError, ObjectStore

SENT_PER_BYTE = 16  # bytes of new bundles for each byte of outlines that is put anew
SENT_BYTES_MIN = 1 << 20  # that a new bundle counts for: to ask it costs a request
MADE_AT_ONCE = 8  # of bundles that were sent before
SECONDS_MIN = 10.0  # between two objects; who dies leaves what came since to be asked for
KEPT = 2  # objects: somebody may be about to read the one before the newest
_log = logging.getLogger("pageserver.backup")


def newest_outlines(store: ObjectStore) -> tuple[str, bytes] | None:
    """The newest object of outlines and its bytes, None: there is none. StoreError."""
    names = [info.name for info in store.list(OUTLINES) if is_outlines_name(info.name)]
    for name in reversed(names):
        try:
            return name, b"".join(store.get_stream(name))
        except NotThereError:  # a newer one has come
            continue
    return None


class OutlineShipping:
    """Of one uploader. `next_job` is asked by its one thread; the jobs run in others."""

    def __init__(
        self,
        store: ObjectStore,
        storage: Storage,
        layers: Path,
        clock: Callable[[], float],
    ) -> None:
        """`layers`: where bundles lie that were sent before."""
        self.superseded: list[str] = []  # objects that nobody needs; whoever deletes them says so
        self._store = store
        self._storage = storage
        self._layers = layers
        self._clock = clock
        self._lock = threading.Lock()
        self._packed: dict[FileName, bytes] = {}
        self._kept: list[str] = []  # our newest objects, and perhaps one of an earlier writer
        self._in_newest: frozenset[FileName] = frozenset()
        self._not_here: set[FileName] = set()
        self._is_read = False
        self._looked_at: Mapping[FileName, FileAdded] | None = None
        self._is_settled = False  # for those files: all that is worth it was put
        self._count = 0
        self._put_at = clock()

    def outline(self, path: Path) -> None:
        """Make the outline of a bundle, if it is here. In any thread."""
        reader = BundleReader(self._storage, path)
        try:
            packed = pack_outline(outline_of(reader))
        except (CorruptionError, OSError) as error:
            if not isinstance(error, FileNotFoundError):  # it may be in the bucket alone, or gone
                _log.warning("%s is not outlined: %s", path, error)
            with self._lock:
                self._not_here.add(reader.name)
        else:
            with self._lock:
                self._packed[reader.name] = packed
                self._is_settled = False

    def next_job(
        self, files: Mapping[FileName, FileAdded], epoch: int
    ) -> Callable[[], None] | None:
        """What is to be done next, by another thread, for a bucket with these files.

        StoreError: it is due once more.
        """
        if not self._is_read:
            return self._read
        with self._lock:
            if self._is_settled and files is self._looked_at:
                return None  # else all names would be compared at each step
            self._looked_at, self._is_settled = files, False
            for gone in self._in_newest - files.keys():
                self._packed.pop(gone, None)
            packed = {name: one for name, one in self._packed.items() if name in files}
            self._not_here &= files.keys()
            lacking = sorted(files.keys() - packed.keys() - self._not_here)
            if lacking:
                return lambda: self._make(lacking[:MADE_AT_ONCE])
            new = packed.keys() - self._in_newest
            sent = sum(max(files[name].bytes_total, SENT_BYTES_MIN) for name in new)
            if not new or sent < SENT_PER_BYTE * size_of(packed.values()):
                self._is_settled = True
                return None
        if self._clock() - self._put_at < SECONDS_MIN:
            return None
        self._count += 1  # an attempt that failed may still come through, under its own name
        name = outlines_name(epoch, self._count)
        return lambda: self._put(name, packed)

    def _read(self) -> None:
        """Go on with what an earlier writer has put."""
        found = newest_outlines(self._store)
        if found is not None:
            name, data = found
            try:
                known = split_outlines(data, name)
            except CorruptionError as error:
                _log.warning("outlines of bundles are made anew: %s", error)
                known = {}
            with self._lock:
                self._packed = {**known, **self._packed}
            self._in_newest = frozenset(known)
        names = [info.name for info in self._store.list(OUTLINES) if is_outlines_name(info.name)]
        self.superseded, self._kept = names[:-1], names[-1:]
        self._is_read = True

    def _make(self, names: list[FileName]) -> None:
        for name in names:
            self.outline(self._layers / name.text)

    def _put(self, name: str, packed: Mapping[FileName, bytes]) -> None:
        self._store.put_stream(name, pack_outlines(packed), size_of(packed.values()))
        self._in_newest, self._put_at = frozenset(packed), self._clock()
        self._kept.append(name)
        self.superseded += self._kept[:-KEPT]
        self._kept = self._kept[-KEPT:]
