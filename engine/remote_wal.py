"""What object storage has of the WAL, as far as it was heard, and what here depends on that.

The journal stays until layers have its WAL; with `durability = s3` until the bucket has it too, and
only what the bucket has counts as applied. A server that lost the bucket to another one is fenced:
it acknowledges nothing more.
"""


class RemoteWal:
    """Of one data directory. Any thread may read; one moves it."""

    def __init__(self, is_waited_for: bool) -> None:
        """`is_waited_for`: nothing counts as applied before the bucket has it."""
        self.is_waited_for = is_waited_for
        self.lsn = 0  # what the bucket alone restores to; 0: nothing, or not known yet
        self.is_fenced = False

    def move(self, lsn: int) -> None:
        """The bucket's manifest says so, durably: the one place where the remote LSN changes.

        It goes back only where a timeline was left below it.
        """
        self.lsn = lsn

    def applied(self, durable_lsn: int) -> int:
        """What may be reported as applied."""
        return self.lsn if self.is_waited_for else durable_lsn

    def keep_from(self, position: int) -> int:
        """From where the journal must stay, if it otherwise could go up to `position`."""
        return min(position, self.lsn) if self.is_waited_for else position
