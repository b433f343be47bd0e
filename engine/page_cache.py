# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Materialised pages, each with the range of LSNs in which it is what a reader must get.

A page holds from the LSN of the newest version in it, `lsn_from`, at least up to the LSN at which
it was asked for, `lsn_to`. A request in the range is answered from here. A request above it takes
the page as its base and applies only what is newer; if that is nothing, the range grows.

One page a block is kept, the newest that was asked for. Eviction is by clock: a page that was
used since the hand last passed stays. All calls are made with the store's lock held.

A page is copied out, or its slot is *pinned* while it is sent from where it lies. A pinned slot is
neither overwritten nor given away: what was to be put there is not remembered this time.
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
        self.pins = _column(self.capacity + 1, 4, "I")
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

    def look_up(self, chunk, block, lsn):
        """HIT or BASE, with the page in `found`, or MISS."""
        slot = self.find(chunk, block)
        self.found = slot
        if slot == 0 or lsn < self.lsn_from[slot]:
            self.found = 0
            self.misses += 1
            return 0
        self.used[slot] = 1
        if lsn <= self.lsn_to[slot]:
            self.hits += 1
            return 2
        self.bases += 1
        return 1

    def copy(self, slot, out, pos):
        """A page to out[pos:]."""
        coding.copy(out, pos, self.data, self.position(slot), 8192)
        return 0

    def position(self, slot):
        """Where in `data` a slot's page lies; 4 GiB of pages are more than 32 bits can say."""
        position = slot
        return position * 8192

    def extend(self, slot, lsn_to):
        """Nothing newer was found up to `lsn_to`: the page holds until there."""
        if lsn_to > self.lsn_to[slot]:
            self.lsn_to[slot] = lsn_to
        return 0

    def pin(self, slot):
        self.pins[slot] += 1
        return 0

    def unpin(self, slot):
        if self.pins[slot] == 0:
            raise ValueError("page cache: this slot is not pinned")
        self.pins[slot] -= 1
        return 0

    def put(self, chunk, block, lsn_from, lsn_to, page, pos):
        """Keep a page that holds from `lsn_from` to `lsn_to`, unless a newer one is here."""
        slot = self.find(chunk, block)
        if slot != 0:
            if lsn_to <= self.lsn_to[slot] or self.pins[slot] != 0:
                return 0
        else:
            slot = self._claim()
            if slot == 0:
                return 0
            head = self._head(chunk, block)
            self.chunk[slot] = chunk
            self.block[slot] = block
            self.next[slot] = self.heads[head]
            self.heads[head] = slot
        self.lsn_from[slot] = lsn_from
        self.lsn_to[slot] = lsn_to
        self.used[slot] = 1
        coding.copy(self.data, self.position(slot), page, pos, 8192)
        return 0

    def _claim(self):
        """A slot for another page: a fresh one, or that of a page not used for a whole round.

        0: every page is pinned.
        """
        if self.count < self.capacity:
            self.count += 1
            return self.count
        steps = 2 * self.capacity
        while steps > 0:
            self.hand += 1
            if self.hand > self.capacity:
                self.hand = 1
            if self.pins[self.hand] == 0:
                if self.used[self.hand] == 0:
                    self._unlink(self.hand)
                    return self.hand
                self.used[self.hand] = 0
            steps -= 1
        return 0

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
