"""Flush: the oldest frozen memtable -> L0 bundle -> manifest -> index -> durable LSN.

The order is that of invariant 5, and each step is on disk before the next begins: what a crash
leaves is a file that the manifest does not name (removed at start), or a manifest ahead of the
index (which is caught up at start).
"""

from collections.abc import Callable
from typing import NamedTuple

from engine.bundle_writer import BundleInfo, BundleWriter
from engine.memtable import Memtable


class MemtableRun(NamedTuple):
    """A memtable as the Run that BundleWriter takes: its columns, and the order over them."""

    chunk: memoryview
    block: memoryview
    lsn: memoryview
    offset: memoryview
    length: memoryview
    data: memoryview
    order: memoryview
    keys: list[bytes]


def sorted_run(memtable: Memtable, key: Callable[[int], bytes], chunk_count: int) -> MemtableRun:
    """Sort a memtable by (chunk key, block, LSN).

    `key(number)` is a chunk's packed key; `chunk_count` is above every chunk number in use.
    """
    used = sorted(set(memtable.page_chunk[1 : memtable.page_count + 1]), key=key)
    ranks = memoryview(bytearray(4 * chunk_count)).cast("I")
    for rank, number in enumerate(used):
        ranks[number] = rank
    order = memoryview(bytearray(4 * (memtable.entry_count + 1))).cast("I")
    scratch = memoryview(bytearray(8 * (memtable.page_count + 1))).cast("I")
    count = memtable.sort(ranks, order, scratch)
    keys = [b""] * chunk_count
    for number in used:
        keys[number] = key(number)
    return MemtableRun(
        memtable.entry_chunk,
        memtable.entry_block,
        memtable.entry_lsn,
        memtable.entry_pos,
        memtable.entry_length,
        memtable.data,
        order[:count],
        keys,
    )


def write_bundle(writer: BundleWriter, run: MemtableRun) -> BundleInfo:
    """Write a run as a bundle, durable when this returns; leaves nothing behind if it fails."""
    try:
        writer.add_run(run)
        return writer.finish()
    except BaseException:
        writer.abort()
        raise
