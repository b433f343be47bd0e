"""Flush: frozen memtable -> L0 bundle -> manifest -> index -> durable LSN, the oldest first.

The order is that of invariant 5, and each step is on disk before the next begins: what a crash
leaves is a file that the manifest does not name (removed at start), or a manifest ahead of the
index (which is caught up at start).
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from engine.bundle_writer import BundleInfo, BundleWriter, Run
from engine.errors import IngestStopped
from engine.journal import Journal
from engine.memtable import Memtable
from engine.version_store import VersionStore
from formats.file_name import FileKind
from formats.manifest_record import FileAdded, Progress, Record

FLUSHED_POLL_SECONDS = 0.01
PARTS_WHILE_BEHIND = 4  # of a memtable's memory


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


def write_bundle(writer: BundleWriter, run: Run) -> BundleInfo:
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


class Flusher:
    """Freezes and flushes memtables. Several threads may write bundles, each of its own memtable.

    They commit one after the other: a durable LSN says that all below it is in layers.
    """

    def __init__(
        self,
        versions: VersionStore,
        create_bundle: Callable[[FileKind], BundleWriter],
        commit: Callable[[BundleInfo | None, Record], None],
    ) -> None:
        """`commit`: manifest, then index, then layer map; for a memtable without versions only
        the manifest."""
        self._versions = versions
        self._create_bundle = create_bundle
        self._commit = commit
        self._taken: set[Memtable] = set()
        self._written: dict[Memtable, BundleInfo | None] = {}
        self._changed = threading.Condition(versions.lock)

    def freeze(self) -> None:
        """Freeze the open memtable if anything came since the last time, for the next flush."""
        versions = self._versions
        with versions.lock:
            if versions.is_abandoned or versions.frozen or not versions.memtables.has_one:
                return
            if versions.ready_lsn > versions.durable_lsn:
                versions.freeze()

    def freeze_part(self, received_lsn: int, has_room: bool) -> None:
        """With much WAL to catch up with, let an idle flush begin before the memtable is full.

        Once a flush takes longer than ingest of as much, memtables get larger by themselves. Not
        where L0 has no room for it: many small bundles would only make reads dearer, and the
        compactor keeps the other processor busy.
        """
        if not has_room:
            return
        versions = self._versions
        part = versions.memtable_bytes // PARTS_WHILE_BEHIND
        is_behind = received_lsn - versions.ready_lsn >= part
        if is_behind and not versions.frozen and versions.ingest.target.memtable.used >= part:
            self.freeze()

    def step(self, is_on_disk: Callable[[int], bool]) -> bool:
        """Flush the oldest frozen memtable that no other thread has.

        False if there is none, or its WAL is not on disk, or an older one could not be flushed.
        After an error, too, the bundle that was written stays for the next attempt.
        """
        memtable = self._take(is_on_disk)
        if memtable is None:
            return False
        try:
            if memtable not in self._written:
                self._written[memtable] = self._write(memtable)
            if not self._wait_for_turn(memtable):
                return False
            self._commit(self._written[memtable], Progress(durable_lsn=memtable.lsn_end))
            del self._written[memtable]
            self._versions.publish(memtable)
        finally:
            self._give_back(memtable)
        return True

    def _take(self, is_on_disk: Callable[[int], bool]) -> Memtable | None:
        with self._changed:
            for memtable in reversed(self._frozen):
                if memtable not in self._taken:
                    if not is_on_disk(memtable.lsn_end):
                        return None
                    self._taken.add(memtable)
                    return memtable
        return None

    def _write(self, memtable: Memtable) -> BundleInfo | None:
        if not memtable.entry_count:
            return None
        versions = self._versions
        run = sorted_run(memtable, versions.key, versions.table.count)
        return write_bundle(self._create_bundle(FileKind.L0), run)

    def _wait_for_turn(self, memtable: Memtable) -> bool:
        """Until all older ones are committed; False if the flush of one of them has failed."""
        with self._changed:
            self._changed.wait_for(lambda: self._oldest is memtable or not self._oldest_is_taken)
            return self._oldest is memtable

    @property
    def _frozen(self) -> tuple[Memtable, ...]:
        frozen: tuple[Memtable, ...] = self._versions.frozen
        return frozen

    @property
    def _oldest(self) -> Memtable:
        return self._frozen[-1]

    @property
    def _oldest_is_taken(self) -> bool:
        return self._oldest in self._taken

    def _give_back(self, memtable: Memtable) -> None:
        """It is committed, or could not be."""
        with self._changed:
            self._taken.remove(memtable)
            self._changed.notify_all()


def file_added(info: BundleInfo) -> FileAdded:
    """The manifest's record of a finished bundle."""
    footer = info.footer
    return FileAdded(
        info.name.text, info.bytes_total, footer.lsn_start, footer.lsn_end, info.footer_crc
    )
