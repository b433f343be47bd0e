"""Blocks of files that lie in a bucket, kept in one local file of fixed size: the least recently
used goes first.

    file    slot | slot | slot ...         BLOCK_BYTES each
    memory  block -> slot, length, CRC-32C of what was put there

The file has no name and is made anew at each start: what it has means nothing without the memory.
A slot is read without the lock: if it was given to another block meanwhile, or the disk has spoilt
it, its CRC does not check, and the block is one that is not here. So nothing of this file is
believed, and a disk that does not write it (full, failing) costs no more than its use.
"""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from engine.storage import Storage

BLOCK_BYTES = 64 << 10
ENTRY_BYTES = 300  # of Python objects, for each block


class _Entry(NamedTuple):
    slot: int
    length: int
    crc: int


class BlockCache:
    """Blocks by any number that the caller knows them by. Used by any number of threads."""

    def __init__(self, storage: Storage, path: Path, bytes_max: int) -> None:
        """`path`: where the file is made, of `bytes_max` in whole blocks, one at least."""
        self.slot_count = max(1, bytes_max // BLOCK_BYTES)
        self.damaged = 0  # blocks that the disk had spoilt
        self._storage = storage
        self._lock = threading.Lock()
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # the oldest use first
        self._given = 0  # slots that were ever used
        self._free: list[int] = []  # of these, those that nothing lies in
        self._file = storage.scratch(path, self.slot_count * BLOCK_BYTES)

    @property
    def bytes_used(self) -> int:
        return len(self._entries) * BLOCK_BYTES

    def __contains__(self, block: int) -> bool:
        return block in self._entries

    def get(self, block: int) -> bytes | None:
        """What was put, None if it is not here any more."""
        with self._lock:
            entry = self._entries.get(block)
            if entry is None:
                return None
            self._entries.move_to_end(block)
        try:
            data = self._storage.pread(self._file, entry.slot * BLOCK_BYTES, entry.length)
        except OSError:
            data = b""
        if len(data) == entry.length and crc32c(data) == entry.crc:
            return data
        with self._lock:
            if self._entries.get(block) is entry:  # else the slot is another block's by now
                self.damaged += 1
                self._drop(block)
        return None

    def put(self, block: int, data: bytes | memoryview) -> None:
        """Keep a block, of BLOCK_BYTES at most, in the place of the least recently used."""
        with self._lock:
            slot = -1 if block in self._entries else self._take_slot()
        if slot < 0:
            return
        try:
            self._storage.write_at(self._file, slot * BLOCK_BYTES, data)
        except OSError:
            with self._lock:
                self._free.append(slot)
            return
        entry = _Entry(slot, len(data), crc32c(data))
        with self._lock:
            if block in self._entries:  # another thread was quicker
                self._free.append(slot)
            else:
                self._entries[block] = entry

    def drop(self, block: int) -> bool:
        """Forget a block; whether it was here."""
        with self._lock:
            if block not in self._entries:
                return False
            self._drop(block)
            return True

    def _take_slot(self) -> int:
        """-1: all are being written to."""
        if self._free:
            return self._free.pop()
        if self._given < self.slot_count:
            self._given += 1
            return self._given - 1
        if not self._entries:
            return -1
        return self._entries.popitem(last=False)[1].slot

    def _drop(self, block: int) -> None:
        self._free.append(self._entries.pop(block).slot)
