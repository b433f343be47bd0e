"""The LMDB index: which layers can have versions of a stripe, and how relations stand.

    l0         bundle -> its layer directory, as in the file     one entry a flush
    layers     (chunk, stripe) -> its layers, newest first       image and L1 bundles
    files      bundle -> bytes, and live ones, LSN range, footer CRC
    chunks     chunk -> which stripes have an entry in `layers`
    relations  relation -> state at the durable LSN, cuts
    meta       how far the index is, and per database a count and a sum of CRCs

All of it is derived from the manifest and the bundles (engine/index_rebuild.py), and equal however
often it is derived. One process has the environment open, once; the map's size is set once; a read
transaction lasts one lookup; no buffer outlives its transaction.
"""

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from engine.index_batch import REINDEX_HINT, IndexBatch, NewBundle, RelationChange, Removal
from engine.storage import Storage
from formats import index_value as values
from formats.chunk import HISTORY, ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.index_value import (
    CHUNKS,
    DATABASES,
    FILES,
    L0,
    LAYERS,
    META,
    RELATIONS,
    STATE_KEY,
    FileEntry,
    IndexState,
    LayerEntry,
    RelationState,
)

MAP_BYTES = 1 << 40
CHECK_SECONDS_MIN = 60  # are given to the child that checks an index, and as many
CHECK_BYTES_PER_SECOND = 2 << 20  # as this takes; it does ten times that, from memory
OTHER_VERSION = 3  # exit status of engine/index_check.py
_log = logging.getLogger("pageserver.index")


@contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """LMDB's words for damage become the error that says what to do."""
    try:
        yield
    except lmdb.DiskError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError,
            lmdb.VersionMismatchError, lmdb.BadValsizeError, lmdb.PanicError, lmdb.BadTxnError,
            lmdb.CursorFullError, lmdb.PageFullError, lmdb.IncompatibleError) as error:  # fmt: skip
        raise CorruptionError("index", f"{path}; {REINDEX_HINT}", "a whole LMDB", error) from error


