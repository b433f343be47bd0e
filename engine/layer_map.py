"""Where the versions below the memtables are: what the read path asks.

    L0 bundles, newest first, their directories in memory
    then the stripe's layers, newest first, from the index

Readers hold no lock while they read: the tuple of L0 bundles is replaced, never changed, and a
bundle's file stays open as long as anyone reads it. Whoever reads must have asked the memtables
first: a flush adds its bundle here before it drops the memtable, so a version is seen once or
twice, and twice does no harm (engine/layer_query.py). The same goes for a merge of L0 bundles,
which drops no version: a reader may see it done in part. Rows of an L0 bundle that were merged are
dead at once, though: a newer bundle may be gone before an older one, and its versions lie below.

What *drops* versions must wait until nobody reads who may have seen what was there before:
`advance` ends an epoch, and `is_quiet` says when the readers that began in it have left. Who took
versions from memtables says in which epoch that was: in another one the older versions to which
they belong may have gone, under an image that is newer than they are, and the read begins anew.
"""

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleInfo
from engine.errors import LayersGoneError, UnreachableError
from engine.foresight import Foresight, Visit
from engine.frame_cache import FrameCache
from engine.index import Index
from engine.layer_query import LayerQuery
from engine.storage import Storage
from engine.version_set import VersionSet
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.index_value import LayerEntry
from formats.layer_file import LayerKind

STRIPES_MAX = 65536  # whose layers are remembered
TABLE_BYTES_MAX = 64 << 20  # of frame tables of open bundles below L0
VISITS_MAX = 255  # layers a request visited, counted apart; more count as so many
REPORTED_MAX = 1000  # pieces of damage that the log has a line for
_log = logging.getLogger("pageserver.layer_map")


class ResidentBundle(NamedTuple):
    lsn_start: int
    lsn_end: int
    reader: BundleReader
    dead: bytes  # rows of its directory that were merged: below may be newer versions by now


