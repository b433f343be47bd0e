"""The timelines of the source in a bucket's world: where it left each.

    1 ──────────┬── half a record that came to servers, and never to its end
                └ 2 ────────────┬──
                                └ 3 ──────>

A standby that is promoted goes on behind the last whole record that anybody has. What came of the
next one before that is void: it says nothing of the WAL that is in its place now.
"""

import math

from formats.lsn import show as show_lsn

TIMELINES_MAX = 3


class Timelines:
    def __init__(self) -> None:
        self.now = 1
        self.ends: dict[int, int] = {}
        self._whole_end = 0

    def note(self, whole_end: int) -> None:
        """A server has whole records up to here."""
        self._whole_end = max(self._whole_end, whole_end)

    def promote(self) -> int:
        """Another server is the source; where its timeline begins."""
        self.ends[self.now] = self._whole_end
        self.now += 1
        return self._whole_end

    def end_of(self, timeline: int) -> float:
        """Where it was left; infinite, if it was not."""
        return self.ends.get(timeline, math.inf)

    def at(self, position: int, of: int | None = None) -> int:
        """The timeline of the WAL from there on, for who is on timeline `of`, or the newest."""
        last = self.now if of is None else of
        return next((t for t in range(1, last) if position < self.ends[t]), last)

    def history(self, timeline: int) -> bytes:
        """The content of its history file."""
        lines = (f"{t}\t{show_lsn(self.ends[t])}\tno reason\n" for t in range(1, timeline))
        return "".join(lines).encode()
