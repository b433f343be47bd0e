"""Which layer files go to the bucket: those of one state of the manifest that the bucket lacks.

Compaction removes files here while they are on their way. So each gets a second name in D/upload/
first, by a hard link, and keeps it until a state that names it is true in the bucket. A state of
which a file went before it was linked is left for a newer one.

A file whose checksums do not hold is not sent, and no state that names it becomes true in the
bucket: what the bucket has stays as it was.
"""

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from engine.storage import Storage
from formats.bucket_state import BucketState
from formats.bundle_stream import BundleSums
from formats.file_name import FileName
from formats.manifest import Manifest
from formats.manifest_record import FileAdded

FOLDER = "upload"
PIECE_BYTES = 1 << 20
_log = logging.getLogger("pageserver.backup")


class LayerShipping:
    """Of one uploader; used by one thread, but for `pieces`. Nothing is sent here."""

    def __init__(self, storage: Storage, directory: Path) -> None:
        """What an earlier process left in D/upload/ goes."""
        self.target: Manifest | None = None  # the state that is to be true in the bucket
        self.sent: dict[FileName, int] = {}  # files that no entry names yet, and the epoch
        self.damaged: dict[FileName, str] = {}
        self._storage = storage
        self._layers = directory / "layers"
        self._folder = directory / FOLDER
        self._waiting: deque[FileAdded] = deque()
        self._under_way: dict[FileName, int] = {}  # and their bytes
        storage.make_directory(self._folder)
        for name in storage.list(self._folder):
            if name.endswith(".bundle"):
                storage.remove(self._folder / name)

    # The state at hand ----------------------------------------------------------------------------

    def missing(self, state: BucketState, local: Manifest) -> list[FileAdded]:
        """What is yet to be sent before `local` can be true in the bucket; the largest first, for
        at the end they would keep one thread busy and the others idle."""
        names = local.files.keys() - state.manifest.files.keys() - self.sent.keys()
        files = (local.files[name] for name in sorted(names))
        return sorted(files, key=lambda file: -file.bytes_total)

    def adopt(self, state: BucketState, local: Manifest) -> bool:
        """Let this be the state that is to be true in the bucket, if its files are all there.

        A file that is not there is damage if `local` is the newest state, which the caller knows.
        """
        missing = self.missing(state, local)
        for file in missing:
            name = FileName.parse(file.name)
            if name in self.damaged or not self._link(file.name):
                return False
        self.target = local
        self._waiting = deque(missing)
        return True

    def first_missing(self, state: BucketState, local: Manifest) -> str | None:
        """A file of `local` that can be sent no more."""
        for file in self.missing(state, local):
            here = (self._layers / file.name, self._folder / file.name)
            if not any(map(self._storage.exists, here)):
                return file.name
        return None

    def _link(self, name: str) -> bool:
        """Whether it has its second name."""
        if not self._storage.exists(self._folder / name):
            try:
                self._storage.link(self._layers / name, self._folder / name)
            except FileNotFoundError:
                return False
        return True

    def next_file(self) -> FileAdded | None:
        """The next to be sent: `note_sent`, `note_failed`, `give_up` or `note_damaged` is to
        follow."""
        if not self._waiting:
            return None
        file = self._waiting.popleft()
        self._under_way[FileName.parse(file.name)] = file.bytes_total
        return file

    def note_sent(self, name: FileName, epoch: int) -> None:
        del self._under_way[name]
        self.sent[name] = epoch

    def note_failed(self, file: FileAdded) -> None:
        """It is to be sent again."""
        del self._under_way[FileName.parse(file.name)]
        self._waiting.append(file)

    def give_up(self, name: FileName) -> None:
        """It cannot be read for now, nor can the state at hand become true: a newer one may."""
        del self._under_way[name]
        self.target = None
        self._waiting.clear()

    def note_damaged(self, name: FileName, reason: str) -> None:
        """No state that names it becomes true."""
        self.give_up(name)
        self.damaged[name] = reason
        _log.error("layers/%s is not sent, it is damaged: %s", name.text, reason)

    def note_lost(self, name: FileName) -> None:
        """It is not there, and nothing says that it need not be."""
        self.damaged[name] = "no such file"
        _log.error("layers/%s is not sent: it is lost", name.text)

    @property
    def is_complete(self) -> bool:
        """Whether all files of the state at hand are in the bucket."""
        return self.target is not None and not self._waiting and not self._under_way

    @property
    def pending_bytes(self) -> int:
        return sum(self._under_way.values()) + sum(file.bytes_total for file in self._waiting)

    def named(self, state: BucketState) -> None:
        """An entry says it: second names go, and those of files that are in no state any more."""
        self.target = None
        self.sent = {n: e for n, e in self.sent.items() if n not in state.manifest.files}
        for name in self._storage.list(self._folder):
            if name.endswith(".bundle") and FileName.parse(name) not in self._under_way:
                self._storage.remove(self._folder / name)

    def still_damaged(self, local: Manifest) -> str | None:
        """What keeps `local` from being true in the bucket."""
        self.damaged = {n: why for n, why in self.damaged.items() if n in local.files}
        return next(iter(self.damaged.values()), None)

    def place(self, file: FileAdded) -> Path:
        """Where a file lies that is being sent."""
        return self._folder / file.name

    # A file's bytes -------------------------------------------------------------------------------

    def pieces(self, file: FileAdded) -> Iterator[bytes]:
        """What is to be sent of a file: the last piece only if all checksums in it held.

        CorruptionError, OSError.
        """
        sums = BundleSums(FileName.parse(file.name), file.bytes_total, file.footer_crc)
        opened = self._storage.open(self.place(file))
        try:
            at = 0
            while at < file.bytes_total:
                piece = self._storage.pread(opened, at, min(PIECE_BYTES, file.bytes_total - at))
                at += len(piece)
                sums.feed(piece)
                if at >= file.bytes_total or not piece:
                    sums.finish()
                yield piece
        finally:
            self._storage.close(opened)
