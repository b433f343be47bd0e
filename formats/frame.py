# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Frames: runs of versions as they lie in a bundle file, before compression.

    u32 count | u32 layer × count | u32 block × count | u64 LSN × count | u32 end × count | payloads

sorted by (layer, block, LSN), where `layer` is the number of the layer in its bundle, in order of
writing, and `end` the end of a version's payload, counted from the first payload's start. A frame
is searched as it lies: nothing is decoded. Compression, checksum and the place in the file are
formats/layer_file.py's; docs/format.md has the whole.

`FrameEncoder` makes frames of a sorted run of versions (a memtable's flush) or of page bytes (a
base backup) and notes, layer by layer, what the directory must say. `LayerColumns` is that note;
`check` makes the same one from a frame that was read, so that verifying a bundle is comparing two.
"""

import cython

from formats import coding

STRIPE_SHIFT = 14
PAGE_BYTES = 8192
FRAMES_MAX = 64  # a call
BLOCK_MAX = (1 << 32) - 1
LSN_MAX = (1 << 64) - 1


class LayerColumns:
    """What the layer directory says, one row per (chunk, stripe) in order of writing."""

    fuzzy: memoryview  # as the other columns, made by `_grow`

    def __init__(self):
        self.count = 0
        self.capacity = 0
        self._grow()

    def _grow(self):
        capacity = 2 * self.capacity + 1024
        for name, code, size in (
            ("chunk", "I", 4),
            ("stripe", "I", 4),
            ("lsn_start", "Q", 8),
            ("lsn_end", "Q", 8),
            ("frame_start", "I", 4),
            ("frame_end", "I", 4),
            ("block_start", "I", 4),
            ("block_end", "I", 4),
            ("versions", "I", 4),
            ("fuzzy", "B", 1),
        ):
            column = memoryview(bytearray(size * capacity)).cast(code)
            if self.count:
                column[: self.count] = getattr(self, name)[: self.count]
            setattr(self, name, column)
        self.capacity = capacity
        return 0

    def note(self, chunk, block, lsn, frame, kind):
        """A version of this kind was put into a frame; returns the number of its layer.

        Versions of one layer come in order of (block, LSN), each pair once.
        """
        stripe = block >> 14
        row = self.count - 1
        if row < 0 or self.chunk[row] != chunk or self.stripe[row] != stripe:
            if self.count == self.capacity:
                self._grow()
            row = self.count
            self.count += 1
            self.chunk[row] = chunk
            self.stripe[row] = stripe
            self.lsn_start[row] = lsn
            self.lsn_end[row] = lsn + 1
            self.frame_start[row] = frame
            self.frame_end[row] = frame + 1
            self.block_start[row] = block
            self.block_end[row] = block + 1
            self.versions[row] = 1
            self.fuzzy[row] = kind == 3
            self.last_lsn = lsn
            return row
        if block + 1 < self.block_end[row] or (
            block + 1 == self.block_end[row] and lsn <= self.last_lsn
        ):
            raise ValueError("versions of a layer are not in order of block and LSN")
        self.lsn_start[row] = min(self.lsn_start[row], lsn)
        self.lsn_end[row] = max(self.lsn_end[row], lsn + 1)
        self.frame_end[row] = frame + 1
        self.block_end[row] = block + 1
        self.versions[row] += 1
        if kind == 3:
            self.fuzzy[row] = 1
        self.last_lsn = lsn
        return row


class FrameEncoder:
    """Raw frames of sorted versions, many a call: each call into the kernel has its overhead.

    A call leaves `frames` of them one behind the other in `out`, in `places` the offset and the
    length of each, and its first version's layer, block and LSN. What they hold is noted in
    `layers`, and counted in `versions`.
    """

    def __init__(self, frame_bytes, batch_bytes=0):
        """A frame ends with the version that fills it up to `frame_bytes` or beyond.

        `batch_bytes`: about so much is encoded in a call; a frame at least.
        """
        self.frame_bytes = frame_bytes
        self.batch_bytes = batch_bytes
        self.out = memoryview(bytearray(batch_bytes + 2 * frame_bytes + 2 * PAGE_BYTES))
        self.places = memoryview(bytearray(16 * FRAMES_MAX)).cast("Q")
        self.first_layer = memoryview(bytearray(4 * FRAMES_MAX)).cast("I")
        self.first_block = memoryview(bytearray(4 * FRAMES_MAX)).cast("I")
        self.first_lsn = memoryview(bytearray(8 * FRAMES_MAX)).cast("Q")
        self.layers = LayerColumns()
        self.frames = 0
        self.versions = 0
        self.start = 0
        self.length = 0
        self.count = 0
        self.position = 0

    def load(self, run, chunk_base):
        """Take a run; the number of its chunk c is chunk_base + c in `layers`."""
        self.chunk = run.chunk
        self.block = run.block
        self.lsn = run.lsn
        self.offset = run.offset
        self.payload_length = run.length
        self.order = run.order
        self.data = run.data
        self.chunk_base = chunk_base
        self.position = 0
        return 0

    def _is_replaced(self, i):
        """Whether the next version in order has the same chunk, block and LSN and so wins."""
        if i + 1 >= len(self.order):
            return False
        this = self.order[i]
        that = self.order[i + 1]
        return (
            self.lsn[this] == self.lsn[that]
            and self.block[this] == self.block[that]
            and self.chunk[this] == self.chunk[that]
        )

    def _choose(self):
        """How far the next frame goes in `order`; sets count and length."""
        i = self.position
        count = 0
        length = 4
        while i < len(self.order) and length < self.frame_bytes:
            if not self._is_replaced(i):
                version = self.order[i]
                coding.prefetch(self.data, self.offset[version])
                length += 20 + self.payload_length[version]
                count += 1
            i += 1
        self.count = count
        self.length = length
        return i

    def encode_run(self, frame):
        """Encode the run's next versions as frames from number `frame` on.

        Returns how many, 0 if no version was left.
        """
        with cython.nogil:
            self._begin_batch()
            while self._has_room(self.frame_bytes) and self._encode_run(frame + self.frames):
                self._end_frame()
        return self.frames

    def _encode_run(self, frame):
        """One frame; 0 if no version was left."""
        end = self._choose()
        count = self.count
        if count == 0:
            return 0
        self._begin()
        out = self.out
        payload = self.start + 4 + 20 * count
        used = 0
        slot = 0
        i = self.position
        while i < end:
            if not self._is_replaced(i):
                version = self.order[i]
                length = self.payload_length[version]
                coding.copy(out, payload + used, self.data, self.offset[version], length)
                used += length
                self._put(
                    slot,
                    self.chunk_base + self.chunk[version],
                    self.block[version],
                    self.lsn[version],
                    used,
                    frame,
                    coding.u8(self.data, self.offset[version]),
                )
                slot += 1
            i += 1
        self.position = end
        return count

    def encode_pages(self, frame, chunk, block, lsn, kind, data, pos):
        """Encode pages of data[pos:] as frames from number `frame` on, the first being `block`.

        Each becomes an image version of `kind` at `lsn`, its hole left out where that is zeros.
        Returns how many pages the frames took.
        """
        done = 0
        with cython.nogil:
            self._begin_batch()
            while pos + 8192 * done < len(data) and self._has_room(self.frame_bytes):
                done += self._encode_pages(
                    frame + self.frames, chunk, block + done, lsn, kind, data, pos + 8192 * done
                )
                self._end_frame()
        return done

    def _encode_pages(self, frame, chunk, block, lsn, kind, data, pos):
        """One frame; returns how many pages it took."""
        pages = (len(data) - pos) // 8192
        most = (self.frame_bytes - 4 + 8217) // 8218  # 20 of columns, 6 of header, the page
        pages = min(pages, most)
        self.count = pages
        self.length = 4 + 8218 * pages
        self._begin()
        out = self.out
        payload = self.start + 4 + 20 * pages
        used = 0
        slot = 0
        while slot < pages:
            hole = self._hole(data, pos)
            hole_length = hole & 0xFFFF
            hole = hole >> 16
            coding.put_u8(out, payload + used, kind)
            coding.put_u8(out, payload + used + 1, 0)
            coding.put_u16(out, payload + used + 2, hole)
            coding.put_u16(out, payload + used + 4, hole_length)
            coding.copy(out, payload + used + 6, data, pos, hole)
            coding.copy(
                out,
                payload + used + 6 + hole,
                data,
                pos + hole + hole_length,
                8192 - hole - hole_length,
            )
            used += 6 + 8192 - hole_length
            self._put(slot, chunk, block + slot, lsn, used, frame, kind)
            slot += 1
            pos += 8192
        self.length = 4 + 20 * pages + used
        return pages

    def _hole(self, data, pos):
        """The hole of a page as offset << 16 | length: only zeros are a hole."""
        lower = coding.u16(data, pos + 12)
        upper = coding.u16(data, pos + 14)
        if upper == 0:
            lower = 0
            upper = 8192
        elif lower < 24 or lower >= upper or upper > 8192:
            return 0
        i = lower
        while i < upper and i & 7:
            if coding.u8(data, pos + i) != 0:
                return 0
            i += 1
        while i + 8 <= upper:
            if coding.u64(data, pos + i) != 0:
                return 0
            i += 8
        while i < upper:
            if coding.u8(data, pos + i) != 0:
                return 0
            i += 1
        return lower << 16 | (upper - lower)

    def _begin_batch(self):
        self.frames = 0
        self.start = 0
        return 0

    def _has_room(self, length):
        """Whether another frame of about `length` bytes belongs to this batch."""
        if self.frames == 0:
            return True
        return self.frames < 64 and self.start + length <= self.batch_bytes

    def _begin(self):
        """Make room for the frame and write its count."""
        if self.start + self.length > len(self.out):
            self._grow()
        coding.put_u32(self.out, self.start, self.count)
        return 0

    def _grow(self):
        """More room, and what is in `out` so far."""
        out = memoryview(bytearray(self.start + 2 * self.length))
        out[: self.start] = self.out[: self.start]
        self.out = out
        return 0

    def _end_frame(self):
        self.places[2 * self.frames] = self.start
        self.places[2 * self.frames + 1] = self.length
        self.start += self.length
        self.frames += 1
        self.versions += self.count
        return 0

    def _put(self, slot, chunk, block, lsn, end, frame, kind):
        """Write one version's columns and note it."""
        out = self.out
        start = self.start
        count = self.count
        layer = self.layers.note(chunk, block, lsn, frame, kind)
        coding.put_u32(out, start + 4 + 4 * slot, layer)
        coding.put_u32(out, start + 4 + 4 * count + 4 * slot, block)
        coding.put_u64(out, start + 4 + 8 * count + 8 * slot, lsn)
        coding.put_u32(out, start + 4 + 16 * count + 4 * slot, end)
        if slot == 0:
            self.first_layer[self.frames] = layer
            self.first_block[self.frames] = block
            self.first_lsn[self.frames] = lsn
        return 0


