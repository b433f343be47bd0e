"""`redo-27`: one page made of an image and 27 records, in batches, in this process.

`getpage-replay-27` has the same pages with everything around them: protocol, sockets, the lock, the
search in memtable and layers. Here a batch is gathered first, and timed is what remains: the
reconstruct kernel, page checksum included. What gathering took as well stands in the notes.
"""

import time
from collections.abc import Sequence
from statistics import median

from engine.page_store import PageStore
from formats.chunk import BLOCK_BYTES, ChunkKind
from tools.bench.bench import MEMORY_BYTES_MAX, Bench
from tools.bench.replay_pages import RECORDS, replay_pages
from tools.bench.row import Bar, Row

NAME = "redo-27"
BATCH_PAGES = 32
ROUNDS = 9
US_MAX = 12.0
BAR = Bar(1.0, is_most=True)

Pages = Sequence[tuple[int, int, int]]  # chunk, block, LSN


def run(bench: Bench) -> list[Row]:
    """Once with all records in the memtable, once with all of them in layers."""
    rows = []
    with bench.step(NAME), replay_pages(bench) as (server, relation, lsns):
        server.kill()
        store = PageStore(server.data_dir, MEMORY_BYTES_MAX)
        try:
            while store.ready_lsn < max(lsns.values()) and store.ingest_step():
                pass
            chunk = store.table.find(ChunkKind.REL, *relation, 0, 0)
            pages = [(chunk, block, lsn) for block, lsn in sorted(lsns.items())]
            rows.append(_measure(bench, store, pages, "memtable"))
            store.freeze()
            while store.flush_step():
                pass
            rows.append(_measure(bench, store, pages, "layers"))
        finally:
            store.close()
    return rows


def _measure(bench: Bench, store: PageStore, pages: Pages, place: str) -> Row:
    rounds = [_round(store, pages) for _ in range(bench.rounds(ROUNDS))]
    redo, whole = (median(times) for times in zip(*rounds, strict=True))
    notes = (
        f"{RECORDS} records over an image, {len(pages)} pages, {BATCH_PAGES} a batch; "
        f"gathered from {place} and made: {whole:.1f} µs a page",
    )
    peer = "what is allowed"
    return Row(NAME, place, redo, "µs/page", peer, US_MAX, redo / US_MAX, BAR, notes)


def _round(store: PageStore, pages: Pages) -> tuple[float, float]:
    """Microseconds a page: of redo alone, and with what comes before it."""
    reader = store.page_reader()
    out = memoryview(bytearray(BATCH_PAGES * BLOCK_BYTES))
    redo = whole = 0.0
    for first in range(0, len(pages), BATCH_PAGES):
        batch = pages[first : first + BATCH_PAGES]
        began = time.thread_time()
        failed = store.versions.read_blocks(batch, out, BLOCK_BYTES)
        gathered = time.thread_time()
        reader.rebuild(0, len(batch), out)
        redo += time.thread_time() - gathered
        whole += gathered - began
        if failed:
            raise ValueError(f"a page cannot be made: {failed}")
    return redo / len(pages) * 1e6, whole / len(pages) * 1e6
