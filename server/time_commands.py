"""The statements about time: `lsn at 'TIMESTAMP'` and `time at LSN`.

A time without a zone is in the server's own local time, which psql may not share; answers are in
UTC, so that nobody is in doubt about what was understood.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from formats import lsn as lsn_text
from formats import pgwire, timestamp
from formats.pgwire import BOOL_OID, TEXT_OID, TIMESTAMPTZ_OID
from server import timestamps
from server.connection import StatementError

if TYPE_CHECKING:  # the command line takes no engine to ask a server
    from engine.commit_times import StateAt
    from server.store import Store

USAGES = ("lsn at 'TIMESTAMP'", "time at LSN")

Answer = tuple[Sequence[tuple[str, int]], Sequence[bytes]]
"""Columns with their types, and one row."""


def lsn_at(words: list[str], store: "Store") -> Answer:
    """`final` is false while no later commit is known: WAL to come may belong to that state."""
    state = _state_at(_parse_time(" ".join(words)), store)
    return [("lsn", TEXT_OID), ("commit_time", TIMESTAMPTZ_OID), ("final", BOOL_OID)], [
        lsn_text.show(state.lsn).encode(),
        timestamp.show(state.commit_time).encode(),
        b"t" if state.is_final else b"f",
    ]


def lsn_of_past(words: list[str], store: "Store", now: float) -> int:
    """The same LSN for something that is to last; `now` is in seconds since 1970.

    A time in the future is refused: what the state is then nobody knows yet.
    """
    time, latest = _parse_time(" ".join(words)), timestamp.from_unix_seconds(math.ceil(now))
    if time > latest:
        message = f"{timestamp.show(time)} is in the future: here it is {timestamp.show(latest)}"
        raise StatementError(message, pgwire.INVALID_PARAMETER)
    return _state_at(time, store).lsn


def time_at(word: str, store: "Store", resolve: Callable[[list[str]], int]) -> Answer:
    """`resolve` parses the LSN and waits for it."""
    lsn = resolve([word])
    time = store.commit_times.time_at(lsn)
    if time is None:
        message = f"no commit at or before {lsn_text.show(lsn)} is known"
        hint = "Times are kept since this directory is served by a version that keeps them."
        raise StatementError(message, pgwire.DATA_UNAVAILABLE, hint)
    return [("commit_time", TIMESTAMPTZ_OID)], [timestamp.show(time).encode()]


def _state_at(time: int, store: "Store") -> "StateAt":
    state = store.commit_times.state_at(time)
    if state is None:
        raise StatementError(_too_old(time, store), pgwire.DATA_UNAVAILABLE)
    return state


def _parse_time(text: str) -> int:
    if len(text) >= 2 and text[0] == text[-1] == "'":
        text = text[1:-1]
    try:
        return timestamps.parse(text)
    except ValueError as error:
        raise StatementError(str(error), pgwire.INVALID_PARAMETER) from None


def _too_old(time: int, store: "Store") -> str:
    horizon = store.horizon_lsn
    if not 0 < horizon <= store.ready_lsn:
        return "base backup not complete"
    oldest = store.commit_times.time_at(horizon)
    since = "" if oldest is None else f", whose newest commit is of {timestamp.show(oldest)}"
    return (
        f"the state as of {timestamp.show(time)} cannot be read: "
        f"the oldest one is {lsn_text.show(horizon)}{since}"
    )