class LayerMap:
    """All layers of a data directory. Any thread reads; the one that flushes adds."""

    def __init__(
        self,
        storage: Storage,
        directory: Path,
        index: Index,
        cache: FrameCache,
        removed: Mapping[FileName, bytes] | None = None,
        table_bytes_max: int = TABLE_BYTES_MAX,
        stripes_max: int = STRIPES_MAX,
    ) -> None:
        """`directory` is where the bundles lie; `removed`: rows of them, as in the manifest."""
        self.cache = cache
        self._storage = storage
        self._directory = directory
        self._index = index
        self._removed = removed
        self._table_bytes_max = table_bytes_max
        self._stripes_max = stripes_max
        self._lock = threading.Lock()
        self._stripes: OrderedDict[tuple[bytes, int], tuple[LayerEntry, ...]] = OrderedDict()
        self._generation = 0
        self._readers: OrderedDict[FileName, BundleReader] = OrderedDict()
        self._table_bytes = 0
        self._epoch = 0
        self._readers_in: Counter[int] = Counter()  # by the epoch in which they began
        self.visits = memoryview(bytearray(8 * (VISITS_MAX + 1))).cast("Q")
        self._reported: set[str] = set()
        self._l0 = self._read_l0(removed or {})
        self._foresight = Foresight(storage, directory, cache, self._visits, self.reader)

    @property
    def epoch(self) -> int:
        return self._epoch

    @property
    def l0_count(self) -> int:
        return len(self._l0)

    def _read_l0(self, removed: Mapping[FileName, bytes]) -> tuple[ResidentBundle, ...]:
        bundles = []
        for name, frame in self._index.l0():
            entry = self._index.file(name)
            reader = BundleReader(self._storage, self._directory / name.text, frame)
            dead = removed.get(name, b"")
            bundles.append(ResidentBundle(entry.lsn_start, entry.lsn_end, reader, dead))
        return tuple(bundles)

    def reload(self, removed: Mapping[FileName, bytes]) -> None:
        """Let readers see what the index has, after it was caught up with the manifest."""
        with self._lock:
            self._stripes.clear()
            self._generation += 1
        self._l0 = self._read_l0(removed)  # last: what is gone from here must be seen below

    @property
    def l0(self) -> tuple[ResidentBundle, ...]:
        """Newest first."""
        return self._l0

    def change(
        self,
        added: Iterable[BundleInfo],
        gone: Collection[FileName],
        stripes: Iterable[tuple[bytes, int]],
        removed: Mapping[FileName, bytes],
    ) -> None:
        """Let readers see what the index has taken: bundles, some of which are `gone`, `stripes`
        whose layers changed, and the rows that are `removed` now, as in the manifest."""
        with self._lock:
            for place in stripes:
                self._stripes.pop(place, None)
            self._generation += 1
        bundles = [
            bundle._replace(dead=removed.get(bundle.reader.name, b""))
            for bundle in self._l0
            if bundle.reader.name not in gone
        ]
        for info in added:
            if info.name.kind == FileKind.L0:
                path = self._directory / info.name.text
                reader = BundleReader(self._storage, path, info.directory_frame)
                lsns = info.footer.lsn_start, info.footer.lsn_end
                bundles.append(ResidentBundle(*lsns, reader, b""))
        self._l0 = tuple(sorted(bundles, key=lambda b: b[:2][::-1], reverse=True))

    def forget(self, name: FileName) -> None:
        """A bundle's file goes; nobody reads it any more."""
        with self._lock:
            reader = self._readers.pop(name, None)
            if reader is not None:
                self._table_bytes -= len(reader.table.raw)

    def by_last_read(self) -> list[FileName]:
        """Bundles below L0 that were read, the one whose last read is longest ago first."""
        with self._lock:
            return list(self._readers)

    def advance(self) -> int:
        """End the epoch; who begins to read from now on sees what was changed before."""
        with self._lock:
            ended = self._epoch
            self._epoch += 1
        return ended

    def is_quiet(self, epoch: int) -> bool:
        """Whether all have left who began to read in `epoch` or before."""
        with self._lock:
            return all(began > epoch for began in self._readers_in)

    def _enter(self, since: int | None = None) -> int:
        with self._lock:
            if since is not None and since != self._epoch:
                raise LayersGoneError
            self._readers_in[self._epoch] += 1
            return self._epoch

    def _leave(self, epoch: int) -> None:
        with self._lock:
            self._readers_in[epoch] -= 1
            if not self._readers_in[epoch]:
                del self._readers_in[epoch]

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

    def collect_batch(self, query: LayerQuery, since: int | None = None) -> None:
        """The same for all requests of a query, best sorted by (chunk, block).

        `since`: the epoch before memtables gave versions, None if they gave none. LayersGoneError:
        it is over.

        Afterwards `query.oldest` has each request's chain, and `query.errors` those that need a
        damaged file or frame, with the reason.
        """
        epoch = self._enter(since)
        try:
            if query.keeps_frames and self._storage.is_lazy:
                with self._storage.foreseeing(partial(self._foresight.bring, query)):
                    self._collect(query)
            else:
                self._collect(query)
            if query.keeps_frames:  # else compaction reads
                query.count_visits(self.visits)
            if query.errors:
                self._report(query.errors.values())
        finally:
            self._leave(epoch)

    def _collect(self, query: LayerQuery) -> None:
        for visit in self._visits(query):
            try:
                reader = visit.reader or self.reader(visit.name)
            except (CorruptionError, OSError) as error:
                for hit in range(query.hit_count):
                    query.fail_hit(hit, error)
            else:
                reader.collect_hits(query, query.hit_count, self.cache)

    def _report(self, errors: Iterable[Exception]) -> None:
        """Damage, each once: not only who happened to read must hear of it."""
        damage = {str(error) for error in errors if not isinstance(error, UnreachableError)}
        with self._lock:
            texts = sorted(damage - self._reported)
            texts = texts[: REPORTED_MAX - len(self._reported)]
            self._reported.update(texts)
        for text in texts:
            _log.error("a read met damage: %s", text)

    def _visits(self, query: LayerQuery) -> Iterator[Visit]:
        """Bundles that open requests of a query must see, in this order; at each it has these as
        its hits. Those that become complete on the way see no more."""
        for bundle in self._l0:
            if not query.open:
                return
            reader = bundle.reader
            if reader not in query.passed and query.wants(bundle.lsn_start, bundle.lsn_end):
                if reader.locate(query, bundle.dead):
                    yield Visit(reader.name, reader, is_image=False)
                query.passed.add(reader)
        while query.open and (first := query.next_group()) >= 0:
            yield from self._visits_of_group(query, first)

    def _visits_of_group(self, query: LayerQuery, first: int) -> Iterator[Visit]:
        """The same of the query's group, of which request `first` is one, below L0."""
        try:
            layers = self._layers(query.key(first), query.block_of(first) >> 14)
        except CorruptionError as error:
            query.fail_group(error)
            return
        for layer in layers:
            if layer.kind != LayerKind.DELTA:
                query.start_at(layer.lsn_start, layer.kind == LayerKind.FUZZY_IMAGE)
        for layer in layers:
            is_image = layer.kind != LayerKind.DELTA
            hits = query.enter(
                is_image, layer.lsn_start, layer.lsn_end, layer.block_start, layer.block_end,
                layer.number, layer.frame_start, layer.frame_end,
            )  # fmt: skip
            if hits:
                yield Visit(layer.file, self._at_hand(layer.file), is_image)

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

    def _at_hand(self, name: FileName) -> BundleReader | None:
        """An open bundle, which is about to be used."""
        with self._lock:
            reader = self._readers.get(name)
            if reader is not None:
                self._readers.move_to_end(name)
            return reader

    def reader(self, name: FileName) -> BundleReader:
        """An open bundle; of those not used for long, the frame tables are let go."""
        known = self._at_hand(name)
        if known is not None:
            return known
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
