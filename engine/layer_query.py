# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A batch of requests on its way through the layers.

    add      one request: chunk key, block, the LSNs it wants, what memtables already gave
    locate   which layer of an L0 bundle each open request must see (no GIL): the hits
    group    the open requests of one stripe, whose layers below L0 come from the index:
             start_at each image, then enter each layer: the hits
    aim      which frame of its layer each hit must see first
    push     versions of decompressed frames into the batch's VersionSet, newest first
    fail     a frame or file that one request needs is damaged: the others go on

A request is complete with a self-contained version. One at or below its floor ends a layer only:
CREATE DATABASE makes image layers that are newer than what an older life of the same chunk left in
L0. Layers are visited newest first, and what a request has seen is never taken twice: `lsn_max`
goes down with each version, so two sources that hold the same version, as a memtable and the
bundle just made of it, do no harm.

The newest image layer at or below a request's LSN has all that the stripe's deltas at or below its
LSN say: a request starts at it, and takes from deltas only what is above. A *fuzzy* image is not
that new: what deltas have at exactly its LSN, a mark that the page is torn, counts instead of it.
"""

import cython

from engine.version_set import VersionSet  # noqa: F401  (kernels type it)
from formats import coding, frame
from formats.layer_directory import FrameTable, LayerDirectory  # noqa: F401  (kernels type them)


def _column(count, size, code):
    return memoryview(bytearray(count * size)).cast(code)


class LayerQuery:
    def __init__(self, capacity):
        self.capacity = capacity
        self.keys = _column(capacity, 18, "B")
        self.block = _column(capacity, 4, "I")
        self.lsn_floor = _column(capacity, 8, "Q")
        self.lsn_max = _column(capacity, 8, "Q")
        self.oldest = _column(capacity, 4, "I")
        self.complete = _column(capacity, 1, "B")
        self.layer = _column(capacity, 4, "I")
        self.first = _column(capacity, 4, "I")
        self.end = _column(capacity, 4, "I")
        self.frame = _column(capacity, 4, "I")
        self.hits = _column(capacity, 4, "I")
        self.group = _column(capacity, 4, "I")
        self.group_done = _column(capacity, 1, "B")  # 1: the group at hand, 2: an earlier one
        self.is_based = _column(capacity, 1, "B")
        self.delta_floor = _column(capacity, 8, "Q")
        self.floor = _column(capacity, 8, "Q")  # of the layer at hand
        self.visited = _column(capacity, 4, "I")  # layers
        self.keeps_frames = True
        self.passed = set()  # readers of the L0 bundles that were seen
        self.group_count = 0
        self.count = 0
        self.open = 0
        self.hit_count = 0

    def begin(self, versions):
        """Forget all requests; versions are pushed into the VersionSet `versions` from now on."""
        self.versions = versions
        self.errors = {}
        self.passed = set()
        self.group_count = 0
        self.count = 0
        self.open = 0
        return 0

    def add(self, key, block, lsn_floor, lsn_max, oldest):
        """Ask for the versions with lsn_floor < LSN <= lsn_max of a block; returns its number.

        `oldest` is the oldest version in the VersionSet that newer sources gave, 0 for none.
        """
        i = self.count
        if i >= self.capacity:
            raise IndexError("a layer query holds no more requests")
        coding.copy(self.keys, 18 * i, key, 0, 18)
        self.block[i] = block
        self.lsn_floor[i] = lsn_floor
        self.lsn_max[i] = lsn_max
        self.oldest[i] = oldest
        self.complete[i] = lsn_max <= lsn_floor
        self.group_done[i] = 0
        self.visited[i] = 0
        self.open += not self.complete[i]
        self.count = i + 1
        return i

    def foresee(self, query):
        """Ask for what another query's requests are still to see, to learn which layers that is:
        nothing is pushed."""
        self.errors = {}
        self.passed = set(query.passed)
        self.count = 0
        self.open = 0
        i = 0
        while i < query.count:
            if not query.complete[i] and query.group_done[i] != 2:
                self.add(
                    query.keys[18 * i : 18 * i + 18],
                    query.block[i],
                    query.lsn_floor[i],
                    query.lsn_max[i],
                    0,
                )
            i += 1
        return 0

    def end_hits(self):
        """No request that is a hit wants more: of one that foresees, whose image is found."""
        hit = 0
        while hit < self.hit_count:
            i = self.hits[hit]
            if not self.complete[i]:
                self.complete[i] = 1
                self.open -= 1
            hit += 1
        return 0

    def fail(self, i, error):
        """Request i cannot be answered; `errors` says why."""
        if not self.complete[i]:
            self.errors[i] = error
            self.complete[i] = 1
            self.open -= 1
        return 0

    def fail_all(self, error):
        """No open request can be answered."""
        i = 0
        while i < self.count:
            self.fail(i, error)
            i += 1
        return 0

    def fail_group(self, error):
        """No request of the group can be answered."""
        place = 0
        while place < self.group_count:
            self.fail(self.group[place], error)
            place += 1
        return 0

    def wants(self, lsn_start, lsn_end):
        """Whether any open request can want versions of an LSN range, half-open."""
        i = 0
        while i < self.count:
            if self.wants_of(i, lsn_start, lsn_end):
                return True
            i += 1
        return False

    def wants_of(self, i, lsn_start, lsn_end):
        """Whether request i is open and can want versions of an LSN range, half-open."""
        return (
            not self.complete[i]
            and lsn_start <= self.lsn_max[i]
            and lsn_end > self.lsn_floor[i] + 1
        )

    def next_group(self):
        """Take the open requests of another stripe as the group; returns the first, -1 if none."""
        first = 0
        while first < self.count and (self.complete[first] or self.group_done[first]):
            first += 1
        place = 0
        while place < self.group_count:
            self.group_done[self.group[place]] = 2
            place += 1
        self.group_count = 0
        if first == self.count:
            return -1
        i = first
        while i < self.count:
            if (
                not self.complete[i]
                and self.block[i] >> 14 == self.block[first] >> 14
                and self._has_key_of(i, first)
            ):
                self.group[self.group_count] = i
                self.group_count += 1
                self.group_done[i] = 1
                self.is_based[i] = 0
                self.delta_floor[i] = self.lsn_floor[i]
            i += 1
        return first

    def _has_key_of(self, i, j):
        at = 18 * i
        other = 18 * j
        return (
            coding.u64(self.keys, at) == coding.u64(self.keys, other)
            and coding.u64(self.keys, at + 8) == coding.u64(self.keys, other + 8)
            and coding.u16(self.keys, at + 16) == coding.u16(self.keys, other + 16)
        )

    def start_at(self, lsn, is_fuzzy):
        """An image layer of the group's stripe; of several the newest comes first."""
        place = 0
        while place < self.group_count:
            i = self.group[place]
            if not self.is_based[i] and lsn <= self.lsn_max[i]:
                self.is_based[i] = 1
                self.delta_floor[i] = max(self.lsn_floor[i], lsn - is_fuzzy)
            place += 1
        return 0

    def enter(
        self, is_image, lsn_start, lsn_end, block_start, block_end, layer, frame_start, frame_end
    ):
        """A layer of the group's stripe, the newest first; returns how many hits there are."""
        hits = 0
        place = 0
        while place < self.group_count:
            i = self.group[place]
            floor = self.lsn_floor[i] if is_image else self.delta_floor[i]
            if (
                not self.complete[i]
                and lsn_start <= self.lsn_max[i]
                and lsn_end > floor + 1
                and block_start <= self.block[i]
                and block_end > self.block[i]
            ):
                self._hit(hits, i, floor, layer, frame_start, frame_end)
                hits += 1
            place += 1
        self.hit_count = hits
        return hits

    def _hit(self, hit, i, floor, layer, frame_start, frame_end):
        self.floor[i] = floor
        self.layer[i] = layer
        self.first[i] = frame_start
        self.end[i] = frame_end
        self.visited[i] += 1
        self.hits[hit] = i
        return 0

    def count_visits(self, histogram):
        """Add to histogram[n] how many requests visited n layers; its last place is for more."""
        most = len(histogram) - 1
        i = 0
        while i < self.count:
            histogram[min(self.visited[i], most)] += 1
            i += 1
        return 0

    def block_of(self, i):
        return self.block[i]

    def oldest_of(self, i):
        """The oldest version that request i has in the VersionSet, 0 for none."""
        return self.oldest[i]

    def key(self, i):
        """The packed chunk key of a request."""
        return bytes(self.keys[18 * i : 18 * i + 18])

    def locate(self, directory, dead):
        """Find the layer of every open request in a bundle; returns how many hits there are.

        `dead`: bitmap of rows of the directory that count no longer; missing bytes are zero.
        """
        self.dead = dead
        with cython.nogil:
            return self._locate(directory)

    def _is_dead(self, row):
        return row >> 3 < len(self.dead) and self.dead[row >> 3] >> (row & 7) & 1

    def _locate(self, directory):
        hits = 0
        i = 0
        while i < self.count:
            if not self.complete[i]:
                row = directory.find(self.keys, 18 * i, self.block[i] >> 14)
                if (
                    row >= 0
                    and not self._is_dead(row)
                    and self.wants_of(i, directory.lsn_start(row), directory.lsn_end(row))
                    and directory.block_start(row) <= self.block[i]
                    and directory.block_end(row) > self.block[i]
                ):
                    self._hit(
                        hits,
                        i,
                        self.lsn_floor[i],
                        directory.number(row),
                        directory.frame_start(row),
                        directory.frame_end(row),
                    )
                    hits += 1
            i += 1
        self.hit_count = hits
        return hits

    def aim(self, table):
        """The numbers of the frames that the hits must see first; hits without one are dropped."""
        wanted = []
        kept = 0
        hit = 0
        while hit < self.hit_count:
            i = self.hits[hit]
            last = table.last_frame(
                self.first[i], self.end[i], self.layer[i], self.block[i], self.lsn_max[i]
            )
            if last >= 0:
                self.frame[i] = last
                self.hits[kept] = i
                kept += 1
                wanted.append(last)
            hit += 1
        self.hit_count = kept
        return wanted

    def fail_hit(self, hit, error):
        """The request of one hit cannot be answered."""
        if hit < 0 or hit >= self.hit_count:
            raise IndexError("no such hit")
        return self.fail(self.hits[hit], error)

    def push(self, frames):
        """Take what each hit's frame has for it.

        Returns the numbers of the frames that must be seen next; hits that need none are dropped.
        """
        wanted = []
        kept = 0
        hit = 0
        while hit < self.hit_count:
            i = self.hits[hit]
            if not self.complete[i] and self._push(i, frames[hit]):
                self.hits[kept] = i
                kept += 1
                wanted.append(self.frame[i])
            hit += 1
        self.hit_count = kept
        return wanted

    def _push(self, i, raw):
        """Take what a frame has for request i; returns whether the frame before it is wanted."""
        layer = self.layer[i]
        block = self.block[i]
        self.versions.resume(self.oldest[i])
        slot = frame.last_version(raw, layer, block, self.lsn_max[i])
        while slot >= 0 and frame.is_of_block(raw, slot, layer, block):
            lsn = frame.version_lsn(raw, slot)
            start = frame.version_start(raw, slot)
            if lsn <= self.floor[i]:
                break
            if self.versions.push(raw, start, frame.version_end(raw, slot) - start, lsn):
                return self._finish(i)
            self.lsn_max[i] = lsn - 1
            slot -= 1
        self.oldest[i] = self.versions.oldest
        if slot >= 0 or self.frame[i] <= self.first[i]:
            return 0
        self.frame[i] -= 1
        return 1

    def _finish(self, i):
        self.oldest[i] = self.versions.oldest
        self.complete[i] = 1
        self.open -= 1
        return 0

    def is_complete(self, i):
        return self.complete[i]
