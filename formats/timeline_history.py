"""Timeline history files: how a timeline came about.

00000002.history has a line for each timeline that timeline 2 came through: its number, the LSN at
which its successor went on, and a reason for people. Timeline 1 has none.
"""

import re
from typing import NamedTuple

from formats import lsn
from formats.errors import CorruptionError

_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


class HistoryEntry(NamedTuple):
    """A timeline that ended, and the LSN at which its successor went on."""

    timeline: int
    end_lsn: int


def history_name(timeline: int) -> str:
    return f"{timeline:08X}.history"


def parse_history_name(name: str) -> int | None:
    match = _HISTORY.fullmatch(name)
    return int(match[1], 16) if match else None


def parse_history(content: bytes, where: str) -> list[HistoryEntry]:
    """The timelines that ended, oldest first."""
    entries: list[HistoryEntry] = []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        try:
            entry = HistoryEntry(int(words[0]), lsn.parse(words[1]))
        except (ValueError, IndexError):
            raise CorruptionError(
                "timeline history", f"{where} line {number}", "a timeline and an LSN", line
            ) from None
        if entries and entry.timeline <= entries[-1].timeline:
            raise CorruptionError(
                "timeline history", f"{where} line {number}", "a later timeline", line
            )
        entries.append(entry)
    return entries
