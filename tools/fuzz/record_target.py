# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""WAL records, parsed and ingested, with the Python that some of them need.

    input    u8 PostgreSQL's major version | u8 flags | a record | [another record | u32 its length]

    flags    1 commits leave times | 2 there is another record | 4 and it is the first to be taken

One record of a real server is changed, its lengths and its CRC mostly repaired. The other one is
whole: it makes chunks that the changed one can find, or finds what the changed one left.
"""

from engine.chunk_table import ChunkTable
from engine.cluster_records import ClusterRecords
from engine.ingest import Ingest
from engine.memtable import Memtable
from engine.record_batch import RecordBatch
from engine.wal_ingest import decompress_image
from formats import coding, crc, wal_record
from formats.chunk import SmallFile
from tools.fuzz import corpus
from tools.fuzz.target import Target, room

HEAD = 2
SOURCE_BYTES = 1 << 17
ARENA_BYTES = 1 << 17  # room for a dozen images, as a record may have
LSN = 0x3000000
INGESTED = 20
FULL = 21
IN_PYTHON = 22
FAULTS = wal_record.FAULTS.items()
OUTCOMES = {
    **{fault: f"fault: {what}: not {expected}" for fault, (what, expected) in FAULTS},
    INGESTED: "ingested",
    FULL: "larger than the memtable",
    IN_PYTHON: "ingested in Python",
}


class RecordTarget(Target):
    def __init__(self, mutator, place):
        Target.__init__(self, mutator, place)
        self.controls = {
            int(name.split()[0]): content.partition(b"\0")[2]
            for name, content in corpus.seeds("metadata").items()
            if name.endswith(" pg_control")
        }
        self.shape = RecordBatch(1, wal_record.REFERENCES_MAX)
        self.shape.data = mutator.data
        self.batch = RecordBatch(1, wal_record.REFERENCES_MAX)
        self.source = room(SOURCE_BYTES)
        self.batch.data = self.source
        self.heads = memoryview(bytearray(8 * wal_record.REFERENCES_MAX + 8)).cast("q")
        self.chunks = ChunkTable()
        self.ingest = Ingest(self.chunks, decompress_image)
        self.ingest.target.memtable = Memtable(ARENA_BYTES, 4096, 4096, 1 << 20, 1 << 30)
        self.major = 0

    def refresh(self):
        self.ingest.target.cuts.clear()

    # Making an input ------------------------------------------------------------------------------

    def make(self, m):
        m.load(m.below(m.count))
        if coding.u8(m.data, 1) & 2:
            return m.change(0, m.length)  # two records already: one that failed once
        if m.below(16) == 0:
            coding.put_u8(m.data, 0, 14 + m.below(5))
        coding.put_u8(m.data, 1, m.below(2))
        self.shape.count = 0
        self.shape.reference_count = 0
        known = not wal_record.parse(self.shape, HEAD, m.length - HEAD, coding.u8(m.data, 0))
        if known:
            self._find_heads(m)
        i = m.below(5)
        while i > 0:
            if known:
                self._change_field(m)
            else:
                m.change(HEAD, m.length)
            i -= 1
        if known and m.below(2):
            self._resize_field(m)
        if m.below(32):
            coding.put_u32(m.data, HEAD, m.length - HEAD)
        if m.below(32):
            self._repair_crc(m)
        if m.below(3) == 0:
            self._add_other(m)
        return 0

    def _find_heads(self, m):
        """Where each block reference's header begins, and where the last one ends."""
        pos = HEAD + 24
        i = 0
        while i < self.shape.reference_count:
            self.heads[i] = pos
            flags = coding.u8(m.data, pos + 1)
            pos += 4
            if flags & 0x10:
                info = coding.u8(m.data, pos + 4)
                compressed = 2 if coding.u8(m.data, 0) == 14 else 28
                pos += 7 if info & compressed and info & 1 else 5
            pos += 4 if flags & 0x80 else 16
            i += 1
        self.heads[i] = pos
        return 0

    def _change_field(self, m):
        kind = m.below(16)
        if kind == 0:  # info, resource manager
            return m.change(HEAD + 16, HEAD + 18)
        if kind == 1:
            return coding.put_u8(m.data, HEAD + 16, m.below(256))
        if kind == 2:
            return coding.put_u8(m.data, HEAD + 17, m.below(22))
        if kind == 3:
            return m.change(HEAD + 4, HEAD + 8)
        if kind == 4:
            return m.change(HEAD, m.length)
        if kind < 9 and self.shape.reference_count:
            return self._change_reference(m, m.below(self.shape.reference_count))
        main = self.shape.main_pos[0]
        if kind == 9:
            return m.change(self.heads[self.shape.reference_count], main)
        return m.change(main, main + self.shape.main_length[0])

    def _change_reference(self, m, r):
        kind = m.below(8)
        head = self.heads[r]
        if kind == 0:
            return m.change(head, self.heads[r + 1])
        if kind == 1:
            return coding.put_u8(m.data, head, m.below(34))
        if kind == 2:
            flags = coding.u8(m.data, head + 1) ^ (1 << m.below(8))
            return coding.put_u8(m.data, head + 1, flags)
        if kind == 3:
            return m.change(self.heads[r + 1] - 4, self.heads[r + 1])
        if kind == 4:
            return m.change(head + 4, self.heads[r + 1] - 4)
        if kind < 7 and self.shape.ref_image_length[r]:
            pos = self.shape.ref_image_pos[r]
            return m.change(pos, pos + self.shape.ref_image_length[r])
        pos = self.shape.ref_data_pos[r]
        return m.change(pos, pos + self.shape.ref_data_length[r])

    def _resize_field(self, m):
        """Make the main data, a block's data or its image longer or shorter, with its length."""
        count = self.shape.reference_count
        r = m.below(count + 1)
        if r == count:
            return self._resize_main(m)
        head = self.heads[r]
        if self.shape.ref_image_length[r] and m.below(2):
            return self._resize_at(m, self.shape.ref_image_pos[r], self.shape.ref_image_length[r],
                                   head + 4)  # fmt: skip
        length = self.shape.ref_data_length[r]
        if length == 0 and m.below(16):  # a flag says whether there is data
            return self._resize_main(m)
        return self._resize_at(m, self.shape.ref_data_pos[r], length, head + 2)

    def _resize_at(self, m, pos, length, field):
        """Resize inside of what lies at `pos`; the u16 `field` has its length."""
        at = m.below(length + 1)
        grown = m.resize(pos + at, min(m.below(24), length - at), m.below(24))
        return coding.put_u16(m.data, field, length + grown)

    def _resize_main(self, m):
        length = self.shape.main_length[0]
        first = self.shape.main_pos[0]
        if self.shape.reference_count:
            first = self.shape.ref_image_pos[0]
        at = m.below(length + 1)
        removed = length - at if m.below(8) == 0 else min(m.below(16), length - at)
        if length > 255 or (length and coding.u8(m.data, first - 2) != 255):
            grown = m.resize(self.shape.main_pos[0] + at, removed, m.below(600))
            return coding.put_u32(m.data, first - 4, length + grown)
        if length:
            added = min(m.below(16), 255 - length)
            grown = m.resize(self.shape.main_pos[0] + at, removed, added)
            return coding.put_u8(m.data, first - 1, length + grown)
        return 0

    def _repair_crc(self, m):
        length = m.length - HEAD
        if length < 24:
            return 0
        computed = crc.of_two(m.data, HEAD + 24, length - 24, HEAD, 20, m.data, 0)
        return coding.put_u32(m.data, HEAD + 20, computed)

    def _add_other(self, m):
        other = m.below(m.count)
        length = m.ends[other + 1] - m.ends[other] - HEAD
        end = m.length
        if length < 24 or m.resize(end, 0, length + 4) == 0:
            return 0
        m.borrow(end, length, other, HEAD)
        coding.put_u32(m.data, end + length, length)
        return coding.put_u8(m.data, 1, coding.u8(m.data, 1) | 2 | (m.below(2) << 2))

    # Running it -----------------------------------------------------------------------------------

    def execute(self, m):
        if m.length < HEAD + 8:
            raise ValueError("fuzz: not an input of this target")
        self._forget()
        flags = coding.u8(m.data, 1)
        self.major = coding.u8(m.data, 0)
        self.ingest.transactions.tracks_timestamps = flags & 1
        self.ingest.hint_bits_logged = True
        end = m.length
        other = 0
        if flags & 2:
            other = coding.u32(m.data, end - 4)
            end -= 4
        if other > end - HEAD:
            raise ValueError("fuzz: not an input of this target")
        if other and flags & 4:
            self._take(m, end - other, other, LSN + 8)
        outcome = self._take(m, HEAD, end - other - HEAD, LSN + 16)
        if other and not flags & 4:
            self._take(m, end - other, other, LSN + 24)
        return outcome

    def _forget(self):
        """An empty memtable, and a chunk table without chunks."""
        self.ingest.target.memtable.clear()
        i = 0
        while i < self.chunks.count:
            self.chunks.blocks[i] = 0
            self.chunks.cut_blocks[i] = 0
            self.chunks.change_lsn[i] = 0
            self.chunks.cut_lsn[i] = 0
            self.chunks.exists[i] = 0
            i += 1
        if self.chunks.count:
            self.chunks.count = 0
            i = 0
            while i < len(self.chunks.slots):
                self.chunks.slots[i] = 0
                i += 1
        return 0

    def _take(self, m, pos, length, lsn):
        start = SOURCE_BYTES - length  # at the buffer's end, where a sanitizer sees overruns
        coding.copy(self.source, start, m.data, pos, length)
        self.batch.count = 0
        self.batch.reference_count = 0
        fault = wal_record.parse(self.batch, start, length, self.major)
        if fault:
            return fault
        self.batch.lsn_start[0] = lsn - 8
        self.batch.lsn_end[0] = lsn
        self.ingest.run_records(self.batch, 0, 1)
        if self.ingest.reason == 1:
            return FULL
        if self.ingest.reason == 2:
            return self._take_in_python(lsn)
        return INGESTED

    def _take_in_python(self, lsn):
        """As engine/wal_ingest.py does it."""
        files = {}
        if self.major in self.controls:
            files[int(SmallFile.PG_CONTROL)] = self.controls[self.major]
        tracks = self.ingest.transactions.tracks_timestamps
        cluster = ClusterRecords(self.chunks, self.ingest, self.major, files)
        self.ingest.transactions.tracks_timestamps = tracks
        batch = self.batch
        main_pos = batch.main_pos[0]
        main = bytes(batch.data[main_pos : main_pos + batch.main_length[0]])
        rmgr, info = batch.rmgr[0], batch.info[0]
        entries, size = cluster.room(rmgr, info, main)
        if not self.ingest.target.memtable.has_room(entries, size):
            return FULL
        cluster.apply(rmgr, info, batch.xid[0], main, lsn, origin=batch.origin[0])
        return IN_PYTHON
