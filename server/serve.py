"""A running page server: its parts, the order in which they start and stop, its signals.

    start  lock and open the directory → page service → ingest and flush
           → empty directory: base backup, and WAL beside it; any other: receive WAL
    stop   base backup → receiver → ingest and flush → page service → the last flush, close

Clients are answered from the start, even if the answer is that the base backup is not complete. The
receiver stops before ingest, so that everything it reported as flushed is in the journal; nothing
has to be ingested before the end, since the next start replays the journal.

The main thread waits for signals and does nothing else.
"""

import contextlib
import gc
import logging
import os
import signal
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from engine import kill_points, server_id
from engine.cluster_identity import Wanted
from engine.disk_room import is_full
from engine.errors import DirectoryRefusedError, UnreachableError
from engine.journal import JournalFailedError
from engine.lazy_storage import LazyStorage
from engine.page_store import PageStore
from engine.retention import KEEP_ALL, Bounds
from engine.storage import DirectoryInUseError, Storage
from engine.wal_intake import DISK_FULL, JOURNAL_FULL, UNREACHABLE, Hold, Limits
from formats.errors import CorruptionError
from server.attach import attach, default_slot_name
from server.attach import detach as drop_slot
from server.background import SLOWED, WAITING, Background, Worker
from server.backup import binding
from server.backup.object_store import StoreError, TransientError
from server.backup.restore_target import refuse_unfinished
from server.backup.source_slot import name_beside, slot_worker
from server.backup.upload_messages import config_of
from server.backup.uploader_link import BackupRefusedError, UploaderLink
from server.backup_progress import BackupProgress
from server.client import STATUS_KEYS
from server.config import Settings
from server.exit_code import ExitCode
from server.page_service import PageService
from server.remote_layers import RemoteLayers
from server.replication import Stopped, StopSignal, checked_slot
from server.source_errors import SourceError
from server.start_refusals import (
    Refused,
    listening_on,
    refuse_anothers_slot,
    refuse_taken_address,
    refuse_to_go_on,
)
from server.wal_receiver import WalReceiver

log = logging.getLogger("pageserver")

LOCK_FILE = "lock"
HOLDS = (DISK_FULL, UNREACHABLE, JOURNAL_FULL, WAITING, SLOWED)  # the gravest first
START_AGAIN = (
    "check what is behind it, then start the page server again; pages that are here stay readable"
)


@dataclass(frozen=True)
class ServeOptions:
    """The command line of `pageserver serve`."""

    data_dir: Path
    wal_sources: tuple[str, ...]
    base_source: str | None
    chunks: str | None
    slot: str | None
    tenant: str | None
    timeline: str | None
    listen: tuple[str, int]
    s3: str | None = None
    s3_endpoint: str | None = None


