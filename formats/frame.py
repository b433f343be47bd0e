# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Frames: runs of versions as they lie in a bundle file, before compression.

    u32 count | u32 layer × count | u32 block × count | u64 LSN × count | u32 end × count | payloads

sorted by (layer, block, LSN), where `layer` is the number of the layer in its bundle, in order of
writing, and `end` the end of a version's payload, counted from the first payload's start. A frame
is searched as it lies: nothing is decoded. Compression, checksum and the place in the file are
formats/layer_file.py's; docs/format.md has the whole.

formats/frame_encoder.py makes frames and notes, layer by layer, what the directory must say.
`LayerColumns` is that note; `check` makes the same one from a frame that was read, so that
verifying a bundle is comparing two.
"""

import cython

from formats import coding

STRIPE_SHIFT = 14
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
