"""Faults planted in backup and restore, each of which a simulated world with a bucket must find.

Each leaves out what is there for one reason; the text is what the check that finds it says.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from engine.eviction import Eviction
from engine.layer_store import LayerStore
from engine.remote_wal import RemoteWal
from formats import manifest_difference
from server.backup.binding import Binding
from server.backup.bucket_manifest import BucketManifest
from server.backup.deletion import Deletion
from server.backup.restore import _Restore
from server.backup.upload_messages import UploadStatus
from server.backup.uploader import Uploader
from server.backup.uploader_link import UploaderLink

Planted = AbstractContextManager[object]


def acknowledges_what_is_flushed() -> Planted:
    """The remote LSN is what the journal has here."""
    described = Uploader.status.fget
    assert described is not None

    def status(self: Uploader) -> UploadStatus:
        found: UploadStatus = described(self)
        return found._replace(remote_lsn=max(found.remote_lsn, self._position.flushed_lsn))

    return patch.object(Uploader, "status", property(status))


def mirrors_no_points() -> Planted:
    """Layers go to the bucket, and what keeps them does not."""
    return patch.object(manifest_difference, "_of_retained", lambda *_: [])


def deletes_without_grace() -> Planted:
    return patch.object(BucketManifest, "overdue", lambda self: list(self.state.dead))


def deletes_nothing() -> Planted:
    return patch.object(Deletion, "step", lambda self: None)


def waits_for_another_entry() -> Planted:
    """What the last entry took away stays until there is another one, if that ever comes."""
    look = Deletion._take_look

    def take_look(self: Deletion, *, with_orphans: bool) -> Iterator[None]:
        found = look(self, with_orphans=with_orphans)
        with patch.object(self._bucket, "store_now", lambda: 0.0):  # as if no time had passed
            first = next(found, ...)
        if first is not ...:
            yield
            yield from found

    return patch.object(Deletion, "_take_look", take_look)


def lets_the_journal_go() -> Planted:
    """WAL that the bucket has not is removed as soon as layers have it."""
    return patch.object(RemoteWal, "keep_from", lambda self, position: position)


def restores_no_journal() -> Planted:
    return patch.object(_Restore, "_bring_journal", lambda *_: 0)


def expects_nothing() -> Planted:
    """A process that died does not find its own entry again."""
    return patch.object(Binding, "expecting", lambda self, *_: self)


def evicts_what_is_only_here() -> Planted:
    step = Eviction.step

    def step_of_all(self: Eviction, layers: LayerStore) -> bool:
        self.note(dict.fromkeys(layers.state.files, 1))
        return step(self, layers)

    return patch.object(Eviction, "step", step_of_all)


def notes_no_eviction() -> Planted:
    """After a start nobody knows that the bucket has what is not here."""

    def note(self: LayerStore, files: dict[Any, int]) -> list[Any]:
        return [name for name in files if name in self.state.files]

    return patch.object(LayerStore, "note_uploaded", note)


def hears_of_no_fence() -> Planted:
    """A server goes on when its uploader has ended, and starts it again."""
    return patch.object(UploaderLink, "_hear_end", lambda *_: None)


PLANTED = {
    acknowledges_what_is_flushed: "is not in the bucket|acknowledges",
    mirrors_no_points: "it mirrors no true state",
    deletes_without_grace: "named, and not there",
    deletes_nothing: "garbage stays",
    waits_for_another_entry: "garbage stays",
    lets_the_journal_go: "WAL that is gone here",
    restores_no_journal: "was told",
    expects_nothing: "nobody else has written there",
    evicts_what_is_only_here: "the bucket has lost an object|no end of uploading",
    notes_no_eviction: "No such file",
    hears_of_no_fence: "no end of uploading",
}
