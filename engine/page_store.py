"""The storage engine's one object: a data directory, opened. WAL goes in, pages come out.

    journal ──> WalIngest ──> VersionStore ──flush──> bundle ──> manifest ──> index
                                   │                                           │
    get_pages, nblocks, ... <──────┴───────────────────────────────────────────┘

Wiring only: each part has its module. Threads are the caller's (server/background.py): one that
calls `ingest_step`, one that calls `flush_step`, any number that read.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.backup_identity import BackupIdentity
from engine.base_images import BaseImages
from engine.bundle_reader import BundleReader
from engine.bundle_writer import BundleInfo, BundleWriter
from engine.chunk_table import ChunkTable
from engine.cluster_records import ClusterRecords
from engine.flush import sorted_run, write_bundle
from engine.frame_cache import FrameCache
from engine.ingest import Ingest
from engine.journal import Journal
from engine.layer_query import LayerQuery
from engine.manifest_log import ManifestLog
from engine.memtable import Memtable
from engine.storage import Storage
from engine.version_store import VersionStore
from engine.wal_ingest import WalIngest, decompress_image
from engine.wal_reader import WalReader
from formats.chunk import ChunkKey
from formats.file_name import FileKind, FileName
from formats.manifest import FileAdded, Identity, Opened, Progress

FRAME_CACHE_SHARE = 8
READ_BYTES = 1 << 20


class Layers:
    def __init__(self, bundles: tuple[BundleReader, ...], cache: FrameCache) -> None:
        self.bundles = bundles
        self.cache = cache

    def collect(self, query: LayerQuery) -> None:
        for bundle in self.bundles:
            if not query.open:
                return
            bundle.collect(query, self.cache)

    def with_bundle(self, reader: BundleReader) -> "Layers":
        return Layers((reader, *self.bundles), self.cache)


@dataclass(frozen=True)
class Ids:
    """Names that clients use, derived once from the cluster (design invariant 11)."""

    tenant: str
    timeline: str
    system_identifier: int
    pg_version: int


def derive_ids(identity: BackupIdentity) -> Ids:
    def digest(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    system = identity.system_identifier
    return Ids(
        digest(f"pageserver tenant {system}"),
        digest(f"pageserver timeline {system} {identity.timeline}"),
        system,
        identity.pg_version_num,
    )


class PageStore:
    def __init__(
        self,
        directory: Path,
        memory_bytes_max: int,
        is_held: Callable[..., bool] | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.directory = directory
        self.storage = storage or Storage()
        self._lock_file = self.storage.lock(directory / "lock")
        self.layers_directory = directory / "layers"
        self.storage.make_directory(self.layers_directory)
        self.table = ChunkTable(is_held)
        self.ingest = Ingest(self.table, decompress_image)
        self.frames = FrameCache(memory_bytes_max // FRAME_CACHE_SHARE)
        self.versions = VersionStore(
            self.table, self.ingest, Layers((), self.frames), memory_bytes_max
        )
        self.manifest: ManifestLog | None = None
        self.ids: Ids | None = None
        self.journal: Journal | None = None
        self.wal: WalIngest | None = None
        self.run = 1
        self._sequence = 0
        self._base: BaseImages | None = None
        self._identity: BackupIdentity | None = None
        self.wal_arrived = threading.Event()
        versions = self.versions
        self.get_pages = versions.get_pages
        self.wait_for = versions.wait_for
        self.exists = versions.exists
        self.nblocks = versions.nblocks
        self.db_size = versions.db_size
        self.relations = versions.relations
        self.slru_segments = versions.slru_segments
        self.slru_segment = versions.slru_segment
        self.files = versions.files
        self.file = versions.file

    @property
    def ready_lsn(self) -> int:
        return self.versions.ready_lsn

    @property
    def durable_lsn(self) -> int:
        return self.versions.durable_lsn

    @property
    def horizon_lsn(self) -> int:
        return self.versions.horizon_lsn

    def notify_wal(self) -> None:
        """The journal has more bytes."""
        self.wal_arrived.set()

    def open_journal(self, segment_bytes: int) -> Journal:
        self.journal = Journal(self.storage, self.directory / "journal", segment_bytes)
        return self.journal

    def create_bundle(self, kind: FileKind) -> BundleWriter:
        self._sequence += 1
        name = FileName(kind, 0, self.run, self._sequence)
        assert self.ids is not None
        return BundleWriter(
            self.storage,
            self.layers_directory,
            name,
            self.ids.tenant,
            self.ids.timeline,
            self.ids.pg_version,
        )

    # --- base backup

    def begin_base_backup(self, identity: BackupIdentity) -> None:
        self._identity = identity
        self.ids = derive_ids(identity)
        self.versions.major = identity.pg_version_num // 10000
        self._base = BaseImages(self.create_bundle, identity.start_lsn, self._holds)
        self.add_pages = self._base.add_pages
        self.add_file = self._base.add_file
        self.chunk_size = self._base.chunk_size

    def _holds(self, key: ChunkKey) -> bool:
        with self.versions.lock:
            number = self.table.intern(*key)  # first: it may replace the columns
            return bool(self.table.held[number])

    def finish_base_backup(self, end_lsn: int) -> None:
        base, identity, ids = self._base, self._identity, self.ids
        assert base is not None
        assert identity is not None
        assert ids is not None
        bundles = base.finish()
        self.manifest = ManifestLog.create(
            self.storage,
            self.directory / "manifest",
            Identity(
                ids.tenant,
                ids.timeline,
                ids.system_identifier,
                ids.pg_version,
                identity.wal_segment_size,
            ),
            Opened(self.run),
            *(file_added(info) for info in bundles),
            Progress(identity.start_lsn, end_lsn, identity.start_lsn, end_lsn),
        )
        with self.versions.lock:
            for key, blocks in base.blocks.items():
                root = self.table.intern(*key)
                self.table.exists[root] = 1
                self.table.blocks[root] = blocks
                self.table.change_lsn[root] = identity.start_lsn
            layers = self.versions.layers
            for info in bundles:
                layers = layers.with_bundle(
                    BundleReader(self.storage, self.layers_directory / info.name.text)
                )
            self.versions.layers = layers
            self.versions.layers_lsn = identity.start_lsn
        self.start_ingest(identity.start_lsn, end_lsn, identity.checksums)

    def start_ingest(self, start_lsn: int, horizon_lsn: int, hint_bits_logged: bool) -> None:
        assert self.journal is not None
        major = self.versions.major
        cluster = ClusterRecords(self.table, self.ingest, major, self._copy_database)
        self.cluster = cluster
        reader = WalReader(
            start_lsn, self.journal.segment_bytes, self.ids.system_identifier, version=major
        )
        self.wal = WalIngest(self.versions, self.ingest, cluster, reader)
        self.wal.images_from_lsn = horizon_lsn
        self.versions.horizon_lsn = horizon_lsn
        self.versions.ready_lsn = start_lsn
        self.versions.durable_lsn = start_lsn

    def _copy_database(self, source, target, lsn):
        raise ValueError("CREATE DATABASE ... STRATEGY file_copy is not supported yet")

    # --- background

    def ingest_step(self) -> bool:
        """Take what the journal has next; returns whether there was anything."""
        if self.wal is None:
            return False
        lsn = self.wal.reader.lsn
        data = self.journal.read(lsn, READ_BYTES)
        if not data:
            return False
        self.wal.consume(lsn, memoryview(data))
        return True

    def freeze_if_needed(self) -> None:
        """Freeze the open memtable if it holds anything, so that the next flush takes it."""
        with self.versions.lock:
            if self.ready_lsn > self.durable_lsn and not self.versions.frozen:
                self.versions.freeze()

    def flush_step(self) -> bool:
        with self.versions.lock:
            if not self.versions.frozen:
                return False
            memtable = self.versions.frozen[-1]
        layers = self.versions.layers
        records = [Progress(durable_lsn=memtable.lsn_end)]
        if memtable.entry_count:
            run = sorted_run(memtable, self.versions.key, self.table.count)
            info = write_bundle(self.create_bundle(FileKind.L0), run)
            records.insert(0, file_added(info))
            layers = layers.with_bundle(
                BundleReader(self.storage, self.layers_directory / info.name.text)
            )
        self.manifest.append(*records)
        self.versions.publish(memtable, layers)
        return True

    def status(self):
        from formats.lsn import show

        def text(lsn):
            return show(lsn) if lsn else None

        journal = self.journal
        return {
            "tenant": self.ids and self.ids.tenant,
            "timeline": self.ids and self.ids.timeline,
            "received_lsn": text(journal and journal.received_lsn),
            "flushed_lsn": text(journal and journal.flushed_lsn),
            "ready_lsn": text(self.ready_lsn),
            "durable_lsn": text(self.durable_lsn),
            "remote_lsn": None,
            "horizon_lsn": text(self.horizon_lsn),
            "lag_bytes": (journal.received_lsn - self.ready_lsn) if journal else None,
            "layer_count": len(self.versions.layers.bundles),
            "layer_bytes": 0,
            "journal_bytes": 0,
            "debt_bytes": 0,
            "counters": dict(self.versions.counters),
        }

    def close(self) -> None:
        with self.versions.lock:
            self.versions.freeze()
        while self.flush_step():
            pass


def file_added(info: BundleInfo) -> FileAdded:
    return FileAdded(
        info.name.text,
        info.bytes_total,
        info.footer.lsn_start,
        info.footer.lsn_end,
        info.footer_crc,
    )
