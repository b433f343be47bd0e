# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""One reader's way from a batch of requests to pages: locate, gather, rebuild.

    locate    does the block exist at its LSN, and below which LSN do its versions mean nothing?
    recall    a page from the cache, which answers or is the base to go on from
    gather    from each memtable, newest first; what is still open goes to the layers
    rebuild   redo over what was gathered, into the reply buffer
    remember  the page goes into the cache

`locate`, `recall`, `gather` and `remember` run under the store's lock, in microseconds; `rebuild`
needs none. A reader belongs to one thread at a time.

Only the relation's present state is in the chunk table. A request for an LSN before the relation's
last change is marked ASK_HISTORY, and the store answers it from the relation's history.
"""

import cython

from engine.reconstruct import Reconstruct
from engine.version_set import VersionSet
from formats import page_checksum

OPEN = 0
COMPLETE = 1
ASK_HISTORY = 2
NO_RELATION = 3
PAST_END = 4
FOREIGN = 5
REFUSED = 6
RECALLED = 7


def _column(count, size, code):
    return memoryview(bytearray(count * size)).cast(code)


class PageReader:
    def __init__(self, chunks, version, capacity):
        """`version`: PostgreSQL's major version; `capacity`: requests a batch."""
        self.chunks = chunks
        self.versions = VersionSet()
        self.reconstruct = Reconstruct(version)
        self.chunk = _column(capacity, 4, "I")
        self.block = _column(capacity, 4, "I")
        self.oldest = _column(capacity, 4, "I")
        self.floor = _column(capacity, 8, "Q")
        self.lsn = _column(capacity, 8, "Q")
        self.out_pos = _column(capacity, 8, "Q")
        self.lsn_from = _column(capacity, 8, "Q")
        self.relation_block = _column(capacity, 4, "I")
        self.state = _column(capacity, 1, "B")
        self.is_relation = _column(capacity, 1, "B")
        self.has_base = _column(capacity, 1, "B")
        self.refused = 0
        self.checksums = False  # whether the cluster has data checksums: pages leave with one

    def locate(self, batch, count):
        """Fill chunk, block, floor and state of each request; returns how many ask for history.

        `refused` counts those that cannot be answered at all.
        """
        self.versions.reset()
        self.refused = 0
        asking = 0
        i = 0
        while i < count:
            self.oldest[i] = 0
            self.has_base[i] = 0
            self.lsn[i] = batch.lsn[i]
            self.out_pos[i] = batch.out_pos[i]
            if batch.status[i]:
                self.state[i] = 6
            else:
                self._locate(self.chunks, batch, i)
                asking += self.state[i] == 2
                self.refused += self.state[i] > 2
            i += 1
        return asking

    def _locate(self, chunks, batch, i):
        block = batch.block[i]
        root = chunks.find(1, batch.spc[i], batch.db[i], batch.rel[i], batch.fork[i], 0)
        chunk = root
        if root >= 0 and block >= 131072:
            chunk = chunks.find(
                1, batch.spc[i], batch.db[i], batch.rel[i], batch.fork[i], block >> 17
            )
        self.block[i] = block & 131071
        self.relation_block[i] = block
        self.is_relation[i] = 1
        if root < 0:
            self.state[i] = 3
            return 0
        self.chunk[i] = chunk if chunk >= 0 else root
        if chunk >= 0 and not chunks.held[chunk]:
            self.state[i] = 5
        elif chunks.change_lsn[root] > batch.lsn[i]:
            self.state[i] = 2
        elif not chunks.exists[root]:
            self.state[i] = 3
        elif block >= chunks.blocks[root]:
            self.state[i] = 4
        elif chunk < 0 or chunks.cut_lsn[root] != 0 and chunks.cut_blocks[root] > block:
            self.state[i] = 2  # a segment that no one has met since the start is history's to name
        else:
            self.floor[i] = chunks.cut_lsn[root]
            self.lsn_from[i] = self.floor[i]
            self.state[i] = 0
        return 0

    def refuse(self, i, state):
        """Request i, which asked for history, cannot be answered."""
        self.state[i] = state
        self.refused += 1
        return 0

    def recall(self, cache, count, out):
        """Take pages from the cache; returns how many requests must still be gathered."""
        remaining = 0
        i = 0
        while i < count:
            if self.state[i] == 0:
                found = cache.get(self.chunk[i], self.block[i], self.lsn[i], out, self.out_pos[i])
                if found == 2:
                    self.state[i] = 7
                else:
                    remaining += 1
                    if found == 1 and cache.found_to >= self.floor[i]:
                        self.has_base[i] = 1
                        self.floor[i] = cache.found_to
                        self.lsn_from[i] = cache.found_from
            i += 1
        return remaining

    def ask(self, i, chunk, block, floor, lsn, out_pos):
        """Make request i by hand: a block of any chunk, whose existence the caller has checked."""
        self.chunk[i] = chunk
        self.block[i] = block
        self.floor[i] = floor
        self.lsn_from[i] = floor
        self.has_base[i] = 0
        self.is_relation[i] = self.chunks.kind[chunk] == 1
        self.relation_block[i] = block
        if self.is_relation[i]:
            self.relation_block[i] += self.chunks.seg[chunk] << 17
        self.lsn[i] = lsn
        self.out_pos[i] = out_pos
        self.oldest[i] = 0
        self.state[i] = 0
        return 0

    def gather(self, memtable, count):
        """Collect from one memtable for every request still open; returns how many remain open."""
        remaining = 0
        i = 0
        while i < count:
            if self.state[i] == 0:
                self.versions.resume(self.oldest[i])
                if memtable.collect(
                    self.chunk[i], self.block[i], self.floor[i], self.lsn[i], self.versions
                ):
                    self.state[i] = 1
                else:
                    remaining += 1
                self.oldest[i] = self.versions.oldest
            i += 1
        return remaining

    def settle(self, count, layers_lsn):
        """Close what needs no layer, as layers hold nothing above `layers_lsn`."""
        remaining = 0
        i = 0
        while i < count:
            if self.state[i] == 0:
                if self.floor[i] >= layers_lsn:
                    self.state[i] = 1
                else:
                    remaining += 1
            i += 1
        return remaining

    def rebuild(self, start, count, out):
        """Redo requests start..count into `out` at their out_pos.

        Returns `count`, or the number of a request whose versions do not fit together; `problem`
        is then the reason, and the caller goes on with the one after it.
        """
        try:
            with cython.nogil:
                self._rebuild(start, count, out)
        except (ValueError, IndexError) as error:
            self.problem = error
            self.state[self.rebuilding] = 6
            return self.rebuilding
        return count

    def _rebuild(self, start, count, out):
        i = start
        while i < count:
            if self.state[i] <= 1 and (self.oldest[i] != 0 or self.has_base[i] == 0):
                self.rebuilding = i
                self.reconstruct.page(
                    self.versions, self.oldest[i], out, self.out_pos[i], self.has_base[i]
                )
                if self.checksums and self.is_relation[i]:
                    page_checksum.set_checksum(
                        out[self.out_pos[i] : self.out_pos[i] + 8192], self.relation_block[i]
                    )
            i += 1
        return 0

    def remember(self, cache, count, out):
        """Put the pages that were built or found to hold on into the cache."""
        i = 0
        while i < count:
            if self.state[i] <= 1:
                newest = self.oldest[i]
                while newest != 0:
                    self.lsn_from[i] = self.versions.lsn[newest]
                    newest = self.versions.newer[newest]
                cache.put(
                    self.chunk[i],
                    self.block[i],
                    self.lsn_from[i],
                    self.lsn[i],
                    out,
                    self.out_pos[i],
                )
            i += 1
        return 0
