# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Any number of bundles -> one run of versions by (rank, block, LSN): a heap over their frames.

A *source* is what is taken of one bundle: its frames in order, and of their versions those whose
layer has a *rank*, the place of its (chunk key, stripe) among all that are merged. A source waits
without any memory until the merge comes to the rank at which its next frame starts; then `run`
returns for that frame, which lies in a slot of the arena until its last version is taken. So memory
is that of the sources that overlap, however many there are.

The order is asserted: whatever a damaged or foreign bundle holds, versions that do not rise end the
merge. Of equal ones the self-contained one stays, else the one of the lowest source, the newest.
"""

import cython

from engine.merged_versions import MergedVersions  # noqa: F401  (kernels type it)
from formats import coding

ENDED, WANTS_FRAME, BATCH_IS_FULL, AT_CUT = range(4)  # what `run` returns
NO_RANK = 0xFFFFFFFF
SLOT_BYTES = 65536  # at first


def _column(count, size, code):
    return memoryview(bytearray(count * size)).cast(code)


class LayerMerge:
    def __init__(self, out, ranks, rank_starts, first_ranks, chunk_of_rank):
        """`ranks`: of every layer of every source, NO_RANK to skip it; those of source s are
        rank_starts[s]..rank_starts[s + 1]. `first_ranks`: where each source starts, NO_RANK for
        one of which nothing is taken. All u32, `rank_starts` u64.
        """
        count = len(first_ranks)
        self.out = out
        self.ranks = ranks
        self.rank_starts = rank_starts
        self.chunk_of_rank = chunk_of_rank
        self.no_rank = NO_RANK
        self.no_slot = NO_RANK
        self.place = _column(count, 8, "Q")
        self.lsn = _column(count, 8, "Q")
        self.next_rank = _column(count, 4, "I")
        self.slot = _column(count, 4, "I")
        self.position = _column(count, 4, "I")
        self.length = _column(count, 4, "I")
        self.heap = _column(count, 4, "I")
        self.heap_count = 0
        for source in range(count):
            self.slot[source] = self.no_slot
            if first_ranks[source] != self.no_rank:
                self.place[source] = first_ranks[source] << 32
                self.heap[self.heap_count] = source
                self.heap_count += 1
        for at in range(self.heap_count // 2 - 1, -1, -1):
            self._sift_down(at)
        self.arena = _column(0, 1, "B")
        self.slot_bytes = SLOT_BYTES
        self.slot_count = 0
        self.free = _column(count, 4, "I")
        self.free_count = 0
        self.cut_rank = NO_RANK
        self.taken = 0
        self.last_place = 0
        self.last_lsn = 0
        self.last_source = 0

    def run(self):
        """Merge on, until

        ENDED          all sources are at their end, and the batch holds the rest
        WANTS_FRAME    `give` must bring the next frame of the source `wanted`
        BATCH_IS_FULL  the batch must be taken and cleared
        AT_CUT         the next version's rank is at or above `cut_rank`: all below is in batches

        ValueError or IndexError says what is wrong with the frame of the source `wanted`.
        """
        with cython.nogil:
            return self._run()

    def last_rank(self):
        """The rank of the version that was taken last."""
        return self.last_place >> 32

    def _run(self):
        while self.heap_count:
            source = self.heap[0]
            self.wanted = source
            if self.slot[source] == self.no_slot:
                if self.place[source] >> 32 >= self.cut_rank:
                    self.out.end_block()
                    return 3
                return 1
            place = self.place[source]
            lsn = self.lsn[source]
            if place == self.last_place and lsn == self.last_lsn:
                self._take_equal(source)
            elif place < self.last_place or (place == self.last_place and lsn < self.last_lsn):
                raise ValueError("versions are not in order of layer, block and LSN")
            else:
                if place == self.last_place:
                    self.out.settle()
                else:
                    self.out.end_block()
                if place >> 32 >= self.cut_rank:
                    return 3
                if self.out.is_full():
                    return 2
                self._take(source)
            self.last_source = source
            self.taken += 1
            self._advance(source)
        self.out.end_block()
        return 0

    def _take(self, source):
        """The head of a source goes into the batch."""
        place = self.place[source]
        self._find_payload(source)
        self.out.add(
            self.chunk_of_rank[place >> 32],
            place & self.no_rank,
            self.lsn[source],
            self.arena,
            self.payload_start,
            self.payload_length,
        )
        self.last_place = place
        self.last_lsn = self.lsn[source]
        return 0

    def _take_equal(self, source):
        if source == self.last_source:
            raise ValueError("a version comes twice")
        self._find_payload(source)
        return self.out.add_again(self.arena, self.payload_start, self.payload_length)

    def _find_payload(self, source):
        """Where the payload of a source's head lies in the arena."""
        base = self.slot[source] * self.slot_bytes
        count = coding.u32(self.arena, base)
        payloads = base + 4 + 20 * count
        end_at = base + 4 + 16 * count + 4 * self.position[source]
        start = payloads
        if self.position[source] > 0:
            start += coding.u32(self.arena, end_at - 4)
        end = payloads + coding.u32(self.arena, end_at)
        if end > base + self.length[source]:
            raise ValueError("a payload ends behind its frame")
        if end <= start:
            raise ValueError("the ends of payloads are not in order")
        self.payload_start = start
        self.payload_length = end - start
        return 0

    def give(self, source, raw, next_rank):
        """The frame that `run` wanted, raw; the one behind it starts with a layer of `next_rank`,
        NO_RANK if it is the source's last. ValueError or IndexError if it cannot be a frame."""
        if not self.heap_count or self.heap[0] != source or self.slot[source] != self.no_slot:
            raise ValueError("nobody wants a frame of this source")
        count = coding.u32(raw, 0)
        if count == 0 or 4 + 20 * count > len(raw):
            raise ValueError("the versions of a frame do not fit into it")
        slot = self._take_slot(len(raw))
        coding.copy(self.arena, slot * self.slot_bytes, raw, 0, len(raw))
        self.slot[source] = slot
        self.length[source] = len(raw)
        self.next_rank[source] = next_rank
        self.position[source] = 0
        with cython.nogil:
            self._seek(source)
        return 0

    def _take_slot(self, length):
        """A free slot for a frame of `length` bytes; all get larger where that is longer."""
        slots, slot_bytes = self.slot_count, self.slot_bytes
        if self.free_count == 0:
            slots = min(2 * slots + 4, len(self.heap))
        while slot_bytes < length:
            slot_bytes *= 2
        if (slots, slot_bytes) != (self.slot_count, self.slot_bytes):
            arena = _column(slots * slot_bytes, 1, "B")
            for slot in range(self.slot_count):
                at = slot * self.slot_bytes
                to = slot * slot_bytes
                arena[to : to + self.slot_bytes] = self.arena[at : at + self.slot_bytes]
            for slot in range(self.slot_count, slots):
                self.free[self.free_count] = slot
                self.free_count += 1
            self.arena, self.slot_count, self.slot_bytes = arena, slots, slot_bytes
        self.free_count -= 1
        return self.free[self.free_count]

    def _advance(self, source):
        """The head of a source, the heap's first, was taken."""
        self.position[source] += 1
        return self._seek(source)

    def _seek(self, source):
        """From its position on, find a source's next version with a rank, and its new place."""
        base = self.slot[source] * self.slot_bytes
        count = coding.u32(self.arena, base)
        first = self.rank_starts[source]
        layers = self.rank_starts[source + 1] - first
        position = self.position[source]
        while position < count:
            layer = coding.u32(self.arena, base + 4 + 4 * position)
            if layer >= layers:
                raise ValueError("a version's layer is not in its bundle's directory")
            rank = self.ranks[first + layer]
            if rank != self.no_rank:
                self.place[source] = self._place(
                    rank, coding.u32(self.arena, base + 4 + 4 * count + 4 * position)
                )
                self.lsn[source] = coding.u64(self.arena, base + 4 + 8 * count + 8 * position)
                if self.lsn[source] == 0:
                    raise ValueError("a version's LSN is 0")
                self.position[source] = position
                return self._sift_down(0)
            position += 1
        return self._wait(source)

    def _wait(self, source):
        """A source's frame is used up: its slot goes, and it waits at its next frame's rank."""
        self.free[self.free_count] = self.slot[source]
        self.free_count += 1
        self.slot[source] = self.no_slot
        if self.next_rank[source] == self.no_rank:
            self.heap_count -= 1
            self.heap[0] = self.heap[self.heap_count]
        else:
            self.place[source] = self._place(self.next_rank[source], 0)
            self.lsn[source] = 0
        return self._sift_down(0)

    def _place(self, rank, block):
        return rank << 32 | block

    def _sift_down(self, at):
        if self.heap_count == 0:
            return 0
        source = self.heap[at]
        while True:
            child = 2 * at + 1
            if child >= self.heap_count:
                break
            if child + 1 < self.heap_count and self._before(self.heap[child + 1], self.heap[child]):
                child += 1
            if not self._before(self.heap[child], source):
                break
            self.heap[at] = self.heap[child]
            at = child
        self.heap[at] = source
        return 0

    def _before(self, a, b):
        """Whether source a comes before b: by the next version, else the newer source."""
        if self.place[a] != self.place[b]:
            return self.place[a] < self.place[b]
        if self.lsn[a] != self.lsn[b]:
            return self.lsn[a] < self.lsn[b]
        return a < b
