"""Small things that ordinary Python parses, a file or a value at a time.

    input    the name of a format | u8 0 | bytes

Formats that a checksum guards are mostly given a right one after the change; of those that are
msgpack, values are mostly exchanged for others, so that what is read still is msgpack.
"""

import struct
from collections.abc import Callable
from typing import Any

import msgpack
import zstandard
from crc32c import crc32c

from formats import (
    chunk_filter,
    cluster_path,
    control_file,
    index_value,
    journal_sums,
    layer_file,
    lsn,
    manifest,
    timeline_history,
    transaction,
    wal_tail,
)
from formats.chunk import ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.tar_stream import TarStream
from tools.fuzz.mutator import Mutator
from tools.fuzz.target import Target

SEGMENT_BYTES = 16 << 20
NAME = FileName.parse("l0-00000000-00000001-00000001.bundle")
IDENTITY = layer_file.identity_of(NAME)
ODD_VALUES: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**32, 2**63, 2**64 - 1, True, None, 1.5, float("inf"), "", "x", "l0", b"",
    b"\0" * 13, [], [1], {}, {"a": 1},
)  # fmt: skip
DATABASES = (
    index_value.LAYERS, index_value.FILES, index_value.CHUNKS, index_value.RELATIONS,
    index_value.META,
)  # fmt: skip
KEY_BYTES = 22
CONTROL_CRC_OFFSETS = {1300: 288, 1700: 288, 1800: 292}  # by pg_control's own version


# What reads each ----------------------------------------------------------------------------------


def read_manifest(data: bytes) -> None:
    state, _ = manifest.replay(data, "manifest")
    state.records()


def read_footer(data: bytes) -> None:
    layer_file.unpack_footer(data[4:], int.from_bytes(data[:4], "little"), IDENTITY, NAME, "bundle")


def read_frame(data: bytes) -> None:
    codec = zstandard.ZstdDecompressor()
    layer_file.unseal(data, layer_file.FrameKind.VERSIONS, 0, IDENTITY, codec, "frame")


def read_bundle_ends(data: bytes) -> None:
    layer_file.unpack_trailer(data[-layer_file.TRAILER_BYTES :], "bundle")
    layer_file.check_header(data[: layer_file.HEADER_BYTES], NAME, "bundle")


def read_index_value(data: bytes) -> None:
    key, value = data[1 : 1 + KEY_BYTES], data[1 + KEY_BYTES :]
    kind = data[0] % 6
    if kind == 0:
        index_value.unpack_layers(key, value)
    elif kind == 1:
        index_value.unpack_file(key, value)
    elif kind == 2:
        index_value.unpack_stripes(key, value)
    elif kind == 3:
        index_value.unpack_relation(key, value)
    elif kind == 4:
        index_value.unpack_state(value)
    else:
        index_value.unpack_sum(index_value.LAYERS, value)


def read_control(data: bytes) -> None:
    control_file.parse_control_file(data)
    control_file.with_checkpoint(data, bytes(88))


def read_tar(data: bytes) -> None:
    stream = TarStream("archive", lambda member: None, has_end_mark=bool(data[0] & 1))
    stream.feed(memoryview(data)[1:])
    stream.finish()


def read_tail(data: bytes) -> None:
    floor = SEGMENT_BYTES

    def reader(at: int, length: int) -> bytes:
        assert floor <= at and at + length <= floor + len(data), "reads beyond the WAL"
        return data[at - floor : at - floor + length]

    wal_tail.last_record_end(reader, floor, floor + len(data), SEGMENT_BYTES)
    wal_tail.first_record_start(reader, floor, floor + len(data), SEGMENT_BYTES)


def read_name(data: bytes) -> None:
    """Names that people or files give: each parser says ValueError to those of the others."""
    text = data[1:].decode("utf-8", "replace")
    parse: tuple[Callable[[str], object], ...] = (
        FileName.parse, ChunkKey.parse, cluster_path.small_file_key, chunk_filter.parse, lsn.parse,
        timeline_history.parse_history_name,
    )  # fmt: skip
    found = parse[data[0] % len(parse)](text)
    if isinstance(found, ChunkKey) and found.kind in (1, 2, 3):
        assert ChunkKey.parse(found.name) == found, "another chunk by its own name"


def read_transaction(data: bytes) -> None:
    """struct.error is what the caller, engine/cluster_records.py, expects of what is cut off."""
    try:
        transaction.parse_transaction(0, True, data[1:], 14 + data[0] % 5)
    except struct.error as error:
        raise ValueError("transaction record is cut off") from error


# What makes checksums right again -----------------------------------------------------------------


def repair_manifest(data: bytes) -> bytes:
    out = bytearray(data)
    out[: manifest.HEADER_BYTES] = manifest.pack_header()
    pos, head = manifest.HEADER_BYTES, manifest.ENTRY_HEAD_BYTES
    crc = int.from_bytes(out[pos - 4 : pos], "little")
    while pos + head <= len(out):
        start = pos + head
        length = min(int.from_bytes(out[pos : pos + 4], "little"), len(out) - start - 1)
        if length < 0:
            break
        size = length.to_bytes(4, "little")
        crc = crc32c(bytes(out[start : start + length]), crc32c(size, crc))
        out[pos:start] = struct.pack("<III", length, crc32c(size), crc)
        out[start + length : start + length + 1] = manifest.END_MARK
        pos = start + length + 1
    return bytes(out)


def repair_footer(data: bytes) -> bytes:
    body = data[4:]
    crc = crc32c(len(body).to_bytes(4, "little"), crc32c(body, IDENTITY))
    return crc.to_bytes(4, "little") + body


