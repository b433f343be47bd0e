"""Outlines of bundles: what the index takes of each, kept in one place beside them.

    header | outline × n

    header    magic "pgoutlin" | u32 format version | u32 n | u32 CRC of these
    outline   u32 length | u32 CRC | body, msgpack: [name, bytes, footer fields, layer directory as
              the file has it, bytes stored of each row, changes of histories]

A bundle never changes, so its outline stays true, and so does what is outlined nowhere: who needs
it asks the bundle. CRCs continue from the bundle's identity (formats/layer_file.py); the footer and
the layer directory still have the bundle's own.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgpack
from crc32c import crc32c

from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_file import Footer, identity_of

FILE_NAME = "outlines"  # in a data directory that is to begin with them
FORMAT_VERSION = 1
MAGIC = b"pgoutlin"
_HEADER = struct.Struct("<8sII")
_CRC = struct.Struct("<I")
_HEAD = struct.Struct("<II")
HEADER_BYTES = _HEADER.size + _CRC.size


class HistoryChange(NamedTuple):
    """What the history in a row of the layer directory says: the newest state, or a cut."""

    row: int
    lsn: int
    exists: bool
    n_blocks: int
    is_cut: bool


class Outline(NamedTuple):
    """Of one bundle. `stored`: bytes of each layer in the file, by row of the directory; `changes`
    of each history: all cuts, and of the other changes the newest one."""

    name: FileName
    bytes_total: int
    footer: Footer
    directory_frame: bytes
    stored: list[int]
    changes: list[HistoryChange]


def pack_outline(outline: Outline) -> bytes:
    body: bytes = msgpack.packb([outline.name.text, *outline[1:]])
    return _HEAD.pack(len(body), crc32c(body, identity_of(outline.name))) + body


def pack_outlines(packed: Mapping[FileName, bytes]) -> Iterator[bytes]:
    """The pieces of a file with these, each from `pack_outline`."""
    header = _HEADER.pack(MAGIC, FORMAT_VERSION, len(packed))
    yield header + _CRC.pack(crc32c(header))
    for name in sorted(packed):
        yield packed[name]


def size_of(packed: Iterable[bytes]) -> int:
    """Bytes of the file with these."""
    return HEADER_BYTES + sum(map(len, packed))


def split_outlines(data: bytes, path: str) -> dict[FileName, bytes]:
    """Each as `pack_outline` gave it. CorruptionError."""
    return {outline.name: packed for outline, packed in _outlines(data, path)}


def unpack_outlines(data: bytes, path: str) -> dict[FileName, Outline]:
    """CorruptionError."""
    return {outline.name: outline for outline, _ in _outlines(data, path)}


def _outlines(data: bytes, path: str) -> Iterator[tuple[Outline, bytes]]:
    at = HEADER_BYTES
    for _ in range(_check_header(data, path)):
        where = f"{path} offset {at}"
        if len(data) < at + _HEAD.size:
            raise CorruptionError("outline cut off", where, f"{_HEAD.size} bytes", len(data) - at)
        length, crc = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + length
        outline = _unpack_outline(data[at + _HEAD.size : end], crc, where)
        yield outline, data[at:end]
        at = end
    if at != len(data):
        raise CorruptionError("outlines", path, f"an end at offset {at}", f"{len(data)} bytes")


def _check_header(data: bytes, path: str) -> int:
    """How many outlines follow."""
    where = f"{path} offset 0"
    if len(data) < HEADER_BYTES or data[:8] != MAGIC:
        raise CorruptionError("outlines", where, MAGIC, data[:8])
    found, expected = _CRC.unpack_from(data, _HEADER.size)[0], crc32c(data[: _HEADER.size])
    if found != expected:
        raise CorruptionError("outlines' checksum", where, f"{expected:08x}", f"{found:08x}")
    _, version, count = _HEADER.unpack_from(data)
    if version != FORMAT_VERSION:
        raise CorruptionError("outlines of an unknown format version", where, FORMAT_VERSION,
                              version)  # fmt: skip
    return int(count)


def _unpack_outline(body: bytes, crc: int, where: str) -> Outline:
    try:
        fields: list[Any] = msgpack.unpackb(body)
        text, bytes_total, footer, directory_frame, stored, changes = fields
        name = FileName.parse(text)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CorruptionError("outline", where, Outline._fields, error) from error
    found = crc32c(body, identity_of(name))
    if found != crc:
        raise CorruptionError("outline's checksum", where, f"{crc:08x}", f"{found:08x}")
    changes = [HistoryChange(*change) for change in changes]
    return Outline(name, bytes_total, Footer(*footer), directory_frame, stored, changes)
