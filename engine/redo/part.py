# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What redo works on: one page, and one record's part for it.

A **part** is what a WAL record says about one block (formats/version.py gives its bytes): resource
manager and opcode, the numbers of all blocks that the record references, its main data, and the
data of this block alone. No redo function ever needs another block's data; several need the
numbers of the others (a btree split writes its siblings' numbers into the page).

Redo functions take a `Part` and change `part.page` in place. For the records that come by the
thousand they hand on the part and bind no local name to its buffers: binding one counts references
atomically, passing one to a function of another module copies 208 bytes, and both cost more than
what is done with them.

    part.page        the 8 KiB page, writable
    part.bytes       where main data and block data lie, read-only
    part.main        offset of the main data in `bytes`; part.main_length
    part.data        offset of this block's data in `bytes`; part.data_length
    part.block_id    which of the record's references this page is
    part.lsn         end of the record: what redo writes into pd_lsn
    part.version     PostgreSQL's major version, for the few places where they differ
    part.hint_bits_logged  whether the cluster has checksums or wal_log_hints at this LSN
    part.scratch     8 KiB of room for a redo function, so that none allocates: never shared between
                     threads, as a Part belongs to one; part.numbers is the same room as u16

One Part is reused for all records of a page: `load` points it at the next one.
"""

from formats import coding


class Part:
    def __init__(self):
        scratch = bytearray(8192)
        self.scratch = scratch
        self.numbers = memoryview(scratch).cast("H")

    def load(self, pos, length):
        """Point at the part at bytes[pos : pos + length]; raises IndexError if it is cut off."""
        self.rmgr = coding.u8(self.bytes, pos + 1)
        self.info = coding.u8(self.bytes, pos + 2)
        self.block_id = coding.u8(self.bytes, pos + 3)
        self.reference_count = coding.u8(self.bytes, pos + 4)
        self.flags = coding.u8(self.bytes, pos + 5)
        self.data_length = coding.u16(self.bytes, pos + 6)
        self.xid = coding.u32(self.bytes, pos + 8)
        self.main_length = coding.u32(self.bytes, pos + 12)
        self.references = pos + 16
        self.main = self.references + 5 * self.reference_count
        self.data = self.main + self.main_length
        if self.data + self.data_length != pos + length:
            raise IndexError("part of a record: its lengths do not add up")
        return 0

    def block(self, block_id):
        """The block number of the record's reference `block_id`, -1 if there is none."""
        i = 0
        while i < self.reference_count:
            if coding.u8(self.bytes, self.references + 5 * i) == block_id:
                return coding.u32(self.bytes, self.references + 5 * i + 1)
            i += 1
        return -1

    def has_block(self, block_id):
        """Whether the record references a block `block_id`."""
        return self.block(block_id) >= 0
