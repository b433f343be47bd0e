"""The storage engine's one object: a data directory, opened. WAL goes in, pages come out.

    journal ──> WalIngest ──> VersionStore ──flush──> bundle ──> manifest ──> index
                                   │                                            │
    get_pages, nblocks, ... <──────┴────────────── layer map <──────────────────┘

Wiring only: each part has its module. Threads are the caller's (server/background.py): one that
calls `ingest_step`, one that calls `flush_step`, one that feeds the journal, any that read.

Until a base backup is complete the store answers nothing: its horizon is above every LSN.
"""

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from engine import recovery, store_status
from engine.backpressure import Backpressure, nothing_to_merge
from engine.backup_identity import BackupIdentity
from engine.base_images import BaseImages
from engine.bundle_factory import BundleFactory
from engine.bundle_writer import BundleInfo
from engine.chunk_table import ChunkTable
from engine.cluster_identity import Ids, Wanted, derive_ids
from engine.cluster_records import ClusterRecords
from engine.compaction_policy import Policy
from engine.compactor import Compactor
from engine.database_creation import DatabaseCreation
from engine.errors import known
from engine.flush import Flusher, file_added
from engine.frame_cache import FrameCache
from engine.ingest import Ingest
from engine.journal import Journal, JournalRewoundError
from engine.layer_store import LayerStore
from engine.manifest_log import ManifestLog
from engine.recovery import Paths
from engine.retention import Retention
from engine.storage import Bytes, File, Storage
from engine.version_store import VersionStore
from engine.waiting_readers import WaitingReaders
from engine.wal_ingest import WalIngest, decompress_image
from engine.wal_intake import Hold, Limits, WalIntake
from engine.wal_reader import WalReader
from formats import chunk_filter
from formats.chunk import ChunkKey, SmallFile
from formats.control_file import parse_control_file
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.manifest_record import Identity, Opened, Progress, Record

FRAME_CACHE_SHARE = 8  # of the memory budget
READ_BYTES = 1 << 20  # of WAL a step


