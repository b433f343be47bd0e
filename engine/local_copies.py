"""Bundles brought here from the bucket, and made sound: what `restore chunks` does.

    which   those with layers of the chunks, by the index
    here    all of their CRCs are checked; what holds is left as it is
    away, or damaged   the bucket's copy is written beside, checked as it comes, and takes the place

Whoever has the old file open goes on with it; who opens it from now on has the new one. Nothing is
said in the manifest: that the bucket has it is true before and after.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.errors import RequestError
from engine.layer_store import LayerStore
from engine.lazy_storage import LazyStorage
from engine.remote_blocks import RemoteObject
from formats.bundle_stream import BundleSums
from formats.chunk import HISTORY, ChunkKey, ChunkKind
from formats.chunk_filter import ChunkFilter
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.manifest_record import FileAdded

DIRECTORY_NAME = "fetch"  # where a copy is until it is whole
READ_BYTES = 1 << 20
STRIPES_AT_ONCE = 256


class Counts(NamedTuple):
    """What was done to the bundles of some chunks."""

    files: int = 0
    fetched: int = 0  # of these: they were away
    replaced: int = 0  # of these: they were damaged
    bytes_fetched: int = 0


class LocalCopies:
    """Of one store; any thread, one at a time."""

    def __init__(
        self,
        layers: LayerStore,
        storage: LazyStorage,
        object_of: Callable[[FileName, FileAdded], RemoteObject | None],
        require_room: Callable[[int], None],
    ) -> None:
        """`object_of`: where the bucket has a bundle, None if it has not. `require_room(bytes)`
        raises an OSError where the disk has none to spare."""
        self._layers = layers
        self._storage = storage
        self._object_of = object_of
        self._require_room = require_room
        self._beside = layers.directory.parent / DIRECTORY_NAME

    def restore(self, wanted: ChunkFilter, check: Callable[[], None]) -> Counts:
        """Make every bundle with layers of these chunks local and sound; `check` is called before
        each, and may raise.

        RequestError: some are damaged and the bucket has no other copy; all others were done.
        UnreachableError, OSError: those that were done before stay.
        """
        self._storage.make_directory(self._beside)
        for left in self._storage.list(self._beside):  # by one that was cut off
            self._storage.remove(self._beside / left)
        counts, lost = Counts(), []
        for name in sorted(self._bundles_of(wanted)):
            check()
            try:
                counts = self._restore(name, counts)
            except (CorruptionError, FileNotFoundError) as error:  # no such object
                lost.append(str(error))
        if lost:
            raise RequestError(
                f"{len(lost)} bundles are damaged, and the bucket has no sound copy of them; the "
                f"first: {lost[0]}"
            )
        return counts

    def _bundles_of(self, wanted: ChunkFilter) -> set[FileName]:
        found = set()
        for bundle in self._layers.map.l0:
            directory = bundle.reader.directory
            if any(_is_of(directory.key(row), wanted) for row in range(directory.count)):
                found.add(bundle.reader.name)
        place = None
        while stripes := self._layers.index.stripes_after(place, STRIPES_AT_ONCE):
            for (key, _), layers in stripes:
                if _is_of(key, wanted):
                    found.update(layer.file for layer in layers)
            place = stripes[-1][0]
        return found

    def _restore(self, name: FileName, counts: Counts) -> Counts:
        """CorruptionError: it is damaged here, and cannot be had anew."""
        record = self._layers.state.files.get(name)
        if record is None:
            return counts  # it went in the meantime
        counts = counts._replace(files=counts.files + 1)
        damage = None
        path = self._layers.directory / name.text
        is_here = self._storage.is_here(path)
        if is_here:
            damage = _damage_in(record, name, self._read(name))
            if damage is None:
                return counts
        source = self._object_of(name, record)
        if source is None:
            raise damage or CorruptionError("bundle", str(path), "a file, or one in the bucket",
                                            "neither")  # fmt: skip
        self._fetch(name, record, source)
        return counts._replace(
            fetched=counts.fetched + (not is_here),
            replaced=counts.replaced + is_here,
            bytes_fetched=counts.bytes_fetched + record.bytes_total,
        )

    def _read(self, name: FileName) -> Iterator[bytes]:
        file = self._storage.open(self._layers.directory / name.text)
        for offset in range(0, file.size, READ_BYTES):
            yield self._storage.pread_once(file, offset, READ_BYTES)

    def _fetch(self, name: FileName, record: FileAdded, source: RemoteObject) -> None:
        """The bucket's copy, checked as it comes and fsynced, in the place of what is here."""
        storage, beside = self._storage, self._beside / name.text
        self._require_room(record.bytes_total)
        file = storage.create(beside)
        try:
            sums = BundleSums(name, record.bytes_total, record.footer_crc)
            for piece in storage.stream(source):
                sums.feed(piece)
                storage.append(file, [piece])
            sums.finish()
            storage.sync(file)
        except BaseException:
            storage.remove(beside)
            raise
        finally:
            storage.close(file)
        storage.rename(beside, self._layers.directory / name.text)
        storage.sync_directory(self._layers.directory)
        self._layers.reopen(name)


def _damage_in(
    record: FileAdded, name: FileName, pieces: Iterator[bytes]
) -> CorruptionError | None:
    sums = BundleSums(name, record.bytes_total, record.footer_crc)
    try:
        for piece in pieces:
            sums.feed(piece)
        sums.finish()
    except CorruptionError as error:
        return error
    return None


def _is_of(packed: bytes, wanted: ChunkFilter) -> bool:
    """Whether a chunk is wanted, or is the history of one that is."""
    kind, *fields = ChunkKey.unpack(packed)
    kind &= ~HISTORY
    return wanted.everything or (
        kind in (ChunkKind.REL, ChunkKind.SLRU) and wanted.matches(kind, *fields)
    )
