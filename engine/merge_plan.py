"""What a merge takes of its inputs, in which order (engine/bundle_merge.py).

A *rank* is the place of a (chunk key, stripe) among all that are merged: the order of the output.
Everything here is made from layer directories, before a frame is read; a file is not even opened
before the merge comes to its first rank.
"""

from array import array
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from engine.bundle_reader import BundleReader
from engine.layer_merge import NO_RANK
from formats.errors import CorruptionError

Stripe = tuple[bytes, int]  # packed chunk key, stripe


class MergeInput(NamedTuple):
    """A bundle, and the rows of its layer directory that are to be merged."""

    reader: BundleReader
    rows: Sequence[int]


class FrameOfSource(NamedTuple):
    raw: bytes
    next_rank: int  # where the source's next frame starts, NO_RANK behind the last


class MergeSource:
    """One input: its layers' ranks, and its frames one by one, read ahead."""

    def __init__(
        self, reader: BundleReader, rows: Sequence[int], rank_of: dict[Stripe, int]
    ) -> None:
        directory = reader.directory
        self.reader = reader
        self._directory_rows = directory.count
        places = ((rank_of[directory.key(row), directory.stripe(row)], row) for row in rows)
        self.rows = sorted(places)
        self.ranks = array("I", [NO_RANK]) * directory.count
        self._frames = array("I")
        self._frame_ranks = array("I")
        above = -1
        for rank, row in self.rows:
            number = directory.number(row)
            if number >= directory.count:
                raise CorruptionError("layer number", f"{reader.path} row {row}",
                                      f"below {directory.count}", number)  # fmt: skip
            if number <= above:
                raise ValueError(f"{reader.path}: its layers are not in the order of their keys")
            above = number
            self.ranks[number] = rank
            start = directory.frame_start(row)
            if self._frames:
                start = max(start, self._frames[-1] + 1)
            for frame in range(start, directory.frame_end(row)):
                self._frames.append(frame)
                self._frame_ranks.append(rank)
        self._next = 0  # of frames
        self._finished = 0  # of rows
        self._read = memoryview(b"")
        self._read_offset = 0

    @property
    def next_rank(self) -> int:
        """Where the next frame starts, NO_RANK behind the last."""
        return self._frame_ranks[self._next] if self._next < len(self._frames) else NO_RANK

    @property
    def bytes_held(self) -> int:
        return len(self._read)

    @property
    def where(self) -> str:
        """The frame that was given last."""
        return f"{self.reader.path} frame {self._frames[max(0, self._next - 1)]}"

    def next_frame(self, read_bytes: int) -> FrameOfSource:
        """The next frame, checked and decompressed; a read brings `read_bytes` or one frame."""
        number, table = self._frames[self._next], self.reader.table
        at = table.offset(number) - self._read_offset
        if not self._read:
            self._read_ahead(read_bytes)
            at = 0
        end = at + table.stored_length(number)
        raw = self.reader.unseal_frame(number, self._read[at:end])
        self._next += 1
        if end >= len(self._read):
            self._read = memoryview(b"")
        return FrameOfSource(raw, self.next_rank)

    def _read_ahead(self, read_bytes: int) -> None:
        """Wanted frames that lie one behind the other, from the next one on."""
        table, first = self.reader.table, self._frames[self._next]
        if self._frames[-1] >= table.count:
            raise CorruptionError("frames of the layer directory", str(self.reader.path),
                                  f"below {table.count}", self._frames[-1])  # fmt: skip
        end, length = first + 1, table.stored_length(first)
        for number in islice(self._frames, self._next + 1, None):
            length += table.stored_length(number)
            if number != end or length > read_bytes:
                break
            end += 1
        self._read = memoryview(self.reader.read_stored(first, end, is_once=True))
        self._read_offset = table.offset(first)

    def finish_rows(self, rank: int) -> bytes:
        """The rows below `rank` that no earlier call gave, as a bitmap over the directory: row r
        is bit r & 7 of byte r >> 3."""
        bits = bytearray(-(-self._directory_rows // 8))
        while self._finished < len(self.rows) and self.rows[self._finished][0] < rank:
            row = self.rows[self._finished][1]
            bits[row >> 3] |= 1 << (row & 7)
            self._finished += 1
        return bytes(bits)


class MergePlan:
    """All inputs, newest first, by rank."""

    def __init__(self, inputs: Sequence[MergeInput]) -> None:
        """One input's own order is taken, be it that of keys or not; ValueError if one of several
        has its layers in another order than that."""
        versions: dict[Stripe, int] = {}
        for reader, rows in inputs:
            directory = reader.directory
            ordered = sorted(rows, key=directory.number) if len(inputs) == 1 else rows
            for row in ordered:
                stripe = (directory.key(row), directory.stripe(row))
                versions[stripe] = versions.get(stripe, 0) + directory.versions(row)
        self.stripes = list(versions) if len(inputs) == 1 else sorted(versions)
        self._versions = [versions[stripe] for stripe in self.stripes]
        chunks: dict[bytes, int] = {}
        self.chunk_of_rank = array(
            "I", [chunks.setdefault(key, len(chunks)) for key, _ in self.stripes]
        )
        self.keys = list(chunks)
        rank_of = {stripe: rank for rank, stripe in enumerate(self.stripes)}
        self.sources = [MergeSource(reader, rows, rank_of) for reader, rows in inputs]

    def versions_between(self, start: int, end: int) -> int:
        """How many versions the directories say that ranks start..end have."""
        return sum(self._versions[start:end])
