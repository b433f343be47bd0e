"""RocksDB as the peer of the storage engine: what a Python user would keep versions in instead.

Keys are (chunk key, block, LSN), big-endian, so that a page's versions are neighbours, oldest
first; values are versions as our memtable holds them. RocksDB gets its own advice for the memory
that it may use (`optimize_level_style_compaction` and its universal twin), zstd at every level,
blocks of 16 KiB as its tuning guide recommends, batches of 1,000, and no WAL of its own.
"""

import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    UniversalCompactOptions,
    WriteBatch,
    WriteOptions,
)

from formats import version

BATCH_VERSIONS = 1000
BLOCK_BYTES = 16 << 10
LEVELS = 7
BACKGROUND_JOBS = 2
SETTLED_SECONDS_MAX = 120.0
STYLES: dict[str, Callable[[Options, int], None]] = {
    "leveled": Options.optimize_level_style_compaction,
    "universal": Options.optimize_universal_style_compaction,
}
KEY = struct.Struct(">18sIQ")
_WINDOW_BITS = -14  # zlib's parameter: no meaning for zstd, which has the level only
_ZSTD_LEVEL = 1
_POLL_SECONDS = 0.005
_BUSY = ("compaction-pending", "num-running-compactions", "mem-table-flush-pending",
         "num-running-flushes")  # fmt: skip


class Versions(NamedTuple):
    """All versions of some WAL, in LSN order."""

    keys: list[bytes]
    values: list[bytes]

    @property
    def payload_bytes(self) -> int:
        return sum(map(len, self.values))


class RocksDb:
    """One database; close it before another process or object opens it."""

    def __init__(self, directory: Path, style: str, memory_bytes: int, cache_bytes: int) -> None:
        """`memory_bytes` for its memtables, `cache_bytes` for its block cache."""
        self.directory = directory
        self._options = _options(style, memory_bytes, cache_bytes)
        self._database = Rdict(str(directory), self._options)
        write = WriteOptions()
        write.disable_wal = True  # type: ignore[assignment,method-assign]  # the stub is wrong
        self._database.set_write_options(write)

    def close(self) -> None:
        self._database.close()

    def load(self, versions: Versions) -> None:
        """Write all versions, in batches."""
        keys, values, write = versions.keys, versions.values, self._database.write
        for start in range(0, len(keys), BATCH_VERSIONS):
            batch = WriteBatch(raw_mode=True)
            put, end = batch.put, start + BATCH_VERSIONS
            for key, value in zip(keys[start:end], values[start:end], strict=True):
                put(key, value)
            write(batch)

    def settle(self) -> None:
        """Flush, and wait until it sees nothing to compact."""
        self._database.flush()
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while any(self._database.property_int_value(f"rocksdb.{name}") for name in _BUSY):
            if time.monotonic() > deadline:
                raise TimeoutError("RocksDB compacts without an end")
            time.sleep(_POLL_SECONDS)

    def bytes_written(self) -> int:
        """By flushes and compactions, as its statistics have it."""
        text = self._options.get_statistics()
        if text is None:
            raise ValueError("RocksDB keeps no statistics")
        return sum(
            _counter(text, name) for name in ("rocksdb.flush.write.bytes", "compact.write.bytes")
        )

    def bytes_on_disk(self) -> int:
        """Of its table files."""
        return int(self._database.property_int_value("rocksdb.total-sst-files-size") or 0)

    def chains(self, pages: list[tuple[bytes, int]], lsn: int) -> list[list[tuple[int, bytes]]]:
        """Of each page its versions up to `lsn`, newest first, down to one that needs no older."""
        found = []
        iterator = self._database.iter()
        for chunk, block in pages:
            prefix = KEY.pack(chunk, block, 0)[:22]
            chain: list[tuple[int, bytes]] = []
            iterator.seek_for_prev(KEY.pack(chunk, block, lsn))
            while iterator.valid():
                key = iterator.key()
                if key[:22] != prefix:
                    break
                value = iterator.value()
                chain.append((int.from_bytes(key[22:], "big"), value))
                if is_self_contained(value):
                    break
                iterator.prev()
            found.append(chain)
        return found


def is_self_contained(value: bytes) -> bool:
    """Whether a version needs no older one; formats/version.py says which do."""
    kind = value[0]
    if kind == version.RECORD:
        return bool(value[5] & version.FLAG_INIT)
    return kind < version.RECORD or kind >= version.UNREADABLE


def _options(style: str, memory_bytes: int, cache_bytes: int) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    STYLES[style](options, memory_bytes)
    options.set_universal_compaction_options(UniversalCompactOptions())  # what is flushed as well
    zstd = DBCompressionType.zstd()
    options.set_compression_type(zstd)
    options.set_compression_per_level([zstd] * LEVELS)
    options.set_compression_options(_WINDOW_BITS, _ZSTD_LEVEL, 0, 0)
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.enable_statistics()
    table = BlockBasedOptions()
    table.set_block_size(BLOCK_BYTES)
    table.set_block_cache(Cache(cache_bytes))
    options.set_block_based_table_factory(table)
    return options


def _counter(text: str, name: str) -> int:
    found = re.search(rf"{re.escape(name)} COUNT : (\d+)", text)
    if found is None:
        raise ValueError(f"RocksDB's statistics have no {name}")
    return int(found.group(1))
