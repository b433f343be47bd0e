# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The in-memory layer: versions as they are ingested, found by (chunk, block).

    slots: hash of (chunk, block) -> page
    page:  chunk, block, newest entry, records and bytes since its last self-contained version
    entry: chunk, block, LSN, next older entry, the newest self-contained one at or below it, where
           its payload lies in the arena

Everything lies in columns of fixed capacity, allocated once and never moved, so that an entry that
was published stays where it is. When either the arena or a column is full, the memtable is frozen
and flushed, and another takes its place. One writer, many readers; both hold the store's lock.

LSNs of one page never go down. An entry with the LSN of the newest one replaces it: a record's
effects on a page are one version, and an image made of a long chain takes its last record's place.
"""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

from formats import coding

HOT_MAX = 4096


def _column(count, size, code):
    """Zeroed memory straight from the kernel: pages that are never touched cost nothing.

    Private: memory that could be shared costs more at its first touch.
    """
    memory = mmap(-1, count * size, MAP_PRIVATE | MAP_ANONYMOUS)
    return memoryview(memory).cast(code)


class Memtable:
    def __init__(self, arena_bytes, entries_max, pages_max, hot_records, hot_bytes):
        """`hot_records`, `hot_bytes`: above them a page's chain is reported in `hot`."""
        self.data = _column(arena_bytes, 1, "B")
        self.entry_lsn = _column(entries_max + 1, 8, "Q")
        self.entry_chunk = _column(entries_max + 1, 4, "I")
        self.entry_block = _column(entries_max + 1, 4, "I")
        self.entry_older = _column(entries_max + 1, 4, "I")
        self.entry_image = _column(entries_max + 1, 4, "I")
        self.entry_pos = _column(entries_max + 1, 4, "I")
        self.entry_length = _column(entries_max + 1, 4, "I")
        self.page_chunk = _column(pages_max + 1, 4, "I")
        self.page_block = _column(pages_max + 1, 4, "I")
        self.page_newest = _column(pages_max + 1, 4, "I")
        self.page_records = _column(pages_max + 1, 4, "I")
        self.page_bytes = _column(pages_max + 1, 4, "I")
        slot_count = 1
        while slot_count < 2 * pages_max:
            slot_count *= 2
        self.slots = _column(slot_count, 4, "I")
        self.slot_bytes = memoryview(self.slots).cast("B")
        self.slot_mask = slot_count - 1
        self.hot = _column(HOT_MAX, 4, "I")
        self.slot_counts = _column(257, 8, "Q")
        self.hot_records = hot_records
        self.hot_bytes = hot_bytes
        self.entries_max = entries_max
        self.pages_max = pages_max
        self.lsn_end = 0
        self.entry_count = 0
        self.page_count = 0
        self.used = 0
        self.hot_count = 0

    def clear(self):
        """Empty it for reuse: memory that was touched before is ten times as fast as new memory."""
        coding.fill(self.slot_bytes, 0, len(self.slot_bytes), 0)
        self.entry_count = 0
        self.page_count = 0
        self.used = 0
        self.hot_count = 0
        self.lsn_end = 0
        return 0

    def has_room(self, entries, payload_bytes):
        """Whether that many more entries (each perhaps a new page) and bytes fit."""
        return (
            self.entry_count + entries <= self.entries_max
            and self.page_count + entries <= self.pages_max
            and self.used + payload_bytes <= len(self.data)
        )

    def find(self, chunk, block):
        """The page's number, 0 if the memtable has nothing for it."""
        h = chunk
        h = (h * 1640531527 + block) * 1640531527
        slot = (h >> 12) & self.slot_mask
        while True:
            page = self.slots[slot]
            if page == 0:
                return 0
            if self.page_block[page] == block and self.page_chunk[page] == chunk:
                return page
            slot = (slot + 1) & self.slot_mask

    def _add_page(self, chunk, block):
        h = chunk
        h = (h * 1640531527 + block) * 1640531527
        slot = (h >> 12) & self.slot_mask
        while self.slots[slot] != 0:
            slot = (slot + 1) & self.slot_mask
        page = self.page_count + 1
        self.page_chunk[page] = chunk
        self.page_block[page] = block
        self.page_newest[page] = 0
        self.page_records[page] = 0
        self.page_bytes[page] = 0
        self.slots[slot] = page
        self.page_count = page
        return page

    def reserve(self, length):
        """Take `length` bytes of the arena and return where they start; `link` publishes them."""
        pos = self.used
        if pos + length > len(self.data):
            raise MemoryError("memtable arena is full")
        self.used = pos + length
        return pos

    def link(self, chunk, block, lsn, pos, length, self_contained):
        """Publish the payload at `pos` as the page's newest version."""
        page = self.find(chunk, block)
        if page == 0:
            if self.page_count >= self.pages_max:
                raise MemoryError("memtable page column is full")
            page = self._add_page(chunk, block)
        if self.entry_count >= self.entries_max:
            raise MemoryError("memtable entry column is full")
        newest = self.page_newest[page]
        if newest != 0:
            if lsn < self.entry_lsn[newest]:
                raise ValueError("memtable: a page's LSN went down")
            if lsn == self.entry_lsn[newest]:
                newest = self.entry_older[newest]
        entry = self.entry_count + 1
        self.entry_lsn[entry] = lsn
        self.entry_chunk[entry] = chunk
        self.entry_block[entry] = block
        self.entry_older[entry] = newest
        self.entry_image[entry] = entry if self_contained else self.entry_image[newest]
        self.entry_pos[entry] = pos
        self.entry_length[entry] = length
        self.entry_count = entry
        self.page_newest[page] = entry
        if self_contained:
            self.page_records[page] = 0
            self.page_bytes[page] = 0
        else:
            self.page_records[page] += 1
            self.page_bytes[page] += length
            if (
                self.page_records[page] >= self.hot_records
                or self.page_bytes[page] >= self.hot_bytes
            ):
                self._note_hot(page)
        return 0

    def _note_hot(self, page):
        if self.hot_count < 4096:
            self.hot[self.hot_count] = page
            self.hot_count += 1
        self.page_records[page] = 0  # reported again only after another such run
        self.page_bytes[page] = 0
        return 0

    def put(self, chunk, block, lsn, source, self_contained):
        """Add one version whose payload is `source`."""
        length = len(source)
        pos = self.reserve(length)
        coding.copy(self.data, pos, source, 0, length)
        return self.link(chunk, block, lsn, pos, length, self_contained)

    def put_word(self, chunk, block, lsn, word):
        """Add a self-contained version of eight bytes, as relation history has them."""
        pos = self.reserve(8)
        coding.put_u64(self.data, pos, word)
        return self.link(chunk, block, lsn, pos, 8, 1)

    def collect(self, chunk, block, lsn_floor, lsn_max, into):
        """Push the page's versions with lsn_floor < LSN <= lsn_max into a VersionSet, newest first.

        Returns 1 when a self-contained version came, so that nothing older is needed, else 0. What
        lies at or below the floor ends the search here, but not elsewhere: a layer may hold images
        above the floor that never were in a memtable.
        """
        page = self.find(chunk, block)
        if page == 0:
            return 0
        entry = self.page_newest[page]
        while entry != 0:
            lsn = self.entry_lsn[entry]
            if lsn <= lsn_floor:
                return 0
            if lsn <= lsn_max and into.push(
                self.data, self.entry_pos[entry], self.entry_length[entry], lsn
            ):
                return 1
            # where even the image below is too new, so is everything in between
            image = self.entry_image[entry]
            if image != 0 and self.entry_lsn[image] > lsn_max:
                entry = image
            entry = self.entry_older[entry]
        return 0

    def newest_lsn(self, chunk, block):
        """LSN of the page's newest version here, 0 if there is none."""
        page = self.find(chunk, block)
        if page == 0:
            return 0
        return self.entry_lsn[self.page_newest[page]]

    def sort(self, ranks, order, scratch):
        """Fill `order` with the numbers of all entries by (rank of chunk, block, LSN).

        `ranks[chunk]` is the place of the chunk's key among all keys; `scratch` has room for two
        numbers a page. Entries that were replaced are left out. Returns how many there are.
        """
        count = self.page_count
        i = 0
        while i < count:
            scratch[i] = i + 1
            i += 1
        source = 0
        digit = 0
        while digit < 8:
            if self._radix_pass(ranks, scratch, source, count - source, count, digit):
                source = count - source
            digit += 1
        out = 0
        i = 0
        while i < count:
            out = self._unchain(scratch[source + i], order, out)
            i += 1
        return out

    def _radix_pass(self, ranks, scratch, source, target, count, digit):
        """One stable pass over one byte of (rank, block); returns 0 if all have the same byte."""
        counts = self.slot_counts
        i = 0
        while i < 257:
            counts[i] = 0
            i += 1
        i = 0
        while i < count:
            counts[self._digit(ranks, scratch[source + i], digit) + 1] += 1
            i += 1
        i = 0
        while i < 256:
            if counts[i + 1] == count:
                return 0
            i += 1
        i = 0
        while i < 256:
            counts[i + 1] += counts[i]
            i += 1
        i = 0
        while i < count:
            page = scratch[source + i]
            d = self._digit(ranks, page, digit)
            scratch[target + counts[d]] = page
            counts[d] += 1
            i += 1
        return 1

    def _digit(self, ranks, page, digit):
        if digit < 4:
            return (self.page_block[page] >> (8 * digit)) & 255
        return (ranks[self.page_chunk[page]] >> (8 * (digit - 4))) & 255

    def _unchain(self, page, order, out):
        """Append one page's entries, oldest first; returns the new end."""
        first = out
        entry = self.page_newest[page]
        while entry != 0:
            order[out] = entry
            out += 1
            entry = self.entry_older[entry]
        last = out - 1
        while first < last:
            entry = order[first]
            order[first] = order[last]
            order[last] = entry
            first += 1
            last -= 1
        return out
