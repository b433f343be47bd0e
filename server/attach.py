"""Attaching an empty data directory to a cluster, and detaching it again.

The order matters: a replication slot holds the WAL from before the backup starts; the backup says
where redo begins; from there WAL is received beside the copying, because the source may not keep it
until the copying is over. So:

    slot → BASE_BACKUP → its start LSN → receive WAL from that segment on, while files come

A backup that is cut off starts anew and keeps nothing of the first attempt but the WAL, if it is
still of use. So does one for which the disk has no room: what came is removed at once, and it
starts when there is more room than that left, or after a while. Errors that a person has to mend
end it.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine.backup_identity import BackupIdentity
from engine.wal_intake import Hold
from formats import lsn
from formats.errors import CorruptionError
from server.base_backup import BackupReport, BackupStore, take_base_backup
from server.replication import (
    ReplicationConnection,
    Stopped,
    StopSignal,
    drop_slot,
)
from server.source_errors import SourceError, is_not_offered
from server.wal_receiver import RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, WalReceiver
from server.wal_stream import WalStore

ROOM_BYTES = 1 << 20
ROOM_POLL_SECONDS = 0.5
ROOM_SECONDS_MIN, ROOM_SECONDS_MAX = 15.0, 300.0
DAMAGED_MAX = 3  # pg_control may be read while it is written; more often it is no accident

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class AttachStore(BackupStore, WalStore, Protocol):
    """A store that takes a base backup and WAL; its journal is there once the backup has begun."""

    def free_bytes(self) -> int:
        """What the disk has left."""


@dataclass
class Attachment:
    """An attached cluster: the receiver runs."""

    receiver: WalReceiver
    report: BackupReport


def attach(
    store: AttachStore,
    wal_sources: Sequence[str],
    base_source: str | None,
    slot: str,
    stop: StopSignal,
    on_progress: Callable[[BackupReport], None] = lambda report: None,
    on_hold: Callable[[Hold | None], None] = lambda hold: None,
) -> Attachment:
    """Take a base backup into an empty store and start to receive WAL.

    SourceError when a person has to act, CorruptionError when the backup comes damaged again and
    again, Stopped when the signal came; the receiver is stopped then. `on_hold` is told why it
    waits for room on the disk, and None when it goes on.
    """
    reservation = reserve_wal(wal_sources, slot, stop)
    attempt = _Attempt(store, wal_sources, slot)
    sources = [base_source] if base_source is not None else list(wal_sources)

    def take(conninfo: str) -> BackupReport:
        return take_base_backup(
            conninfo,
            slot,
            store,
            stop,
            system_identifier=reservation.system_identifier,
            on_begin=attempt.begin,
            on_progress=on_progress,
        )

    try:
        waiting = _RoomWait(store, stop, on_hold)
        report = _repeat(lambda: _first_that_works(sources, take), stop, waiting)
    except BaseException as error:
        attempt.stop()
        if not isinstance(error, Stopped) and reservation.created_at is not None:
            # Nobody will come back for this WAL: a slot left behind would fill the source's disk.
            with contextlib.suppress(SourceError):
                drop_slot(reservation.created_at, slot, StopSignal())
        raise
    on_progress(report)
    return Attachment(attempt.running_receiver, report)


class _RoomWait:
    """Between attempts for which the disk had no room."""

    def __init__(
        self, store: AttachStore, stop: StopSignal, on_hold: Callable[[Hold | None], None]
    ) -> None:
        self._store = store
        self._stop = stop
        self._on_hold = on_hold
        self._seconds_max = ROOM_SECONDS_MIN

    def wait(self, error: OSError) -> None:
        """Until there is more room, or for longer each time; a fault of the disk is raised."""
        hold = self._store.hold_of(error)
        if hold is None:
            raise error
        self._on_hold(hold)
        self._store.abort_base_backup()
        free_bytes = self._store.free_bytes()
        _log.warning("the base backup waits for room on the disk: %s", hold.reason)
        deadline = time.monotonic() + self._seconds_max
        while time.monotonic() < deadline and self._store.free_bytes() < free_bytes + ROOM_BYTES:
            if self._stop.wait(ROOM_POLL_SECONDS):
                raise Stopped
        self._seconds_max = min(2 * self._seconds_max, ROOM_SECONDS_MAX)
        self._on_hold(None)


def _repeat(take: Callable[[], BackupReport], stop: StopSignal, room: _RoomWait) -> BackupReport:
    """Until a backup is complete, or refused for good, or came damaged several times."""
    delay = RETRY_SECONDS_MIN
    damaged_count = 0
    while True:
        try:
            return take()
        except SourceError as error:
            if error.permanent:
                raise
            cause: Exception = error
        except CorruptionError as error:
            damaged_count += 1
            if damaged_count == DAMAGED_MAX:
                raise
            cause = error
        except OSError as error:
            room.wait(error)
            continue
        _log.warning("the base backup was cut off and starts anew: %s", cause)
        if stop.wait(delay):
            raise Stopped
        delay = min(2 * delay, RETRY_SECONDS_MAX)


class _Attempt:
    """The receiver beside the base backup, which outlives attempts that are cut off."""

    def __init__(self, store: AttachStore, wal_sources: Sequence[str], slot: str) -> None:
        self._store = store
        self._wal_sources = wal_sources
        self._slot = slot
        self._receiver: WalReceiver | None = None

    @property
    def running_receiver(self) -> WalReceiver:
        assert self._receiver is not None, "a backup that is complete has begun"
        return self._receiver

    def begin(self, identity: BackupIdentity) -> None:
        """A backup has begun: see that WAL comes from its start LSN on."""
        journal = self._store.journal
        start = identity.start_lsn // journal.segment_bytes * journal.segment_bytes
        has_start = not journal.is_empty and journal.start_lsn <= start
        if self._receiver is not None and has_start and identity.timeline <= journal.timeline:
            journal.trim(start)
            return
        self.stop()
        journal.discard()
        journal.begin(start, identity.timeline)
        _log.info(
            "base backup of cluster %d from %s on, timeline %d",
            identity.system_identifier,
            lsn.show(identity.start_lsn),
            identity.timeline,
        )
        self._receiver = WalReceiver(
            self._store, self._wal_sources, self._slot, identity.system_identifier
        )
        self._receiver.start()

    def stop(self) -> None:
        if self._receiver is not None:
            self._receiver.stop()
        self._receiver = None


@dataclass(frozen=True)
class Reservation:
    """Which cluster a WAL source belongs to, and where a slot was made for it."""

    system_identifier: int
    created_at: str | None  # a connection string; None if the slot was there, or there are none


def reserve_wal(wal_sources: Sequence[str], slot: str, stop: StopSignal) -> Reservation:
    """Make the slot at the first WAL source that answers."""
    return _first_that_works(wal_sources, lambda conninfo: _reserve_wal_at(conninfo, slot, stop))


def _reserve_wal_at(conninfo: str, slot: str, stop: StopSignal) -> Reservation:
    connection = ReplicationConnection.open(conninfo, slot, stop)
    try:
        identifier = connection.identify_system().system_identifier
        try:
            is_new = connection.create_slot(slot)
        except SourceError as error:
            if not is_not_offered(error):
                raise
            _log.warning("%s has no replication slots", connection.source)
            is_new = False
        return Reservation(identifier, conninfo if is_new else None)
    finally:
        connection.close()


def _first_that_works(sources: Sequence[str], act: Callable[[str], Result]) -> Result:
    """The first success; else the first error that a person has to mend, else the last one."""
    errors: list[SourceError] = []
    for conninfo in sources:
        try:
            return act(conninfo)
        except SourceError as error:
            errors.append(error)
    raise next((error for error in errors if error.permanent), errors[-1])


def detach(wal_sources: Sequence[str], slot: str) -> bool:
    """Drop the slot at every source that has it; False if none had. SourceError if none answers."""
    stop = StopSignal()
    dropped: list[bool] = []
    errors: list[SourceError] = []
    for conninfo in wal_sources:
        try:
            dropped.append(drop_slot(conninfo, slot, stop))
        except SourceError as error:
            errors.append(error)
    if not dropped and errors:
        raise errors[0]
    return any(dropped)


def default_slot_name(identity: int) -> str:
    """The name of the slot, and application_name, of the server with this persisted 32-bit id."""
    return f"pageserver_{identity & 0xFFFFFFFF:08x}"
