# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Materialised pages, each with the range of LSNs in which it is what a reader must get.

A page holds from the LSN of the newest version in it, `lsn_from`, at least up to the LSN at which
it was asked for, `lsn_to`. A request in the range is answered from here. A request above it takes
the page as its base and applies only what is newer; if that is nothing, the range grows.

One page a block is kept, the newest that was asked for. Eviction is by clock: a page that was
used since the hand last passed stays. All calls are made with the store's lock held, and pages
are copied in and out, so no reader ever points into memory that another one reuses.
"""

from mmap import mmap

from formats import coding

MISS = 0
BASE = 1
HIT = 2


def _column(count, size, code):
    return memoryview(mmap(-1, count * size)).cast(code)


class PageCache:
    def __init__(self, bytes_max):
        """Room for as many pages as fit into `bytes_max` with their columns."""
        self.capacity = max(16, bytes_max // (8192 + 48))
        self.data = _column(self.capacity + 1, 8192, "B")
        self.chunk = _column(self.capacity + 1, 4, "I")
        self.block = _column(self.capacity + 1, 4, "I")
        self.next = _column(self.capacity + 1, 4, "I")
        self.used = _column(self.capacity + 1, 1, "B")
        self.lsn_from = _column(self.capacity + 1, 8, "Q")
        self.lsn_to = _column(self.capacity + 1, 8, "Q")
        heads = 1
        while heads < self.capacity:
            heads *= 2
        self.heads = _column(heads, 4, "I")
        self.head_mask = heads - 1
        self.count = 0
        self.hand = 0
        self.hits = 0
        self.bases = 0
        self.misses = 0

    def _head(self, chunk, block):
        h = chunk
        h = (h * 1640531527 + block) * 1640531527
        return (h >> 12) & self.head_mask

    def find(self, chunk, block):
        """The slot of a block's page, 0 if it is not here."""
        slot = self.heads[self._head(chunk, block)]
        while slot != 0 and (self.block[slot] != block or self.chunk[slot] != chunk):
            slot = self.next[slot]
        return slot

    def get(self, chunk, block, lsn, out, pos):
        """Copy a page to out[pos:] if it serves; HIT, BASE (valid up to `found_to`) or MISS."""
        slot = self.find(chunk, block)
        if slot == 0 or lsn < self.lsn_from[slot]:
            self.misses += 1
            return 0
        self.used[slot] = 1
        coding.copy(out, pos, self.data, 8192 * slot, 8192)
        self.found_from = self.lsn_from[slot]
        self.found_to = self.lsn_to[slot]
        if lsn <= self.found_to:
            self.hits += 1
            return 2
        self.bases += 1
        return 1

    def put(self, chunk, block, lsn_from, lsn_to, page, pos):
        """Keep a page that holds from `lsn_from` to `lsn_to`, unless a newer one is here."""
        slot = self.find(chunk, block)
        if slot != 0:
            if lsn_to <= self.lsn_to[slot]:
                return 0
        else:
            slot = self._claim()
            head = self._head(chunk, block)
            self.chunk[slot] = chunk
            self.block[slot] = block
            self.next[slot] = self.heads[head]
            self.heads[head] = slot
        self.lsn_from[slot] = lsn_from
        self.lsn_to[slot] = lsn_to
        self.used[slot] = 1
        coding.copy(self.data, 8192 * slot, page, pos, 8192)
        return 0

    def _claim(self):
        """A slot for another page: a fresh one, or that of a page not used for a whole round."""
        if self.count < self.capacity:
            self.count += 1
            return self.count
        while True:
            self.hand += 1
            if self.hand > self.capacity:
                self.hand = 1
            if self.used[self.hand] == 0:
                self._unlink(self.hand)
                return self.hand
            self.used[self.hand] = 0

    def _unlink(self, slot):
        head = self._head(self.chunk[slot], self.block[slot])
        before = self.heads[head]
        if before == slot:
            self.heads[head] = self.next[slot]
            return 0
        while self.next[before] != slot:
            before = self.next[before]
        self.next[before] = self.next[slot]
        return 0
