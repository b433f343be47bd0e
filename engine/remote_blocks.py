"""Bytes of objects in a bucket, for `pread`: by way of the block cache, or ahead of one who reads
a file once.

    read       blocks that are not in the cache are fetched, neighbours with one request, each by
               one of the threads that want it at the same time
    read_once  from a buffer of the calling thread, filled with what follows in ever longer
               requests; what the cache has is taken from there, but nothing is put there, or a
               merge would push out all that readers want

After a request that found the bucket unreachable nobody asks for QUIET_SECONDS: what would wait for
a timeout, request by request, is refused with the same words.
"""

import errno
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from engine.block_cache import BLOCK_BYTES, BlockCache
from engine.errors import UnreachableError
from formats.errors import CorruptionError

REQUEST_BYTES_MAX = 4 << 20
AHEAD_BYTES_MIN = 512 << 10
AHEAD_BYTES_MAX = 4 << 20
AHEAD_BYTES_OF_THREAD = 16 << 20  # of all files that it reads once
QUIET_SECONDS = 1.0
_numbers = count()


class RemoteFiles(Protocol):
    """Objects of a bucket. Any thread may call.

    UnreachableError: the bucket does not answer, or refuses us. FileNotFoundError: it has no such
    object. The text says which, and what was asked.
    """

    def read(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; fewer only where the object ends."""

    def read_many(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """`read` of each (name, start, length), several at the same time."""

    def stream(self, name: str) -> Iterator[bytes]:
        """All of an object, in pieces."""


class RemoteObject:
    """One that holds a file of `size` bytes."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.number = next(_numbers) << 32  # of its first block


@dataclass
class _Ahead:
    """What a thread has read ahead of one object."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class RemoteBlocks:
    def __init__(
        self,
        files: RemoteFiles,
        cache: BlockCache,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cache = cache
        self.hits = 0  # blocks
        self.misses = 0
        self.requests = 0
        self.bytes_fetched = 0
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: dict[int, Future[bytes]] = {}  # blocks, by number
        self._ahead = threading.local()
        self._quiet_until = float("-inf")
        self._problem = ""

    def read(self, source: RemoteObject, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`; fewer only where the object ends.

        UnreachableError, FileNotFoundError; CorruptionError: the object is shorter than it was.
        """
        end = min(offset + length, source.size)
        if end <= offset:
            return b""
        first = offset // BLOCK_BYTES
        found = self._cached(source, range(first, -(-end // BLOCK_BYTES)))
        missing = [block for block, data in found.items() if data is None]
        with self._lock:
            self.hits += len(found) - len(missing)
            self.misses += len(missing)
        if missing:
            found.update(self._get_missing(source, missing))
        whole = b"".join(data for data in found.values() if data is not None)
        return whole[offset - first * BLOCK_BYTES : end - first * BLOCK_BYTES]

    def _cached(self, source: RemoteObject, blocks: Iterable[int]) -> dict[int, bytes | None]:
        return {block: self.cache.get(source.number + block) for block in blocks}

    def _get_missing(self, source: RemoteObject, blocks: Sequence[int]) -> dict[int, bytes]:
        """Blocks that were not in the cache: what nobody fetches is fetched, then the others'
        are waited for."""
        mine: dict[int, Future[bytes]] = {}
        others: dict[int, Future[bytes]] = {}
        with self._lock:
            for block in blocks:
                future = self._under_way.get(source.number + block)
                if future is None:
                    mine[block] = self._under_way[source.number + block] = Future()
                else:
                    others[block] = future
        try:
            found = self._get_mine(source, list(mine))
            for block, future in mine.items():
                future.set_result(found[block])
        except BaseException as error:
            for future in mine.values():
                future.set_exception(error)
            raise
        finally:
            with self._lock:
                for block in mine:
                    del self._under_way[source.number + block]
        return found | {block: future.result() for block, future in others.items()}

    def _get_mine(self, source: RemoteObject, blocks: Sequence[int]) -> dict[int, bytes]:
        """Blocks that no other thread fetches from now on; one may just have done so."""
        found: dict[int, bytes] = {}
        wanted: list[int] = []
        for block in blocks:
            data = self.cache.get(source.number + block)
            if data is None:
                wanted.append(block)
            else:
                found[block] = data
        for first, end in _runs(wanted):
            start = first * BLOCK_BYTES
            run = self._fetch(source, start, min(end * BLOCK_BYTES, source.size) - start)
            for block in range(first, end):
                place = (block - first) * BLOCK_BYTES
                found[block] = run[place : place + BLOCK_BYTES]
                self.cache.put(source.number + block, found[block])
        return found

    def bring(self, parts: Iterable[tuple[RemoteObject, int, int]]) -> None:
        """Let the cache have (object, offset, length) that are about to be read."""
        runs = []
        for source, offset, length in parts:
            blocks = range(
                offset // BLOCK_BYTES, -(-min(offset + length, source.size) // BLOCK_BYTES)
            )
            missing = [block for block in blocks if source.number + block not in self.cache]
            runs += [(source, first, end) for first, end in _runs(missing)]
        ranges = []
        for source, first, end in runs:
            start = first * BLOCK_BYTES
            ranges.append((source.name, start, min(end * BLOCK_BYTES, source.size) - start))
        for (source, first, end), run in zip(runs, self._ask(ranges), strict=True):
            for block in range(first, end):
                place = (block - first) * BLOCK_BYTES
                self.cache.put(source.number + block, memoryview(run)[place : place + BLOCK_BYTES])

    def _fetch(self, source: RemoteObject, start: int, length: int) -> bytes:
        """Of the bucket, with one request."""
        return self._ask([(source.name, start, length)])[0]

    def _ask(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        if ranges and self._clock() < self._quiet_until:
            raise UnreachableError(errno.EIO, self._problem, ranges[0][0])
        try:
            if len(ranges) == 1:
                found = [self._files.read(*ranges[0])]
            else:
                found = self._files.read_many(ranges)
        except UnreachableError as error:
            self._problem, self._quiet_until = str(error), self._clock() + QUIET_SECONDS
            raise
        with self._lock:
            self.requests += len(ranges)
            self.bytes_fetched += sum(map(len, found))
        return [self._whole(part, data) for part, data in zip(ranges, found, strict=True)]

    def _whole(self, part: tuple[str, int, int], data: bytes) -> bytes:
        """An answer that came whole, the second one if need be."""
        name, start, length = part
        if len(data) != length:
            data = self._files.read(name, start, length)
        if len(data) != length:
            where = f"object {name} offset {start}"
            raise CorruptionError("object cut off", where, f"{length} bytes", len(data))
        return data

    def stream(self, source: RemoteObject) -> Iterator[bytes]:
        """All of it, by one request, past the cache."""
        with self._lock:
            self.requests += 1
        for piece in self._files.stream(source.name):
            with self._lock:
                self.bytes_fetched += len(piece)
            yield piece

    def doubt(self, source: RemoteObject, offset: int, length: int) -> None:
        """Forget what of these bytes is kept: they do not check."""
        for block in range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)):
            self.cache.drop(source.number + block)
        self._streams().pop(source.number, None)

    # one who reads once

    def _streams(self) -> "OrderedDict[int, _Ahead]":
        """Of the calling thread, by object, the least recently used first."""
        if not hasattr(self._ahead, "streams"):
            self._ahead.streams = OrderedDict()
        streams: OrderedDict[int, _Ahead] = self._ahead.streams
        return streams

    def read_once(self, source: RemoteObject, offset: int, length: int) -> bytes:
        """`read`, of one who goes through the object."""
        end = min(offset + length, source.size)
        if end <= offset:
            return b""
        streams = self._streams()
        ahead = streams.get(source.number)
        if ahead is None or not ahead.start <= offset <= end <= ahead.end:
            cached = self._cached(source, range(offset // BLOCK_BYTES, -(-end // BLOCK_BYTES)))
            if None not in cached.values():
                return self.read(source, offset, length)
            ahead = self._read_on(source, ahead, offset, end)
            streams[source.number] = ahead
        streams.move_to_end(source.number)
        while sum(len(one.data) for one in streams.values()) > AHEAD_BYTES_OF_THREAD:
            if len(streams) == 1:
                break
            streams.popitem(last=False)
        return ahead.data[offset - ahead.start : end - ahead.start]

    def _read_on(
        self, source: RemoteObject, before: _Ahead | None, offset: int, end: int
    ) -> _Ahead:
        """From `offset` on, to `end` at least: twice as far as before, if it goes on there."""
        kept, ahead = b"", AHEAD_BYTES_MIN
        if before is not None and before.start <= offset <= before.end:
            kept = before.data[offset - before.start :]
            ahead = min(2 * len(before.data), AHEAD_BYTES_MAX)
        start = offset + len(kept)
        stop = min(max(end, start + ahead), source.size)
        parts = [kept]
        for at in range(start, stop, REQUEST_BYTES_MAX):
            parts.append(self._fetch(source, at, min(REQUEST_BYTES_MAX, stop - at)))
        return _Ahead(offset, b"".join(parts))


def _runs(blocks: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbours among rising numbers, first..end, of one request each."""
    runs: list[tuple[int, int]] = []
    for block in blocks:
        most = REQUEST_BYTES_MAX // BLOCK_BYTES
        if runs and runs[-1][1] == block and block - runs[-1][0] < most:
            runs[-1] = (runs[-1][0], block + 1)
        else:
            runs.append((block, block + 1))
    return runs