class PageStore:
    """One data directory, held by this process alone (DirectoryInUseError otherwise)."""

    def __init__(
        self,
        directory: Path,
        memory_bytes_max: int,
        storage: Storage | None = None,
        wanted: Wanted | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Open or begin a directory; DirectoryRefusedError if it is not what is `wanted`."""
        self.storage = storage or Storage()
        self.paths = Paths(directory)
        self._lock: File = self.storage.lock(self.paths.lock)
        self._wanted = wanted or Wanted()
        self.intake = WalIntake(self.storage, directory, limits or Limits())
        self.remote = self.intake.remote
        self.backpressure = Backpressure(nothing_to_merge)
        self._chunks = chunk_filter.parse(self._wanted.chunks or "all")
        self.table = ChunkTable(lambda *key: self._chunks.matches(*key))
        self.ingest = Ingest(self.table, decompress_image)
        self.frames = FrameCache(memory_bytes_max // FRAME_CACHE_SHARE)
        self.versions = VersionStore(self.table, self.ingest, memory_bytes_max)
        self.versions.horizon_lsn = store_status.NEVER
        self.wal_arrived = threading.Event()
        self._ids: Ids | None = None
        self._manifest: ManifestLog | None = None
        self._layers: LayerStore | None = None
        self._journal: Journal | None = None
        self._wal: WalIngest | None = None
        self.compactor: Compactor | None = None
        self._cluster: ClusterRecords | None = None
        self._base: BaseImages | None = None
        self._backup: BackupIdentity | None = None
        room = self.intake.room
        self._bundles = BundleFactory(self.storage, self.paths.layers, room.require)
        self._flusher = Flusher(self.versions, self._bundles.create, self._commit)
        bundles = self.storage, self.paths.layers, self._bundles.create, self._commit
        self._databases = DatabaseCreation(self.versions, room, *bundles)
        self._committing = threading.Lock()  # whatever makes the manifest grow
        self.retention = Retention(self.versions, self._committing, lambda: self.layers)
        self._bind_reads()
        try:
            self._open()
        except BaseException:
            self._let_go().close()
            raise

    def _open(self) -> None:
        for path in (self.paths.layers, self.paths.index):
            self.storage.make_directory(path)
        if recovery.is_complete(self.storage, self.paths):
            self._manifest = ManifestLog.open(self.storage, self.paths.manifest)
            self._wanted.check(self._identity, self.paths.directory)
            self._chunks = chunk_filter.parse(self._identity.chunks)
            self._open_layers()
            # Only now: an index that knows more than the manifest shows that this one is damaged.
            self._manifest.append(Opened(self._manifest.state.run + 1))
            state = self._manifest.state  # and now it shows if damage takes this entry away
            self.layers.index.commit(state.serial, state.durable_lsn)
            recovery.remove_leftovers(self.storage, self.paths, self._manifest.state)
            self._start()
        else:
            self._bundles.sequence = recovery.remove_unfinished(self.storage, self.paths)

    def _bind_reads(self) -> None:
        """Reading is the version store's."""
        versions, readers = self.versions, WaitingReaders(self.versions)
        self.wait_for = readers.wait_for
        self.wait_for_reader = readers.wait_for_reader
        self.get_pages = versions.get_pages
        self.page_reader = versions.page_reader
        self.is_retained = versions.is_retained
        self.exists = versions.exists
        self.nblocks = versions.nblocks
        self.db_size = versions.db_size
        self.relations = versions.relations
        self.slru_segments = versions.slru_segments
        self.slru_segment = versions.slru_segment
        self.files = versions.files
        self.file = versions.file
        self.commit_times = versions.commit_times
        self.end_flush = versions.end_flush
        self.hold_of, self.free_bytes = self.intake.hold_of, self.intake.room.free_bytes
        self.memtable_frozen = versions.memtable_frozen

    @property
    def is_complete(self) -> bool:
        """Whether there is a base backup, so that the directory can be served."""
        return self._manifest is not None

    @property
    def ids(self) -> Ids | None:
        """Whose pages these are; None until a base backup has begun."""
        return self._ids

    @property
    def known_ids(self) -> Ids:
        return known(self._ids, "the base backup has not begun: the cluster is not known yet")

    @property
    def journal(self) -> Journal:
        return known(self._journal, "the base backup has not begun: there is no journal yet")

    @property
    def manifest(self) -> ManifestLog:
        return known(self._manifest, "the base backup is not complete: there is no manifest yet")

    @property
    def layers(self) -> LayerStore:
        return known(self._layers, "the base backup is not complete: there are no layers yet")

    @property
    def ready_lsn(self) -> int:
        return self.versions.ready_lsn

    @property
    def durable_lsn(self) -> int:
        return self.versions.durable_lsn

    @property
    def horizon_lsn(self) -> int:
        return self.versions.horizon_lsn

    @property
    def ends_at_lsn(self) -> int | None:
        """Where a directory ends that only shows what was; None: it goes on."""
        return None if self._manifest is None else self._manifest.state.ends_at_lsn

    def begin_base_backup(self, identity: BackupIdentity) -> None:
        """Drop what an earlier attempt left and take a new one."""
        self.abort_base_backup()
        self._backup = identity
        self._ids = self._bundles.ids = self._wanted.ids(derive_ids(identity))
        self.versions.major = identity.pg_version_num // 10000
        if self._journal is None:
            self._journal = Journal(self.storage, self.paths.journal, identity.wal_segment_size)
        self._base = BaseImages(self._bundles.create, identity.start_lsn, self._holds)

    def abort_base_backup(self) -> None:
        """Drop what came so far of one that is not complete."""
        if self._base is not None:
            self._base.abort()
            self._base = self._manifest = None
            recovery.undo_base_backup(self.storage, self.paths)

    def add_pages(self, key: ChunkKey, first_block: int, data: Bytes) -> None:
        self._taking().add_pages(key, first_block, data)

    def mark_torn(self, key: ChunkKey, block: int) -> None:
        self._taking().mark_torn(key, block)

    def chunk_size(self, key: ChunkKey, n_blocks: int) -> None:
        self._taking().chunk_size(key, n_blocks)

    def add_file(self, name: str, data: bytes) -> None:
        self._taking().add_file(name, data)

    def finish_base_backup(self, end_lsn: int) -> None:
        """All of it came: name it in the manifest and start to ingest from the redo LSN."""
        bundles = self._taking().finish()
        backup, ids = self._backup, self.known_ids
        assert backup is not None, "a backup that ends has begun"
        identity = Identity(ids.tenant, ids.timeline, ids.system_identifier, ids.pg_version,
                            backup.wal_segment_size, self._chunks.spec)  # fmt: skip
        self._manifest = ManifestLog.create(
            self.storage,
            self.paths.manifest,
            identity,
            Opened(1),
            *(file_added(info) for info in bundles),
            Progress(backup.start_lsn, end_lsn, backup.start_lsn, end_lsn),
        )
        self._open_layers()
        self._start()
        self._base = None

    def _taking(self) -> BaseImages:
        return known(self._base, "no base backup has begun")

    def _holds(self, key: ChunkKey) -> bool:
        with self.versions.lock:
            number = self.table.intern(*key)  # first: it may replace the columns
            return bool(self.table.held[number])

    @property
    def _identity(self) -> Identity:
        identity = self.manifest.state.identity
        assert identity is not None, "a manifest begins with its identity"
        return identity

    def _open_layers(self) -> None:
        """The layers, their index checked and caught up with the manifest."""
        self._layers = recovery.open_layers(
            self.storage, self.paths, self.manifest, self.frames, self._committing
        )

    def _start(self) -> None:
        state, identity, layers = self.manifest.state, self._identity, self.layers
        self._bundles.run = state.run
        self._ids = self._bundles.ids = Ids(identity.tenant, identity.timeline,
                        identity.system_identifier, identity.postgres_version)  # fmt: skip
        if self._journal is None:
            self._journal = Journal(self.storage, self.paths.journal, identity.wal_segment_bytes)
        versions = self.versions
        versions.major = identity.postgres_version // 10000
        with versions.lock:
            recovery.load_relations(layers.index, self.table, self.ingest)
            versions.layers = layers.map
            newest = max((file.lsn_end for file in state.files.values()), default=0)
            versions.layers_lsn = max(newest, state.durable_lsn)
            versions.durable_lsn = versions.ready_lsn = state.durable_lsn
            self.retention.publish()
            versions.backup_end_lsn = state.backup_end_lsn
        recovery.resume_commit_times(versions)
        # No WAL is in yet: at the horizon, where a base backup ends, files are the same.
        files = recovery.cluster_files(versions, max(state.durable_lsn, state.horizon_lsn))
        versions.checksums = parse_control_file(files[SmallFile.PG_CONTROL]).checksums
        self._cluster = ClusterRecords(self.table, self.ingest, versions.major, files)
        create = partial(self._databases.run, self._journal, self._cluster)
        self._wal = WalIngest(versions, self.ingest, self._cluster, self._reader(), create)
        self._wal.images_from_lsn = state.backup_end_lsn
        if state.ends_at_lsn is None:  # else its layers stay as they are
            retained, policy = self.retention.retained, Policy()
            self.compactor = Compactor(layers, versions, self._bundles.create, retained, policy)
            self.backpressure = Backpressure(lambda: layers.map.l0_count)

    def _reader(self) -> WalReader:
        return WalReader(
            self.ready_lsn,
            self.journal.segment_bytes,
            self.known_ids.system_identifier,
            version=self.versions.major,
        )

    def notify_wal(self) -> None:
        """The journal has more bytes."""
        self.wal_arrived.set()

    def wal_hold(self, length: int) -> Hold | None:
        """Why the journal must not take `length` more bytes now, None if it may."""
        read = self._wal.reader.lsn if self._wal else 0
        return self.intake.hold(self.journal, read, self.ready_lsn, self.durable_lsn, length)

    def ingest_step(self) -> bool:
        """Take what the journal has next; returns whether there was anything.

        CorruptionError: the WAL is damaged or cannot be understood; nothing after it is taken.
        """
        wal = self._wal
        if wal is None:
            return False
        lsn = wal.reader.lsn
        try:
            data = self.journal.read(lsn, READ_BYTES)
        except JournalRewoundError as rewound:
            if rewound.lsn < self.ready_lsn:
                raise CorruptionError(
                    "timeline switch", show_lsn(rewound.lsn), "nothing ingested above it",
                    f"ready LSN {show_lsn(self.ready_lsn)}",
                ) from rewound  # fmt: skip
            wal.reader = self._reader()
            return True
        if not data:
            return recovery.end_replay(self.versions, lsn, self.ends_at_lsn)
        wal.consume(lsn, memoryview(data))
        self._flusher.freeze_part(self.journal.received_lsn, self.backpressure.has_room)
        return True

    def freeze(self) -> None:
        """Freeze the open memtable if anything came since the last time, for the next flush."""
        self._flusher.freeze()

    def flush_step(self) -> bool:
        """Flush a frozen memtable, if there is one that can be and no other thread has it.

        After an OSError because the disk was full (engine/disk_room.py) it may be called again.
        """
        if not self._flusher.step(self._is_on_disk):
            return False
        self.trim_journal()
        self.layers.compact_manifest_if_worthwhile()
        return True

    def trim_journal(self) -> None:
        """Remove WAL that need not stay; any thread may call, when there is something to read."""
        assert self._wal is not None  # behind a WAL switch it has padding to read below durable_lsn
        self.journal.trim(self.remote.keep_from(min(self.durable_lsn, self._wal.reader.lsn)))

    def compact_step(self) -> bool:
        """Merge, materialise or collect a piece; False if there is nothing to do now."""
        return self.compactor is not None and self.compactor.step()

    def held_bytes(self, lsn: int) -> int | None:
        """What only a retained LSN keeps from going; None: not known yet."""
        space = None if self.compactor is None else self.compactor.space
        return None if space is None else space.held_by(lsn)

    def _is_on_disk(self, lsn: int) -> bool:
        """Whether the journal's records up to `lsn` are.

        `lsn` is where the next record will start: behind a WAL switch that is past a page header
        which has not come yet.
        """
        return self.journal.flushed_lsn >= min(lsn, self.journal.received_lsn)

    def _commit(self, info: BundleInfo | None, *more: Record) -> None:
        """From here on a bundle counts. After a full disk: again."""
        self.layers.commit([] if info is None else [info], records=more)

    def close(self) -> None:
        """Flush everything and, even if that fails, close all; the threads must have stopped."""
        with self._let_go():
            if self.is_complete:
                self._flush_all()

    def _let_go(self) -> ExitStack:
        """Closes what there is, backwards and the lock last, when it is left."""
        closing = ExitStack()
        closing.callback(self.storage.close, self._lock)
        if self._layers is not None:
            closing.callback(self._layers.index.close)
        for part in (self._journal, self._manifest):
            if part is not None:
                closing.callback(part.close)
        return closing

    def _flush_all(self) -> None:
        self.journal.sync()
        while self.flush_step():
            pass
        self.freeze()
        while self.flush_step():
            pass

    def status(self) -> Mapping[str, object]:
        """The engine's part of `pageserver status`; LSNs as text, None where there is none."""
        described = store_status.describe(self._ids, self._manifest, self._journal, self.versions,
                                          self.remote)  # fmt: skip
        compaction = store_status.describe_compaction(self.compactor, self._layers)
        return described | compaction | self.retention.status()
