# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What ingest writes to: the chunk table, which knows the sizes, and the open memtable.

A block that a record names or implies makes its relation or SLRU segment reach that far; records
that create, truncate or drop cut off a past. Both leave a version of the relation's history. An
*effect* is a change of a visibility map or SLRU page (formats/version.py).
"""

from formats import coding


class IngestTarget:
    def __init__(self, chunks):
        self.chunks = chunks
        self.cuts = {}
        self.memtable = None

    def touch(self, spc, db, rel, fork, block, lsn):
        """The chunk of a relation's block, after the relation was made to reach that far."""
        chunk = self.chunks.intern(1, spc, db, rel, fork, block >> 17)
        root = self.chunks.root[chunk]
        if block >= self.chunks.blocks[root] or not self.chunks.exists[root]:
            self._extend(root, block + 1, lsn)
        return chunk

    def _extend(self, root, blocks, lsn):
        """A relation grows; one that does not exist comes into being, which cuts its past off."""
        if not self.chunks.exists[root]:
            return self.cut(root, 1, blocks, 0, lsn, lsn - 1)
        word = blocks
        word = (word << 32) | 320  # HISTORY, exists
        self.memtable.put_word(self.chunks.history[root], 0, lsn, word)
        self.chunks.blocks[root] = blocks
        self.chunks.change_lsn[root] = lsn
        return 0

    def cut(self, root, exists, blocks, cut_blocks, lsn, cut_lsn):
        """A relation is created, truncated or dropped, and has `blocks` blocks from `lsn` on.

        Versions at or below `cut_lsn` of its blocks >= `cut_blocks` mean nothing any more. That is
        `lsn`, but where a block reference brings the relation into being the LSN before it: the
        same record's version of the block counts.
        """
        history = self.chunks.history[root]
        word = blocks
        word = (word << 32) | (exists << 8) | 64
        self.memtable.put_word(history, 0, lsn, word)
        word = cut_blocks
        word = (word << 32) | (exists << 8) | 64
        self.memtable.put_word(history, 1, cut_lsn, word)
        self.chunks.exists[root] = exists
        self.chunks.blocks[root] = blocks
        self.chunks.change_lsn[root] = lsn
        self.chunks.cut_lsn[root] = cut_lsn
        self.chunks.cut_blocks[root] = cut_blocks
        self._note_cut(root, cut_blocks, cut_lsn)
        return 0

    def _note_cut(self, root, cut_blocks, lsn):
        self.cuts.setdefault(root, []).append((lsn, cut_blocks))
        return 0

    def touch_slru(self, slru, page, lsn):
        """The chunk of an SLRU page, after its segment was made to reach that far."""
        chunk = self.chunks.intern(2, 0, 0, slru, 0, page >> 5)
        if (page & 31) >= self.chunks.blocks[chunk] or not self.chunks.exists[chunk]:
            self._extend(chunk, (page & 31) + 1, lsn)
        return chunk

    def begin_effect(self, effect_class, count):
        pos = self.memtable.reserve(4 + 8 * count)
        coding.put_u16(self.memtable.data, pos, 16 | effect_class << 8)
        coding.put_u16(self.memtable.data, pos + 2, count)
        return pos

    def effect_item(self, pos, item, index, argument, value):
        at = pos + 4 + 8 * item
        coding.put_u16(self.memtable.data, at, index)
        coding.put_u16(self.memtable.data, at + 2, argument)
        return coding.put_u32(self.memtable.data, at + 4, value)

    def link_effect(self, chunk, block, lsn, pos, count):
        """The effect at `pos`, its `count` items written, is a version of the block."""
        return self.memtable.link(chunk, block, lsn, pos, 4 + 8 * count, 0)