def last_version(raw, layer, block, lsn):
    """The last version at or before (layer, block, lsn) in a frame, -1 if all come after it."""
    count = coding.u32(raw, 0)
    low = 0
    high = count
    while low < high:
        middle = (low + high) >> 1
        at_layer = coding.u32(raw, 4 + 4 * middle)
        at_block = coding.u32(raw, 4 + 4 * count + 4 * middle)
        if at_layer != layer:
            after = at_layer > layer
        elif at_block != block:
            after = at_block > block
        else:
            after = coding.u64(raw, 4 + 8 * count + 8 * middle) > lsn
        if after:
            high = middle
        else:
            low = middle + 1
    return low - 1


def is_of_block(raw, slot, layer, block):
    """Whether the version in `slot` belongs to that block of that layer."""
    count = coding.u32(raw, 0)
    return (
        coding.u32(raw, 4 + 4 * slot) == layer
        and coding.u32(raw, 4 + 4 * count + 4 * slot) == block
    )


def slots_of_layer(raw, layer):
    """The slots of a layer's versions in a frame, as a range."""
    first = last_version(raw, layer - 1, BLOCK_MAX, LSN_MAX) + 1 if layer else 0
    return range(first, last_version(raw, layer, BLOCK_MAX, LSN_MAX) + 1)


