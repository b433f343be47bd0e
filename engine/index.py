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

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import lmdb

from formats import index_value as values
from formats.chunk import HISTORY, ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.index_value import (
    CHUNKS,
    DATABASES,
    FILES,
    L0,
    LAYERS,
    META,
    RELATIONS,
    STATE_KEY,
    Cut,
    FileEntry,
    IndexState,
    LayerEntry,
    RelationState,
)

MAP_BYTES = 1 << 40
CHECK_SECONDS_MAX = 600
OTHER_VERSION = 3  # exit status of engine/index_check.py
REINDEX_HINT = "run `layertool reindex` on the data directory"


class RelationChange(NamedTuple):
    """What one HISTORY version says: from `lsn` on the relation exists or not, with n blocks."""

    key: bytes  # packed, of the relation, SLRU segment or file itself
    lsn: int
    exists: bool
    n_blocks: int
    is_cut: bool


class NewBundle(NamedTuple):
    """What the index is told of a bundle."""

    name: FileName
    entry: FileEntry
    directory_frame: bytes
    layers: list[tuple[bytes, LayerEntry]]  # (chunk key, layer); of an L0 bundle none
    changes: list[RelationChange]


class Removal(NamedTuple):
    """Layers of a bundle that nothing needs any more."""

    name: FileName
    layers: list[tuple[bytes, LayerEntry]]  # (chunk key, layer); of an L0 bundle none
    layers_removed: int  # of all of the bundle's, these and those before
    bytes_live: int  # what is left of the bundle
    is_whole: bool  # the bundle itself goes


@contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """LMDB's words for damage become the error that says what to do."""
    try:
        yield
    except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError,
            lmdb.VersionMismatchError, lmdb.BadValsizeError, lmdb.PanicError) as error:  # fmt: skip
        raise CorruptionError("index", f"{path}; {REINDEX_HINT}", "a whole LMDB", error) from error


def check_in_child(path: Path) -> bool:
    """Let another process read all of the index first: damaged LMDB pages may kill the reader.

    False if it is sound as far as one can see, but of another format version.
    """
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-m", "engine.index_check", str(path.resolve())]
    try:
        child = subprocess.run(  # noqa: S603  (our own interpreter and module)
            command, cwd=root, capture_output=True, text=True, timeout=CHECK_SECONDS_MAX,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        found = f"none after {CHECK_SECONDS_MAX} s"
    else:
        if child.returncode in (0, OTHER_VERSION):
            return child.returncode == 0
        found = child.stdout.strip() or f"status {child.returncode}: {child.stderr.strip()[-500:]}"
    raise CorruptionError("index", f"{path}; {REINDEX_HINT}", "a check without findings", found)


class Index:
    """The open index. One thread commits, any may look up."""

    def __init__(self, path: Path) -> None:
        """Open the index in directory `path`, which must exist; an empty one becomes an index."""
        self.path = path
        with lmdb_errors(path):
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
            name = FileName.unpack(key)
            found.append((self.file(name), name, values.unseal(L0, key, value)[1]))
        found.sort(key=lambda item: (item[0].lsn_end, item[1]), reverse=True)
        return [(name, frame) for _, name, frame in found]

    def stripe(self, chunk_key: bytes, stripe: int) -> tuple[LayerEntry, ...]:
        """The layers of a stripe below L0, newest first."""
        if not self._stripes.get(chunk_key, 0) >> stripe & 1:
            return ()
        key = values.stripe_key(chunk_key, stripe)
        value = self._get(LAYERS, key)
        if value is None:
            raise self._absent(LAYERS, key)
        return values.unpack_layers(key, value)

    def file(self, name: FileName) -> FileEntry:
        key = name.pack()
        value = self._get(FILES, key)
        if value is None:
            raise self._absent(FILES, key)
        return values.unpack_file(key, value)

    def files(self) -> dict[FileName, FileEntry]:
        return {
            FileName.unpack(key): values.unpack_file(key, value)
            for key, value in self._items(FILES)
        }

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
            yield ChunkKey.unpack(key), values.unpack_relation(key, value)
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
        added: Iterable[NewBundle] = (),
        removed: Iterable[Removal] = (),
    ) -> None:
        """Bring the index to the manifest's entry `serial`, in one transaction.

        The caller has the bundles and that entry on disk already.
        """
        stripes, relation_keys = dict(self._stripes), set(self._relation_keys)
        with lmdb_errors(self.path), self._environment.begin(write=True) as transaction:
            batch = _Batch(transaction, self._databases)
            for removal in removed:
                batch.remove(removal, stripes)
            for bundle in added:
                batch.add_bundle(bundle, stripes)
                batch.change_relations(bundle.changes)
                relation_keys.update(change.key for change in bundle.changes)
            state = IndexState(values.FORMAT_VERSION, serial, durable_lsn)
            batch.finish(state)
        self._stripes, self._relation_keys, self.state = stripes, relation_keys, state


