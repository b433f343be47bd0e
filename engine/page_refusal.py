"""Why a request for a page gets none, in words for the client."""

from typing import Protocol

from engine.errors import RequestError, below_horizon
from engine.page_reader import (
    COMPLETE,
    EXPIRED,
    NO_RELATION,
    OPEN,
    PAST_END,
    RECALLED,
    REFUSED,
    PageReader,
)
from engine.relation_history import RelationHistory
from formats.chunk import Fork
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.pagestream import PageBatch

FAILED = 255  # a PageBatch status: the reason is in batch.errors


class Refusing(Protocol):
    """What is needed of the store."""

    horizon_lsn: int
    history: RelationHistory


def report(
    store: Refusing, reader: PageReader, batch: PageBatch, count: int, failures: dict[int, str]
) -> int:
    """Give each request that has no page its status and its text; returns how many there are.

    `failures`: what went wrong, by request.
    """
    failed = 0
    for i in range(count):
        state = reader.state[i]
        if i not in failures and state in (OPEN, COMPLETE, RECALLED):
            continue
        if i in failures or state != REFUSED:
            batch.status[i] = FAILED
            try:
                batch.errors[i] = _describe(store, batch, i, state, failures.get(i))
            except (CorruptionError, OSError, RequestError) as error:
                batch.errors[i] = str(error)  # the horizon has passed the LSN, or it is damaged
            failed += 1
    return failed


def _describe(store: Refusing, batch: PageBatch, i: int, state: int, failure: str | None) -> str:
    relation = (batch.spc[i], batch.db[i], batch.rel[i], batch.fork[i])
    lsn, block = batch.lsn[i], batch.block[i]
    fork = Fork(batch.fork[i]).name.lower()
    name = f"block {block} of the {fork} fork of relation {'/'.join(map(str, relation[:3]))}"
    if state == EXPIRED:
        return f"{name}: {below_horizon(lsn, store.horizon_lsn)}"
    if failure is not None:
        return f"{name} at {show_lsn(lsn)}: {failure}"
    if state == NO_RELATION:
        return str(store.history.missing_relation(*relation, lsn))
    if state == PAST_END:
        blocks = store.history.blocks(*relation, lsn)
        return f"{name} is past its end at {show_lsn(lsn)}: it has {blocks} blocks"
    return f"{name} belongs to a chunk that this server does not hold (see its --chunks)"
