"""What a cluster has at each LSN, in a dictionary: the truth that the engine is held against.

Everything of the past stays: a `Sight` is never changed, each record makes the next one.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, replace

from tests.fixtures.crash_workload import Content, Relation

UNREADABLE = Content(-1)  # changed by a record that nobody here understands
TUPLES_MAX = 12  # a page has room for them


@dataclass(frozen=True)
class Sight:
    """At one LSN: relations with their sizes, pages that are not zeros, transactions by the SLRU
    segment that has them, small files."""

    sizes: dict[Relation, int] = field(default_factory=dict)
    pages: dict[tuple[Relation, int], Content] = field(default_factory=dict)
    status: dict[int, dict[int, int]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def with_page(self, relation: Relation, block: int, content: Content) -> "Sight":
        size = max(self.sizes.get(relation, 0), block + 1)
        return replace(
            self,
            sizes={**self.sizes, relation: size},
            pages={**self.pages, (relation, block): content},
        )

    def with_size(self, relation: Relation, size: int | None) -> "Sight":
        """Truncated, created, or None: dropped."""
        sizes = {of: blocks for of, blocks in self.sizes.items() if of != relation}
        if size is not None:
            sizes[relation] = size
        pages = {
            (of, block): content
            for (of, block), content in self.pages.items()
            if of != relation or block < (size or 0)
        }
        return replace(self, sizes=sizes, pages=pages)

    def with_status(self, segment: int, xid: int, status: int) -> "Sight":
        statuses = {**self.status.get(segment, {}), xid: status}
        return replace(self, status={**self.status, segment: statuses})

    def without_segment(self, segment: int) -> "Sight":
        return replace(self, status={s: x for s, x in self.status.items() if s != segment})

    def with_file(self, name: str, content: bytes) -> "Sight":
        return replace(self, files={**self.files, name: content})


@dataclass(frozen=True)
class Commit:
    """The end of a transaction: where its record begins and ends, and when it was."""

    start: int
    end: int
    time: int  # microseconds since 2000


class Model:
    """All sights, by the LSN from which on each holds."""

    def __init__(self, lsn: int, sight: Sight) -> None:
        self.lsns = [lsn]
        self.sights = [sight]
        self.commits: list[Commit] = []

    @property
    def now(self) -> Sight:
        return self.sights[-1]

    def add(self, lsn: int, sight: Sight) -> None:
        self.lsns.append(lsn)
        self.sights.append(sight)

    def at(self, lsn: int) -> Sight:
        return self.sights[bisect_right(self.lsns, lsn) - 1]

    def first_above(self, time: int) -> Commit | None:
        """The first transaction, in the order of the WAL, that ended after a time."""
        return next((commit for commit in self.commits if commit.time > time), None)
