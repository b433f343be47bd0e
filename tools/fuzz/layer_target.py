# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The parts of a bundle that are searched as they lie: frames, layer directories, frame tables.

    input    u8 kind (0 frame of versions, 1 layer directory, 2 frame table) | u8 0 | u16 0 | bytes

They come here as they are when their checksum was found right and they are decompressed; what is
before that, and all else of a bundle's file, is tools/fuzz/metadata_target.py's. A frame is checked
as `layertool verify` does it; all three are searched as readers do it.
"""

from engine.layer_query import LayerQuery
from engine.version_set import VersionSet
from formats import coding, frame
from formats.frame import LayerColumns
from formats.layer_directory import FrameTable, LayerDirectory
from tools.fuzz.target import Target, room

HEAD = 4
SOURCE_BYTES = 1 << 17
FRAME = 0
DIRECTORY = 1
TABLE = 2
CHECKED = 1
OUTCOMES = {
    0: "fault: frame that does not check, searched", 1: "frame, checked and searched",
    2: "directory without a hit", 3: "directory with a hit", 4: "table without a frame",
    5: "table with a frame",
}  # fmt: skip
DIRECTORY_ROW_BYTES = 63
TABLE_ROW_BYTES = 32
LSN_MAX = (1 << 64) - 1
BLOCK_MAX = (1 << 32) - 1


class LayerTarget(Target):
    def __init__(self, mutator, place):
        Target.__init__(self, mutator, place)
        self.source = room(SOURCE_BYTES)
        self.columns = LayerColumns()
        self.query = LayerQuery(4)
        self.versions = VersionSet()

    # Making an input ------------------------------------------------------------------------------

    def make(self, m):
        m.load(m.below(m.count))
        i = m.below(5)
        while i > 0:
            if coding.u8(m.data, 0) == FRAME:
                self._change_frame(m)
            else:
                self._change_rows(m)
            i -= 1
        return 0

    def _change_frame(self, m):
        """A count, a number in one of the columns, a payload; or a payload of another length."""
        count = coding.u32(m.data, HEAD)
        columns = HEAD + 4 + 20 * count
        if m.length < columns or count == 0:
            return m.change(HEAD, m.length)
        kind = m.below(16)
        if kind == 0:
            return m.change(HEAD, HEAD + 4)
        if kind < 7:
            return m.change(HEAD + 4, columns)
        slot = m.below(count)
        ends = columns - 4 * count
        start = columns
        if slot:
            start += coding.u32(m.data, ends + 4 * slot - 4)
        end = columns + coding.u32(m.data, ends + 4 * slot)
        if end > m.length or start >= end:
            return m.change(columns, m.length)
        if kind < 10:
            return m.change(start, end)
        if kind == 10:  # the first byte says what kind of version it is
            return coding.put_u8(m.data, start, 1 << m.below(8))
        if kind == 11:
            m.length -= m.below(m.length - HEAD)
            return 0
        grown = m.resize(start, m.below(min(end - start, 16)), m.below(16))
        while slot < count:
            old = coding.u32(m.data, ends + 4 * slot)
            coding.put_u32(m.data, ends + 4 * slot, (old + grown) & 0xFFFF)
            slot += 1
        return 0

    def _change_rows(self, m):
        kind = m.below(16)
        width = DIRECTORY_ROW_BYTES if coding.u8(m.data, 0) == DIRECTORY else TABLE_ROW_BYTES
        if kind == 0:
            return m.change(HEAD, HEAD + 4)
        if kind == 1:
            m.length -= m.below(m.length - HEAD)
            return 0
        if kind == 2:  # more rows or less, of what is then there
            rows = m.below(40)
            m.resize(m.length, 0, width * 40)
            m.length = HEAD + 4 + width * rows
            return coding.put_u32(m.data, HEAD, rows)
        return m.change(HEAD + 4, m.length)

    # Running it -----------------------------------------------------------------------------------

    def execute(self, m):
        length = m.length - HEAD
        if length < 0 or length > SOURCE_BYTES:
            raise ValueError("fuzz: not an input of this target")
        start = SOURCE_BYTES - length  # at the buffer's end, where a sanitizer sees overruns
        coding.copy(self.source, start, m.data, HEAD, length)
        kind = coding.u8(m.data, 0) % 3
        if kind == FRAME:
            return self._frame(m, self.source[start:])
        return self._rows(m, kind, start)

    def _frame(self, m, raw):
        # A frame's first layer number follows that of the frame before it.
        self.columns.count = min(coding.u32(raw, 4), 1000)
        checked = CHECKED
        count = coding.u32(raw, 0)
        slot = m.below(count)
        self._search(raw, slot, m.below(4), m.below(3))
        if m.below(4):
            frame._check(raw, 0, self.columns)
        else:
            checked = 0
        return checked

    def _search(self, raw, slot, beside, before):
        """As for a request of the block in `slot`, or of one beside it."""
        layer = frame.version_layer(raw, slot)
        block = frame.version_block(raw, slot) + beside
        lsn = frame.version_lsn(raw, slot) + before
        found = frame.last_version(raw, layer, block, lsn)
        if found >= 0 and frame.is_of_block(raw, found, layer, block):
            frame.version_start(raw, found)
            frame.version_end(raw, found)
        return self._collect(raw, layer, block, lsn)

    def _collect(self, raw, layer, block, lsn):
        """As engine/bundle_reader.py has a frame searched."""
        self.versions.reset()
        self.query.begin(self.versions)
        self.query.add(memoryview(bytes(18)), block, 0, lsn or 1, 0)
        self._enter(layer, 0, 1)
        self.query.frame[0] = 0
        self.query.push([raw])
        return 0

    def _enter(self, layer, frame_start, frame_end):
        """As engine/layer_map.py leads a query to a layer below L0."""
        if self.query.next_group() >= 0:
            self.query.enter(0, 0, LSN_MAX, 0, BLOCK_MAX, layer, frame_start, frame_end)
        return 0

    def _rows(self, m, kind, start):
        raw = memoryview(self.source)[start:]
        self.query.begin(self.versions)
        row = m.below(40)
        if kind == DIRECTORY:
            directory = LayerDirectory(raw)
            row %= max(1, directory.count)
            block = directory.block_start(row)
            self.query.add(memoryview(directory.key(row)), block, 0, LSN_MAX, 0)
            directory.kind(row)
            directory.versions(row)
            return 3 if self.query.locate(directory, b"") else 2
        table = FrameTable(raw)
        row %= max(1, table.count)
        last = m.below(50)
        self.query.add(memoryview(bytes(18)), table.block(row), 0, LSN_MAX, 0)
        self._enter(table.layer(row), m.below(row + 1), last)
        table.offset(row)
        table.stored_length(row)
        table.raw_length(row)
        return 5 if self.query.aim(table) else 4
