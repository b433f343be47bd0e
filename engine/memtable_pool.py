"""Memtables of one size, used again and again: memory that was touched before is ten times as fast.

One is open and up to FROZEN_MAX are frozen. One that was flushed counts until it has been emptied,
so there are never more than these. All is called with the store's lock.
"""

from engine.memtable import Memtable
from engine.store_state import FROZEN_MAX

BYTES_PER_ENTRY = 96  # of the arena: mean payloads of pgbench are 150 and more


class MemtablePool:
    def __init__(self, memtable_bytes: int, hot_records: int, hot_bytes: int) -> None:
        self._arguments = (memtable_bytes, hot_records, hot_bytes)
        self._empty: list[Memtable] = []
        self._made = 0

    @property
    def has_one(self) -> bool:
        return bool(self._empty) or self._made <= FROZEN_MAX

    def take(self) -> Memtable:
        if self._empty:
            return self._empty.pop()
        if not self.has_one:
            raise RuntimeError(f"{self._made} memtables exist already")
        self._made += 1
        memtable_bytes, hot_records, hot_bytes = self._arguments
        entries = memtable_bytes // BYTES_PER_ENTRY
        return Memtable(memtable_bytes, entries, entries // 2, hot_records, hot_bytes)

    def give_back(self, memtable: Memtable) -> None:
        """One that is empty again."""
        self._empty.append(memtable)
