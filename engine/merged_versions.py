# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What a merge gives (engine/layer_merge.py): a batch of versions, in order, in columns.

    versions:  [ accepted ............ | pending ...... | last ]

The last one may still be replaced by an equal (chunk, block, LSN) from another source. Then, if old
versions are pruned, it is *pending* until it is known whether any LSN that must stay readable needs
it. What is accepted stays, and is counted to its block's chain.

**Pruning.** Retained LSNs R, ascending, the last one the horizon. A reader at r in R wants a
block's versions from the newest self-contained one at or below r, s(r), up to r; what is above the
horizon stays. So version v stays if the first retained LSN at or above it, its *keeper*, comes
before the next self-contained version: then s(keeper) <= v <= keeper. All pending versions have
one keeper.
Where a block has no self-contained version at or below r, all that it has up to r stays. The cuts
of a relation's history are self-contained, but a reader of block b wants the last one that leaves
no more than b blocks: of those that are pending a cut replaces only the ones that leave no fewer,
so what is pending has more blocks from cut to cut.

**Hot chains.** No reader may have to apply thousands of records. A version that makes `hot_records`
of them, or `hot_bytes`, without a self-contained one among them, is *hot*; `replace` puts an image
in its place, and counting starts anew.
"""

from array import array

from formats import coding

VERSIONS_MAX = 65536  # of a batch, at first


def _column(count, size, code):
    return memoryview(bytearray(count * size)).cast(code)


class MergedVersions:
    chunk: memoryview  # as the other columns, made by `_grow_columns`
    block: memoryview
    lsn: memoryview
    offset: memoryview
    length: memoryview
    hot: memoryview

    def __init__(self, batch_bytes, retained, hot_records, hot_bytes):
        """A batch is full with `batch_bytes` of payload or VERSIONS_MAX versions.

        It grows beyond that where the pending versions of a block want it. `retained`: R as u64,
        ascending, empty for no pruning; `hot_records`: 0 if no chain is hot.
        """
        self.batch_bytes = batch_bytes
        self.versions_max = VERSIONS_MAX
        self.retained = retained
        self.hot_records = hot_records
        self.hot_bytes = hot_bytes
        self.data = _column(batch_bytes + 65536, 1, "B")
        self.capacity = 0
        self.count = 0
        self._grow_columns(VERSIONS_MAX)
        self.accepted = 0
        self.used = 0
        self.hot_count = 0
        self.keeper = 0
        self.is_open = 0
        self.chain_chunk = 0
        self.chain_block = 0
        self.chain_records = 0
        self.chain_bytes = 0

    def _grow_columns(self, capacity):
        for name, code, size in (
            ("chunk", "I", 4),
            ("block", "I", 4),
            ("lsn", "Q", 8),
            ("offset", "I", 4),
            ("length", "I", 4),
            ("hot", "I", 4),
        ):
            column = _column(capacity, size, code)
            if self.count:
                column[: self.count] = getattr(self, name)[: self.count]
            setattr(self, name, column)
        self.order = memoryview(array("I", range(capacity)))
        self.capacity = capacity
        return 0

    def _reserve(self, length):
        """Room for another payload; offsets are 32 bits wide."""
        if self.used + length >= 1 << 32:
            raise MemoryError("versions of one block that must be merged at once exceed 4 GiB")
        data = _column(min(2 * (self.used + length), 1 << 32), 1, "B")
        data[: self.used] = self.data[: self.used]
        self.data = data
        return 0

    def is_full(self):
        """Whether the batch is to be taken; nothing in it is pending then."""
        return self.accepted == self.count and (
            self.used >= self.batch_bytes or self.count >= self.versions_max
        )

    def add(self, chunk, block, lsn, source, pos, length):
        """The next version, whose payload is source[pos : pos + length]; it is the last now."""
        if self.count == self.capacity:
            self._grow_columns(2 * self.capacity)
        if self.used + length > len(self.data):
            self._reserve(length)
        i = self.count
        coding.copy(self.data, self.used, source, pos, length)
        self.chunk[i] = chunk
        self.block[i] = block
        self.lsn[i] = lsn
        self.offset[i] = self.used
        self.length[i] = length
        self.used += length
        self.count = i + 1
        self.is_open = 1
        return 0

    def add_again(self, source, pos, length):
        """Another source's version at the last one's LSN: a self-contained one goes before."""
        i = self.count - 1
        if self._is_self_contained(i) or not _needs_none_older(coding.u8(source, pos)):
            return 0
        self.used = self.offset[i]
        self.count = i
        return self.add(self.chunk[i], self.block[i], self.lsn[i], source, pos, length)

    def settle(self):
        """The last version will not be replaced any more."""
        if not self.is_open:
            return 0
        self.is_open = 0
        i = self.count - 1
        if len(self.retained) == 0:
            return self._accept(self.count)
        if self.accepted < i:
            if self.lsn[i] > self.keeper:
                self._accept(i)
            elif self._is_self_contained(i):
                i = self._drop_pending(self._first_replaced(i), i)
        if self.lsn[i] > self.retained[len(self.retained) - 1]:
            return self._accept(self.count)
        self.keeper = self._first_retained(self.lsn[i])
        return 0

    def end_block(self):
        """No more versions of this block: what is pending has its keeper."""
        self.settle()
        return self._accept(self.count)

    def _first_retained(self, lsn):
        """The lowest retained LSN at or above one that is not above the horizon."""
        low = 0
        high = len(self.retained) - 1
        while low < high:
            middle = (low + high) >> 1
            if self.retained[middle] < lsn:
                low = middle + 1
            else:
                high = middle
        return self.retained[low]

    def _first_replaced(self, i):
        """The first pending version that nobody needs beside version i, the last."""
        to = self.accepted
        if self._is_cut(i):
            to = i
            while to > self.accepted and self._cut_blocks(to - 1) >= self._cut_blocks(i):
                to -= 1
        return to

    def _drop_pending(self, to, i):
        """Version i, the last, takes the place of version `to`; those from there on go. Returns
        where it is now."""
        coding.move(self.data, self.offset[to], self.offset[i], self.length[i])
        self.lsn[to] = self.lsn[i]
        self.length[to] = self.length[i]
        self.used = self.offset[to] + self.length[to]
        self.count = to + 1
        return to

    def _accept(self, end):
        """Versions up to `end` stay."""
        while self.accepted < end:
            if self.hot_records:
                self._count_in_chain(self.accepted)
            self.accepted += 1
        return 0

    def _count_in_chain(self, i):
        if self.chunk[i] != self.chain_chunk or self.block[i] != self.chain_block:
            self.chain_chunk = self.chunk[i]
            self.chain_block = self.block[i]
            self.chain_records = 0
            self.chain_bytes = 0
        if not self._is_self_contained(i):
            self.chain_records += 1
            self.chain_bytes += self.length[i]
            if self.chain_records < self.hot_records and self.chain_bytes < self.hot_bytes:
                return 0
            self.hot[self.hot_count] = i
            self.hot_count += 1
        self.chain_records = 0
        self.chain_bytes = 0
        return 0

    def _is_cut(self, i):
        """Whether it is a HISTORY version in the block of cuts."""
        return (
            self.block[i] == 1
            and self.length[i] == 8
            and coding.u8(self.data, self.offset[i]) == 64
        )

    def _cut_blocks(self, i):
        """How many blocks a cut leaves."""
        return coding.u32(self.data, self.offset[i] + 4)

    def _is_self_contained(self, i):
        return _needs_none_older(coding.u8(self.data, self.offset[i]))

    def replace(self, i, payload):
        """Put a self-contained payload into the place of version i; ValueError if it is none."""
        if i < 0 or i >= self.count:
            raise IndexError("no such version in the batch")
        if len(payload) == 0 or not _needs_none_older(payload[0]):
            raise ValueError("the image of a hot chain is not self-contained")
        if self.used + len(payload) > len(self.data):
            self._reserve(len(payload))
        coding.copy(self.data, self.used, payload, 0, len(payload))
        self.offset[i] = self.used
        self.length[i] = len(payload)
        self.used += len(payload)
        return 0

    def clear(self):
        """Forget the batch, which was taken; ValueError if something in it is pending."""
        if self.accepted != self.count:
            raise ValueError("versions of the batch are pending")
        self.count = 0
        self.accepted = 0
        self.used = 0
        self.hot_count = 0
        return 0


def _needs_none_older(kind):
    """Whether a version of this kind is self-contained (formats/version.py)."""
    return kind < 8 or kind >= 32
