"""The local manifest: append and fsync, replay at open, cut a torn tail, compact.

`append` returns only when its records are on disk: what it wrote is the commit point of a flush.
"""

from pathlib import Path

from engine.disk_room import is_full
from engine.storage import File, PoisonedFileError, Storage
from formats import manifest as layout
from formats.manifest import Manifest
from formats.manifest_record import Record

COMPACT_BYTES_MIN = 1 << 20
COMPACT_FACTOR = 4


class ManifestLog:
    """The open manifest of a directory, and the state that it says. One writer.

    `state` is replaced, never changed: whoever took it may go on reading it.
    """

    def __init__(self, storage: Storage, file: File, state: Manifest, crc: int) -> None:
        self.state = state
        self._storage = storage
        self._file = file
        self._crc = crc
        self._compact_at = COMPACT_BYTES_MIN
        self._failure: OSError | None = None

    @classmethod
    def create(
        cls, storage: Storage, path: Path, *records: Record, serial: int = 1
    ) -> "ManifestLog":
        """A new manifest whose first entry, with this serial, is `records`; it appears whole or
        not at all."""
        state = Manifest(serial=serial)
        for record in records:
            state.apply(record)
        file, crc = _write_new(storage, path, state)
        _take_place(storage, file, path)
        return cls(storage, file, state, crc)

    @classmethod
    def open(cls, storage: Storage, path: Path) -> "ManifestLog":
        """An existing manifest, for appending; a torn tail goes, and an unfinished new one."""
        _remove_unfinished(storage, path)
        data = storage.read_all(path)
        state, last = layout.replay(data, str(path))
        file = storage.open(path, writable=True)
        if last.end < len(data):
            storage.truncate(file, last.end)
            if not last.has_mark:
                storage.append(file, [layout.END_MARK])
            storage.sync(file)
        return cls(storage, file, state, last.crc)

    def append(self, *records: Record) -> None:
        """Make records true, all or none: on disk, then in `state`.

        ValueError if they cannot follow what is true. After an OSError whether the records are true
        is not known until the manifest is opened anew; or, if the disk was full, by `mend`.
        """
        state = self.state.copy()
        for record in records:
            state.apply(record)
        state.serial += 1
        data, crc = layout.pack_entry(state.serial, records, self._crc)
        try:
            self._storage.append(self._file, [data])
            self._storage.sync(self._file)
        except OSError as error:
            self._failure = self._failure or error
            raise
        self._crc = crc
        self.state = state

    def mend(self) -> None:
        """After an append for which the disk had no room: those records are not true.

        What is true is written into a new file, which takes the place of the one whose end nobody
        knows. A file that the disk failed is left as it is (PoisonedFileError): only a start may
        look what it has, and until then whatever it may name must stay.
        """
        if self._failure is None:
            return
        if not is_full(self._failure):
            text = f"an earlier write or fsync failed, start again: {self._failure}"
            raise PoisonedFileError(5, text, str(self._file.path)) from self._failure
        self.compact()
        self._failure = None

    def compact_if_worthwhile(self) -> bool:
        """Compact a manifest that has grown to several times what its state needs."""
        if self._file.size < self._compact_at:
            return False
        self.compact()
        self._compact_at = max(COMPACT_BYTES_MIN, COMPACT_FACTOR * self._file.size)
        return True

    def compact(self) -> None:
        """Write the state as one entry into a new file, which takes this one's place."""
        state = self.state.copy()
        state.serial += 1
        path = self._file.path
        file, crc = _write_new(self._storage, path, state)
        try:
            _take_place(self._storage, file, path)
        except BaseException as error:
            self._file.is_poisoned = True  # which of the two the directory has is not known
            if isinstance(error, OSError):
                self._failure = self._failure or error
            raise
        self._storage.close(self._file)
        self._file, self._crc, self.state = file, crc, state

    def close(self) -> None:
        self._storage.close(self._file)


def _write_new(storage: Storage, path: Path, state: Manifest) -> tuple[File, int]:
    """The whole state as one entry of a file beside `path`, on disk."""
    beside = _remove_unfinished(storage, path)
    header = layout.pack_header()
    data, crc = layout.pack_entry(
        state.serial, state.records(), layout.check_header(header, str(beside))
    )
    file = storage.create(beside)
    storage.append(file, [header, data])
    storage.sync(file)
    return file, crc


def _remove_unfinished(storage: Storage, path: Path) -> Path:
    """Where a new manifest is written: there is none now."""
    beside = path.with_name(path.name + ".new")
    if storage.exists(beside):
        storage.remove(beside)
    return beside


def _take_place(storage: Storage, file: File, path: Path) -> None:
    storage.rename(file.path, path)
    storage.sync_directory(path.parent)
    file.path = path
