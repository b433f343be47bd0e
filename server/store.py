"""What the page service asks of the storage engine.

engine/page_store.py is the one that serves, tests/fixtures/fake_store.py one that lives in memory.
Every method may be called by many threads at once. Those with an LSN answer as of that LSN, which
is between the horizon and the ready LSN, and raise engine.errors.RequestError for what they cannot
answer; the text goes to the client.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.commit_times import StateAt
from engine.page_reader import PageReader
from engine.retention import Retention
from formats.pagestream import PageBatch


class Identity(Protocol):
    """Which cluster this is; see design invariant 11 for where the ids come from."""

    @property
    def tenant(self) -> str: ...
    @property
    def timeline(self) -> str: ...
    @property
    def system_identifier(self) -> int: ...
    @property
    def pg_version(self) -> int:
        """As the server says it itself: 180006 is 18.6."""


class CommitTimes(Protocol):
    """Times are microseconds since 2000; engine/commit_times.py says what they mean."""

    def time_at(self, lsn: int) -> int | None:
        """The time of the newest commit at or below an LSN, None if none is known."""

    def state_at(self, time: int) -> StateAt | None:
        """The LSN of the state as of a time, None if that cannot be read any more."""


class Store(Protocol):
    @property
    def ids(self) -> Identity | None:
        """None until the base backup has begun."""

    @property
    def ready_lsn(self) -> int:
        """The highest LSN that can be read."""

    @property
    def horizon_lsn(self) -> int:
        """The lowest but for retained ones; 0 or above the ready LSN while the base backup is not
        complete."""

    def is_retained(self, lsn: int) -> bool:
        """Whether this LSN can be read although it is below the horizon."""

    @property
    def retention(self) -> Retention:
        """Points and leases."""

    def held_bytes(self, lsn: int) -> int | None:
        """Bytes of layers that go if this LSN is kept no longer; None: not known yet."""

    def wait_for(self, lsn: int, timeout_seconds: float) -> bool:
        """Block until `lsn` is ready; False if the time is over before."""

    def page_reader(self) -> PageReader | None:
        """What reads pages in memory for the calling thread, without the GIL; None: get_pages reads
        all of them."""

    def get_pages(self, batch: PageBatch, count: int, out: memoryview) -> None:
        """Write the first `count` pages to out[batch.out_pos[i]:]; a page that fails gets a
        nonzero batch.status[i] and a text batch.errors[i], and spoils none of the others."""

    def exists(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> bool: ...

    def nblocks(self, spc: int, db: int, rel: int, fork: int, lsn: int) -> int: ...

    def db_size(self, db: int, lsn: int) -> int:
        """Bytes of all forks in all tablespaces."""

    def slru_segment(self, kind: int, segment: int, lsn: int) -> bytes: ...

    def relations(self, lsn: int) -> Sequence[tuple[int, int, int, int, int]]:
        """(spc, db, rel, fork, blocks) of all that exist."""

    def slru_segments(self, lsn: int) -> Sequence[tuple[int, int, int]]:
        """(kind, segment, blocks) of all that exist."""

    def files(self, lsn: int) -> Sequence[str]: ...

    def file(self, name: str, lsn: int) -> bytes: ...

    @property
    def commit_times(self) -> CommitTimes:
        """The LSN at a time, and the time at an LSN."""

    def status(self) -> Mapping[str, object]:
        """The values that `pageserver status` shows, LSNs as text, and a mapping `counters`."""