def repair_frame(data: bytes) -> bytes:
    head, stored = bytearray(data[:16].ljust(16, b"\0")), data[20:]
    head[:2] = bytes([layer_file.FrameKind.VERSIONS, head[1] & 1])
    head[2:8] = bytes(6)
    head[12:16] = len(stored).to_bytes(4, "little")
    return (
        bytes(head) + crc32c(stored, crc32c(bytes(head), IDENTITY)).to_bytes(4, "little") + stored
    )


def repair_index_value(data: bytes) -> bytes:
    kind, key, value = data[0] % 6, data[1 : 1 + KEY_BYTES], data[1 + KEY_BYTES :]
    count, payload = int.from_bytes(value[:4], "little"), value[8:]
    database = DATABASES[min(kind, 4)]
    sealed_as = key if kind < 4 else index_value.STATE_KEY
    if kind == 5:
        sealed_as = index_value.sum_key(index_value.LAYERS)
    return data[:1] + key + index_value.seal(database, sealed_as, count, payload)


def repair_control(data: bytes) -> bytes:
    version = int.from_bytes(data[8:12], "little")
    offset = CONTROL_CRC_OFFSETS.get(version, 0)
    if len(data) < offset + 4:
        return data
    crc = crc32c(data[:offset]).to_bytes(4, "little")
    return data[:offset] + crc + data[offset + 4 :]


def repair_tar(data: bytes) -> bytes:
    out = bytearray(data)
    for at in range(1, len(out) - 511, 512):
        if any(out[at : at + 512]):
            fields = sum(out[at : at + 512]) - sum(out[at + 148 : at + 156]) + 8 * 32
            out[at + 148 : at + 156] = b"%06o\0 " % fields
    return bytes(out)


def repair_sums(data: bytes) -> bytes:
    head = len(journal_sums.MAGIC)
    out = data[:head]
    for at in range(head, len(data) - 11, 12):
        out += data[at : at + 8] + crc32c(data[at : at + 8]).to_bytes(4, "little")
    return out


def unrepaired(data: bytes) -> bytes:
    return data


FORMATS: dict[bytes, tuple[Callable[[bytes], object], Callable[[bytes], bytes]]] = {
    b"manifest": (read_manifest, repair_manifest),
    b"footer": (read_footer, repair_footer),
    b"frame": (read_frame, repair_frame),
    b"bundle ends": (read_bundle_ends, unrepaired),
    b"index": (read_index_value, repair_index_value),
    b"control": (read_control, repair_control),
    b"tar": (read_tar, repair_tar),
    b"sums": (journal_sums.parse_sums, repair_sums),
    b"tail": (read_tail, unrepaired),
    b"history": (lambda data: timeline_history.parse_history(data, "file"), unrepaired),
    b"name": (read_name, unrepaired),
    b"transaction": (read_transaction, unrepaired),
}
OUTCOMES = {number: name.decode() for number, name in enumerate(FORMATS)}


class MetadataTarget(Target):
    """The loop of Target in Python: a thousand times slower, for what is read once a file."""

    mutator: Mutator

    def run(self, seed: int, first: int, count: int) -> None:
        for index in range(first, first + count):
            self.index = index
            self.place[0] = index
            content = self.input(seed, index)
            self.run_input(content)

    def input(self, seed: int, index: int) -> bytes:
        m = self.mutator
        m.begin(seed, index)
        m.load(m.below(m.count))
        name, _, _ = m.content().partition(b"\0")
        start = len(name) + 1
        if name in (b"manifest", b"footer") and m.below(4):
            m.put(name + b"\0" + exchanged(m, name, m.content()[start:]))
        for _ in range(m.below(4)):
            if m.below(4) == 0:
                at = start + m.below(m.length - start + 1)
                m.resize(at, min(m.below(16), m.length - at), m.below(16))
            else:
                m.change(start, m.length)
        content: bytes = m.content()
        repair = FORMATS[name][1]
        if m.below(16) and len(content) > start:
            return content[:start] + repair(content[start:])
        return content

    def run_input(self, content: bytes) -> None:
        name, _, data = content.partition(b"\0")
        if name not in FORMATS or not data:
            self._count(ValueError("fuzz: not an input of this target"))
            return
        try:
            FORMATS[name][0](data)
            self.outcomes[list(FORMATS).index(name)] += 1
        except (CorruptionError, ValueError, IndexError) as error:
            self._count(error)


def exchanged(m: Mutator, name: bytes, data: bytes) -> bytes:
    """One value of the msgpack in a footer or in a manifest's entry, another one in its place."""
    if name == b"footer":
        footer: bytes = msgpack.packb(exchange(m, msgpack.unpackb(data[4:])))
        return data[:4] + footer
    out, pos, head = data[: manifest.HEADER_BYTES], manifest.HEADER_BYTES, manifest.ENTRY_HEAD_BYTES
    while pos + head <= len(data):
        length = int.from_bytes(data[pos : pos + 4], "little")
        body = data[pos + head : pos + head + length]
        if m.below(3) == 0:
            body = msgpack.packb(exchange(m, msgpack.unpackb(body)))
        out += len(body).to_bytes(4, "little") + bytes(head - 4) + body + manifest.END_MARK
        pos += head + length + 1
    return out


def exchange(m: Mutator, value: Any) -> Any:
    """The value with a part of it exchanged."""
    if isinstance(value, dict) and value and m.below(8):
        key = list(value)[m.below(len(value))]
        return {**value, key: exchange(m, value[key])}
    if isinstance(value, list) and value and m.below(8):
        at = m.below(len(value))
        return [*value[:at], exchange(m, value[at]), *value[at + 1 :]]
    return ODD_VALUES[m.below(len(ODD_VALUES))]
