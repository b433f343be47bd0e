"""Which piece of the journal goes to the bucket next, and what the bucket's manifest says of it.

    bucket's durable LSN         end of its pieces        flushed LSN
    ──────┬──────┬───────────────┬────────────────────────┬──────>
    start of its segment         next piece: when it is old or large enough

Pieces follow each other without a gap, and none crosses the end of a segment or a switch of the
timeline. What comes behind the bucket's pieces is named in its manifest as soon as it is there. The
journal here goes once layers have it, though: a bucket that was away for long finds the WAL behind
its pieces gone. Then pieces begin anew where the layers end that are on their way, and are named
together with those.

A piece that goes on above the place where its timeline was left is void there, and what it has
below that may have been acknowledged: that is sent anew, and takes its place.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from formats import lsn
from formats.bucket import BucketRecord, HistoryAdded, JournalAdded, JournalRemoved
from formats.bucket_state import BucketState
from formats.timeline_history import HistoryEntry
from server.backup.local_state import LocalJournal, Position


class Piece(NamedTuple):
    timeline: int
    lsn_start: int
    lsn_end: int


class JournalShipping:
    """Of one uploader; used by one thread. Nothing is sent here."""

    def __init__(
        self,
        journal: LocalJournal,
        segment_bytes: int,
        seconds_max: float,
        bytes_max: int,
        clock: Callable[[], float],
    ) -> None:
        self.unnamed: list[JournalAdded] = []  # in the bucket, but not in its manifest
        self._journal = journal
        self._segment_bytes = segment_bytes
        self._seconds_max = seconds_max
        self._bytes_max = bytes_max
        self._clock = clock
        self._gone: set[int] = set()  # where a piece would begin, but cannot
        self._due_to = 0  # all up to here is to go now
        self._waiting_since: float | None = None
        self._timeline = 0
        self._history: list[HistoryEntry] = []

    # What to send ---------------------------------------------------------------------------------

    def next_piece(
        self, state: BucketState, coming_lsn: int | None, position: Position, *, at_once: bool
    ) -> Piece | None:
        """The piece that is due, if one is; or any that there is, `at_once`.

        `coming_lsn`: the durable LSN of the layers that are on their way, if any are.
        """
        self._follow(position.timeline)
        self.forget_named(state)
        start = self._start(state, coming_lsn)
        if start is None or position.flushed_lsn <= start:
            self._waiting_since = None
            return None
        if start >= self._due_to:
            if self._waiting_since is None:
                self._waiting_since = self._clock()
            is_old = self._clock() - self._waiting_since >= self._seconds_max
            if not (at_once or is_old or position.flushed_lsn - start >= self._bytes_max):
                return None
            self._due_to, self._waiting_since = position.flushed_lsn, None
        timeline, switch = self._timeline_at(start)
        segment_end = start - start % self._segment_bytes + self._segment_bytes
        end = min(position.flushed_lsn, start + self._bytes_max, segment_end, switch)
        return Piece(timeline, start, end)

    def pending_bytes(self, state: BucketState, position: Position) -> int:
        """WAL that is not named in the bucket."""
        return max(0, position.flushed_lsn - max(state.remote_lsn, self._named_end(state)))

    def is_gone(self, start: int) -> None:
        """WAL that a piece would begin with is not here: only layers have it."""
        self._gone.add(start)

    def _start(self, state: BucketState, coming_lsn: int | None) -> int | None:
        """Where the next piece begins: behind the last, or where coming layers end."""
        start = self.unnamed[-1].lsn_end if self.unnamed else self._named_end(state)
        has_begun = state.manifest.identity is not None or bool(self.unnamed)
        if has_begun and start not in self._gone:
            return start
        if coming_lsn is None:
            return None
        anew = self._segment_start(coming_lsn)
        if anew in self._gone or (self.unnamed and anew <= self.unnamed[0].lsn_start):
            return None
        self.unnamed.clear()
        return anew

    def _named_end(self, state: BucketState) -> int:
        kept, _ = self._without_void(state)
        if kept:
            return kept[-1].lsn_end
        return self._segment_start(state.manifest.durable_lsn)

    def _segment_start(self, position: int) -> int:
        return position - position % self._segment_bytes

    # What to say of it ----------------------------------------------------------------------------

    def sent(self, piece: JournalAdded) -> None:
        """It is in the bucket; the next one begins behind it."""
        self.unnamed.append(piece)

    def forget_named(self, state: BucketState) -> None:
        """What `state` names is named, and of what its layers have nothing need be."""
        named = {piece.name for piece in state.journal}
        base = self._segment_start(state.manifest.durable_lsn)
        self.unnamed = [p for p in self.unnamed if p.name not in named and p.lsn_end > base]

    def records(
        self, state: BucketState, position: Position, durable_lsn: int | None = None
    ) -> list[BucketRecord]:
        """What is to be said of the journal now; together with layers up to `durable_lsn`, if such
        are said to be there."""
        self._follow(position.timeline)
        self.forget_named(state)  # by an entry whose answer was lost
        durable = state.manifest.durable_lsn if durable_lsn is None else durable_lsn
        base = self._segment_start(durable)
        kept, removed = self._without_void(state)
        voids = len(removed)
        self.unnamed = [piece for piece in self.unnamed if not self._is_void(piece)]
        while kept and kept[0].lsn_end <= base:
            removed.append(kept.pop(0))
        coming = [piece for piece in self.unnamed if piece.lsn_end > base]
        if coming and coming[0].lsn_start != (kept[-1].lsn_end if kept else base):
            if coming[0].lsn_start == base:
                removed += kept
            else:
                coming = []  # they wait for the layers that end where they begin
        records: list[BucketRecord] = list(self._new_histories(state))
        if voids and not self._is_replaced(removed[voids - 1], durable, coming):
            return records
        records += (JournalRemoved(piece.name) for piece in removed)
        return records + coming

    def named(self, durable_lsn: int | None = None) -> None:
        """What `records` said is in the bucket's manifest; with new layers, WAL that was gone is
        needed no more."""
        if durable_lsn is not None:
            self._gone.clear()
            base = self._segment_start(durable_lsn)
            self.unnamed = [piece for piece in self.unnamed if piece.lsn_end > base]

    # Timelines ------------------------------------------------------------------------------------

    def _follow(self, timeline: int) -> None:
        """Know how this timeline came about."""
        if timeline == self._timeline and (self._history or timeline == 1):
            return
        self._history = self._journal.history(timeline)
        if timeline != self._timeline:
            self._gone.clear()
            self._due_to = 0
        self._timeline = timeline

    def _timeline_at(self, position: int) -> tuple[int, int]:
        """The timeline of the WAL from there on, and where it was left."""
        for entry in self._history:
            if position < entry.end_lsn:
                return entry.timeline, entry.end_lsn
        return self._timeline, lsn.LSN_MAX

    def _is_void(self, piece: JournalAdded) -> bool:
        """Whether its timeline was left below its end."""
        if piece.timeline == self._timeline:
            return False
        ends = {entry.timeline: entry.end_lsn for entry in self._history}
        return piece.lsn_end > ends.get(piece.timeline, 0)

    def has_void(self, state: BucketState) -> bool:
        """Whether the bucket names WAL of a timeline that was left below it."""
        return bool(self._without_void(state)[1])

    def _without_void(self, state: BucketState) -> tuple[list[JournalAdded], list[JournalAdded]]:
        """The bucket's pieces, and apart from them those that are void, the last first."""
        kept, void = list(state.journal), []
        while kept and self._is_void(kept[-1]):
            void.append(kept.pop())
        return kept, void

    def _is_replaced(
        self, void: JournalAdded, durable: int, coming: Sequence[JournalAdded]
    ) -> bool:
        """Whether layers, or what was sent, have the part of a piece that is not void."""
        ends = {entry.timeline: entry.end_lsn for entry in self._history}
        end = ends.get(void.timeline, void.lsn_start)
        sent = coming[-1].lsn_end if coming else 0
        return end <= max(void.lsn_start, durable, sent)

    def _new_histories(self, state: BucketState) -> Iterator[HistoryAdded]:
        for timeline in [*(entry.timeline for entry in self._history), self._timeline]:
            if timeline not in state.histories:
                content = self._journal.history_content(timeline)
                if content is not None:
                    yield HistoryAdded(timeline, content)
