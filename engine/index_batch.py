"""What one commit changes in the LMDB index (engine/index.py), and what it is told.

Each database has its count and its sum of CRCs kept up with every value that comes or goes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import lmdb

from formats import index_value as values
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
    Cut,
    FileEntry,
    IndexState,
    LayerEntry,
    RelationState,
)

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
    is_l0: bool  # and not settled


class Removal(NamedTuple):
    """Layers of a bundle that nothing needs any more."""

    name: FileName
    layers: list[tuple[bytes, LayerEntry]]  # (chunk key, layer); of an L0 bundle none
    layers_removed: int  # of all of the bundle's, these and those before
    bytes_live: int  # what is left of the bundle
    is_whole: bool  # the bundle itself goes


class IndexBatch:
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

    def old(self, database: bytes, key: bytes, is_known: bool) -> bytes | None:
        """What is to be changed; CorruptionError if LMDB no longer finds a known key."""
        value = self.get(database, key)
        if value is None and is_known:
            where = f"{database.decode()} key {key.hex()}; {REINDEX_HINT}"
            raise CorruptionError("index key", where, "present", "absent")
        return value

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

    def add_bundles(self, bundles: Sequence[NewBundle], stripes: dict[bytes, int]) -> None:
        """All of them at once: where many have layers of a stripe, its value is written once."""
        for bundle in bundles:
            key = bundle.name.pack()
            self.put(FILES, key, values.pack_file(key, bundle.entry))
            if bundle.is_l0:
                frame = bundle.directory_frame
                self.put(L0, key, values.seal(L0, key, bundle.entry.layers, frame))
        all_layers = (layer for bundle in bundles for layer in bundle.layers)
        for (chunk_key, stripe), layers in _by_stripe(all_layers):
            before = self._stripe(chunk_key, stripe, stripes)
            self._put_stripe(chunk_key, stripe, before | layers, stripes)

    def remove(self, removal: Removal, stripes: dict[bytes, int]) -> None:
        key = removal.name.pack()
        if removal.is_whole:
            self.delete(FILES, key)
            if self.get(L0, key) is not None:
                self.delete(L0, key)
        else:
            entry = values.unpack_file(key, self.old(FILES, key, is_known=True) or b"")
            entry = entry._replace(
                bytes_live=removal.bytes_live, layers_removed=removal.layers_removed
            )
            self.put(FILES, key, values.pack_file(key, entry))
        for (chunk_key, stripe), layers in _by_stripe(removal.layers):
            before = self._stripe(chunk_key, stripe, stripes)
            self._put_stripe(chunk_key, stripe, before - layers, stripes)

    def _stripe(self, chunk_key: bytes, stripe: int, stripes: dict[bytes, int]) -> set[LayerEntry]:
        key = values.stripe_key(chunk_key, stripe)
        old = self.old(LAYERS, key, bool(stripes.get(chunk_key, 0) >> stripe & 1))
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

    def change_relations(self, changes: Iterable[RelationChange], known: set[bytes]) -> None:
        """Merge history into the relations' states; the order of bundles makes no difference.

        Their keys come to those that are `known`.
        """
        changed: dict[bytes, list[RelationChange]] = {}
        for change in changes:
            changed.setdefault(change.key, []).append(change)
        for key, of_key in changed.items():
            old = self.old(RELATIONS, key, key in known)
            known.add(key)
            state = RelationState(0, 0, False) if old is None else values.unpack_relation(key, old)
            self.put(RELATIONS, key, values.pack_relation(key, _changed(state, of_key)))

    def replace_relation(self, key: bytes, changes: Sequence[RelationChange]) -> None:
        """A relation whose history is no more than these changes; none: it is forgotten."""
        if changes:
            state = _changed(RelationState(0, 0, False), changes)
            self.put(RELATIONS, key, values.pack_relation(key, state))
        elif self.get(RELATIONS, key) is not None:
            self.delete(RELATIONS, key)


def _changed(state: RelationState, changes: Iterable[RelationChange]) -> RelationState:
    cuts = {cut.lsn: cut for cut in state.cuts}
    for change in changes:
        if change.is_cut:
            cuts[change.lsn] = Cut(change.lsn, change.n_blocks, change.exists)
        elif change.lsn >= state.lsn:
            state = RelationState(change.lsn, change.n_blocks, change.exists)
    return state._replace(cuts=tuple(cuts[lsn] for lsn in sorted(cuts)))


def _by_stripe(
    layers: Iterable[tuple[bytes, LayerEntry]],
) -> Iterable[tuple[tuple[bytes, int], set[LayerEntry]]]:
    """Layers by (chunk key, stripe)."""
    found: dict[tuple[bytes, int], set[LayerEntry]] = {}
    for chunk_key, layer in layers:
        found.setdefault((chunk_key, layer.block_start >> 14), set()).add(layer)
    return found.items()
