"""The WAL of a store's journal into layers, as the server does it, until nothing is left to do."""

import time
from pathlib import Path

from engine.page_store import PageStore
from engine.retention import KEEP_ALL
from engine.storage import Storage
from formats import lsn
from server.background import Background

NEVER_SECONDS = 3600.0
SECONDS_MAX = 300.0
_POLL_SECONDS = 0.002


def load_settled(
    directory: Path, end_lsn: int, memory_bytes: int, storage: Storage | None = None
) -> tuple[float, float]:
    """Ingest, flush and compact up to `end_lsn`; seconds, and those of CPU, without open and close.

    The journal must have a record behind `end_lsn`, which tells that a switch there is over.
    """
    store = PageStore(directory, memory_bytes, storage)
    background = Background(store, NEVER_SECONDS, KEEP_ALL)
    began, cpu_began = time.perf_counter(), time.process_time()
    background.start()
    try:
        wait_until_durable(store, background, end_lsn)
        settle(store, background)
        return time.perf_counter() - began, time.process_time() - cpu_began
    finally:
        background.stop()
        store.close()


def wait_until_durable(store: PageStore, background: Background, end_lsn: int) -> None:
    """Until all WAL up to `end_lsn` is in layers; raises what has ended a worker."""
    began = time.perf_counter()
    while store.durable_lsn < end_lsn:
        for worker in background.workers:
            if worker.error is not None:
                raise worker.error
        if store.ready_lsn >= end_lsn:
            store.freeze()
        if time.perf_counter() - began > SECONDS_MAX:
            raise TimeoutError(f"durable only to {lsn.show(store.durable_lsn)}")
        time.sleep(_POLL_SECONDS)


def settle(store: PageStore, background: Background) -> None:
    """Merge and materialise until nothing is left to do."""
    background.compaction.stop()
    while store.compact_step():
        pass
