"""Statements about what must stay readable: retention points and leases.

Each is answered by rows: those that it lists, or the one that it made, changed or dropped. LSNs
left out mean the newest that is ready, as everywhere.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from formats import lsn as lsn_text
from formats import pgwire, timestamp
from formats.pgwire import TEXT_OID
from server import time_commands
from server.connection import StatementError

if TYPE_CHECKING:  # the command line takes no engine to ask a server
    from engine.retention import Retention
    from formats.manifest_record import LeaseSet, PointSet
    from server.store import Store

USAGES = (
    "lease create [LSN] for DURATION [name NAME]",
    "lease renew NAME for DURATION",
    "lease drop NAME",
    "lease list",
    "point create NAME [LSN]",
    "point create NAME at 'TIMESTAMP'",
    "point drop NAME",
    "point list",
)
VERBS = frozenset(("lease", "point"))
LEASE_COLUMNS = ("name", "lsn", "until", "seconds_left", "held_bytes")
POINT_COLUMNS = ("name", "lsn", "commit_time", "held_bytes")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")

Answer = tuple[list[tuple[str, int]], list[list[bytes | None]]]
LsnOf = Callable[[list[str]], int]


def parse_duration(text: str) -> int:
    """Seconds of a text like 90s, 15m, 2h or 7d; ValueError if it is none."""
    match = _DURATION.fullmatch(text.lower())
    if match is None:
        raise ValueError(f"{text!r}: expected a whole number and s, m, h or d, as in 2h")
    return int(match[1]) * _SECONDS[match[2]]


def execute(words: Sequence[str], store: "Store", lsn_of: LsnOf) -> Answer | None:
    """The columns and rows that answer a statement, None if it is not one of these.

    `lsn_of(words)` is the LSN in at most one word, waited for, or the newest.
    """
    verb, action, rest = words[0].lower(), " ".join(words[1:2]).lower(), list(words[2:])
    if verb == "lease":
        leases = _lease(action, rest, store.retention, lsn_of)
        return None if leases is None else _lease_rows(leases, store)
    points = _point(action, rest, store, lsn_of)
    return None if points is None else _point_rows(points, store)


def _lease(
    action: str, words: list[str], retention: "Retention", lsn_of: LsnOf
) -> "list[LeaseSet] | None":
    lowered = [word.lower() for word in words]
    if action == "list" and not words:
        return retention.leases()
    if action == "drop" and len(words) == 1:
        return [retention.drop_lease(words[0])]
    if action == "renew" and len(words) == 3 and lowered[1] == "for":
        return [retention.renew_lease(words[0], _duration(words[2]), time.time())]
    if action == "create" and "for" in lowered[:2]:
        at = lowered.index("for")
        duration, tail = words[at + 1 : at + 2], words[at + 2 :]
        if duration and (not tail or lowered[at + 2 : -1] == ["name"]):
            seconds, name = _duration(duration[0]), tail[1] if tail else None
            lsn = lsn_of(words[:at])  # which may wait
            return [retention.create_lease(lsn, seconds, time.time(), name)]
    return None


def _point(action: str, words: list[str], store: "Store", lsn_of: LsnOf) -> "list[PointSet] | None":
    retention = store.retention
    if action == "list" and not words:
        return retention.points()
    if action == "drop" and len(words) == 1:
        return [retention.drop_point(words[0])]
    if action == "create" and 1 <= len(words) <= 2:
        return [retention.create_point(words[0], lsn_of(words[1:]))]
    if action == "create" and len(words) > 2 and words[1].lower() == "at":
        lsn = time_commands.lsn_of_past(words[2:], store, time.time())
        return [retention.create_point(words[0], lsn)]
    return None


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise StatementError(str(error), pgwire.INVALID_PARAMETER) from None


class _Held:
    """What each LSN holds back; nothing where another point or lease keeps it as well."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        retention = store.retention
        self._keepers = Counter(lease.lsn for lease in retention.leases())
        self._keepers.update(point.lsn for point in retention.points())

    def text(self, lsn: int) -> bytes | None:
        held = 0 if self._keepers[lsn] > 1 else self._store.held_bytes(lsn)
        return None if held is None else str(held).encode()


def _lease_rows(leases: "Sequence[LeaseSet]", store: "Store") -> Answer:
    now, held = time.time(), _Held(store)
    rows: list[list[bytes | None]] = []
    for lease in leases:
        until = datetime.fromtimestamp(lease.until_seconds, UTC)
        left = max(0, int(lease.until_seconds - now))
        rows.append(
            [
                lease.name.encode(),
                lsn_text.show(lease.lsn).encode(),
                f"{until:%Y-%m-%d %H:%M:%S}+00".encode(),
                str(left).encode(),
                held.text(lease.lsn),
            ]
        )
    return [(name, TEXT_OID) for name in LEASE_COLUMNS], rows


def _commit_time(lsn: int, store: "Store") -> bytes | None:
    """Of the newest commit in what a point keeps."""
    time = store.commit_times.time_at(lsn)
    return None if time is None else timestamp.show(time).encode()


def _point_rows(points: "Sequence[PointSet]", store: "Store") -> Answer:
    held = _Held(store)
    rows = [
        [
            point.name.encode(),
            lsn_text.show(point.lsn).encode(),
            _commit_time(point.lsn, store),
            held.text(point.lsn),
        ]
        for point in points
    ]
    return [(name, TEXT_OID) for name in POINT_COLUMNS], rows
