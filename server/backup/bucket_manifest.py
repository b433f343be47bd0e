"""The chain of entries in a bucket: read by anyone, appended to by the one who holds its epoch.

    bucket = BucketManifest(store, boottime)
    bucket.read()                              the state, as it is now
    bucket.take_epoch(nonce, server_id)        from here on everyone else is fenced off
    bucket.append(*records)                    one step: all of its records, or none

An entry is created by a conditional PUT under the next serial, so of two writers one finds the name
taken, reads what is there, and sees who it was. A PUT whose answer is lost is *pending*: it is done
again, the same bytes, before anything else, until it is known whether the entry is in the chain.

Entries below an old snapshot are deleted after the grace time. So a writer that stood still for
long could create a name anew that others had used before, and take it for success. Hence what a
writer knows of the bucket counts for half of the grace time: after that it reads all anew before it
appends, and an answer that comes later than that is none. The clock must go on while the machine
sleeps (CLOCK_BOOTTIME).
"""

import contextlib
from collections.abc import Callable
from itertools import takewhile

from formats.bucket import (
    ENTRIES,
    SNAPSHOTS,
    BucketRecord,
    EpochTaken,
    Written,
    entry_name,
    parse_serial,
    snapshot_name,
)
from formats.bucket_state import (
    BucketState,
    pack_chain_entry,
    pack_snapshot,
    unpack_chain_entry,
)
from formats.errors import CorruptionError
from server.backup.chain_reading import ChangedError, InParallel, read_chain
from server.backup.object_store import NotThereError, ObjectStore, TakenError, TransientError
from server.backup.store_clock import StoreClock

GRACE_SECONDS = 3600.0
SNAPSHOT_ENTRIES_MIN = 16
SNAPSHOT_ENTRIES_MAX = 512
READ_ATTEMPTS = 10


class FencedError(Exception):
    """Another writer holds the bucket: this one must not append, delete or acknowledge any more.
    `BucketManifest.state` stays as it was when the bucket was still ours."""


class OvertakenError(Exception):
    """Something was appended since the state was read on which an epoch was to be taken: whether
    the directory descends from what is there now is to be seen again."""


class _Pending:
    """An entry of which it is not known whether it is in the chain."""

    def __init__(self, state: BucketState, records: tuple[BucketRecord, ...]) -> None:
        """ValueError if these records cannot follow `state`."""
        self.data, entry = pack_chain_entry(state, records)
        self.after = state.after(entry)
        self.name = entry_name(self.after.serial)

    def is_in(self, state: BucketState) -> bool:
        """Whether a state that is as far as this one came of it: under a nonce one writer appends,
        one entry after the other."""
        mine = self.after
        same = state.serial > mine.serial or state.crc == mine.crc
        return same and state.nonce == mine.nonce


