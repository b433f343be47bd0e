"""The set of layers that count, and the one way in which it changes.

    bundle written and fsynced -> manifest entry -> index -> layer map -> what went is unlinked

Flush, base copies, compaction and garbage collection all commit here, one after the other, each
commit all or nothing; all that one reads of layers is read before the manifest entry, and damage
there refuses it. A bundle whose last layer goes is removed with it; its file is unlinked when
no reader can still want it. What a crash leaves of that, the next start removes.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleInfo
from engine.commit_mending import CommitMending
from engine.flush import file_added
from engine.index import Index, subject_of
from engine.index_batch import NewBundle, RelationChange, Removal
from engine.index_rebuild import LivePlaces, bundle_for_index, is_l0, removal_of, settled_bundle
from engine.layer_map import LayerMap
from engine.manifest_log import ManifestLog
from engine.storage import Storage
from formats import layer_bits
from formats.file_name import FileName
from formats.manifest import Manifest
from formats.manifest_record import (
    BundleSettled,
    FileRemoved,
    FileUploaded,
    LayersRemoved,
    Progress,
    Record,
)

Rows = Mapping[FileName, bytes]  # a bitmap of rows of each bundle's layer directory


class LayerStore:
    """Any thread may commit."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        manifest: ManifestLog,
        index: Index,
        layers: LayerMap,
        committing: threading.Lock,
    ) -> None:
        """`directory` is where the bundles lie; `committing` is held while the manifest grows."""
        self.manifest = manifest
        self.index = index
        self.map = layers
        self.bytes_written = 0  # of bundles that were committed since the start
        self.bytes_compacted = 0  # of those, by merges, images and rewriting
        self.directory = directory
        self._storage = storage
        self._lock = committing
        self._mending = CommitMending(storage, directory)
        self._true_already: set[FileName] = set()  # added by commits that failed after that
        self._gone: list[FileName] = []  # by the manifest, and by the index when it is mended
        self._in_vain: list[FileName] = []  # outputs of merges that the manifest may not have
        self._doomed: list[tuple[int, FileName]] = []  # (epoch that must be quiet, bundle)

    def live_rows(self, reader: BundleReader) -> bytes:
        """The rows of a bundle's layer directory that count."""
        if reader.name not in self.manifest.state.files:
            return b""
        everything = layer_bits.everything(reader.directory.count)
        return layer_bits.without(everything, self.manifest.state.removed.get(reader.name, b""))

    def row(self, name: FileName, stripe: tuple[bytes, int]) -> int:
        """Where a bundle's layer directory has a stripe."""
        row: int = self.map.reader(name).directory.find(stripe[0], 0, stripe[1])
        return row

    def commit(
        self,
        added: Sequence[BundleInfo] = (),
        removed: Rows | None = None,
        records: Sequence[Record] = (),
        *,
        is_merged: bool = False,
        pruned: Collection[bytes] = (),
    ) -> None:
        """From here on the bundles `added` count, the layers `removed` do not, and `records` are
        true. Versions that only `removed` has must be of no use to any reader (LayerMap.advance).

        `is_merged`: what is added was there before. `pruned`: history chunks that lost versions.
        """
        with self._lock, self._mending.watch():
            self._mend()
            names = {info.name for info in added}
            if names & self._true_already:
                self._true_already -= names
                return  # tried before: all of it is true, or was, and what was added may be gone
            before = self.manifest.state.removed
            removals = [
                self._removal(name, rows, before.get(name, b""))
                for name, rows in (removed or {}).items()
                if any(rows)
            ]
            if is_merged:
                self._in_vain = [info.name for info in added]
            entry = [
                *(file_added(info) for info in added),
                *(_record_of(removal, removed or {}) for removal in removals),
                *records,
            ]
            # What is read comes first: damage must not stand between manifest and index.
            readers = [self._open(info) for info in added]
            bundles = [
                bundle_for_index(reader, info, is_merged=is_merged)
                for reader, info in zip(readers, added, strict=True)
            ]
            histories = self._histories(pruned, readers, entry)
            self.manifest.append(*entry)
            self._true_already |= names
            self._in_vain = []
            self._gone += [removal.name for removal in removals if removal.is_whole]
            if added or removals:
                self._change_index(added, bundles, removals, histories)
                size = sum(info.bytes_total for info in added)
                self.bytes_written += size
                self.bytes_compacted += size if is_merged else 0
            self._retire()
            self._true_already -= names

    @property
    def state(self) -> Manifest:
        """What is true."""
        return self.manifest.state

    def append(self, *records: Record) -> None:
        """Make records without bundles true; with the lock of commits, as `commit` holds it.

        OSError: they may be true all the same, as `state` says. The index notes that they are, or a
        manifest that lost them at its end would be taken for whole; but not how far the LSNs have
        come, which every second says anew: to lose one of those does no harm.
        """
        with self._mending.watch():
            self._mend()
            self.manifest.append(*records)
            if not all(isinstance(record, Progress) for record in records):
                self.index.commit(self.state.serial, self.state.durable_lsn)

    def note_uploaded(self, files: Mapping[FileName, int]) -> list[FileName]:
        """Make true that bundles are in the bucket, under these epochs; those that count."""
        with self._lock:
            there = [name for name in files if name in self.state.files]
            # A bucket that was filled anew has it under another epoch than the one before.
            new = [name for name in there if self.state.uploaded.get(name) != files[name]]
            if new:
                self.append(*(FileUploaded(name.text, files[name]) for name in new))
        return there

    def reopen(self, name: FileName) -> None:
        """Another copy has taken the place of a bundle's file: who opens it from now on reads
        that. If the bundle went meanwhile, the next start removes the copy."""
        with self._lock, self._mending.watch():
            self._mend()
            self.map.forget(name)
            if any(bundle.reader.name == name for bundle in self.map.l0):
                self.map.reload(self.state.removed)

    def mend(self) -> None:
        """Bring the index up to what is true, if a commit could not; OSError: nor can this."""
        with self._lock:
            self._mend()

    def _mend(self) -> None:
        """Finish what an earlier commit could not, as the disk was full; OSError: it still is."""
        if self._mending.mend(self.manifest, self.index, self.map):
            lost = [name for name in self._in_vain if name not in self.manifest.state.files]
            for name in lost:
                self._storage.remove(self.directory / name.text)
            self._in_vain = []
            self._retire()

    def _retire(self) -> None:
        """The index has no bundle any more that the manifest has not."""
        if self._gone:
            epoch = self.map.advance()
            self._doomed += [(epoch, name) for name in self._gone]
            self._gone = []

    def _reader(self, name: FileName) -> BundleReader:
        """An open bundle; of one of L0 the layer directory is known, whatever its file has."""
        l0 = (bundle.reader for bundle in self.map.l0)
        return next((reader for reader in l0 if reader.name == name), None) or self.map.reader(name)

    def _removal(self, name: FileName, rows: bytes, before: bytes) -> Removal:
        reader = self._reader(name)
        gone = layer_bits.union(rows, before)
        is_whole = layer_bits.count(gone) == reader.directory.count
        counts_as_l0 = is_l0(self.manifest.state, name)
        return removal_of(reader, None if is_whole else gone, before, is_l0=counts_as_l0)

    def _open(self, info: BundleInfo) -> BundleReader:
        return BundleReader(self._storage, self.directory / info.name.text, info.directory_frame)

    def _histories(
        self, pruned: Collection[bytes], added: Sequence[BundleReader], entry: Sequence[Record]
    ) -> dict[bytes, list[RelationChange]]:
        """What layers will say of relations whose history chunks are pruned, with `entry` true."""
        if not pruned:
            return {}
        state = self.manifest.state.copy()
        for record in entry:
            state.apply(record)
        places = LivePlaces(self.index, state, self._reader)
        return {subject_of(key): places.history(key, added) for key in sorted(pruned)}

    def _change_index(
        self,
        added: Sequence[BundleInfo],
        bundles: Sequence[NewBundle],
        removals: Sequence[Removal],
        histories: Mapping[bytes, Sequence[RelationChange]],
    ) -> None:
        state = self.manifest.state
        self.index.commit(state.serial, state.durable_lsn, bundles, removals, histories)
        changed = [layer for bundle in bundles for layer in bundle.layers]
        changed += [layer for removal in removals for layer in removal.layers]
        whole = {removal.name for removal in removals if removal.is_whole}
        stripes = ((key, layer.block_start >> 14) for key, layer in changed)
        self.map.change(added, whole, stripes, state.removed)

    def settle(self, name: FileName) -> None:
        """Let an L0 bundle, of which merges have taken what they can, be one no more."""
        with self._lock, self._mending.watch():
            self._mend()
            reader, removed = self._reader(name), self.state.removed.get(name, b"")
            bundle = settled_bundle(reader, self.index.file(name), removed)
            self.manifest.append(BundleSettled(name.text))
            state = self.manifest.state
            was_l0 = Removal(name, [], 0, 0, is_whole=True)
            self.index.commit(state.serial, state.durable_lsn, [bundle], [was_l0])
            places = ((key, layer.block_start >> 14) for key, layer in bundle.layers)
            self.map.change((), {name}, places, state.removed)

    def unlink_step(self) -> bool:
        """Remove one file that went, if there is one that nobody reads any more."""
        with self._lock:
            if not self._doomed or not self.map.is_quiet(self._doomed[0][0]):
                return False
            _, name = self._doomed.pop(0)
        self.map.forget(name)
        self._storage.remove(self.directory / name.text)
        return True

    def compact_manifest_if_worthwhile(self) -> None:
        with self._lock, self._mending.watch():
            self._mend()
            self.manifest.compact_if_worthwhile()


def _record_of(removal: Removal, removed: Rows) -> Record:
    if removal.is_whole:
        return FileRemoved(removal.name.text)
    return LayersRemoved(removal.name.text, removed[removal.name])
