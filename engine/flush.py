"""Flush: the oldest frozen memtable -> L0 bundle -> manifest -> index -> durable LSN.

The order is that of invariant 5, and each step is on disk before the next begins: what a crash
leaves is a file that the manifest does not name (removed at start), or a manifest ahead of the
index (which is caught up at start).
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from engine.bundle_writer import BundleInfo, BundleWriter
from engine.errors import IngestStopped
from engine.journal import Journal
from engine.memtable import Memtable
from formats.manifest import FileAdded

FLUSHED_POLL_SECONDS = 0.01


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


def wait_until_flushed(journal: Journal, lsn: int) -> None:
    """Until the journal's fsync has passed `lsn`: layers never hold what it may still lose.

    Raises IngestStopped when the journal has failed.
    """
    while journal.flushed_lsn < lsn:
        if journal.has_failed:
            raise IngestStopped("the journal has failed")
        time.sleep(FLUSHED_POLL_SECONDS)


def file_added(info: BundleInfo) -> FileAdded:
    """The manifest's record of a finished bundle."""
    footer = info.footer
    return FileAdded(
        info.name.text, info.bytes_total, footer.lsn_start, footer.lsn_end, info.footer_crc
    )