class BucketManifest:
    """For one thread. After an error `state` is what it was, or newer, and never in part."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Callable[[], float],
        *,
        grace_seconds: float = GRACE_SECONDS,
        in_parallel: InParallel = map,
        before_append: Callable[[int, int], object] = lambda serial, crc: None,
    ) -> None:
        """`clock`: seconds since any time. `in_parallel`: as `map`, for reading many entries.

        `before_append` is told the serial and the CRC of each entry before it is sent: who writes
        them down knows later whether the bucket's last entry was his own.
        """
        self.state = BucketState()
        self.epoch: int | None = None  # ours, once it is taken
        self._store = store
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._in_parallel = in_parallel
        self._before_append = before_append
        self._pending: _Pending | None = None
        self._heard: float | None = None  # when it was asked whether an entry follows: none did
        self._store_clock = StoreClock(store, clock)
        self._store_ahead = 0.0  # its clock less ours, or somewhat more: what dies, dies later
        self._entries_since = 0  # the newest snapshot
        self._bytes_since = 0
        self._snapshot_bytes = 0

    # Reading --------------------------------------------------------------------------------------

    def read(self) -> BucketState:
        """Read the state anew. CorruptionError if what is there is damaged, or not all; StoreError.

        What comes of it was true at one moment, less than half of the grace time ago.
        """
        for _ in range(READ_ATTEMPTS):
            sent = self._clock()
            try:
                chain = read_chain(self._store, self._in_parallel)
            except ChangedError:
                continue
            before = self.state.serial
            if chain.state.serial < before:
                raise CorruptionError("bucket's manifest", entry_name(before),
                                      "the entry, as it was there", "none")  # fmt: skip
            if self._clock() - sent < self._grace_seconds / 2:
                self._entries_since, self._bytes_since = chain.entries, chain.entry_bytes
                self._snapshot_bytes = chain.snapshot_bytes
                self._become(chain.state)
                self._hear(sent)
                return self.state
        raise TransientError(f"the bucket changed during each of {READ_ATTEMPTS} attempts to read")

    def refresh(self) -> bool:
        """Take what was appended since; whether there was anything. CorruptionError."""
        before = self.state.serial
        if self._is_stale():
            self.read()
        else:
            while self._read_next():
                pass
        return self.state.serial != before

    def _read_next(self) -> bool:
        """Take the next entry, if there is one; whether there was."""
        before, sent = self.state.serial, self._clock()
        name = entry_name(before + 1)
        try:
            data = self._store.get(name)
        except NotThereError:
            data = None
        if self._is_stale():  # by now: who knows what became of that name
            self.read()
        elif data is None:
            self._hear(sent)
        else:
            self._become(unpack_chain_entry(data, self.state, name))
            self._count(len(data))
        return self.state.serial > before

    def _become(self, state: BucketState) -> None:
        if self.epoch is not None and state.epoch != self.epoch:
            raise FencedError(f"server {state.server_id} with epoch {state.epoch} has the bucket, "
                              f"and not we with epoch {self.epoch}")  # fmt: skip
        self.state = state

    # Writing --------------------------------------------------------------------------------------

    def take_epoch(self, nonce: str, server_id: str) -> int:
        """Take the next epoch, on the state that was read last.

        OvertakenError if there is another entry by now. After a StoreError it is not known whether
        it was taken: call again, with any nonce, until it is; `state.nonce` is whose came through.
        """
        if self._pending is None:
            self._begin((EpochTaken(self.state.epoch + 1, nonce, server_id),), None)
        if not self._settle():
            raise OvertakenError(f"{self._holder()} appended entry {self.state.serial}")
        self.epoch = self.state.epoch
        return self.epoch

    def append(self, *records: BucketRecord, local_serial: int | None = None) -> bool:
        """Append an entry: records that follow `state`, and which entry of the local manifest the
        bucket mirrors then (None: the same as before). Whether these were appended.

        False: an earlier entry was pending, and is in the chain now; what is to follow that is to
        be computed anew. FencedError. ValueError if these records cannot follow, and then nothing
        was done. After a StoreError the entry is pending.
        """
        if self.epoch is None:
            raise FencedError("the bucket is not ours: no epoch was taken")
        if self.settle():
            return False
        if self._is_stale():
            self.read()
        self._begin(records, local_serial)
        self.settle()
        return True

    def settle(self) -> bool:
        """Bring a pending entry to an end; whether there was one. FencedError, StoreError."""
        if self._pending is None:
            return False
        if not self._settle():
            raise FencedError(f"another process appends with our epoch {self.epoch}")
        return True

    def check_epoch(self) -> None:
        """Ask the bucket whether the epoch is still ours: FencedError."""
        if self.epoch is None:
            raise FencedError("the bucket is not ours: no epoch was taken")
        self.settle()
        self.refresh()

    def check_last_entry(self) -> None:
        """Ask whether the last entry is still there, after `check_epoch` has found none behind it.

        CorruptionError if not: somebody emptied the bucket, where what is appended says nothing.
        """
        name = entry_name(self.state.serial)
        try:
            self._store.get(name)
        except NotThereError as error:
            raise CorruptionError("bucket's manifest", name, "the last entry, as it was there",
                                  "none") from error  # fmt: skip

    def _holder(self) -> str:
        return f"server {self.state.server_id} with epoch {self.state.epoch}"

    def _begin(self, records: tuple[BucketRecord, ...], local_serial: int | None) -> None:
        serial = self.state.local_serial if local_serial is None else local_serial
        written = Written(int(self._time_of_death()), serial)
        pending = _Pending(self.state, (written, *records))
        self._before_append(pending.after.serial, pending.after.crc)
        self._pending = pending

    def _settle(self) -> bool:
        """Whether the pending entry is in the chain, which is known then."""
        pending = self._pending
        assert pending is not None
        if self._is_stale():
            self.read()
        while self.state.serial < pending.after.serial:
            sent = self._clock()
            try:
                self._store.put_new(pending.name, pending.data)
            except TakenError as error:
                if not self._read_next():  # to ask on at once would be paid for, request by request
                    raise TransientError(f"{error}, and it is not there") from error
                continue
            if self._is_stale():  # by now: the name may have been another's, and deleted
                self.read()
                continue
            self.state = pending.after
            self._count(len(pending.data))
            self._hear(sent)
        self._pending = None
        return pending.is_in(self.state)

    # Snapshots ------------------------------------------------------------------------------------

    def write_snapshot_if_worthwhile(self) -> bool:
        """Write a snapshot if reading the entries since the last one costs more than it."""
        if self._entries_since < SNAPSHOT_ENTRIES_MAX and (
            self._entries_since < SNAPSHOT_ENTRIES_MIN or self._bytes_since < self._snapshot_bytes
        ):
            return False
        data = pack_snapshot(self.state)
        # If it is there, by an earlier attempt: what is true after an entry never changes.
        with contextlib.suppress(TakenError):
            self._store.put_new(snapshot_name(self.state.serial), data)
        self._entries_since, self._bytes_since, self._snapshot_bytes = 0, 0, len(data)
        return True

    def _count(self, size: int) -> None:
        self._entries_since += 1
        self._bytes_since += size

    # What may be deleted, once `check_epoch` has said that the epoch is still ours ----------------

    def overdue(self) -> list[str]:
        """Objects that have been dead for the grace time."""
        now = self.store_now()
        return [n for n, died in self.state.dead.items() if now - died >= self._grace_seconds]

    def superseded(self) -> list[str]:
        """Entries and snapshots that nobody needs to read, not even if one snapshot is damaged:
        those before the last but one of the snapshots that are older than the grace time."""
        snapshots = list(self._store.list(SNAPSHOTS))
        now = self.store_now()
        old = [info for info in snapshots if now - info.modified >= self._grace_seconds]
        if len(old) < 2:
            return []
        first_kept = parse_serial(old[-2].name)
        entries = takewhile(lambda info: parse_serial(info.name) <= first_kept,
                            self._store.list(ENTRIES))  # fmt: skip
        names = [info.name for info in snapshots if parse_serial(info.name) < first_kept]
        return names + [info.name for info in entries]

    # Time -----------------------------------------------------------------------------------------

    def _is_stale(self) -> bool:
        """Whether what we know of the bucket may be old enough for names to have been deleted."""
        return self._heard is None or self._clock() - self._heard >= self._grace_seconds / 2

    def _hear(self, sent: float) -> None:
        """The bucket has answered to what was sent then that no entry follows `state`."""
        self._heard = sent
        self._store_ahead = self._store.now() - sent
        self._store_clock.observe()

    def store_now(self) -> float:
        """The store's clock, in seconds since 1970, as several answers have it."""
        return self._store_clock.now()

    def _time_of_death(self) -> float:
        """Of what the entry before took away: rather too late than too early."""
        return max(self._clock() + self._store_ahead, self.store_now())
