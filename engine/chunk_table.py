# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Every chunk that this process has met, as a small number, and each relation's present size.

Kernels do not carry 18-byte chunk keys about: a key is *interned* once and then is an index into
columns. The number is this process's own and is never written anywhere.

All segments of one relation fork share its *root*, the chunk of segment 0; an SLRU segment and a
small file are their own root. At the root stands what ingest and readers ask all the time: whether
the relation exists now, its blocks, when that last changed, and the last *cut* (creation,
truncation or drop), below which versions of blocks at or above `cut_blocks` mean nothing.

Readers and the one writer hold the store's lock.
"""

from formats import coding  # noqa: F401  (kernels expand its functions)

REL = 1
SLRU = 2
FILE = 3
HISTORY = 0x80
BLOCKS_PER_SEGMENT_BITS = 17


class ChunkTable:
    # The columns: `_allocate` makes them.
    kind: memoryview
    spc: memoryview
    db: memoryview
    rel: memoryview
    fork: memoryview
    seg: memoryview
    root: memoryview
    history: memoryview
    blocks: memoryview
    cut_blocks: memoryview
    change_lsn: memoryview
    cut_lsn: memoryview
    exists: memoryview
    held: memoryview

    def __init__(self, is_held=None):
        """`is_held(kind, spc, db, rel, fork, seg)` says whether this server keeps a chunk."""
        self.is_held = is_held
        self.count = 0
        self._allocate(1024)

    def _allocate(self, capacity):
        """Make room for `capacity` chunks, keeping what is there."""
        old = self.count
        for name in ("kind", "spc", "db", "rel", "fork", "seg"):
            self._widen(name, "I", 4, capacity)
        for name in ("root", "history", "blocks", "cut_blocks"):
            self._widen(name, "I", 4, capacity)
        for name in ("change_lsn", "cut_lsn"):
            self._widen(name, "Q", 8, capacity)
        for name in ("exists", "held"):
            self._widen(name, "B", 1, capacity)
        self.capacity = capacity
        self.slot_mask = 4 * capacity - 1
        self.slots = memoryview(bytearray(16 * capacity)).cast("I")
        number = 0
        while number < old:
            self._enter(number)
            number += 1
        return 0

    def _widen(self, name, code, size, capacity):
        column = memoryview(bytearray(size * capacity)).cast(code)
        if self.count:
            column[: self.count] = getattr(self, name)[: self.count]
        setattr(self, name, column)

    def _hash(self, kind, spc, db, rel, fork, seg):
        h = rel
        h = h * 1640531527 + db
        h = h * 1640531527 + seg
        h = h * 1640531527 + spc
        h = h * 1640531527 + kind * 8 + fork
        h = h * 1640531527
        return (h >> 16) & self.slot_mask

    def _enter(self, number):
        """Put a chunk that stands in the columns into the hash table."""
        slot = self._hash(
            self.kind[number],
            self.spc[number],
            self.db[number],
            self.rel[number],
            self.fork[number],
            self.seg[number],
        )
        while self.slots[slot] != 0:
            slot = (slot + 1) & self.slot_mask
        self.slots[slot] = number + 1
        return 0

    def find(self, kind, spc, db, rel, fork, seg):
        """The number of a chunk, -1 if it was never interned."""
        slot = self._hash(kind, spc, db, rel, fork, seg)
        while True:
            entry = self.slots[slot]
            if entry == 0:
                return -1
            number = entry - 1
            if (
                self.rel[number] == rel
                and self.seg[number] == seg
                and self.db[number] == db
                and self.fork[number] == fork
                and self.kind[number] == kind
                and self.spc[number] == spc
            ):
                return number
            slot = (slot + 1) & self.slot_mask

    def intern(self, kind, spc, db, rel, fork, seg):
        """The number of a chunk, given to it now if it is new."""
        number = self.find(kind, spc, db, rel, fork, seg)
        if number >= 0:
            return number
        return self._add(kind, spc, db, rel, fork, seg)

    def _add(self, kind, spc, db, rel, fork, seg):
        if self.count == self.capacity:
            self._allocate(2 * self.capacity)
        number = self.count
        self.kind[number] = kind
        self.spc[number] = spc
        self.db[number] = db
        self.rel[number] = rel
        self.fork[number] = fork
        self.seg[number] = seg
        self.held[number] = (
            self.is_held is None or kind > SLRU or self.is_held(kind, spc, db, rel, fork, seg)
        )
        self.root[number] = number
        self.history[number] = number
        self.count = number + 1
        self._enter(number)
        if kind < HISTORY:
            if kind == REL and seg != 0:
                self.root[number] = self.intern(kind, spc, db, rel, fork, 0)
            else:
                self.history[number] = self.intern(kind + HISTORY, spc, db, rel, fork, seg)
        return number

    def key(self, number):
        """The chunk key as a tuple (kind, spc, db, rel, fork, seg)."""
        if number < 0 or number >= self.count:
            raise IndexError("no chunk has this number")
        return (
            self.kind[number],
            self.spc[number],
            self.db[number],
            self.rel[number],
            self.fork[number],
            self.seg[number],
        )
