"""Batches whose versions are too many to be gathered together, read in smaller ones.

What a batch gathers is bounded (engine/page_reader.py), or a few hundred clients that ask for hot
pages would take whatever memory there is. What one page needs is bounded by how many records and
bytes of a chain are left above an image.
"""

from collections.abc import Callable, Sequence

from formats.pagestream import GET_PAGE, PAGE_REPLY_BYTES, PageBatch

Asked = tuple[int, int, int, int]  # chunk, block, floor, LSN
GetPages = Callable[[PageBatch, int, memoryview], None]
ReadTogether = Callable[[Sequence[Asked], memoryview, int], dict[int, str]]


def read_one_by_one(get_pages: GetPages, batch: PageBatch, count: int, out: memoryview) -> None:
    """`get_pages(batch, count, out)`, but a request at a time."""
    none = memoryview(bytearray(PAGE_REPLY_BYTES))
    single = PageBatch(1, none, none)
    for i in range(count):
        if batch.status[i]:
            continue
        spc, db, rel, fork = batch.spc[i], batch.db[i], batch.rel[i], batch.fork[i]
        single.load(GET_PAGE, spc, db, rel, fork, batch.block[i], batch.lsn[i])
        single.lsn[0], single.out_pos[0] = batch.lsn[i], batch.out_pos[i]
        get_pages(single, 1, out)
        if single.status[0]:
            batch.status[i] = single.status[0]
            batch.errors[i] = single.errors[0]


def read_in_parts(
    read: ReadTogether, asked: Sequence[Asked], out: memoryview, stride: int
) -> dict[int, str]:
    """`read(asked, out, stride)`, in halves where that is an OverflowError."""
    try:
        return read(asked, out, stride)
    except OverflowError:
        half = len(asked) // 2
        if not half:
            raise
    first = read_in_parts(read, asked[:half], out[: half * stride], stride)
    rest = read_in_parts(read, asked[half:], out[half * stride :], stride)
    return first | {half + place: problem for place, problem in rest.items()}
