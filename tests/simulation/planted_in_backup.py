"""Faults planted in what backup does, each of which the simulation must find.

Each is a mistake that somebody could make: what it leaves out is there for one reason, and the
interleavings in which that matters must happen often enough to be met.
"""

from contextlib import suppress
from dataclasses import replace
from itertools import takewhile

from formats.bucket import ENTRIES, SNAPSHOTS, BucketRecord, JournalAdded, parse_serial
from formats.bucket_state import BucketState
from server.backup.bucket_manifest import BucketManifest
from server.backup.object_store import TakenError, TransientError
from tests.simulation.small_writer import SmallWriter


class GoesOnWhenFenced(BucketManifest):
    """Does not look who has the epoch."""

    def _become(self, state: BucketState) -> None:
        self.state = state
        self.epoch = self.epoch and state.epoch

    def _settle(self) -> bool:
        super()._settle()
        return True


class WritesOver(BucketManifest):
    """Puts entries over whatever has their name."""

    def _settle(self) -> bool:
        assert self._pending is not None
        self._store.put(self._pending.name, self._pending.data)
        self.state, self._pending = self._pending.after, None
        self._hear(self._clock())
        return True


class TakenIsOurs(BucketManifest):
    """Takes an entry that is there for an earlier attempt of its own, without looking."""

    def _settle(self) -> bool:
        assert self._pending is not None
        with suppress(TakenError):
            self._store.put_new(self._pending.name, self._pending.data)
        self.state, self._pending = self._pending.after, None
        self._hear(self._clock())
        return True


class NoAnswerIsSuccess(BucketManifest):
    """Takes a request that timed out for one that was done."""

    def append(self, *records: BucketRecord, local_serial: int | None = None) -> bool:
        try:
            return super().append(*records, local_serial=local_serial)
        except TransientError:
            if self._pending is not None:
                self.state, self._pending = self._pending.after, None
            return True


class BelievesForEver(BucketManifest):
    """Has no clock: what it knew of the bucket counts."""

    def _is_stale(self) -> bool:
        return self._heard is None


class BelievesLateAnswers(BucketManifest):
    """Looks at the clock before an entry is sent, and not when the answer comes."""

    def _settle(self) -> bool:
        if self._is_stale():
            self.read()
        self._is_stale = lambda: False  # type: ignore[method-assign]
        try:
            return super()._settle()
        finally:
            del self._is_stale  # type: ignore[method-assign]


class NoGraceForObjects(BucketManifest):
    """Deletes what is dead at once."""

    def overdue(self) -> list[str]:
        return list(self.state.dead)


class NoGraceForEntries(BucketManifest):
    """Deletes what the newest snapshot has at once."""

    def superseded(self) -> list[str]:
        newest = max((parse_serial(info.name) for info in self._store.list(SNAPSHOTS)), default=0)
        entries = self._store.list(ENTRIES)
        return [i.name for i in takewhile(lambda i: parse_serial(i.name) <= newest, entries)]


class DeletesWhatItKnows(BucketManifest):
    """Deletes entries, whether a snapshot has them or not."""

    def superseded(self) -> list[str]:
        entries = self._store.list(ENTRIES)
        serial = self.state.serial
        return [i.name for i in takewhile(lambda i: parse_serial(i.name) < serial, entries)]


class AcknowledgesWhatItSends(SmallWriter):
    """As Neon #12043: the LSN moves on before, or without, what it stands for."""

    def append_piece(self, piece: JournalAdded, *first: BucketRecord) -> None:
        state = self.bucket.state
        coming = replace(state, journal=[*state.journal, piece])
        self.acknowledge(coming, coming.remote_lsn)
        super().append_piece(piece, *first)


class NamesBeforeItSends(SmallWriter):
    """Appends first and sends then."""

    def ship_piece(self, piece: JournalAdded, data: bytes, *first: BucketRecord) -> None:
        self.append_piece(piece, *first)
        self.store.put_stream(piece.name, iter([data]), len(data))


class UsesNamesTwice(SmallWriter):
    """Has no epoch in the names of what it sends."""

    @property
    def epoch(self) -> int:
        return 1


class OnceItWasOurs(SmallWriter):
    """Deletes what it does not know without asking whose the bucket is by now."""

    def delete_orphans(self) -> None:
        check = self.bucket.check_epoch
        self.bucket.check_epoch = lambda: None  # type: ignore[method-assign]
        try:
            super().delete_orphans()
        finally:
            self.bucket.check_epoch = check  # type: ignore[method-assign]


class GoesOnFromAnything(SmallWriter):
    """Does not ask whether its directory comes from what the bucket has."""

    def descends(self) -> bool:
        self.bucket.read()
        return True


class TellsOfAnyTimeline(SmallWriter):
    """Does not ask of which timeline the WAL is that the bucket has."""

    def tell(self) -> None:
        self.acknowledge(self.bucket.state, self.bucket.state.remote_lsn)


class LeavesAGap(SmallWriter):
    """Takes away what is void at its end before what was not is there anew."""

    def ship_piece(self, piece: JournalAdded, data: bytes, *first: BucketRecord) -> None:
        if first:
            self.bucket.append(*first)
        super().ship_piece(piece, data)


PLANTED = (
    GoesOnWhenFenced, WritesOver, TakenIsOurs, NoAnswerIsSuccess, BelievesForEver,
    BelievesLateAnswers, NoGraceForObjects, NoGraceForEntries, DeletesWhatItKnows,
    AcknowledgesWhatItSends, NamesBeforeItSends, UsesNamesTwice, OnceItWasOurs, GoesOnFromAnything,
    TellsOfAnyTimeline, LeavesAGap,
)  # fmt: skip