class Server:
    """Everything that runs between `start` and `stop`."""

    def __init__(self, options: ServeOptions, settings: Settings) -> None:
        self._options = options
        self._settings = settings
        self._stop_signal = StopSignal()
        self._receiver: WalReceiver | None = None
        self._attaching: threading.Thread | None = None
        self._attach_hold: Hold | None = None
        self._failure: Exception | None = None
        storage, wanted = make_data_directory(options.data_dir), _wanted(options)
        if options.s3 is not None:
            refuse_taken_address(options.listen)
            storage = _with_bucket(storage, options, settings, wanted)
        elif options.wal_sources and options.slot is None:
            refuse_anothers_slot(storage, options.data_dir)
        refuse_unfinished(storage, options.data_dir)
        self._store = PageStore(
            options.data_dir,
            settings.memory_bytes_max,
            storage,
            wanted,
            Limits(
                settings.journal_bytes_max,
                settings.disk_reserve_bytes,
                settings.durability == "s3",
            ),
        )
        number = server_id.read_or_draw(storage, options.data_dir)
        self._slot = options.slot or default_slot_name(number)
        self._uploader: UploaderLink | None = None
        if options.s3 is not None and self._store.ends_at_lsn is None:  # else it is only read
            config = config_of(options.data_dir, options.s3, options.s3_endpoint, number, settings)
            self._uploader = UploaderLink(self._store, config)
        source_bytes = 0 if options.s3 is None else settings.backup_source_bytes
        self._source_slot: Worker | None = None
        if options.wal_sources and (options.s3 or binding.exists(storage, options.data_dir)):
            self._source_slot = slot_worker(self._store, options.wal_sources, self._slot,
                                            source_bytes, self._stop_signal)  # fmt: skip
        self._background = Background(
            self._store,
            settings.flush_seconds_max,
            _bounds(options, settings),
            settings.compaction_bytes_per_second,
        )
        self._service = PageService(self._store, settings, self.status)
        self._service.last_lsn = self._last_lsn
        self._remote_layers: RemoteLayers | None = None
        if isinstance(storage, LazyStorage):
            remote = RemoteLayers(storage, self._store, settings.cache_bytes_max)
            self._remote_layers = remote
            self._service.restore_chunks = remote.restore_chunks
            if self._uploader is not None:
                self._background.evict = remote.evict
                self._uploader.on_begin = remote.forget_uploaded
                self._uploader.on_uploaded = remote.note_uploaded

    def start(self) -> None:
        if not gc.isenabled():  # server/cli.py has stopped it: what was loaded by now stays
            gc.freeze()
            gc.enable()
        options, store = self._options, self._store
        refuse_to_go_on(store, options.data_dir, options.wal_sources)
        with listening_on(options.listen):
            host, port = self._service.start(*options.listen)
        log.info("listening on %s:%d", host, port)
        if not is_loopback(host):
            log.warning("no authentication yet: all who reach %s:%d read every page", host, port)
        self._background.start()
        if self._uploader is not None:
            self._uploader.start(self._stop_signal.is_set)
        if self._stop_signal.is_set():
            return
        if self._source_slot is not None:
            self._source_slot.start()
        if store.ids is None:
            self._attaching = threading.Thread(target=self._attach, name="attach", daemon=True)
            self._attaching.start()
        elif options.wal_sources:
            self._receiver = WalReceiver(
                store, options.wal_sources, self._slot, store.ids.system_identifier
            )
            self._receiver.start()

    def _attach(self) -> None:
        """The base backup; its failure ends the server."""
        options = self._options
        try:
            with BackupProgress() as progress:
                self._receiver = attach(
                    self._store,
                    options.wal_sources,
                    options.base_source,
                    self._slot,
                    self._stop_signal,
                    progress,
                    self._on_hold,
                ).receiver
            log.info("base backup complete")
        except Stopped:
            log.info("base backup given up: it starts anew with the next start")
        except Exception as error:
            if not isinstance(error, SourceError):
                log.exception("base backup failed")
            self._failure = error
            self._stop_signal.set()

    def _on_hold(self, hold: Hold | None) -> None:
        self._attach_hold = hold

    def catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def wait(self) -> None:
        """Until a signal comes, or the base backup has failed."""
        while not self._stop_signal.wait(3600):
            continue

    def _on_signal(self, number: int, _: object) -> None:
        # The second signal finds the default action: it ends the process.
        signal.signal(number, signal.SIG_DFL)
        self._stop_signal.set()

    def stop(self) -> None:
        """Flush and close; raises what made the server end by itself."""
        self._stop_signal.set()
        if self._attaching is not None:
            self._attaching.join()
        if self._receiver is not None:
            self._receiver.stop()
        if self._uploader is not None:
            self._uploader.finish()
        if self._source_slot is not None:
            self._source_slot.stop()
        self._background.stop()
        self._service.stop()
        self._store.close()
        if self._failure is not None:
            raise self._failure

    def status(self) -> dict[str, object]:
        """What `show status` answers."""
        values = dict(self._store.status())
        state, source, error = self._describe_source()
        values |= {"slot": self._slot, "source": source, "state": state}
        for worker in self._background.workers:
            if worker.name == "compaction" and worker.error is not None:
                values["compaction"] = f"stopped: {worker.error}"
            elif worker.name == "compaction" and worker.waits_for is not None:
                what = "room on the disk" if is_full(worker.waits_for) else "the bucket"
                values["compaction"] = f"{values['compaction']}: waits for {what}"
        values["error"] = error or None
        if self._uploader is not None:
            values |= self._uploader.status()
        if self._remote_layers is not None:
            values |= self._remote_layers.status()
        first = {key: values.get(key) for key in STATUS_KEYS}
        return first | values

    def _last_lsn(self) -> int | None:
        """Without a source the end of what is here, if that is known yet."""
        if self._options.wal_sources or not self._background.has_ingested_all:
            return self._store.ends_at_lsn
        return self._store.ready_lsn

    def _describe_source(self) -> tuple[str, str | None, str]:
        """(state, source, error); a step of ours that failed counts most: WAL piles up then.

        What holds one of ours up comes before the source's state, a full disk first.
        """
        receiver = self._receiver
        if self._uploader is not None and self._store.remote.is_fenced:
            return "fenced", None, self._uploader.reason
        source = None if receiver is None else receiver.source
        for worker in self._background.workers:
            if worker.error is not None:
                return "failed", source, f"{worker.name}: {worker.error}; {START_AGAIN}"
        if receiver is not None and receiver.state in ("failed", "refused"):
            return receiver.state, source, receiver.error
        holds = [self._attach_hold, receiver and receiver.hold, self._background.find_hold()]
        found = sorted((hold for hold in holds if hold), key=lambda hold: HOLDS.index(hold.state))
        if found:
            return found[0].state, source, found[0].reason
        if receiver is not None:
            return receiver.state, source, receiver.error
        if self._attaching is not None:
            return "base backup", None, ""
        if self._options.wal_sources:
            return "connecting", None, "no WAL is taken before it is known whose the bucket is"
        is_bucket_read = self._options.s3 is not None and self._uploader is None
        return "read-only from the bucket" if is_bucket_read else "read-only", None, ""


