"""Deleting what the bucket needs no more, a piece at a time, by the holder of its epoch alone.

    dead objects    an entry took them away longer than the grace time ago
    chain           entries and snapshots below an old snapshot
    orphans         what earlier writers sent and never named: they died or were fenced off before;
                    and pieces of WAL that layers have by now

Who restores reads a state of the bucket that was true within the grace time, and finds all that it
names. The epoch is asked of the bucket just before each deletion: a writer that was fenced off
deletes nothing. What a writer sent itself it never takes for an orphan otherwise, however old: it
may be about to name it, or to send it once more, and a late deletion would hit that. That dead
objects are gone is said by an entry afterwards; if that does not come to it, they are deleted
again, which does nothing, since no name is used twice.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from formats import lsn
from formats.bucket import JOURNAL, LAYERS, JournalObject, LayerObject, ObjectsDeleted
from formats.bucket_state import BucketState
from server.backup.bucket_manifest import BucketManifest
from server.backup.object_store import ObjectInfo, ObjectStore

PROBES = "probe/"
AT_ONCE = 1000
LOOKS_PER_GRACE = 24  # for what is dead, and for what of the chain is old
ORPHANS_EVERY = 6  # of these looks
_log = logging.getLogger("pageserver.backup")


class Deletion:
    """Of one uploader; used by one thread."""

    def __init__(
        self,
        store: ObjectStore,
        bucket: BucketManifest,
        grace_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._looks = 0
        self._next_look = clock() + grace_seconds / LOOKS_PER_GRACE
        self._look: Iterator[None] = iter(())

    def step(self) -> None:
        """A bounded piece, if it is time for any. FencedError, StoreError: what was begun is begun
        anew at the next look."""
        try:
            next(self._look)
            return
        except StopIteration:
            pass
        if self._clock() < self._next_look:
            return
        self._next_look = self._clock() + self._grace_seconds / LOOKS_PER_GRACE
        self._look = self._take_look(with_orphans=self._looks % ORPHANS_EVERY == 0)
        self._looks += 1

    def _take_look(self, *, with_orphans: bool) -> Iterator[None]:
        state, quiet = self._bucket.state, self._grace_seconds / LOOKS_PER_GRACE
        if state.dying and self._bucket.store_now() - state.seconds >= quiet:
            self._bucket.append()  # since when they are dead only an entry says: none may come
        for names in _by_thousands(self._bucket.overdue()):
            self._delete(names)
            self._bucket.append(ObjectsDeleted([n for n in names if n in self._bucket.state.dead]))
            yield
        for names in _by_thousands(self._bucket.superseded()):
            self._delete(names)
            yield
        if with_orphans:
            for prefix in (LAYERS, JOURNAL, PROBES):
                infos = self._store.list(prefix)
                while page := list(islice(infos, AT_ONCE)):
                    self._delete_orphans(page)
                    yield

    def _delete(self, names: list[str]) -> None:
        self._bucket.check_epoch()
        self._store.delete(names)

    def _delete_orphans(self, page: list[ObjectInfo]) -> None:
        now, state = self._bucket.store_now(), self._bucket.state
        old = [i.name for i in page if now - i.modified >= self._grace_seconds]
        orphans = [n for n in old if self._is_nobodys(n) and not _is_known(state, n)]
        if not orphans:
            return
        self._bucket.check_epoch()  # and what is named by now is known
        state = self._bucket.state
        orphans = [name for name in orphans if not _is_known(state, name)]
        if orphans:
            self._store.delete(orphans)
            _log.info("deleted %d objects that were sent and never named, from %s on",
                      len(orphans), orphans[0])  # fmt: skip

    def _is_nobodys(self, name: str) -> bool:
        """Whether nobody will name it: an earlier writer of the backup has put it, or layers have
        its WAL. What is of another kind is somebody's and stays."""
        if name.startswith(PROBES):
            return True
        kind = JournalObject if name.startswith(JOURNAL) else LayerObject
        try:
            found = kind.parse(name)
        except ValueError:
            return False
        return found.epoch < self._bucket.state.epoch or self._is_in_layers(found)

    def _is_in_layers(self, found: JournalObject | LayerObject) -> bool:
        """Whether it is WAL before the segment at which the bucket's layers end."""
        manifest = self._bucket.state.manifest
        if manifest.identity is None or not isinstance(found, JournalObject):
            return False
        number = lsn.segment_number(manifest.durable_lsn, manifest.identity.wal_segment_bytes)
        return found.lsn_end <= lsn.segment_start(number, manifest.identity.wal_segment_bytes)


def _by_thousands(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(list(names))
    while some := list(islice(rest, AT_ONCE)):
        yield some


def _is_known(state: BucketState, name: str) -> bool:
    """Whether the bucket's manifest says anything of it."""
    if name in state.dead or name in state.dying:
        return True
    if name.startswith(LAYERS):
        epoch, file = LayerObject.parse(name)
        return file in state.manifest.files and state.manifest.uploaded.get(file) == epoch
    return any(piece.name == name for piece in state.journal)
