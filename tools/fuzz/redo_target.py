# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Pages and records that do not belong together, given to redo.

    input    u8 PostgreSQL's major version | u8 0 | u64 LSN | page 8192 | version payload

The payload is a RECORD (or an EFFECT) as formats/version.py has it. Redo must give a page or raise
ValueError or IndexError; it may change no byte beside the page, and must not depend on anything
but the input: now and then an input is run twice, with other bytes in the room redo works in.
"""

from engine.reconstruct import Reconstruct
from engine.version_set import VersionSet
from formats import coding
from tools.fuzz.target import Target, room

# By resource manager, whose redo was content.
OUTCOMES = {9: "heap2", 10: "heap", 11: "btree", 12: "hash", 13: "gin", 14: "gist", 15: "sequence",
            16: "spgist", 17: "brin", 20: "generic", 31: "effect"}  # fmt: skip
PAGE_AT = 10
PART_AT = PAGE_AT + 8192
GUARD = 64
GUARD_BYTE = 0xA5
SOURCE_BYTES = 1 << 17


class RedoTarget(Target):
    def __init__(self, mutator, place):
        Target.__init__(self, mutator, place)
        self.reconstruct = Reconstruct(18)
        self.versions = VersionSet(0, 8)
        self.versions.data = room(SOURCE_BYTES)
        self.guarded = memoryview(bytearray([GUARD_BYTE]) * (8192 + 2 * GUARD))
        self.exact = room(8192)  # where a sanitizer sees what leaves it
        self.first = room(8192)

    # Making an input ------------------------------------------------------------------------------

    def make(self, m):
        m.load(m.below(m.count))
        if m.below(8) == 0:
            m.borrow(PAGE_AT, 8192, m.below(m.count), PAGE_AT)
        if m.below(16) == 0:
            coding.put_u8(m.data, 0, 14 + m.below(5))
        i = m.below(5)
        while i > 0:
            self._change_page(m)
            i -= 1
        i = m.below(5)
        while i > 0:
            self._change_part(m)
            i -= 1
        return 0

    def _change_page(self, m):
        kind = m.below(64)
        if kind == 0:
            return coding.fill(m.data, PAGE_AT, 8192, m.below(256))
        if kind < 16:  # the page's header from pd_flags on
            return m.change(PAGE_AT + 10, PAGE_AT + 24)
        if kind < 32:  # a line pointer
            return m.change(PAGE_AT + 24, PAGE_AT + 24 + 4 * (1 + m.below(40)))
        if kind < 48:  # the start of what a line pointer points to
            pointer = coding.u32(m.data, PAGE_AT + 24 + 4 * m.below(20))
            pos = min(pointer & 0x7FFF, 8160)
            return m.change(PAGE_AT + pos, PAGE_AT + pos + 32)
        if kind < 56:  # the special area
            pos = min(coding.u16(m.data, PAGE_AT + 16), 8184)
            return m.change(PAGE_AT + pos, PAGE_AT + 8192)
        return m.change(PAGE_AT + 10, PAGE_AT + 8192)

    def _change_part(self, m):
        kind = m.below(32)
        if m.length < PART_AT + 16 or kind == 0:
            return m.change(PART_AT, m.length)
        main_length = coding.u32(m.data, PART_AT + 12)
        data_length = coding.u16(m.data, PART_AT + 6)
        main = PART_AT + 16 + 5 * coding.u8(m.data, PART_AT + 4)
        data = main + main_length
        if data + data_length != m.length:
            return m.change(PART_AT, m.length)
        if kind == 1:
            return coding.put_u8(m.data, PART_AT + 1, 9 + m.below(12))
        if kind == 2:
            return coding.put_u8(m.data, PART_AT + 2, m.below(256))
        if kind == 3:
            return coding.put_u8(m.data, PART_AT + 3, m.below(5))
        if kind == 4:
            return coding.put_u8(m.data, PART_AT + 5, m.below(4))
        if kind == 5:
            return m.change(PART_AT + 4, PART_AT + 16)
        if kind == 6:  # which blocks the record has
            return m.change(PART_AT + 16, main)
        if kind < 9:
            return self._resize_main(m, main, main_length)
        if kind < 12:
            return self._resize_data(m, data, data_length)
        if kind < 14 and m.length - main > 0:  # data of another record of whatever kind
            other = m.below(m.count)
            m.borrow(main, m.length - main, other, PART_AT + 16 + m.below(16))
            return 0
        if kind < 22:
            return m.change(main, data)
        return m.change(data, m.length)

    def _resize_main(self, m, main, length):
        at = m.below(length + 1)
        grown = m.resize(main + at, min(m.below(12), length - at), m.below(12))
        return coding.put_u32(m.data, PART_AT + 12, length + grown)

    def _resize_data(self, m, data, length):
        at = m.below(length + 1)
        removed = length - at if m.below(8) == 0 else min(m.below(24), length - at)
        grown = m.resize(data + at, removed, m.below(24))
        return coding.put_u16(m.data, PART_AT + 6, length + grown)

    # Running it -----------------------------------------------------------------------------------

    def execute(self, m):
        if m.length < PART_AT + 6:
            raise ValueError("fuzz: not an input of this target")
        if self.index & 1:
            self._redo(m, self.exact, 0)
        else:
            self._redo(m, self.guarded, GUARD)
            self._check_guards()
        if m.below(16) == 0:
            self._redo_again(m)
        if coding.u8(m.data, PART_AT) != 8:
            return 31
        return coding.u8(m.data, PART_AT + 1) & 31

    def _redo(self, m, out, pos):
        part_length = m.length - PART_AT
        start = SOURCE_BYTES - part_length  # at the buffer's end, where a sanitizer sees overruns
        coding.copy(out, pos, m.data, PAGE_AT, 8192)
        coding.copy(self.versions.data, start, m.data, PART_AT, part_length)
        self.versions.offset[1] = start
        self.versions.length[1] = part_length
        self.versions.lsn[1] = coding.u64(m.data, 2)
        self.versions.newer[1] = 0
        self.reconstruct.part.version = coding.u8(m.data, 0)
        return self.reconstruct.page(self.versions, 1, out, pos, True)

    def _check_guards(self):
        i = 0
        while i < GUARD:
            if (
                coding.u8(self.guarded, i) != GUARD_BYTE
                or coding.u8(self.guarded, GUARD + 8192 + i) != GUARD_BYTE
            ):
                raise RuntimeError("redo wrote outside of its page")
            i += 1
        return 0

    def _redo_again(self, m):
        if self.index & 1:
            coding.copy(self.first, 0, self.exact, 0, 8192)
        else:
            coding.copy(self.first, 0, self.guarded, GUARD, 8192)
        coding.fill(self.reconstruct.part.scratch, 0, 8192, m.below(256))
        self._redo(m, self.exact, 0)
        if not coding.equal(self.first, 0, self.exact, 0, 8192):
            raise RuntimeError("redo of the same input gave another page")
        return 0