def make_data_directory(path: Path) -> Storage:
    """Make the directory if it is not there yet, its name durable; the storage to use it with.

    Refused if the variable for kill points (engine/kill_points.py) says nothing.
    """
    storage = Storage()
    text = os.environ.get(kill_points.VARIABLE)
    if text is not None:
        try:
            storage = kill_points.KillingStorage(path, text)
        except ValueError as error:
            raise Refused(str(error), ExitCode.USAGE) from error
        log.warning("%s=%s: for tests", kill_points.VARIABLE, text)
    storage.make_directory(path)
    with contextlib.suppress(PermissionError):  # whoever may not read it cannot sync it
        Storage().sync_directory(path.parent)
    return storage


def run(options: ServeOptions, settings: Settings) -> ExitCode:
    """`pageserver serve`, from the first line to the exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        server = Server(options, settings)
        server.catch_signals()
        try:
            server.start()
            server.wait()
        finally:
            server.stop()
    except Refused as error:
        return _report(error, error.code)
    except SourceError as error:
        code = ExitCode.REFUSED if error.permanent else ExitCode.CANNOT_CONNECT
        return _report(error, code)
    except UnreachableError as error:
        return _report(error, ExitCode.CANNOT_CONNECT)
    except (
        DirectoryInUseError, DirectoryRefusedError, BackupRefusedError, CorruptionError, OSError
    ) as error:  # fmt: skip
        return _report(error, ExitCode.REFUSED)
    except JournalFailedError as error:
        return _report(error, ExitCode.WRONG)
    log.info("stopped")
    return ExitCode.OK


def detach(data_dir: Path, wal_sources: list[str], slot: str | None) -> ExitCode:
    """`pageserver detach`: drop the slot of a server that does not run."""
    logging.basicConfig(format="pageserver: %(message)s")
    storage = Storage()
    try:
        lock = storage.lock(data_dir / LOCK_FILE)
        try:
            if slot is None and not storage.exists(data_dir / server_id.FILE_NAME):
                raise Refused(f"{data_dir} was never served: --slot must say which slot to drop")
            if slot is None:
                refuse_anothers_slot(storage, data_dir)
            slot = slot or default_slot_name(server_id.read(storage, data_dir))
            if drop_slot(wal_sources, checked_slot(slot)):
                print(f"dropped slot {slot}")
            else:
                print(f"there was no slot {slot}")
            if drop_slot(wal_sources, name_beside(slot)):
                print(f"dropped slot {name_beside(slot)}")
        finally:
            storage.close(lock)
    except SourceError as error:
        code = ExitCode.REFUSED if error.permanent else ExitCode.CANNOT_CONNECT
        return _report(error, code)
    except (Refused, DirectoryInUseError, CorruptionError, OSError) as error:
        return _report(error, ExitCode.REFUSED)
    return ExitCode.OK


def _wanted(options: ServeOptions) -> Wanted:
    return Wanted(options.chunks, options.tenant, options.timeline)


def _with_bucket(
    storage: Storage, options: ServeOptions, settings: Settings, wanted: Wanted
) -> Storage:
    """The directory's storage, some of whose layers may be in the bucket."""
    from server.backup.restore_plan import RestoreRefusedError  # boto3 is slow to load
    from server.lazy_directory import open_directory

    assert options.s3 is not None
    try:
        return open_directory(
            storage, options.data_dir, options.s3, options.s3_endpoint, settings, wanted
        )
    except TransientError as error:
        raise Refused(str(error), ExitCode.CANNOT_CONNECT) from error
    except (StoreError, RestoreRefusedError) as error:
        raise Refused(str(error)) from error


def _bounds(options: ServeOptions, settings: Settings) -> Bounds:
    """Without a source nothing comes that would need room, and nothing is forgotten."""
    if not options.wal_sources:
        return KEEP_ALL
    return Bounds(settings.retention_seconds, settings.retention_wal_bytes)


def is_loopback(host: str) -> bool:
    return ip_address(host).is_loopback


def _report(error: Exception, code: ExitCode) -> ExitCode:
    log.error("%s", error)
    return code
