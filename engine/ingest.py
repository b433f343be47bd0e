# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Records -> versions: the hot half of ingest, which runs without the GIL over a whole batch.

For each block that a record references:

    image to apply     -> an image version, decompressed; it alone defines the block (of a GiST
                          page whose split ends here, with the change that redo still makes to it)
    otherwise          -> the record's part for the block (engine/redo/part.py says what that is)
    unsupported rmgr   -> an UNREADABLE version: readers get an error, never a stale page

and the relation grows if the block lies past its end. Beside that, heap records clear visibility
map bits that they do not always name, and commits and aborts set transaction status. Records that
create, truncate, drop or copy files, and the few others that need Python, are handed back by
`run` to engine/cluster_records.py. A record is taken only if all of it fits into the memtable.
"""

import cython

from engine.ingest_target import IngestTarget
from engine.redo import dispatch, gist
from engine.transaction_ingest import TransactionIngest
from formats import coding, pglz

DONE = 0
MEMTABLE_FULL = 1
NEEDS_PYTHON = 2

# In the code: 32672 heap blocks a map page (visibilitymap.c).


class Ingest:
    def __init__(self, chunks, decompress):
        """`decompress(codec, source, pos, length, raw_length) -> bytes` for lz4 and zstd images."""
        self.target = IngestTarget(chunks)
        self.transactions = TransactionIngest(self.target)
        self.decompress = decompress
        self.image = memoryview(bytearray(8192))
        self.hint_bits_logged = True
        self.records = 0
        self.images = 0
        self.unreadable = 0

    def run(self, batch, start, end):
        """`run_records` without the GIL."""
        with cython.nogil:
            i = self.run_records(batch, start, end)
        return i  # noqa: RET504  (an object is made of it, which needs the GIL)

    def run_records(self, batch, start, end):
        """Ingest records start..end of a RecordBatch; returns where it stopped, `reason` says why.

        DONE: at `end`. MEMTABLE_FULL: nothing of that record was taken, a fresh memtable is needed.
        NEEDS_PYTHON: that record's blocks were taken, its other effects are the caller's.
        """
        i = start
        while i < end:
            if not self._fits(batch, i):
                self.reason = 1
                return i
            lsn = batch.lsn_end[i]
            r = batch.first_reference[i]
            while r < batch.first_reference[i + 1]:
                self._reference(batch, i, r, lsn)
                r += 1
            if self._effects(batch, i, lsn):
                self.reason = 2
                return i
            self.target.memtable.lsn_end = lsn
            self.records += 1
            i += 1
        self.reason = 0
        return i

    def _fits(self, batch, i):
        """Whether the memtable has room for whatever this record can become, generously."""
        references = batch.first_reference[i + 1] - batch.first_reference[i]
        entries = 8 * references + 64
        payload = references * (8192 + 512 + batch.main_length[i]) + 4096
        if references:
            payload += batch.record_length[i]
        if batch.rmgr[i] == 1:
            entries += 3 * self.transactions.pages_of_transaction(
                batch, i
            )  # perhaps a new segment's history
            payload += 16 * self.transactions.sub_count + 48 * entries
        return self.target.memtable.has_room(entries, payload)

    def _reference(self, batch, i, r, lsn):
        fork = batch.ref_flags[r] & 15
        chunk = self.target.touch(
            batch.ref_spc[r], batch.ref_db[r], batch.ref_rel[r], fork, batch.ref_block[r], lsn
        )
        if not self.target.chunks.held[chunk]:
            return 0
        block = batch.ref_block[r] & 131071
        if batch.ref_flags[r] & 16 and batch.ref_image_info[r] & 2:
            self.images += 1
            return self._image(self.target.memtable, batch, i, r, chunk, block, lsn)
        rmgr = batch.rmgr[i]
        if rmgr == 0:
            return 0
        if not dispatch.is_supported(rmgr):
            self.unreadable += 1
            pos = self.target.memtable.reserve(4)
            coding.put_u32(self.target.memtable.data, pos, 32 | rmgr << 8 | batch.info[i] << 16)
            return self.target.memtable.link(chunk, block, lsn, pos, 4, 1)
        return self._part(self.target.memtable, batch, i, r, chunk, block, lsn)

    def _image(self, memtable, batch, i, r, chunk, block, lsn):
        hole_offset = batch.ref_hole_offset[r]
        hole_length = batch.ref_hole_length[r]
        length = 8192 - hole_length
        pos = memtable.reserve(6 + length)
        target = memtable.data
        coding.put_u16(target, pos, 1)
        coding.put_u16(target, pos + 2, hole_offset)
        coding.put_u16(target, pos + 4, hole_length)
        source_pos = batch.ref_image_pos[r]
        source_length = batch.ref_image_length[r]
        codec = batch.ref_image_info[r] & 28
        if codec == 0:
            if source_length != length:
                raise ValueError("page image: its length does not fit its hole")
            coding.copy(target, pos + 6, batch.data, source_pos, length)
        elif codec == 4:
            pglz.decompress(batch.data, source_pos, source_length, self.image, 0, length)
            coding.copy(target, pos + 6, self.image, 0, length)
        else:
            self._decompress(codec, batch, source_pos, source_length, length, pos + 6)
        if batch.rmgr[i] == 14 and gist.is_left_child(batch.info[i], batch.ref_id[r]):
            gist.end_split_of_image(target, pos, lsn)
        return memtable.link(chunk, block, lsn, pos, 6 + length, 1)

    def _decompress(self, codec, batch, source_pos, source_length, length, pos):
        raw = self.decompress(codec, batch.data, source_pos, source_length, length)
        coding.copy(self.target.memtable.data, pos, memoryview(raw), 0, length)
        return 0

    def _part(self, memtable, batch, i, r, chunk, block, lsn):
        first = batch.first_reference[i]
        count = batch.first_reference[i + 1] - first
        main_length = batch.main_length[i]
        data_length = batch.ref_data_length[r]
        length = 16 + 5 * count + main_length + data_length
        pos = memtable.reserve(length)
        target = memtable.data
        init = (batch.ref_flags[r] >> 6) & 1
        flags = init | (self.hint_bits_logged << 1)
        coding.put_u8(target, pos, 8)
        coding.put_u8(target, pos + 1, batch.rmgr[i])
        coding.put_u8(target, pos + 2, batch.info[i])
        coding.put_u8(target, pos + 3, batch.ref_id[r])
        coding.put_u8(target, pos + 4, count)
        coding.put_u8(target, pos + 5, flags)
        coding.put_u16(target, pos + 6, data_length)
        coding.put_u32(target, pos + 8, batch.xid[i])
        coding.put_u32(target, pos + 12, main_length)
        at = pos + 16
        while count > 0:
            coding.put_u8(target, at, batch.ref_id[first])
            coding.put_u32(target, at + 1, batch.ref_block[first])
            at += 5
            first += 1
            count -= 1
        coding.copy(target, at, batch.data, batch.main_pos[i], main_length)
        coding.copy(target, at + main_length, batch.data, batch.ref_data_pos[r], data_length)
        return memtable.link(chunk, block, lsn, pos, length, init)

    def _effects(self, batch, i, lsn):
        """What the record changes beside the blocks it names; 1 if that is for Python to do."""
        rmgr = batch.rmgr[i]
        info = batch.info[i]
        if rmgr == 10:
            self._heap_effects(batch, i, info & 112, lsn)
            return 0
        if rmgr == 9:
            self._heap2_effects(batch, i, info & 112, lsn)
            return 0
        if rmgr == 1:
            return self.transactions.end_transaction(batch, i, info, lsn)
        if rmgr == 0:
            return info < 160  # images need nothing more, FPI_FOR_HINT (0xA0), FPI (0xB0)
        return rmgr < 8 or rmgr == 18 or rmgr == 19

    def _heap_effects(self, batch, i, operation, lsn):
        """Visibility map bits that heap records clear (heapam_xlog.h: the flags of each record)."""
        main = batch.main_pos[i]
        if operation == 0:  # INSERT: offset number u16, flags u8
            if coding.u8(batch.data, main + 2) & 1:
                self._clear_visible(batch, i, 0, 3, lsn)
        elif operation == 16 or operation == 96:  # DELETE, LOCK: xid u32, offset u16, u8, flags u8
            if coding.u8(batch.data, main + 7) & 1:
                self._clear_visible(batch, i, 0, 3 if operation == 16 else 2, lsn)
        elif operation == 32 or operation == 64:  # UPDATE, HOT_UPDATE: the same head as DELETE
            self._clear_visible_update(batch, i, coding.u8(batch.data, main + 7) & 3, lsn)
        return 0

    def _heap2_effects(self, batch, i, operation, lsn):
        main = batch.main_pos[i]
        if operation == 80:  # MULTI_INSERT: flags u8
            if coding.u8(batch.data, main) & 1:
                self._clear_visible(batch, i, 0, 3, lsn)
        elif operation == 96 and coding.u8(batch.data, main + 7) & 1:
            self._clear_visible(batch, i, 0, 2, lsn)  # LOCK_UPDATED: xid u32, offset u16, u8, flags
        return 0

    def _find_reference(self, batch, i, block_id):
        """Index of the record's reference with this id, -1 if it has none."""
        r = batch.first_reference[i]
        while r < batch.first_reference[i + 1]:
            if batch.ref_id[r] == block_id:
                return r
            r += 1
        return -1

    def _clear_visible(self, batch, i, block_id, bits, lsn):
        """Clear the bits of the heap block `block_id`, unless the record names its map page."""
        if self._find_reference(batch, i, 1) >= 0:
            return 0
        r = self._find_reference(batch, i, block_id)
        if r < 0:
            raise ValueError("heap record: it names no block")
        return self._clear_bits(batch, r, batch.ref_block[r], bits, 0, lsn)

    def _clear_visible_update(self, batch, i, flags, lsn):
        """UPDATE: flag 1 clears the old block's bits, flag 2 the new one's; ids 2, 3 name maps."""
        if self._find_reference(batch, i, 2) >= 0 or self._find_reference(batch, i, 3) >= 0:
            return 0
        new = self._find_reference(batch, i, 0)
        old = self._find_reference(batch, i, 1)
        if new < 0:
            raise ValueError("heap update: it names no block")
        if old < 0:
            old = new
        old_block = batch.ref_block[old]
        new_block = batch.ref_block[new]
        if flags == 3 and old_block != new_block and old_block // 32672 == new_block // 32672:
            return self._clear_bits(batch, new, old_block, 3, new_block + 1, lsn)
        if flags & 1:
            self._clear_bits(batch, new, old_block, 3, 0, lsn)
        if flags & 2 and not (flags & 1 and old_block == new_block):
            self._clear_bits(batch, new, new_block, 3, 0, lsn)
        return 0

    def _clear_bits(self, batch, r, heap_block, bits, second_plus_1, lsn):
        """One VM_CLEAR effect, for one heap block or two of the same map page."""
        map_block = heap_block // 32672
        chunk = self.target.touch(
            batch.ref_spc[r], batch.ref_db[r], batch.ref_rel[r], 2, map_block, lsn
        )
        if not self.target.chunks.held[chunk]:
            return 0
        count = 2 if second_plus_1 else 1
        pos = self.target.begin_effect(1, count)
        self.target.effect_item(pos, 0, heap_block % 32672, bits, 0)
        if second_plus_1:
            self.target.effect_item(pos, 1, (second_plus_1 - 1) % 32672, bits, 0)
        return self.target.link_effect(chunk, map_block & 131071, lsn, pos, count)