def check_in_child(path: Path) -> bool:
    """Let another process read all of the index first: damaged LMDB pages may kill the reader.

    False if it is sound as far as one can see, but of another format version.
    """
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "engine.index_check", str(path.resolve())]
    size = (path / "data.mdb").stat().st_size
    seconds = CHECK_SECONDS_MIN + size // CHECK_BYTES_PER_SECOND
    _log.info("checking the index, %.1f MiB, for at most %d s", size / (1 << 20), seconds)
    try:
        child = subprocess.run(  # noqa: S603  (our own interpreter and module)
            command, cwd=root, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        found = f"none after {seconds} s: is the disk that slow?"
    else:
        if child.returncode in (0, OTHER_VERSION):
            _log.info("the index is %s", "of another version" if child.returncode else "sound")
            return child.returncode == 0
        found = child.stdout.strip() or _how_it_ended(child.returncode, child.stderr.strip()[-500:])
    raise CorruptionError("index", f"{path}; {REINDEX_HINT}", "a check without findings", found)


def _how_it_ended(status: int, said: str) -> str:
    """Of a child that found nothing, but was killed by what it read, most often."""
    name = f" ({signal.Signals(-status).name}: it died of what it read)" if status < 0 else ""
    return f"status {status}{name}: {said}" if said else f"status {status}{name}"


class Index:
    """The open index. One thread commits, any may look up."""

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        """Open the index in directory `path`, which must exist; an empty one becomes an index."""
        self.path = path
        self._committing = (storage or Storage()).committing
        self._changing = threading.Lock()  # what LMDB has, and what memory says that it has
        with lmdb_errors(path), self._committing(path):
            self._environment = lmdb.open(
                str(path), map_size=MAP_BYTES, max_dbs=len(DATABASES), max_readers=512, mode=0o600
            )
            self._environment.reader_check()
            self._databases = {name: self._environment.open_db(name) for name in DATABASES}
        self._stripes = {
            key: values.unpack_stripes(key, value) for key, value in self._items(CHUNKS)
        }
        self._relation_keys = {key for key, _ in self._items(RELATIONS)}
        self.state = self._read_state()

    def close(self) -> None:
        self._environment.close()

    def _read_state(self) -> IndexState:
        value = self._get(META, STATE_KEY)
        if value is not None:
            return values.unpack_state(value)
        for name in DATABASES:
            if next(self._items(name), None) is not None:
                raise self._absent(META, STATE_KEY)
        return IndexState(values.FORMAT_VERSION, 0, 0)

    # lookups

    def l0(self) -> list[tuple[FileName, bytes]]:
        """The L0 bundles and their directories, newest first."""
        found = []
        for key, value in self._items(L0):
            _, frame = values.unseal(L0, key, value)  # first: it is what checks the key
            name = FileName.unpack(key)
            found.append((self.file(name), name, frame))
        found.sort(key=lambda item: (item[0].lsn_end, item[1]), reverse=True)
        return [(name, frame) for _, name, frame in found]

    def stripe(self, chunk_key: bytes, stripe: int) -> tuple[LayerEntry, ...]:
        """The layers of a stripe below L0, newest first."""
        if not self._stripes.get(chunk_key, 0) >> stripe & 1:
            return ()
        key = values.stripe_key(chunk_key, stripe)
        value = self._get(LAYERS, key)
        if value is None:
            with self._changing:  # else a commit may just now have taken the last of them
                if not self._stripes.get(chunk_key, 0) >> stripe & 1:
                    return ()
                value = self._get(LAYERS, key)
            if value is None:
                raise self._absent(LAYERS, key)
        return values.unpack_layers(key, value)

    def stripes_after(
        self, place: tuple[bytes, int] | None, count: int
    ) -> list[tuple[tuple[bytes, int], tuple[LayerEntry, ...]]]:
        """The next `count` stripes with layers below L0, behind `place` in order of (key, stripe);
        None: from the first on."""
        found: list[tuple[tuple[bytes, int], tuple[LayerEntry, ...]]] = []
        with lmdb_errors(self.path), self._environment.begin() as transaction:
            cursor = transaction.cursor(db=self._databases[LAYERS])
            start = b"" if place is None else values.stripe_key(*place)
            is_there = cursor.set_range(start)
            if is_there and cursor.key() == start:
                is_there = cursor.next()
            while is_there and len(found) < count:
                key, value = bytes(cursor.key()), bytes(cursor.value())
                stripe = int.from_bytes(key[-4:], "big")
                found.append(((key[:-4], stripe), values.unpack_layers(key, value)))
                is_there = cursor.next()
        return found

    def file(self, name: FileName) -> FileEntry:
        key = name.pack()
        value = self._get(FILES, key)
        if value is None:
            raise self._absent(FILES, key)
        return values.unpack_file(key, value)

    def files(self) -> dict[FileName, FileEntry]:
        entries = [(key, values.unpack_file(key, value)) for key, value in self._items(FILES)]
        return {FileName.unpack(key): entry for key, entry in entries}

    def relation(self, key: bytes) -> RelationState | None:
        """A relation, SLRU segment or file at the durable LSN; None if never heard of by then."""
        if key not in self._relation_keys:
            return None
        value = self._get(RELATIONS, key)
        if value is None:
            raise self._absent(RELATIONS, key)
        return values.unpack_relation(key, value)

    def relations(self) -> Iterator[tuple[ChunkKey, RelationState]]:
        """All relations, SLRU segments and files at the durable LSN, in order of their keys."""
        count = 0
        for key, value in self._items(RELATIONS):
            count += 1
            state = values.unpack_relation(key, value)
            yield ChunkKey.unpack(key), state
        if count != len(self._relation_keys):
            raise CorruptionError("index relations", f"{self.path}; {REINDEX_HINT}",
                                  len(self._relation_keys), count)  # fmt: skip

    def dump(self) -> dict[str, dict[bytes, bytes]]:
        """Everything, as it is: for comparing two indexes."""
        return {name.decode(): dict(self._items(name)) for name in DATABASES}

    def _get(self, database: bytes, key: bytes) -> bytes | None:
        with lmdb_errors(self.path), self._environment.begin() as transaction:
            value = transaction.get(key, db=self._databases[database])
        return None if value is None else bytes(value)

    def _items(self, database: bytes) -> Iterator[tuple[bytes, bytes]]:
        with lmdb_errors(self.path), self._environment.begin() as transaction:
            for key, value in transaction.cursor(db=self._databases[database]):
                yield bytes(key), bytes(value)

    def _absent(self, database: bytes, key: bytes) -> CorruptionError:
        where = f"{self.path}, {database.decode()} key {key.hex()}; {REINDEX_HINT}"
        return CorruptionError("index key", where, "present", "absent")

    # commits

    def commit(
        self,
        serial: int,
        durable_lsn: int,
        added: Sequence[NewBundle] = (),
        removed: Iterable[Removal] = (),
        histories: Mapping[bytes, Sequence[RelationChange]] | None = None,
    ) -> None:
        """Bring the index to the manifest's entry `serial`, in one transaction.

        The caller has the bundles and that entry on disk already. `histories`: all that the layers
        still say of relations whose histories lost versions.
        """
        stripes, relation_keys = dict(self._stripes), set(self._relation_keys)
        state = IndexState(values.FORMAT_VERSION, serial, durable_lsn)
        with self._changing:
            with (
                lmdb_errors(self.path),
                self._committing(self.path),
                self._environment.begin(write=True) as transaction,
            ):
                batch = IndexBatch(transaction, self._databases)
                for removal in removed:
                    batch.remove(removal, stripes)
                batch.add_bundles(added, stripes)
                changes = (change for bundle in added for change in bundle.changes)
                batch.change_relations(changes, relation_keys)
                for key, whole in (histories or {}).items():
                    batch.replace_relation(key, whole)
                    (relation_keys.add if whole else relation_keys.discard)(key)
                batch.finish(state)
            self._stripes, self._relation_keys, self.state = stripes, relation_keys, state

    def clear(self) -> None:
        """Forget everything."""
        with (
            lmdb_errors(self.path),
            self._committing(self.path),
            self._environment.begin(write=True) as transaction,
        ):
            for database in self._databases.values():
                transaction.drop(database, delete=False)
        self._stripes, self._relation_keys = {}, set()
        self.state = IndexState(values.FORMAT_VERSION, 0, 0)


def subject_of(history_key: bytes) -> bytes:
    """The key of what a history chunk is the history of."""
    return bytes([history_key[0] & ~HISTORY]) + history_key[1:]
