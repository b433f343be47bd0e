"""Whether a source's timelines are those of the WAL that is here, before any of it is taken.

A source that was promoted has a history: where it left which timeline. It is followed only if it
went the same way as what is here, and left our timeline not below a record that is here.
"""

from engine.journal import Journal
from formats import lsn
from formats.timeline_history import HistoryEntry, parse_history
from server.replication import ReplicationConnection, SourceIdentity
from server.source_errors import SourceError


class WalTimelines:
    """Of one connection, beside one journal."""

    def __init__(self, connection: ReplicationConnection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal

    def begin_journal(self, identity: SourceIdentity, durable: int) -> None:
        """The server stopped before any WAL came, or lost its journal: begin at the durable LSN."""
        segment_bytes = self._journal.segment_bytes
        timeline = identity.timeline
        if timeline > 1:
            content = self._connection.timeline_history(timeline)
            history = parse_history(content, f"history of timeline {timeline}")
            timeline = next((e.timeline for e in history if durable < e.end_lsn), timeline)
        self._journal.begin(durable - durable % segment_bytes, timeline)

    def limit(self, identity: SourceIdentity) -> int:
        """Refuse a source of another history; returns where our timeline ends there, if it does."""
        journal = self._journal
        ours = journal.timeline
        if identity.timeline < ours:
            raise SourceError(
                f"{self._connection.source} is on timeline {identity.timeline}, the data directory "
                f"already on {ours}",
                "It is not the server that was promoted: name that one as --wal-source",
                permanent=True,
            )
        if identity.timeline == 1:
            return lsn.LSN_MAX
        history = self._history(identity.timeline)
        for entry in journal.history():
            if entry not in history:
                raise self._refused(entry, history)
        if identity.timeline == ours:
            return lsn.LSN_MAX
        ends = [entry.end_lsn for entry in history if entry.timeline == ours]
        if not ends:
            raise self._refused(None, history)
        self.refuse_beyond(ends[0], identity.timeline)
        return ends[0]

    def _history(self, timeline: int) -> list[HistoryEntry]:
        content = self._connection.timeline_history(timeline)
        if timeline == self._journal.timeline and not self._journal.history():
            self._journal.keep_history(timeline, content)
        return parse_history(content, f"history of timeline {timeline}")

    def _refused(self, entry: HistoryEntry | None, theirs: list[HistoryEntry]) -> SourceError:
        way = ", ".join(f"{e.timeline} up to {lsn.show(e.end_lsn)}" for e in theirs) or "none"
        if entry is None:
            ours = f"timeline {self._journal.timeline} is not in it"
        else:
            ours = f"here timeline {entry.timeline} went up to {lsn.show(entry.end_lsn)}"
        return SourceError(
            f"{self._connection.source} has another history: its timelines are {way}; {ours}",
            "Name a source that went the same way, or start with an empty data directory",
            permanent=True,
        )

    def refuse_beyond(self, switch: int, timeline: int) -> None:
        """Refuse a switch to a new timeline below records that are here; nothing is changed."""
        whole = self._journal.last_record_end()
        if whole <= switch:
            return
        raise SourceError(
            f"{self._connection.source} left timeline {self._journal.timeline} for {timeline} at "
            f"{lsn.show(switch)}, but WAL up to {lsn.show(whole)} was received here: what lies "
            "above the switch never happened there",
            "Start with an empty data directory on the new timeline, or name a source that is "
            "still on the old one",
            permanent=True,
        )
