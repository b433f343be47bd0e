"""Pages at random, and many of them asked for in one batch, as by a pipelined client."""

import random
from collections.abc import Sequence

from engine.page_store import PageStore
from formats.chunk import Fork
from formats.pagestream import GET_PAGE, PAGE_REPLY_BYTES, PageBatch
from tools.bench.generated_wal import GeneratedWal

PAGE_BYTES = 8192
Page = tuple[int, int, int, int, int]  # spc, db, rel, block, LSN; of a main fork


def random_pages(store: PageStore, wal: GeneratedWal, count: int, seed: int = 1) -> list[Page]:
    """Relations by their sizes; of those that were there from the start only. LSNs all over."""
    numbers = random.Random(seed)
    first = max(store.horizon_lsn, wal.start_lsn)
    relations = [relation for relation in store.relations(first)
                 if relation[3] == Fork.MAIN and relation[4]]  # fmt: skip
    still = {relation[:4] for relation in store.relations(wal.end_lsn)}
    relations = [relation for relation in relations if relation[:4] in still]
    chosen = numbers.choices(relations, [relation[4] for relation in relations], k=count)
    return [
        (spc, db, rel, numbers.randrange(blocks), numbers.randrange(first, wal.end_lsn))
        for spc, db, rel, _, blocks in chosen
    ]


def read_together(store: PageStore, pages: Sequence[Page]) -> list[bytes | str]:
    """Each page, or why there is none."""
    count = len(pages)
    out = memoryview(bytearray(count * PAGE_REPLY_BYTES))
    batch = PageBatch(count, out, out)
    batch.load(GET_PAGE, *pages[0][:3], Fork.MAIN, *pages[0][3:])
    batch.count = count
    for i, (spc, db, rel, block, lsn) in enumerate(pages):
        batch.spc[i], batch.db[i], batch.rel[i], batch.fork[i] = spc, db, rel, Fork.MAIN
        batch.block[i], batch.lsn[i] = block, lsn
        batch.status[i], batch.out_pos[i] = 0, i * PAGE_REPLY_BYTES
    store.get_pages(batch, count, out)
    starts = (i * PAGE_REPLY_BYTES for i in range(count))
    return [
        batch.errors[i] if batch.status[i] else bytes(out[start : start + PAGE_BYTES])
        for i, start in enumerate(starts)
    ]