class _Batch:
    """One write transaction; keeps the count and sum of each database that it changes."""

    def __init__(
        self, transaction: lmdb.Transaction, databases: dict[bytes, "lmdb._Database"]
    ) -> None:
        self._transaction = transaction
        self._databases = databases
        self._sums: dict[bytes, tuple[int, int]] = {}

    def get(self, database: bytes, key: bytes) -> bytes | None:
        value = self._transaction.get(key, db=self._databases[database])
        return None if value is None else bytes(value)

    def put(self, database: bytes, key: bytes, value: bytes) -> None:
        self._count(database, self.get(database, key), value)
        self._transaction.put(key, value, db=self._databases[database])

    def delete(self, database: bytes, key: bytes) -> None:
        self._count(database, self.get(database, key), None)
        self._transaction.delete(key, db=self._databases[database])

    def _count(self, database: bytes, old: bytes | None, new: bytes | None) -> None:
        if database not in self._sums:
            value = self.get(META, values.sum_key(database))
            self._sums[database] = (0, 0) if value is None else values.unpack_sum(database, value)
        count, crc_sum = self._sums[database]
        for value, sign in ((old, -1), (new, 1)):
            if value is not None:
                count += sign
                crc_sum += sign * values.seal_crc(value)
        self._sums[database] = (count, crc_sum % (1 << 64))

    def finish(self, state: IndexState) -> None:
        meta = self._databases[META]
        for database in DATABASES[:-1]:
            count, crc_sum = self._sums.get(database, (0, 0))
            key = values.sum_key(database)
            if database in self._sums or self.get(META, key) is None:
                self._transaction.put(key, values.pack_sum(database, count, crc_sum), db=meta)
        self._transaction.put(STATE_KEY, values.pack_state(state), db=meta)

    def add_bundle(self, bundle: NewBundle, stripes: dict[bytes, int]) -> None:
        key = bundle.name.pack()
        self.put(FILES, key, values.pack_file(key, bundle.entry))
        if bundle.name.kind == FileKind.L0:
            frame = bundle.directory_frame
            self.put(L0, key, values.seal(L0, key, bundle.entry.layers, frame))
        for (chunk_key, stripe), layers in _by_stripe(bundle.layers):
            self._put_stripe(chunk_key, stripe, {*self._stripe(chunk_key, stripe), *layers},
                             stripes)  # fmt: skip

    def remove(self, removal: Removal, stripes: dict[bytes, int]) -> None:
        key = removal.name.pack()
        if removal.is_whole:
            self.delete(FILES, key)
            if removal.name.kind == FileKind.L0:
                self.delete(L0, key)
        else:
            old = self.get(FILES, key)
            entry = values.unpack_file(key, old if old is not None else b"")
            entry = entry._replace(
                bytes_live=removal.bytes_live, layers_removed=removal.layers_removed
            )
            self.put(FILES, key, values.pack_file(key, entry))
        for (chunk_key, stripe), layers in _by_stripe(removal.layers):
            self._put_stripe(chunk_key, stripe, self._stripe(chunk_key, stripe) - layers, stripes)

    def _stripe(self, chunk_key: bytes, stripe: int) -> set[LayerEntry]:
        key = values.stripe_key(chunk_key, stripe)
        old = self.get(LAYERS, key)
        return set() if old is None else set(values.unpack_layers(key, old))

    def _put_stripe(
        self, chunk_key: bytes, stripe: int, layers: set[LayerEntry], stripes: dict[bytes, int]
    ) -> None:
        """All layers of a stripe, and in `chunks` whether it has any."""
        key = values.stripe_key(chunk_key, stripe)
        before = stripes.get(chunk_key, 0)
        if layers:
            self.put(LAYERS, key, values.pack_layers(key, values.sort_newest_first(layers)))
            bits = before | 1 << stripe
        else:
            self.delete(LAYERS, key)
            bits = before & ~(1 << stripe)
        if bits == before:
            return
        if bits:
            stripes[chunk_key] = bits
            self.put(CHUNKS, chunk_key, values.pack_stripes(chunk_key, bits))
        else:
            del stripes[chunk_key]
            self.delete(CHUNKS, chunk_key)

    def change_relations(self, changes: Iterable[RelationChange]) -> None:
        """Merge history into the relations' states; the order of bundles makes no difference."""
        changed: dict[bytes, list[RelationChange]] = {}
        for change in changes:
            changed.setdefault(change.key, []).append(change)
        for key, of_key in changed.items():
            old = self.get(RELATIONS, key)
            state = RelationState(0, 0, False) if old is None else values.unpack_relation(key, old)
            cuts = {cut.lsn: cut for cut in state.cuts}
            for change in of_key:
                if change.is_cut:
                    cuts[change.lsn] = Cut(change.lsn, change.n_blocks, change.exists)
                elif change.lsn >= state.lsn:
                    state = RelationState(change.lsn, change.n_blocks, change.exists)
            state = state._replace(cuts=tuple(cuts[lsn] for lsn in sorted(cuts)))
            self.put(RELATIONS, key, values.pack_relation(key, state))


def _by_stripe(
    layers: Iterable[tuple[bytes, LayerEntry]],
) -> Iterable[tuple[tuple[bytes, int], set[LayerEntry]]]:
    """Layers by (chunk key, stripe)."""
    found: dict[tuple[bytes, int], set[LayerEntry]] = {}
    for chunk_key, layer in layers:
        found.setdefault((chunk_key, layer.block_start >> 14), set()).add(layer)
    return found.items()


def subject_of(history_key: bytes) -> bytes:
    """The key of what a history chunk is the history of."""
    return bytes([history_key[0] & ~HISTORY]) + history_key[1:]
