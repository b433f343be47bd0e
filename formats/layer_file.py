"""A bundle: the file of many layers. docs/format.md has the bytes; this is their code.

    header | frame of versions × n | frame: layer directory | frame: frame table | footer | trailer

The header says which file this is; its CRC is the file's *identity*, and every later CRC continues
from it. So a frame that lies in another file, or elsewhere in its own, does not check, however
well it is written. Every byte is under exactly one CRC or is compared with what it must be.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import msgpack
import zstandard
from crc32c import crc32c

from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName

FORMAT_VERSION = 1
HEADER_MAGIC = b"pgbundle"
TRAILER_MAGIC = b"pgbndend"
ZSTD_LEVEL = 1
ZSTD_LEVEL_L0 = -1
RAW_BYTES_MAX = 1 << 30

_HEADER = struct.Struct("<8sHBBIII")
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<BBHIII")
_TRAILER = struct.Struct("<II8s")
HEADER_BYTES = _HEADER.size + 4
FRAME_HEADER_BYTES = _FRAME.size + 4
TRAILER_BYTES = _TRAILER.size


class LayerKind(IntEnum):
    DELTA = 1
    IMAGE = 2
    FUZZY_IMAGE = 3  # of a base backup: redo keeps PostgreSQL's interlock over it


class FrameKind(IntEnum):
    VERSIONS = 1
    DIRECTORY = 2
    TABLE = 3


class Codec(IntEnum):
    PLAIN = 0
    ZSTD = 1


class Pieces(Protocol):
    """What `multi_compress_to_buffer` gives."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> zstandard.BufferSegment: ...


class Compressor(Protocol):
    """What is used of a ZstdCompressor."""

    def compress(self, data: bytes | memoryview) -> bytes: ...

    def multi_compress_to_buffer(
        self, data: zstandard.BufferWithSegments | zstandard.BufferWithSegmentsCollection
    ) -> Pieces: ...


class Footer(NamedTuple):
    """What a bundle says of itself; LSNs half-open, offsets and lengths in bytes."""

    kind: str
    tenant: str
    timeline: str
    postgres_version: int
    lsn_start: int
    lsn_end: int
    layers: int
    frames: int
    versions: int
    directory_offset: int
    directory_length: int
    table_offset: int
    table_length: int


def compressor(kind: FileKind) -> Compressor:
    """One per writer: it must not be used by two threads at once."""
    level = ZSTD_LEVEL_L0 if kind == FileKind.L0 else ZSTD_LEVEL
    return zstandard.ZstdCompressor(level=level, write_content_size=False, write_checksum=False)


def pack_header(name: FileName) -> bytes:
    head = _HEADER.pack(
        HEADER_MAGIC, FORMAT_VERSION, name.kind, 0, name.epoch, name.run, name.sequence
    )
    return head + _CRC.pack(crc32c(head))


def identity_of(name: FileName) -> int:
    """The CRC from which all others in the file continue."""
    header = pack_header(name)
    return int(_CRC.unpack_from(header, _HEADER.size)[0])


def check_header(data: bytes, name: FileName, path: str) -> None:
    """That a file begins as the bundle `name` must."""
    expected = pack_header(name)
    if data == expected:
        return
    if data[:8] == HEADER_MAGIC and len(data) == HEADER_BYTES:
        version = int.from_bytes(data[8:10], "little")
        if version != FORMAT_VERSION and _CRC.pack(crc32c(data[:-4])) == data[-4:]:
            raise CorruptionError("bundle of an unknown format version", f"{path} offset 8",
                                  FORMAT_VERSION, version)  # fmt: skip
    raise CorruptionError("bundle header", f"{path} offset 0", expected.hex(), data.hex())


def seal(
    kind: FrameKind, number: int, raw: bytes | memoryview, identity: int, codec: Compressor
) -> tuple[bytes, bytes]:
    """A frame as (header, stored bytes); stored plain when compression gains nothing."""
    return _seal(kind, number, raw, codec.compress(raw), identity)


def seal_frames(
    first: int, raw: memoryview, places: memoryview, identity: int, codec: Compressor
) -> Iterator[tuple[bytes, bytes]]:
    """`seal` for frames of versions, numbered from `first`, compressed in one call.

    `places`: offset and length of each in `raw`. The call holds no lock of the interpreter's, so
    that a busy thread beside it is not woken for every frame.
    """
    pieces = codec.multi_compress_to_buffer(zstandard.BufferWithSegments(raw, places))
    for i in range(len(pieces)):
        start, length = places[2 * i], places[2 * i + 1]
        frame = raw[start : start + length]
        yield _seal(FrameKind.VERSIONS, first + i, frame, pieces[i].tobytes(), identity)


