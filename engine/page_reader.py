# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""One reader's way from a batch of requests to pages: locate, gather, rebuild.

    locate     does the block exist at its LSN, and below which LSN do its versions mean nothing?
    recall     a page in the cache answers, or is the base to go on from
    gather     from each memtable, newest first; what is still open is for the layers
    hand_over  a page that answers is pinned where it lies or copied, as is a base
    rebuild    redo over what was gathered, in the reply buffer
    remember   what was rebuilt goes into the cache

All but `rebuild` run under the store's lock, in microseconds, and nothing here needs the GIL. What
is not in memory is for Python: layers, and relations' history. Two ways through it:

    answer  for page streams: pages are sent from where they lie in the cache, so that their slots
            stay pinned, until `release`; what needs Python is left to `read`
    read    with every page in the reply buffer; engine/version_store.py goes on with what it leaves

Only the relation's present state is in the chunk table. A request for an LSN before the relation's
last change is marked ASK_HISTORY, and the store answers it from the relation's history. A reader
belongs to one thread at a time.
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
EXPIRED = 8

BATCH_BYTES_MAX = 4 << 20  # of versions gathered for more than one request


def _column(count, size, code):
    return memoryview(bytearray(count * size)).cast(code)


class PageReader:
    def __init__(self, store, capacity):
        """`store`: a StoreState; `capacity`: requests a batch."""
        self.store = store
        self.versions = VersionSet()
        self.reconstruct = Reconstruct(store.major)
        self.chunk = _column(capacity, 4, "I")
        self.block = _column(capacity, 4, "I")
        self.oldest = _column(capacity, 4, "I")
        self.slot = _column(capacity, 4, "I")
        self.floor = _column(capacity, 8, "Q")
        self.lsn = _column(capacity, 8, "Q")
        self.out_pos = _column(capacity, 8, "Q")
        self.lsn_from = _column(capacity, 8, "Q")
        self.relation_block = _column(capacity, 4, "I")
        self.state = _column(capacity, 1, "B")
        self.is_relation = _column(capacity, 1, "B")
        self.has_base = _column(capacity, 1, "B")
        self.asking = 0
        self.still_open = 0
        self.refused = 0
        self.unbuilt = 0
        self.pinned = 0
        self.rebuilding = -1

    def answer(self, batch, count, out, pinning):
        """Read the first `count` pages of a batch from memory; whether that gives all of them.

        With `pinning` each is then in the cache, in the slot that `slot` says, or with slot 0 at
        its out_pos, and `release` must follow; also after ValueError or IndexError, when one cannot
        be rebuilt. False: nothing is pinned, and nothing was done that `read` needs.
        """
        self.store.lock.enter()
        try:
            done = self._look_up(batch, count)
            if done or self.asking == 0 and not pinning:
                self._hand_over(self.store.cache, count, out, pinning)
            if done and self.unbuilt == 0:  # else they are counted by `remember`
                self.store.pages_read += count
        finally:
            self.store.lock.leave()
        if done and self.unbuilt:
            self._rebuild(0, count, out)
            self.remember(count, out)
        return done

    def read(self, batch, count, out):
        """Read the first `count` pages of a batch into out; whether all of them are there.

        Else `asking` need history, `still_open` layers, `refused` a reason why they cannot be read,
        and if `rebuilding` is the number of one, that could not be rebuilt because of `problem`.
        OverflowError: they need more versions together than a batch may take.
        """
        try:
            with cython.nogil:
                done = self.answer(batch, count, out, False)
        except (ValueError, IndexError) as error:
            self._blame(error)
            return False
        return done

    def release(self):
        """The pages that `answer` found in the cache have been sent, or copied by `fetch`."""
        if self.pinned:
            self.store.lock.enter()
            try:
                self._unpin(self.store.cache)
            finally:
                self.store.lock.leave()
        return 0

    def _unpin(self, cache):
        while self.pinned:
            self.pinned -= 1
            if self.slot[self.pinned]:
                cache.unpin(self.slot[self.pinned])
                self.slot[self.pinned] = 0
        return 0

    def fetch(self, first, out):
        """Copy what is still in the cache, from the `first` page on, to where it belongs in out."""
        i = first
        while i < self.pinned:
            if self.slot[i]:
                self.store.cache.copy(self.slot[i], out, self.out_pos[i])
            i += 1
        return 0

    def _look_up(self, batch, count):
        """What is in memory; whether that is all it takes."""
        self._prepare(count)
        self.asking = self._locate_all(batch, count)
        if self.asking:
            return False
        self._search(count)
        return self.still_open == 0 and self.refused == 0

    def _prepare(self, count):
        self.rebuilding = -1
        self.versions.bytes_max = 4194304 if count > 1 else 0  # BATCH_BYTES_MAX
        self.reconstruct.part.version = self.store.major
        self.reconstruct.new_page_lsn_max = self.store.backup_end_lsn
        self.checksums = self.store.checksums
        return 0

    def _search(self, count):
        """The cache, then the memtables; sets `still_open`."""
        self.still_open = self._recall(self.store.cache, count)
        if self.still_open:
            self._gather_all(count)
        return 0

    def _gather_all(self, count):
        self.still_open = self._gather(self.store.ingest.target.memtable, count)
        if self.still_open and self.store.frozen_newer is not None:
            self.still_open = self._gather(self.store.frozen_newer, count)
        if self.still_open and self.store.frozen_older is not None:
            self.still_open = self._gather(self.store.frozen_older, count)
        if self.still_open:
            self.still_open = self._settle(count, self.store.layers_lsn)
        return 0

    def resume(self, count, out):
        """Go on when all requests that ask for history have their answer; sets `still_open`."""
        self.store.lock.enter()
        try:
            self._search(count)
            self._hand_over(self.store.cache, count, out, False)
        finally:
            self.store.lock.leave()
        return 0

    def collect(self, count):
        """Gather what was asked for by `ask`; sets `still_open`."""
        self.store.lock.enter()
        try:
            self._prepare(count)
            self._gather_all(count)
        finally:
            self.store.lock.leave()
        return 0

    def _locate_all(self, batch, count):
        """Fill chunk, block, floor and state of each request; returns how many ask for history.

        `refused` counts those that cannot be answered at all.
        """
        self.versions.reset()
        self.refused = 0
        asking = 0
        i = 0
        while i < count:
            self.oldest[i] = 0
            self.slot[i] = 0
            self.has_base[i] = 0
            self.lsn[i] = batch.lsn[i]
            self.out_pos[i] = batch.out_pos[i]
            if batch.status[i]:
                self.state[i] = 6
            else:
                self._locate(self.store.table, batch, i)
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

    def _recall(self, cache, count):
        """Find pages in the cache; returns how many requests must still be gathered."""
        remaining = 0
        i = 0
        while i < count:
            if self.state[i] == 0:
                found = cache.look_up(self.chunk[i], self.block[i], self.lsn[i])
                self.slot[i] = cache.found
                if found == 2:
                    self.state[i] = 7
                else:
                    remaining += 1
                    if found == 1 and cache.lsn_to[cache.found] >= self.floor[i]:
                        self.has_base[i] = 1
                        self.floor[i] = cache.lsn_to[cache.found]
                        self.lsn_from[i] = cache.lsn_from[cache.found]
            i += 1
        return remaining

    def _hand_over(self, cache, count, out, pinning):
        """Pin the pages that answer, or copy them, and the bases of those that must be rebuilt."""
        self.unbuilt = 0
        i = 0
        while i < count:
            if self.state[i] == 1 and self.has_base[i] and self.oldest[i] == 0:
                cache.extend(self.slot[i], self.lsn[i])
                self.state[i] = 7
            if self.state[i] == 7 and pinning:
                cache.pin(self.slot[i])
            else:
                if self.state[i] == 7 or self.state[i] <= 1 and self.has_base[i]:
                    cache.copy(self.slot[i], out, self.out_pos[i])
                self.slot[i] = 0
                self.unbuilt += self.state[i] <= 1
            i += 1
            if pinning:
                self.pinned = i
        return 0

    def ask(self, i, chunk, block, floor, lsn, out_pos):
        """Make request i by hand: a block of any chunk, whose existence the caller has checked."""
        self.chunk[i] = chunk
        self.block[i] = block
        self.floor[i] = floor
        self.lsn_from[i] = floor
        self.has_base[i] = 0
        self.is_relation[i] = self.store.table.kind[chunk] == 1
        self.relation_block[i] = block
        if self.is_relation[i]:
            self.relation_block[i] += self.store.table.seg[chunk] << 17
        self.lsn[i] = lsn
        self.out_pos[i] = out_pos
        self.oldest[i] = 0
        self.slot[i] = 0
        self.state[i] = 0
        return 0

    def _gather(self, memtable, count):
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

    def _settle(self, count, layers_lsn):
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
            self._blame(error)
            return self.rebuilding
        return count

    def _blame(self, error):
        """Request `rebuilding` is the one that cannot be rebuilt."""
        if self.rebuilding < 0:
            raise error
        self.problem = error
        self.state[self.rebuilding] = 6

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
        self.rebuilding = -1
        return 0

    def remember(self, count, out):
        """Put the pages that were built or found to hold on into the cache, and count them all."""
        self.store.lock.enter()
        try:
            self._put(self.store.cache, count, out)
            self.store.pages_read += count
        finally:
            self.store.lock.leave()
        return 0

    def _put(self, cache, count, out):
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
