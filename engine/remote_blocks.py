"""Bytes of objects in a bucket, for `pread`: by way of the block cache, or ahead of one who reads
a file once.

    read       blocks that are not in the cache are fetched, neighbours with one request, each by
               one of the threads that want it at the same time
    bring      the same, of many places that are about to be read, all at once; a `read` that
               misses a block first calls who knows of such places (foreseeing)
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from engine.block_cache import BLOCK_BYTES, BlockCache
from engine.errors import UnreachableError
from engine.remote_files import RemoteFiles
from formats.errors import CorruptionError

REQUEST_BYTES_MAX = 4 << 20
AHEAD_BYTES_MIN = 512 << 10
AHEAD_BYTES_MAX = 4 << 20
AHEAD_BYTES_OF_THREAD = 16 << 20  # of all files that it reads once
QUIET_SECONDS = 1.0
_numbers = count()


class RemoteObject:
    """One that holds a file of `size` bytes."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.number = next(_numbers) << 32  # of its first block


class _Claim(NamedTuple):
    """A block that one thread fetches, and others may wait for."""

    source: RemoteObject
    future: Future[bytes]


_Claims = dict[int, _Claim]  # by the blocks' numbers, as all objects' are numbered


class _Run(NamedTuple):
    """Neighbouring blocks first..end of an object, as all objects' are numbered."""

    source: RemoteObject
    first: int
    end: int

    @property
    def range(self) -> tuple[str, int, int]:
        start = (self.first - self.source.number) * BLOCK_BYTES
        length = min((self.end - self.first) * BLOCK_BYTES, self.source.size - start)
        return self.source.name, start, length


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
        self._brought = 0  # blocks, by threads that have not read them all yet
        self._under_way: dict[int, Future[bytes]] = {}  # blocks, by number
        self._of_thread = threading.local()
        self._quiet_until = float("-inf")
        self._problem = ""

    def read(self, source: RemoteObject, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`; fewer only where the object ends.

        UnreachableError, FileNotFoundError; CorruptionError: the object is shorter than it was.
        """
        end = min(offset + length, source.size)
        if end <= offset:
            return b""
        blocks = _blocks(source, offset, length)
        found = self._cached(source, blocks)
        missing = [block for block, data in found.items() if data is None]
        with self._lock:
            self.hits += len(found) - len(missing)
            self.misses += len(missing)
        if missing and self._bring_foreseen():
            found.update(self._cached(source, missing))
            missing = [block for block, data in found.items() if data is None]
        if missing:
            found.update(self._get_missing(source, missing))
        whole = b"".join(data for data in found.values() if data is not None)
        return whole[offset - blocks.start * BLOCK_BYTES : end - blocks.start * BLOCK_BYTES]

    def _cached(self, source: RemoteObject, blocks: Iterable[int]) -> dict[int, bytes | None]:
        return {block: self.cache.get(source.number + block) for block in blocks}

    def _get_missing(self, source: RemoteObject, blocks: Sequence[int]) -> dict[int, bytes]:
        """Blocks that were not in the cache: what nobody fetches is fetched, then the others'
        are waited for."""
        mine, others = self._claim({source.number + block: source for block in blocks})
        futures = {number: claim.future for number, claim in mine.items()} | others
        self._fetch(mine)
        return {block: futures[source.number + block].result() for block in blocks}

    def _claim(
        self, wanted: Mapping[int, RemoteObject]
    ) -> tuple[_Claims, dict[int, Future[bytes]]]:
        """Blocks that no other thread fetches from now on, and those that one does."""
        mine: _Claims = {}
        others: dict[int, Future[bytes]] = {}
        with self._lock:
            for number, source in wanted.items():
                future = self._under_way.get(number)
                if future is None:
                    mine[number] = _Claim(source, Future())
                    self._under_way[number] = mine[number].future
                else:
                    others[number] = future
        return mine, others

    def _fetch(self, mine: _Claims) -> None:
        """Give each claimed block's Future what the bucket has, or the error, all asked for at the
        same time; the cache has it then. None is left in `mine`, so that no more is held in memory
        than is on its way."""
        try:
            wanted = []
            for number in sorted(mine):
                data = self.cache.get(number)  # another thread may just have fetched it
                if data is None:
                    wanted.append(number)
                else:
                    self._settle(mine, number, data)
            if wanted:
                runs = [_Run(mine[first].source, first, end) for first, end in _runs(wanted)]
                self._ask(runs, mine)
        except BaseException as error:
            for number in list(mine):
                self._settle(mine, number, error)
            if not isinstance(error, OSError):  # else who waits for a block has it
                raise

    def _ask(self, runs: Sequence[_Run], mine: _Claims) -> None:
        """`_fetch` neighbours with one request; UnreachableError: it is quiet."""
        ranges = [run.range for run in runs]

        def take(place: int, found: bytes | OSError) -> None:
            run, data = runs[place], self._checked(ranges[place], found)
            for number in range(run.first, run.end):
                at = (number - run.first) * BLOCK_BYTES
                piece = data[at : at + BLOCK_BYTES] if isinstance(data, bytes) else data
                if isinstance(piece, bytes):
                    self.cache.put(number, piece)
                self._settle(mine, number, piece)

        self._keep_quiet(ranges[0][0])
        if len(ranges) == 1:
            take(0, _answer(self._files, *ranges[0]))
        else:
            self._files.read_many(ranges, take)

    def _settle(self, mine: _Claims, number: int, found: bytes | BaseException) -> None:
        """Who waits for a block has it, or the error."""
        with self._lock:
            future = mine.pop(number).future
            del self._under_way[number]
        if isinstance(found, bytes):
            future.set_result(found)
        else:
            future.set_exception(found)

    # who knows what will be read

    @contextmanager
    def foreseeing(self, bring: Callable[[], None]) -> Iterator[None]:
        """Within, a `read` by this thread that misses a block calls `bring` first, which lets all
        come at once that is read later; what it reads itself does not."""
        self._of_thread.bring = bring
        self._of_thread.brought = 0
        try:
            yield
        finally:
            self._of_thread.bring = None
            self._reserve(0)
            del self._of_thread.brought

    def _bring_foreseen(self) -> bool:
        """Whether more may be in the cache now."""
        bring: Callable[[], None] | None = getattr(self._of_thread, "bring", None)
        if bring is None:
            return False
        self._of_thread.bring = None
        try:
            bring()
        finally:
            self._of_thread.bring = bring
        return True

    def bring(self, parts: Iterable[tuple[RemoteObject, int, int]]) -> None:
        """Let the cache have (object, offset, length) that are about to be read, the first ones of
        them: what all threads have brought and not read yet is half of the cache at most, or they
        would push out each other's. What does not come is left to who reads it."""
        room = self._reserve(0)
        wanted: dict[int, RemoteObject] = {}
        for source, offset, length in parts:
            numbers = [source.number + block for block in _blocks(source, offset, length)]
            new = [number for number in numbers if number not in self.cache]
            if len(wanted) + len(new) > room:
                break
            wanted.update(dict.fromkeys(new, source))
        self._reserve(len(wanted))
        mine, _ = self._claim(wanted)
        self._fetch(mine)

    def _reserve(self, count: int) -> int:
        """The calling thread brings so many blocks, in the place of what it brought before; how
        many it may: half of what the others leave. Who does not foresee holds none."""
        before = getattr(self._of_thread, "brought", None)
        with self._lock:
            if before is not None:
                self._brought += count - before
                self._of_thread.brought = count
            return max(0, (self.cache.slot_count // 2 - self._brought + 1) // 2)

    # asking

    def _read_range(self, source: RemoteObject, start: int, length: int) -> bytes:
        """Past the cache, with one request."""
        self._keep_quiet(source.name)
        part = source.name, start, length
        found = self._checked(part, _answer(self._files, *part))
        if isinstance(found, Exception):
            raise found
        return found

    def _keep_quiet(self, name: str) -> None:
        if self._clock() < self._quiet_until:
            raise UnreachableError(errno.EIO, self._problem, name)

    def _checked(
        self, part: tuple[str, int, int], found: bytes | OSError
    ) -> bytes | OSError | CorruptionError:
        """An answer that came whole, or the error; and what there is to note of it."""
        if isinstance(found, UnreachableError):
            self._problem, self._quiet_until = str(found), self._clock() + QUIET_SECONDS
        if isinstance(found, OSError):
            return found
        with self._lock:
            self.requests += 1
            self.bytes_fetched += len(found)
        try:
            return self._whole(part, found)
        except (CorruptionError, OSError) as error:
            return error

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
        if not hasattr(self._of_thread, "streams"):
            self._of_thread.streams = OrderedDict()
        streams: OrderedDict[int, _Ahead] = self._of_thread.streams
        return streams

    def read_once(self, source: RemoteObject, offset: int, length: int) -> bytes:
        """`read`, of one who goes through the object."""
        end = min(offset + length, source.size)
        if end <= offset:
            return b""
        streams = self._streams()
        ahead = streams.get(source.number)
        if ahead is None or not ahead.start <= offset <= end <= ahead.end:
            cached = self._cached(source, _blocks(source, offset, length))
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
            parts.append(self._read_range(source, at, min(REQUEST_BYTES_MAX, stop - at)))
        return _Ahead(offset, b"".join(parts))


def _blocks(source: RemoteObject, offset: int, length: int) -> range:
    """Blocks of an object that have these bytes."""
    return range(offset // BLOCK_BYTES, -(-min(offset + length, source.size) // BLOCK_BYTES))


def _answer(files: RemoteFiles, name: str, start: int, length: int) -> bytes | OSError:
    try:
        return files.read(name, start, length)
    except OSError as error:
        return error


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