def version_count(raw):
    return coding.u32(raw, 0)


def version_layer(raw, slot):
    return coding.u32(raw, 4 + 4 * slot)


def version_block(raw, slot):
    return coding.u32(raw, 4 + 4 * coding.u32(raw, 0) + 4 * slot)


def version_lsn(raw, slot):
    return coding.u64(raw, 4 + 8 * coding.u32(raw, 0) + 8 * slot)


def version_start(raw, slot):
    """Where the payload of the version in `slot` starts in the frame."""
    count = coding.u32(raw, 0)
    if slot == 0:
        return 4 + 20 * count
    return 4 + 20 * count + coding.u32(raw, 4 + 16 * count + 4 * (slot - 1))


def version_end(raw, slot):
    count = coding.u32(raw, 0)
    return 4 + 20 * count + coding.u32(raw, 4 + 16 * count + 4 * slot)


def check(raw, frame, layers):
    """Note all versions of a frame in `layers` as writing them did; ValueError if one is wrong."""
    with cython.nogil:
        return _check(raw, frame, layers)


def _check(raw, frame, layers):
    count = coding.u32(raw, 0)
    if count == 0:
        raise ValueError("a frame without versions")
    slot = 0
    start = version_start(raw, 0)
    while slot < count:
        end = version_end(raw, slot)
        if end <= start or end > len(raw):
            raise ValueError("payload ends of a frame are not in order")
        layer = coding.u32(raw, 4 + 4 * slot)
        block = version_block(raw, slot)
        kind = coding.u8(raw, start)
        if layers.note(layer, block, version_lsn(raw, slot), frame, kind) != layer:
            raise ValueError("layer numbers of a frame are not those of its versions")
        start = end
        slot += 1
    if start != len(raw):
        raise ValueError("a frame has bytes behind its last payload")
    return count
