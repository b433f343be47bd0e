"""Where the versions below the memtables are: what the read path asks.

    L0 bundles, newest first, their directories in memory
    then the stripe's layers, newest first, from the index

Readers hold no lock while they read: the tuple of L0 bundles is replaced, never changed, and a
bundle's file stays open as long as anyone reads it. Whoever reads must have asked the memtables
first: a flush adds its bundle here before it drops the memtable, so a version is seen once or
twice, and twice does no harm (engine/layer_query.py).
"""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleInfo
from engine.frame_cache import FrameCache
from engine.index import Index
from engine.layer_query import LayerQuery
from engine.storage import Storage
from engine.version_set import VersionSet
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.index_value import LayerEntry

STRIPES_MAX = 65536  # whose layers are remembered
TABLE_BYTES_MAX = 64 << 20  # of frame tables of open bundles below L0


class ResidentBundle(NamedTuple):
    lsn_start: int
    lsn_end: int
    reader: BundleReader


class LayerMap:
    """All layers of a data directory. Any thread reads; the one that flushes adds."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        index: Index,
        cache: FrameCache,
        table_bytes_max: int = TABLE_BYTES_MAX,
        stripes_max: int = STRIPES_MAX,
    ) -> None:
        """`directory` is where the bundles lie."""
        self.cache = cache
        self._storage = storage
        self._directory = directory
        self._index = index
        self._table_bytes_max = table_bytes_max
        self._stripes_max = stripes_max
        self._lock = threading.Lock()
        self._stripes: OrderedDict[tuple[bytes, int], tuple[LayerEntry, ...]] = OrderedDict()
        self._generation = 0
        self._readers: OrderedDict[FileName, BundleReader] = OrderedDict()
        self._table_bytes = 0
        bundles = []
        for name, frame in index.l0():
            entry = index.file(name)
            reader = BundleReader(storage, directory / name.text, frame)
            bundles.append(ResidentBundle(entry.lsn_start, entry.lsn_end, reader))
        self._l0 = tuple(bundles)

    @property
    def l0_count(self) -> int:
        return len(self._l0)

    def add_bundle(self, info: BundleInfo) -> None:
        """Let readers see a bundle that the index has taken."""
        if info.name.kind == FileKind.L0:
            path = self._directory / info.name.text
            reader = BundleReader(self._storage, path, info.directory_frame)
            bundle = ResidentBundle(info.footer.lsn_start, info.footer.lsn_end, reader)
            newest_first = sorted((bundle, *self._l0), key=lambda b: b[:2][::-1], reverse=True)
            self._l0 = tuple(newest_first)
            return
        with self._lock:
            self._stripes.clear()
            self._generation += 1

    def collect(
        self, key: bytes, block: int, lsn_max: int, lsn_floor: int, into: VersionSet
    ) -> bool:
        """One block's versions with lsn_floor < LSN <= lsn_max, newest first, into a VersionSet
        whose oldest version, if any, is the next newer one of this block.

        True if a self-contained version ends them.
        """
        query = LayerQuery(1)
        query.begin(into)
        query.add(key, block, lsn_floor, lsn_max, into.oldest)
        self.collect_batch(query)
        for error in query.errors.values():
            raise error
        return bool(query.is_complete(0))

    def collect_batch(self, query: LayerQuery) -> None:
        """The same for all requests of a query, best sorted by (chunk, block).

        Afterwards `query.oldest` has each request's chain, and `query.errors` those that need a
        damaged file or frame, with the reason.
        """
        for bundle in self._l0:
            if not query.open:
                return
            if query.wants(bundle.lsn_start, bundle.lsn_end):
                bundle.reader.collect(query, self.cache)
        for i in range(query.count):
            if not query.is_complete(i):
                self._collect_stripe(query, i)

    def _collect_stripe(self, query: LayerQuery, i: int) -> None:
        block = query.block_of(i)
        try:
            for layer in self._layers(query.key(i), block >> 14):
                if query.wants_of(i, layer.lsn_start, layer.lsn_end) and (
                    layer.block_start <= block < layer.block_end
                ):
                    self._reader(layer.file).collect_layer(
                        query, i, layer.number, layer.frame_start, layer.frame_end, self.cache
                    )
        except (CorruptionError, OSError) as error:
            query.fail(i, error)

    def _layers(self, key: bytes, stripe: int) -> tuple[LayerEntry, ...]:
        """A stripe's layers: remembered, or from the index."""
        with self._lock:
            layers = self._stripes.get((key, stripe))
            generation = self._generation
        if layers is not None:
            return layers
        layers = self._index.stripe(key, stripe)
        with self._lock:
            if generation == self._generation:  # else what was read may be old by now
                self._stripes[key, stripe] = layers
                if len(self._stripes) > self._stripes_max:
                    self._stripes.popitem(last=False)
        return layers

    def _reader(self, name: FileName) -> BundleReader:
        """An open bundle; of those not used for long, the frame tables are let go."""
        with self._lock:
            reader = self._readers.get(name)
            if reader is not None:
                self._readers.move_to_end(name)
                return reader
        reader = BundleReader(self._storage, self._directory / name.text)
        size = len(reader.table.raw)
        with self._lock:
            if name in self._readers:
                return self._readers[name]
            self._readers[name] = reader
            self._table_bytes += size
            while self._table_bytes > self._table_bytes_max and len(self._readers) > 1:
                _, unused = self._readers.popitem(last=False)
                self._table_bytes -= len(unused.table.raw)
        return reader
