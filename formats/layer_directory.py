# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The two tables at the end of a bundle, searched as they lie.

**Layer directory**, one row per layer, sorted by (chunk key, stripe); u32 count, then columns:

    key 18 | stripe u32 | kind u8 | lsn_start u64 | lsn_end u64 | number u32 | frame_start u32 |
    frame_end u32 | block_start u32 | block_end u32 | versions u32

`number` is the layer's place in order of writing, which its frames carry; in a flush it is the row.

**Frame table**, one row per frame, in order of place; u32 count, then columns:

    offset u64 | stored length u32 | raw length u32 | first layer u32 | first block u32 |
    first LSN u64

A layer's frames are frame_start..frame_end, half-open; the outermost may be shared with neighbours.
"""

from formats import coding

DIRECTORY_COLUMNS = (("key", 18), ("stripe", 4), ("kind", 1), ("lsn_start", 8), ("lsn_end", 8),
                     ("number", 4), ("frame_start", 4), ("frame_end", 4), ("block_start", 4),
                     ("block_end", 4), ("versions", 4))  # fmt: skip
TABLE_COLUMNS = (("offset", 8), ("stored", 4), ("raw", 4), ("layer", 4), ("block", 4), ("lsn", 8))
DIRECTORY_ROW_BYTES = 63
TABLE_ROW_BYTES = 32


def _key_order(keys, pos, key, key_pos):
    """-1, 0 or 1 as the 18 bytes at `pos` come before, are, or come after those at `key_pos`."""
    a = coding.be64(keys, pos)
    b = coding.be64(key, key_pos)
    if a == b:
        a = coding.be64(keys, pos + 8)
        b = coding.be64(key, key_pos + 8)
        if a == b:
            a = coding.be16(keys, pos + 16)
            b = coding.be16(key, key_pos + 16)
    if a < b:
        return -1
    return 1 if a > b else 0


class LayerDirectory:
    def __init__(self, raw):
        """ValueError if the bytes are not as long as their count says."""
        self.raw = raw
        self.count = coding.u32(raw, 0)
        count = self.count
        if len(raw) != 4 + DIRECTORY_ROW_BYTES * count:
            raise ValueError("layer directory: its length does not fit its count")
        self.stripe_at = 4 + 18 * count
        self.kind_at = 4 + 22 * count
        self.lsn_start_at = 4 + 23 * count
        self.lsn_end_at = 4 + 31 * count
        self.number_at = 4 + 39 * count
        self.frame_start_at = 4 + 43 * count
        self.frame_end_at = 4 + 47 * count
        self.block_start_at = 4 + 51 * count
        self.block_end_at = 4 + 55 * count
        self.versions_at = 4 + 59 * count

    def find(self, key, key_pos, stripe):
        """The row of a chunk's stripe, -1 if the bundle has no such layer."""
        low = 0
        high = self.count
        while low < high:
            middle = (low + high) >> 1
            order = _key_order(self.raw, 4 + 18 * middle, key, key_pos)
            if order == 0:
                at = self.stripe(middle)
                if at == stripe:
                    return middle
                order = -1 if at < stripe else 1
            if order < 0:
                low = middle + 1
            else:
                high = middle
        return -1

    def key(self, row):
        """The packed chunk key of a row."""
        if row < 0 or row >= self.count:
            raise IndexError("no such row in the layer directory")
        return bytes(self.raw[4 + 18 * row : 22 + 18 * row])

    def stripe(self, row):
        return coding.u32(self.raw, self.stripe_at + 4 * row)

    def kind(self, row):
        return coding.u8(self.raw, self.kind_at + row)

    def lsn_start(self, row):
        return coding.u64(self.raw, self.lsn_start_at + 8 * row)

    def lsn_end(self, row):
        return coding.u64(self.raw, self.lsn_end_at + 8 * row)

    def number(self, row):
        return coding.u32(self.raw, self.number_at + 4 * row)

    def frame_start(self, row):
        return coding.u32(self.raw, self.frame_start_at + 4 * row)

    def frame_end(self, row):
        return coding.u32(self.raw, self.frame_end_at + 4 * row)

    def block_start(self, row):
        return coding.u32(self.raw, self.block_start_at + 4 * row)

    def block_end(self, row):
        return coding.u32(self.raw, self.block_end_at + 4 * row)

    def versions(self, row):
        return coding.u32(self.raw, self.versions_at + 4 * row)


class FrameTable:
    def __init__(self, raw):
        """ValueError if the bytes are not as long as their count says."""
        self.raw = raw
        self.count = coding.u32(raw, 0)
        count = self.count
        if len(raw) != 4 + TABLE_ROW_BYTES * count:
            raise ValueError("frame table: its length does not fit its count")
        self.stored_at = 4 + 8 * count
        self.raw_at = 4 + 12 * count
        self.layer_at = 4 + 16 * count
        self.block_at = 4 + 20 * count
        self.lsn_at = 4 + 24 * count

    def offset(self, frame):
        return coding.u64(self.raw, 4 + 8 * frame)

    def stored_length(self, frame):
        """Bytes of the frame in the file, its header included."""
        return coding.u32(self.raw, self.stored_at + 4 * frame)

    def raw_length(self, frame):
        return coding.u32(self.raw, self.raw_at + 4 * frame)

    def layer(self, frame):
        return coding.u32(self.raw, self.layer_at + 4 * frame)

    def block(self, frame):
        return coding.u32(self.raw, self.block_at + 4 * frame)

    def lsn(self, frame):
        return coding.u64(self.raw, self.lsn_at + 8 * frame)

    def last_frame(self, start, end, layer, block, lsn):
        """The last of frames start..end that starts at or before (layer, block, lsn), else -1."""
        low = start
        high = end
        while low < high:
            middle = (low + high) >> 1
            at_layer = self.layer(middle)
            at_block = self.block(middle)
            if at_layer != layer:
                after = at_layer > layer
            elif at_block != block:
                after = at_block > block
            else:
                after = self.lsn(middle) > lsn
            if after:
                high = middle
            else:
                low = middle + 1
        return low - 1 if low > start else -1
