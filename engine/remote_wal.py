"""What object storage has of the WAL, as far as it was heard, and what here depends on that.

The journal stays until layers have its WAL; with `durability = s3` until the bucket has it too, and
only what the bucket has counts as applied. A server that lost the bucket to another one is fenced:
it acknowledges nothing more.

What the bucket has is WAL of a timeline. Where the source left that one, the bucket may have the
beginning of a record that never came to be: it says nothing of the WAL that is in its place now.
"""

import threading


class RemoteWal:
    """Of one data directory. Any thread may read; one moves it, another leaves timelines."""

    def __init__(self, is_waited_for: bool) -> None:
        """`is_waited_for`: nothing counts as applied before the bucket has it."""
        self.is_waited_for = is_waited_for
        self.lsn = 0  # what the bucket alone restores to; 0: nothing, or not known yet
        self.is_fenced = False
        self._timeline = 0  # that `lsn` is of
        self._lock = threading.Lock()

    def move(self, lsn: int, timeline: int) -> None:
        """The bucket's manifest says so, durably, of the WAL of this timeline, and has nothing of
        one that it left. Of one that was left here meanwhile it counts no longer."""
        with self._lock:
            if timeline >= self._timeline:
                self._timeline, self.lsn = timeline, lsn

    def leave(self, switch: int, timeline: int) -> None:
        """From `switch` on the WAL here is about to be this timeline's: where the remote LSN was
        above that, it goes back."""
        with self._lock:
            self._timeline, self.lsn = timeline, min(self.lsn, switch)

    def applied(self, durable_lsn: int) -> int:
        """What may be reported as applied."""
        return self.lsn if self.is_waited_for else durable_lsn

    def keep_from(self, position: int) -> int:
        """From where the journal must stay, if it otherwise could go up to `position`."""
        return min(position, self.lsn) if self.is_waited_for else position
