# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Versions -> frames (formats/frame.py): of a sorted run, a memtable's flush, or of page bytes, a
base backup.
"""

import cython

from formats import coding
from formats.frame import LayerColumns

PAGE_BYTES = 8192
FRAMES_MAX = 64  # a call


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

    def load(self, run, chunk_numbers):
        """Take a run; the number of its chunk c is chunk_numbers[c] (u32) in `layers`."""
        self.chunk = run.chunk
        self.block = run.block
        self.lsn = run.lsn
        self.offset = run.offset
        self.payload_length = run.length
        self.order = run.order
        self.data = run.data
        self.chunk_numbers = chunk_numbers
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
                    self.chunk_numbers[self.chunk[version]],
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
