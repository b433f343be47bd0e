# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Compressed page images: decompressed, and their hole put back.

    input    u8 codec (0 plain, 4 pglz, 8 lz4, 16 zstd) | u8 kind of version | u16 hole offset |
             u16 hole length | the image's bytes

Bytes that are no longer what a compressor made seldom come to the length that is asked for. So the
hole is mostly made as long as what they come to leaves it.
"""

from engine.reconstruct import Reconstruct
from engine.version_set import VersionSet
from engine.wal_ingest import decompress_image
from formats import coding, pglz
from tools.fuzz.target import Target, room

HEAD = 6
SOURCE_BYTES = 1 << 17
OUTCOMES = {0: "plain", 4: "pglz", 8: "lz4", 16: "zstd"}


class ImageTarget(Target):
    def __init__(self, mutator, place):
        Target.__init__(self, mutator, place)
        self.reconstruct = Reconstruct(18)
        self.versions = VersionSet(0, 8)
        self.versions.data = room(6 + 8192)
        self.source = room(SOURCE_BYTES)
        self.raw = room(8192)
        self.out = room(8192)

    # Making an input ------------------------------------------------------------------------------

    def make(self, m):
        m.load(m.below(m.count))
        if m.below(4) and coding.u8(m.data, 0) != 4:
            m.load(m.below(m.count))  # pglz is ours: more often than the libraries'
        if m.below(64) == 0:
            coding.put_u8(m.data, 0, 4 << m.below(3))
        coding.put_u8(m.data, 1, 1 + m.below(3))
        if m.below(8) == 0:
            self._cut_out(m)
        i = m.below(6)
        while i > 0:
            self._change(m)
            i -= 1
        if coding.u8(m.data, 0) == 4 and m.below(8):
            self._fit_hole(m)
        return 0

    def _change(self, m):
        kind = m.below(16)
        if kind == 0:
            return m.change(2, HEAD)
        if kind == 1:
            at = HEAD + m.below(m.length - HEAD + 1)
            m.resize(at, min(m.below(16), m.length - at), m.below(16))
            return 0
        if kind == 2:
            m.length -= min(m.below(64), m.length - HEAD)
            return 0
        if kind == 3:
            at = HEAD + m.below(m.length - HEAD)
            m.borrow(at, m.below(400), m.below(m.count), HEAD + m.below(400))
            return 0
        return m.change(HEAD, m.length)

    def _cut_out(self, m):
        """A few bytes of it, which are quick to decompress."""
        length = m.length - HEAD
        at = m.below(length)
        kept = min(length - at, 1 + m.below(60))
        coding.move(m.data, HEAD, HEAD + at, kept)
        m.length = HEAD + kept
        return 0

    def _fit_hole(self, m):
        length = self._pglz_length(m)
        if length > 8192:
            return 0
        coding.put_u16(m.data, 4, 8192 - length)
        if coding.u16(m.data, 2) > length:
            coding.put_u16(m.data, 2, m.below(length + 1))
        return 0

    def _pglz_length(self, m):
        """What pglz bytes come to, as formats/pglz.py reads them."""
        pos = HEAD
        length = 0
        while pos < m.length:
            control = coding.u8(m.data, pos)
            pos += 1
            item = 0
            while item < 8 and pos < m.length:
                if control & 1 and pos + 1 < m.length:
                    run = (coding.u8(m.data, pos) & 15) + 3
                    pos += 2
                    if run == 18 and pos < m.length:
                        run += coding.u8(m.data, pos)
                        pos += 1
                    length += run
                else:
                    pos += 1
                    length += 1
                control >>= 1
                item += 1
        return length

    # Running it -----------------------------------------------------------------------------------

    def execute(self, m):
        if m.length < HEAD:
            raise ValueError("fuzz: not an input of this target")
        codec = coding.u8(m.data, 0) & 28
        length = m.length - HEAD
        hole_length = coding.u16(m.data, 4)
        raw_length = 8192 - hole_length
        start = SOURCE_BYTES - length  # at the buffer's end, where a sanitizer sees overruns
        coding.copy(self.source, start, m.data, HEAD, length)
        if codec == 0:
            coding.copy(self.raw, 0, self.source, start, length)
            raw_length = length
        elif codec == 4:
            pglz.decompress(self.source, start, length, self.raw, 0, raw_length)
        else:
            if raw_length < 0:  # formats/wal_record.py has seen to it that it is not
                raise ValueError("fuzz: a hole larger than a page")
            self._library(codec, start, length, raw_length)
        self._restore(m, raw_length)
        return codec

    def _library(self, codec, start, length, raw_length):
        raw = decompress_image(codec, self.source, start, length, raw_length)
        coding.copy(self.raw, 0, memoryview(raw), 0, len(raw))
        return 0

    def _restore(self, m, length):
        """A version of it, made a page."""
        start = 8192 - length
        coding.copy(self.versions.data, start, m.data, 1, 1)
        coding.put_u8(self.versions.data, start + 1, 0)
        coding.copy(self.versions.data, start + 2, m.data, 2, 4)
        coding.copy(self.versions.data, start + 6, self.raw, 0, length)
        self.versions.offset[1] = start
        self.versions.length[1] = 6 + length
        self.versions.lsn[1] = 0x5000000
        self.versions.newer[1] = 0
        return self.reconstruct.page(self.versions, 1, self.out, 0, False)
