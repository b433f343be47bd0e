# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Pages kept current: redo in LSN order, in place, as a standby's recovery does it.

    memtable, as ingest filled it  ->  its entries, in the order in which they came
                                   ->  each applied to its page in the arena

The server never works like this, it makes a page when somebody asks for it. But it is the shortest
way to the state at the end of some WAL, so the speed of our redo can be measured beside that of
PostgreSQL's recovery. What is applied is what the server would keep, by the same code: versions
that engine/ingest.py made, applied by engine/reconstruct.py.

A version of a page never needs another page, so pages are dealt out to *shards* by their hash, and
each shard may be worked on by a thread of its own. A shard looks at all entries of a memtable and
takes its own; memtables must come to it in order. Nothing is shared but the memtable, which nobody
changes meanwhile.

What a record changes and no WAL before has defined is *loaded*: the page of the base backup. A
relation's truncation or drop makes zeros of its pages, a file's blocks are not pages.
"""

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

import cython

from engine.reconstruct import Reconstruct
from formats import coding
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn

AHEAD = 4  # entries between the one that is applied and the page that the CPU is asked for
HUGE_PAGES = 14  # MADV_HUGEPAGE: memory that was never touched costs less by the 2 MiB
NO_RESERVE = 0x4000  # MAP_NORESERVE: nor does what will never be


def _column(count, size, code):
    """Zeroed memory that costs nothing until it is touched."""
    memory = mmap(-1, count * size, MAP_PRIVATE | MAP_ANONYMOUS | NO_RESERVE)
    if count * size >= 1 << 22:
        memory.madvise(HUGE_PAGES)
    return memoryview(memory).cast(code)


class CurrentPages:
    def __init__(self, chunks, version, pages_max, entries_max, load, shard=0, shard_count=1):
        """`chunks`: the ChunkTable of the ingest; `version`: PostgreSQL's major.

        `load(chunk, block, lsn)`: the page as it was before the first record, as bytes, or None if
        there was none; `lsn` is that of the version which needs it. `entries_max`: of a memtable.
        """
        self.chunks = chunks
        self.reconstruct = Reconstruct(version)
        self.load = load
        self.shard = shard
        self.shard_count = shard_count
        self.pages_max = pages_max
        self.page_count = 0
        self.applied = 0
        self.data = _column(8192 * (pages_max + 1), 1, "B")
        self.page_chunk = _column(pages_max + 1, 4, "I")
        self.page_block = _column(pages_max + 1, 4, "I")
        self.state = _column(pages_max + 1, 1, "B")  # 0 not known yet, 1 current, 2 fuzzy
        self._make_slots(1 << 10)
        self.todo_entry = _column(entries_max + 1, 4, "I")
        self.todo_page = _column(entries_max + AHEAD + 1, 4, "I")

    def _make_slots(self, count):
        """A hash table of so many slots; what is known is put into it."""
        self.slots = memoryview(bytearray(4 * count)).cast("I")
        self.slot_mask = count - 1
        page = 1
        while page <= self.page_count:
            self._enter(page, self._hash(self.page_chunk[page], self.page_block[page]))
            page += 1
        return 0

    def redo(self, memtable, first=1, end=0):
        """Apply what belongs to this shard of the memtable's entries first..end, 0: of all.

        CorruptionError: a version does not fit its page.
        """
        self.entry = 0
        try:
            with cython.nogil:
                if end == 0:
                    end = memtable.entry_count + 1
                count = self._find_all(memtable, first, end)
                self._apply_all(self.reconstruct.part, memtable, count)
        except (ValueError, IndexError) as error:
            if not self.entry:
                raise
            chunk, block = memtable.entry_chunk[self.entry], memtable.entry_block[self.entry]
            where = f"{self.chunks.key(chunk)} block {block}"
            lsn = show_lsn(memtable.entry_lsn[self.entry])
            raise CorruptionError("page", where, f"redo up to {lsn}", str(error)) from error

    def page(self, chunk, block):
        """The page as it is now, None if no WAL changed it."""
        page = self._find(chunk, block, self._hash(chunk, block))
        return bytes(self.data[8192 * page : 8192 * (page + 1)]) if page else None

    def _hash(self, chunk, block):
        h = chunk
        return (h * 1640531527 + block) * 1640531527

    def owns(self, chunk, block):
        """Whether the page is of this shard."""
        return (self._hash(chunk, block) >> 34) % self.shard_count == self.shard

    def _find(self, chunk, block, h):
        """The page's number, 0 if there is none."""
        slot = (h >> 12) & self.slot_mask
        while True:
            page = self.slots[slot]
            if page == 0 or self.page_block[page] == block and self.page_chunk[page] == chunk:
                return page
            slot = (slot + 1) & self.slot_mask

    def _add(self, chunk, block, h):
        if self.page_count >= self.pages_max:
            raise MemoryError("no room for another page")
        if 2 * self.page_count > self.slot_mask:
            self._make_slots(4 * (self.slot_mask + 1))
        self.page_count += 1
        self.page_chunk[self.page_count] = chunk
        self.page_block[self.page_count] = block
        return self._enter(self.page_count, h)

    def _enter(self, page, h):
        slot = (h >> 12) & self.slot_mask
        while self.slots[slot] != 0:
            slot = (slot + 1) & self.slot_mask
        self.slots[slot] = page
        return page

    def _find_all(self, memtable, entry, end):
        """Which entries are to be applied to which page; returns how many."""
        count = 0
        while entry < end:
            kind = coding.u8(memtable.data, memtable.entry_pos[entry])
            chunk = memtable.entry_chunk[entry]
            block = memtable.entry_block[entry]
            if kind == 64:
                if block == 1:  # a cut; for every shard, and of no page of its own
                    self.todo_entry[count] = entry
                    self.todo_page[count] = 0
                    count += 1
            elif (
                kind != 4
                and kind != 65
                and self.owns(chunk, block)
                and not self._is_replaced(memtable, entry)
            ):
                h = self._hash(chunk, block)
                page = self._find(chunk, block, h)
                if page == 0:
                    page = self._add(chunk, block, h)
                self.todo_entry[count] = entry
                self.todo_page[count] = page
                count += 1
            entry += 1
        entry = 0
        while entry < AHEAD:
            self.todo_page[count + entry] = 0
            entry += 1
        return count

    def _is_replaced(self, memtable, entry):
        """Whether the same record has a later version of the page, which took its place."""
        later = entry + 1
        while later <= memtable.entry_count:
            if memtable.entry_lsn[later] != memtable.entry_lsn[entry]:
                return False
            if (
                memtable.entry_block[later] == memtable.entry_block[entry]
                and memtable.entry_chunk[later] == memtable.entry_chunk[entry]
            ):
                return True
            later += 1
        return False

    def _apply_all(self, part, memtable, count):
        part.bytes = memtable.data
        i = 0
        while i < count:
            coding.prefetch(self.data, 8192 * self.todo_page[i + AHEAD])
            entry = self.todo_entry[i]
            page = self.todo_page[i]
            if page == 0:
                self._cut(memtable, entry)
            else:
                self.entry = entry
                part.page = self.data[8192 * page : 8192 * page + 8192]
                if self.state[page] == 0:
                    self._begin(memtable, entry, page)
                fuzzy = self.reconstruct.apply(
                    part,
                    memtable.entry_pos[entry],
                    memtable.entry_length[entry],
                    memtable.entry_lsn[entry],
                    self.state[page] == 2,
                )
                self.state[page] = 1 + fuzzy
                self.applied += 1
            i += 1
        return 0

    def _begin(self, memtable, entry, page):
        """A page's first version: what it is made of is loaded unless the version says it all."""
        pos = memtable.entry_pos[entry]
        kind = coding.u8(memtable.data, pos)
        self.state[page] = 1
        if kind < 8 or kind >= 32 or kind == 8 and coding.u8(memtable.data, pos + 5) & 1:
            return 0
        return self._load(page, memtable.entry_lsn[entry])

    def _load(self, page, lsn):
        content = self.load(self.page_chunk[page], self.page_block[page], lsn)
        if content is not None:
            coding.copy(self.data, 8192 * page, content, 0, 8192)
            self.state[page] = 2
        return 0

    def _cut(self, memtable, entry):
        """Make zeros of the pages that a truncation, drop or creation cuts off."""
        history = memtable.entry_chunk[entry]
        kept = coding.u32(memtable.data, memtable.entry_pos[entry] + 4)
        page = 1
        while page <= self.page_count:
            chunk = self.page_chunk[page]
            block = self.page_block[page]
            root = self.chunks.root[chunk]
            if self.chunks.history[root] == history:
                if self.chunks.kind[chunk] == 1:
                    block += self.chunks.seg[chunk] << 17
                if block >= kept:
                    coding.fill(self.data, 8192 * page, 8192, 0)
                    self.state[page] = 1
            page += 1
        return 0