def _seal(
    kind: FrameKind, number: int, raw: bytes | memoryview, stored: bytes, identity: int
) -> tuple[bytes, bytes]:
    used = Codec.ZSTD
    if len(stored) >= len(raw):
        stored, used = bytes(raw), Codec.PLAIN
    head = _FRAME.pack(kind, used, 0, number, len(raw), len(stored))
    return head + _CRC.pack(crc32c(stored, crc32c(head, identity))), stored


def unseal(
    data: bytes | memoryview, kind: FrameKind, number: int, identity: int, codec: Any, where: str
) -> bytes:
    """The raw bytes of a whole frame, header included in `data`; `codec` is a ZstdDecompressor."""
    if len(data) < FRAME_HEADER_BYTES:
        raise CorruptionError("frame cut off", where, f"{FRAME_HEADER_BYTES} bytes", len(data))
    crc = crc32c(memoryview(data)[FRAME_HEADER_BYTES:], crc32c(data[: _FRAME.size], identity))
    found = _CRC.unpack_from(data, _FRAME.size)[0]
    if crc != found:
        raise CorruptionError("frame checksum", where, f"{crc:08x}", f"{found:08x}")
    got_kind, used, zero, got_number, raw_length, stored_length = _FRAME.unpack_from(data)
    expected = (kind, number, 0, len(data) - FRAME_HEADER_BYTES)
    if (got_kind, got_number, zero, stored_length) != expected:
        raise CorruptionError("frame header (kind, number, zero, length)", where, expected,
                              (got_kind, got_number, zero, stored_length))  # fmt: skip
    stored = memoryview(data)[FRAME_HEADER_BYTES:]
    if used == Codec.PLAIN:
        raw = bytes(stored)
    elif used == Codec.ZSTD and raw_length <= RAW_BYTES_MAX:
        try:
            # A size that the frame itself claims is what the library would allocate.
            claimed = zstandard.frame_content_size(stored)
            if claimed not in (-1, raw_length):
                raise CorruptionError("frame raw length", where, raw_length, claimed)
            raw = codec.decompress(stored, max_output_size=raw_length)
        except zstandard.ZstdError as error:
            raise CorruptionError("frame compression", where, "a zstd frame", error) from error
    else:
        raise CorruptionError("frame codec and raw length", where, "codec 0 or 1, at most 1 GiB",
                              (used, raw_length))  # fmt: skip
    if len(raw) != raw_length:
        raise CorruptionError("frame raw length", where, raw_length, len(raw))
    return raw


def pack_footer(footer: Footer, identity: int) -> bytes:
    """Footer and trailer: the file's last bytes."""
    body: bytes = msgpack.packb(footer._asdict())
    length = len(body).to_bytes(4, "little")
    crc = crc32c(length, crc32c(body, identity))
    return body + _TRAILER.pack(len(body), crc, TRAILER_MAGIC)


def unpack_trailer(data: bytes, path: str) -> tuple[int, int]:
    """The length and the CRC of the footer, from the file's last TRAILER_BYTES."""
    if len(data) != TRAILER_BYTES or data[-8:] != TRAILER_MAGIC:
        raise CorruptionError("bundle trailer", f"{path} last {TRAILER_BYTES} bytes",
                              TRAILER_MAGIC, data[-8:])  # fmt: skip
    length, crc, _ = _TRAILER.unpack(data)
    return length, crc


def unpack_footer(body: bytes, crc: int, identity: int, name: FileName, path: str) -> Footer:
    where = f"{path} footer"
    found = crc32c(len(body).to_bytes(4, "little"), crc32c(body, identity))
    if found != crc:
        raise CorruptionError("footer checksum", where, f"{crc:08x}", f"{found:08x}")
    try:
        fields = msgpack.unpackb(body)
        footer = Footer(**fields)
        for field, kind in Footer.__annotations__.items():
            value = fields[field]
            if not isinstance(value, kind) or kind is int and not 0 <= value < 1 << 64:
                raise ValueError(f"{field} is {value!r}")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptionError("footer fields", where, Footer._fields, error) from error
    if footer.kind != name.kind_text:
        raise CorruptionError("footer kind", where, name.kind_text, footer.kind)
    return footer
