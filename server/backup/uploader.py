"""The uploader: follows a data directory and keeps a bucket the same.

    newest announced manifest ─> files that the bucket lacks, linked, sent in parallel ─> one entry
    journal, flushed so far   ─> a piece every few seconds or megabytes                ─> an entry
    outlines of those files   ─> an object beside the chain (server/backup/outline_shipping.py)

It writes nothing of the directory but D/bucket and D/upload/, so it is a process of its own beside
the server (server/backup/upload_process.py), which tells it what is fsynced. An entry of the
bucket's chain (server/backup/bucket_manifest.py) makes all that it says true at once; what was sent
and is named by none was never there. Who calls `step` again and again decides about time: the clock
and the executor of what is sent come in as arguments.

Every other failure is tried again. Three things end it: another writer took the bucket over
(FencedError), the directory does not descend from what is there (NotDescendedError), the bucket's
own chain is damaged (CorruptionError).
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from random import Random

import crc32c
import zstandard

from engine.storage import Storage
from formats.bucket import BucketRecord, JournalAdded, JournalObject, LayerObject
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.lsn import show as show_lsn
from formats.manifest import Manifest
from formats.manifest_difference import difference
from formats.manifest_record import FileAdded, FileUploaded
from server.backup.attachment import Attachment
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import BucketManifest
from server.backup.chain_reading import InParallel
from server.backup.deletion import Deletion
from server.backup.journal_shipping import JournalShipping, Piece
from server.backup.layer_shipping import LayerShipping
from server.backup.local_state import LocalJournal, LocalManifest, Position, WalGoneError
from server.backup.object_store import ObjectStore, StoreError
from server.backup.outline_shipping import OutlineShipping
from server.backup.troubles import Troubles
from server.backup.upload_messages import BackupSettings, UploadStatus

HEARTBEAT_SECONDS = 8.0  # until it is asked whether an entry follows: within 10 s
LOOK_BACK_SECONDS = 300.0  # until it is asked whether the chain is still there
LOOK_SECONDS = 1.0  # between two looks at the local manifest
POLL_SECONDS = 0.5
LOST_SECONDS = 5.0  # a file that is not there, and is still named, after so long, is lost
WAL_ATTEMPTS_MAX = 3  # to read WAL whose sums do not hold: it may have been cut off meanwhile
COMPRESSION_LEVEL = 1
MANIFEST, JOURNAL, LAYERS = "manifest", "journal", "layers"
DELETION, OUTLINES = "deletion", "outlines"
_log = logging.getLogger("pageserver.backup")


class Uploader:
    """Of one directory and one bucket; used by one thread, but for what the executor runs."""

    def __init__(
        self,
        directory: Path,
        store: ObjectStore,
        url: str,
        server_id: str,
        settings: BackupSettings,
        executor: Executor,
        *,
        clock: Callable[[], float],
        storage: Storage | None = None,
        random: Random | None = None,
        probe: Callable[[], None] = lambda: None,
        nonce: str | None = None,
        on_sent: Callable[[], None] = lambda: None,
        in_parallel: InParallel = map,
    ) -> None:
        """`clock`: seconds, going on while the machine sleeps; `executor` has two threads more
        than `settings.parallel`; `probe`: see Attachment; `on_sent` is called by a thread that has
        sent something, or failed to; `in_parallel`: see BucketManifest, and not the executor's,
        which may be busy for long."""
        self._store = store
        self._settings = settings
        self._executor = executor
        self._on_sent = on_sent
        self._clock = clock
        self._storage = storage or Storage()
        self._directory = directory
        self._position = Position()
        self._bucket = BucketManifest(
            store,
            clock,
            grace_seconds=settings.grace_seconds,
            in_parallel=in_parallel,
            before_append=lambda serial, crc: self._attachment.expect(serial, crc),
        )
        self._attachment = Attachment(self._storage, directory, url, server_id, self._bucket,
                                      nonce or secrets.token_hex(16), probe)  # fmt: skip
        self._manifest = LocalManifest(self._storage, directory / "manifest")
        self._layers = LayerShipping(self._storage, directory)
        self._journal: JournalShipping | None = None
        self._troubles = Troubles(clock, random or Random())
        self._deletion = Deletion(store, self._bucket, settings.grace_seconds, clock)
        self._outlines = OutlineShipping(store, self._storage, directory / "layers", clock)
        self._outlining: Future[None] | None = None
        self._sending: dict[Future[None], FileAdded] = {}
        self._sending_wal: tuple[Future[JournalAdded], Piece] | None = None
        self._wal_attempts = 0
        self._looked_at, self._entry_at, self._heard_at = -1e9, -1e9, -1e9
        self._looked_back_at = clock()
        self._seen_serial = -1  # of the local manifest: the bucket lacks nothing of it
        self._lost: tuple[str, float] | None = None  # a file that is not there, since when
        self._timeline = 0  # of the journal: the bucket has nothing of one that was left
        self._is_hastened = False

    def tell(self, position: Position) -> None:
        """What of the directory is fsynced by now."""
        self._position = position

    def hasten(self) -> None:
        """Send what WAL there is without waiting for more, and begin no layers: the end is near."""
        self._is_hastened = True

    @property
    def is_done(self) -> bool:
        """Whether all WAL that was announced is in the bucket."""
        if not self._position.serial:
            return True  # there is no base backup yet
        if self._journal is None or self._sending_wal is not None or self._journal.unnamed:
            return False
        is_followed = self._timeline == self._position.timeline
        return is_followed and self._bucket.state.remote_lsn >= self._position.flushed_lsn

    @property
    def uploaded(self) -> Mapping[FileName, int]:
        """Files that an entry of the chain names, by the epochs of who put them; another mapping
        after each entry; empty while the bucket is not ours."""
        return {} if self._bucket.epoch is None else self._bucket.state.manifest.uploaded

    @property
    def status(self) -> UploadStatus:
        state, pending = self._bucket.state, self._layers.pending_bytes
        if self._journal is not None:
            pending += self._journal.pending_bytes(state, self._position)
        epoch = self._bucket.epoch
        is_refused = epoch is None and self._troubles.is_refused
        return UploadStatus(
            self._describe(), epoch, state.remote_lsn, pending, is_refused, self._timeline
        )

    def _describe(self) -> str:
        if self._troubles.text is not None:
            return f"retrying: {self._troubles.text}"
        for name, why in self._layers.damaged.items():
            return f"stopped: layers/{name.text} is damaged: {why}; WAL is still sent"
        if self._bucket.epoch is None:
            return "waiting for the base backup" if not self._position.serial else "connecting"
        is_busy = self._sending or self._sending_wal is not None or self._layers.target is not None
        is_busy = is_busy or self._seen_serial < 0  # what the bucket lacks is not known yet
        return "uploading" if is_busy else "idle"

    # Steps ----------------------------------------------------------------------------------------

    def step(self) -> float:
        """Do what is due, none of it for long but requests to the store; the seconds until the
        next call is worth making, if nothing is told or sent before.

        FencedError, NotDescendedError, CorruptionError: this was the last.
        """
        if self._bucket.epoch is None:
            self._attempt(MANIFEST, self._attach)
            return POLL_SECONDS
        self._collect()
        self._attempt(MANIFEST, self._keep_chain)
        self._attempt(JOURNAL, self._send_wal)
        if not self._is_hastened:
            self._attempt(LAYERS, self._send_layers)
            self._attempt(OUTLINES, self._keep_outlines)
            self._attempt(DELETION, self._delete)
        return POLL_SECONDS

    def _attempt(self, work: str, do: Callable[[], bool | None]) -> None:
        """Do it, unless it failed a moment ago; it says False if it has not shown that it can."""
        if not self._troubles.may_try(work):
            return
        try:
            if do() is not False:
                self._troubles.succeeded(work)
        except (StoreError, OSError) as error:
            self._troubles.failed(work, error)

    def _attach(self) -> None:
        serial = self._position.serial
        local = self._manifest.at(serial) if serial else None
        if not self._attachment.step(local):
            return
        assert local is not None and local.identity is not None
        size, settings = local.identity.wal_segment_bytes, self._settings
        self._wal = LocalJournal(self._storage, self._directory / "journal", size)
        self._journal = JournalShipping(self._wal, size, settings.journal_seconds,
                                        settings.journal_bytes, self._clock)  # fmt: skip
        self._heard_at = self._clock()

    def _keep_chain(self) -> None:
        """Hear whether the epoch is ours; say what is there."""
        now = self._clock()
        if now - self._heard_at >= HEARTBEAT_SECONDS:
            self._bucket.check_epoch()
            self._heard_at = now
            if now - self._looked_back_at >= LOOK_BACK_SECONDS:
                self._bucket.check_last_entry()
                self._looked_back_at = now
        self._name_layers()
        self._name_wal()
        self._bucket.write_snapshot_if_worthwhile()

    def _append(self, records: Sequence[BucketRecord], local_serial: int | None = None) -> bool:
        """Whether that is true now; if not, something else is that was to be before."""
        try:
            is_ours = self._bucket.append(*records, local_serial=local_serial)
        except ValueError as error:
            raise NotDescendedError(f"{self._directory} became another one: {error}") from error
        self._heard_at = self._clock()
        self._shipping.forget_named(self._bucket.state)
        return is_ours

    @property
    def _shipping(self) -> JournalShipping:
        assert self._journal is not None, "the epoch is taken"
        return self._journal

    # WAL ------------------------------------------------------------------------------------------

    def _send_wal(self) -> bool:
        """Begin to send the next piece, if it is due and none is on its way."""
        if self._sending_wal is not None:
            return False
        target, state = self._layers.target, self._bucket.state
        coming = None if target is None else target.durable_lsn
        piece = self._shipping.next_piece(state, coming, self._position, at_once=self._is_hastened)
        if piece is not None:
            future = self._executor.submit(self._put_wal, piece)
            future.add_done_callback(lambda _: self._on_sent())
            self._sending_wal = future, piece
        return False

    def _put_wal(self, piece: Piece) -> JournalAdded:
        """In a thread."""
        data = self._wal.read(piece.lsn_start, piece.lsn_end)
        packed = zstandard.ZstdCompressor(COMPRESSION_LEVEL).compress(data)
        assert self._bucket.epoch is not None
        name = JournalObject(*piece, self._bucket.epoch)
        self._store.put_stream(name.text, iter([packed]), len(packed))
        return JournalAdded(*name, len(packed), crc32c.crc32c(packed))

    def _collect_wal(self) -> None:
        if self._sending_wal is None or not self._sending_wal[0].done():
            return
        (future, piece), self._sending_wal = self._sending_wal, None
        try:
            self._shipping.sent(future.result())
        except WalGoneError:
            self._shipping.is_gone(piece.lsn_start)
        except (CorruptionError, OSError) as error:
            self._wal_attempts += 1
            if self._wal_attempts < WAL_ATTEMPTS_MAX:
                self._troubles.failed(JOURNAL, error)
                return
            _log.error("WAL from %s cannot be sent, only layers made of it: %s",
                       show_lsn(piece.lsn_start), error)  # fmt: skip
            self._shipping.is_gone(piece.lsn_start)
        except StoreError as error:
            self._troubles.failed(JOURNAL, error)
            return
        self._wal_attempts = 0
        self._troubles.succeeded(JOURNAL)

    def _name_wal(self) -> None:
        """Say which pieces are there, and which are void."""
        if not self._shipping.unnamed and self._position.timeline == self._timeline:
            return
        records = self._shipping.records(self._bucket.state, self._position)
        is_said = not records or self._append(records)
        if is_said and not self._shipping.has_void(self._bucket.state):
            self._timeline = self._position.timeline

    # Layers ---------------------------------------------------------------------------------------

    def _send_layers(self) -> bool:
        """Begin to send what is waiting, as much as may be at a time."""
        if self._layers.target is None:
            self._choose_target()
        while len(self._sending) < self._settings.parallel:
            file = self._layers.next_file()
            if file is None:
                break
            future = self._executor.submit(self._put_layer, file)
            future.add_done_callback(lambda _: self._on_sent())
            self._sending[future] = file
        return False

    def _choose_target(self) -> None:
        """The newest state that is known: with new files at once, else with the next piece."""
        now, serial = self._clock(), self._position.serial
        if serial == self._seen_serial or now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        local, state = self._manifest.at(serial), self._bucket.state
        if self._layers.still_damaged(local) is not None:
            return
        is_due = now - self._entry_at >= self._settings.journal_seconds
        if not is_due and not self._layers.missing(state, local):
            return
        if self._layers.adopt(state, local):
            self._lost = None
        else:
            self._note_lost(self._layers.first_missing(state, local), local)

    def _note_lost(self, name: str | None, local: Manifest) -> None:
        """A file is not there: the state is old, or it is lost."""
        if name is None or self._lost is None or self._lost[0] != name:
            self._lost = None if name is None else (name, self._clock())
        elif self._clock() - self._lost[1] >= LOST_SECONDS:
            self._layers.note_lost(FileName.parse(name))

    def _put_layer(self, file: FileAdded) -> None:
        """In a thread."""
        assert self._bucket.epoch is not None
        name = LayerObject(self._bucket.epoch, FileName.parse(file.name)).text
        self._store.put_stream(name, self._layers.pieces(file), file.bytes_total)
        self._outlines.outline(self._layers.place(file))

    def _collect(self) -> None:
        """Take what the threads have done."""
        self._collect_wal()
        for future in [future for future in self._sending if future.done()]:
            file = self._sending.pop(future)
            name = FileName.parse(file.name)
            try:
                future.result()
            except CorruptionError as error:
                self._layers.note_damaged(name, str(error))
            except OSError as error:  # as where too many files are open: it may pass
                self._layers.give_up(name)
                self._troubles.failed(LAYERS, error)
            except StoreError as error:
                self._layers.note_failed(file)
                self._troubles.failed(LAYERS, error)
            else:
                assert self._bucket.epoch is not None
                self._layers.note_sent(name, self._bucket.epoch)
                self._troubles.succeeded(LAYERS)

    def _name_layers(self) -> None:
        """Let the state at hand be true, when all its files are there."""
        target, layers, state = self._layers.target, self._layers, self._bucket.state
        if target is None or not layers.is_complete:
            return
        try:
            records: list[BucketRecord] = list(difference(state.manifest, target))
        except ValueError as error:
            raise NotDescendedError(f"{self._directory} became another one: {error}") from error
        added = [FileName.parse(record.name) for record in records if type(record) is FileAdded]
        records += [FileUploaded(name.text, layers.sent[name]) for name in added]
        if records:
            records += self._shipping.records(state, self._position, target.durable_lsn)
            if not self._append(records, target.serial):
                return
        self._shipping.named(target.durable_lsn)
        layers.named(self._bucket.state)
        self._seen_serial, self._entry_at = target.serial, self._clock()

    # The rest -------------------------------------------------------------------------------------

    def _keep_outlines(self) -> bool:
        """Let a thread do what is due, one thing at a time; delete what nobody needs."""
        assert self._bucket.epoch is not None
        if self._outlining is not None:
            if not self._outlining.done():
                return False
            done, self._outlining = self._outlining, None
            done.result()
            return True
        if self._outlines.superseded:
            self._bucket.check_epoch()
            self._store.delete(self._outlines.superseded)
            self._outlines.superseded = []
            return True
        job = self._outlines.next_job(self._bucket.state.manifest.files, self._bucket.epoch)
        if job is not None:
            self._outlining = self._executor.submit(job)
            self._outlining.add_done_callback(lambda _: self._on_sent())
        return False

    def _delete(self) -> None:
        self._deletion.step()
