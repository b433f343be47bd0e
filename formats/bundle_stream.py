"""Whether the bytes of a bundle are what was written, as they go by: no file, nothing decompressed.

Who copies a bundle feeds it what passes, in pieces of any size, and knows at the end that every
CRC in it held, that its parts lie one behind the other as they must, and that it is the very file
that the manifest names. So a copy is as whole as the file was when it was written; what its frames
hold is engine/bundle_check.py's. Nothing is kept but a header or the
footer; 2 GB/s of one core at frames of 6 KB.
"""

import struct
from collections.abc import Callable

from crc32c import crc32c

from formats import layer_file
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_file import FRAME_HEADER_BYTES, HEADER_BYTES, TRAILER_BYTES, FrameKind

FOOTER_BYTES_MAX = 4096  # one has about 270
_FRAME = struct.Struct("<BBHIIII")  # a frame's header: kind, codec, zero, number, raw, stored, CRC
_FOLLOWS = {
    FrameKind.VERSIONS: (FrameKind.VERSIONS, FrameKind.DIRECTORY),
    FrameKind.DIRECTORY: (FrameKind.TABLE,),
}


class BundleSums:
    """One bundle that goes by; one thread's."""

    def __init__(self, name: FileName, bytes_total: int, footer_crc: int) -> None:
        """What the manifest says of the bundle: its name, its length, the CRC of its footer."""
        self._name = name
        self._bytes_total = bytes_total
        self._footer_crc = footer_crc
        self._identity = layer_file.identity_of(name)
        self._part: Callable[[memoryview, int], int] = self._header
        self._rest = b""  # of a header or footer, which are checked when they are there as a whole
        self._passed = 0  # bytes before the part that goes by
        self._kind = FrameKind.VERSIONS  # of the frame that goes by, or went by last
        self._frames = 0  # of versions, so far
        self._starts: dict[FrameKind, int] = {}  # where the first frame of each kind begins
        self._stored = 0  # bytes behind the header of the frame that goes by
        self._left = 0  # of these, that are to come
        self._crc = 0  # of the frame, so far
        self._expected_crc = 0

    def feed(self, piece: bytes | memoryview) -> None:
        """Bytes that follow those that were fed before; CorruptionError if they cannot be."""
        data = memoryview(self._rest + piece if self._rest else piece)
        at = 0
        while at < len(data) and (end := self._part(data, at)) != at:
            at = end
        self._rest = bytes(data[at:])

    def finish(self) -> None:
        """CorruptionError unless all of the bundle was fed."""
        if self._part != self._nothing:
            came = self._passed + len(self._rest)
            if self._part == self._frame:
                came += FRAME_HEADER_BYTES + self._stored - self._left
            raise CorruptionError("bundle cut off", self._name.text, f"{self._bytes_total} bytes",
                                  came)  # fmt: skip

    # A part takes what it can of `data` from `at` on and returns where it ended, which is `at` if
    # more must be there first.

    def _header(self, data: memoryview, at: int) -> int:
        end = at + HEADER_BYTES
        if len(data) < end:
            return at
        layer_file.check_header(bytes(data[at:end]), self._name, self._name.text)
        self._passed = HEADER_BYTES
        self._part = self._frame_header
        return end

    def _frame_header(self, data: memoryview, at: int) -> int:
        end = at + FRAME_HEADER_BYTES
        if len(data) < end:
            return at
        kind, _, _, number, _, stored, crc = _FRAME.unpack_from(data, at)
        room = self._bytes_total - self._passed - FRAME_HEADER_BYTES - TRAILER_BYTES
        expected = self._frames if kind == FrameKind.VERSIONS else 0
        if kind not in _FOLLOWS[self._kind] or number != expected or stored > room:
            may = "/".join(str(int(kind)) for kind in _FOLLOWS[self._kind])
            raise CorruptionError("frame header (kind, number, length)", self._where,
                                  f"({may}, {expected}, at most {room})",
                                  (kind, number, stored))  # fmt: skip
        self._kind = FrameKind(kind)
        self._frames += kind == FrameKind.VERSIONS
        self._starts.setdefault(self._kind, self._passed)
        self._stored = self._left = stored
        self._crc = crc32c(data[at : end - 4], self._identity)
        self._expected_crc = crc
        self._part = self._frame
        return self._frame(data, end)

    def _frame(self, data: memoryview, at: int) -> int:
        end = min(at + self._left, len(data))
        self._crc = crc32c(data[at:end], self._crc)
        self._left -= end - at
        if self._left == 0:
            if self._crc != self._expected_crc:
                raise CorruptionError("frame checksum", self._where, f"{self._crc:08x}",
                                      f"{self._expected_crc:08x}")  # fmt: skip
            self._passed += FRAME_HEADER_BYTES + self._stored
            self._part = self._footer if self._kind == FrameKind.TABLE else self._frame_header
        return end

    def _footer(self, data: memoryview, at: int) -> int:
        length = self._bytes_total - self._passed
        if not TRAILER_BYTES <= length <= FOOTER_BYTES_MAX + TRAILER_BYTES:
            raise CorruptionError("bytes behind the frame table", self._where,
                                  f"{TRAILER_BYTES} to {FOOTER_BYTES_MAX + TRAILER_BYTES}",
                                  length)  # fmt: skip
        end = at + length
        if len(data) < end:
            return at
        body, trailer = (
            bytes(data[at : end - TRAILER_BYTES]),
            bytes(data[end - TRAILER_BYTES : end]),
        )
        said, crc = layer_file.unpack_trailer(trailer, self._name.text)
        if (said, crc) != (len(body), self._footer_crc):
            raise CorruptionError("footer (length, checksum)", self._where,
                                  (len(body), f"{self._footer_crc:08x}"),
                                  (said, f"{crc:08x}"))  # fmt: skip
        footer = layer_file.unpack_footer(body, crc, self._identity, self._name, self._name.text)
        directory, table = self._starts[FrameKind.DIRECTORY], self._starts[FrameKind.TABLE]
        expected = (self._frames, directory, table - directory, table, self._passed - table)
        found = (footer.frames, *footer[-4:])
        if found != expected:
            raise CorruptionError("footer (frames, directory, table)", self._where, expected,
                                  found)  # fmt: skip
        self._passed += length
        self._part = self._nothing
        return end

    def _nothing(self, data: memoryview, at: int) -> int:
        raise CorruptionError("length of the bundle", self._name.text, self._bytes_total,
                              f"{len(data) - at} bytes more")  # fmt: skip

    @property
    def _where(self) -> str:
        return f"{self._name.text} offset {self._passed}"
