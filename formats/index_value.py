"""What the LMDB index holds: keys and values of its six databases, and the seal on each value.

    value = u32 count | u32 CRC | payload        the CRC is over database name, key, count, payload

LMDB checks nothing itself, so a value carries its own proof: that it is whole, and that it belongs
to this key of this database. That a *key* is missing shows in `meta`, which has for each database
how many entries there are and the sum of their CRCs.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from crc32c import crc32c

from formats.errors import CorruptionError
from formats.file_name import FileName

FORMAT_VERSION = 2
L0 = b"l0"
LAYERS = b"layers"
FILES = b"files"
CHUNKS = b"chunks"
RELATIONS = b"relations"
META = b"meta"
DATABASES = (L0, LAYERS, FILES, CHUNKS, RELATIONS, META)
STATE_KEY = b"state"

_SEAL = struct.Struct("<II")
_ENTRY = struct.Struct("<QQ13sBHHIIIQI")
_FILE = struct.Struct("<QQQQIIIB")
_RELATION = struct.Struct("<QIB")
_CUT = struct.Struct("<QIB")
_STRIPES = struct.Struct("<I")
_STATE = struct.Struct("<IQQ")
_SUM = struct.Struct("<QQ")
ENTRY_BYTES = _ENTRY.size
IN_USE, SETTLED = 1, 2  # of a file; an L0 bundle that counts below L0


class LayerEntry(NamedTuple):
    """One layer of a stripe: where it is, and what it can have; blocks are of the chunk."""

    lsn_start: int
    lsn_end: int
    file: FileName
    kind: int  # LayerKind
    block_start: int
    block_end: int
    number: int
    frame_start: int
    frame_end: int
    bytes_stored: int  # in the file; of a frame with several layers, an equal share
    versions: int


class FileEntry(NamedTuple):
    bytes_total: int
    bytes_live: int
    lsn_start: int
    lsn_end: int
    footer_crc: int
    layers: int
    layers_removed: int = 0  # of those
    state: int = 1  # IN_USE or SETTLED


class Cut(NamedTuple):
    """From `lsn` on blocks at or above `n_blocks` mean nothing that was written before."""

    lsn: int
    n_blocks: int
    exists: bool


class RelationState(NamedTuple):
    """A relation fork, SLRU segment or file at the durable LSN."""

    lsn: int  # of the last change of its size or existence
    n_blocks: int
    exists: bool
    cuts: tuple[Cut, ...] = ()  # oldest first


class IndexState(NamedTuple):
    format_version: int
    serial: int  # of the manifest entry up to which the index is
    durable_lsn: int


def seal(database: bytes, key: bytes, count: int, payload: bytes) -> bytes:
    return _SEAL.pack(count, _crc(database, key, count, payload)) + payload


def _crc(database: bytes, key: bytes, count: int, payload: bytes) -> int:
    return int(crc32c(b"".join((database, key, count.to_bytes(4, "little"), payload))))


def unseal(database: bytes, key: bytes, value: bytes) -> tuple[int, bytes]:
    """The count and payload of a value that belongs to its key."""
    if len(value) < _SEAL.size:
        where = f"index, {database.decode()} key {key.hex()}"
        raise CorruptionError("index value", where, f"{_SEAL.size} bytes", len(value))
    count, crc = _SEAL.unpack_from(value)
    payload = value[_SEAL.size :]
    expected = _crc(database, key, count, payload)
    if crc != expected:
        where = f"index, {database.decode()} key {key.hex()}"
        raise CorruptionError("index value checksum", where, f"{expected:08x}", f"{crc:08x}")
    return count, payload


def seal_crc(value: bytes) -> int:
    """The CRC in a sealed value: what `meta` sums."""
    return int(_SEAL.unpack_from(value)[1])


def stripe_key(chunk_key: bytes, stripe: int) -> bytes:
    return chunk_key + stripe.to_bytes(4, "big")


def sort_newest_first(entries: Iterable[LayerEntry]) -> list[LayerEntry]:
    """Of equal ranges a delta comes before an image: a fuzzy image must not hide its torn marks."""
    return sorted(
        entries, key=lambda e: (e.lsn_end, e.lsn_start, -e.kind, e.file, e.number), reverse=True
    )


def pack_layers(key: bytes, entries: list[LayerEntry]) -> bytes:
    """The layers of a stripe; stored blocks count within the stripe, the last one inclusive."""
    base = int.from_bytes(key[-4:], "big") << 14
    payload = b"".join(
        _ENTRY.pack(
            e.lsn_start, e.lsn_end, e.file.pack(), e.kind, e.block_start - base,
            e.block_end - 1 - base, e.number, e.frame_start, e.frame_end, e.bytes_stored,
            e.versions,
        )
        for e in entries
    )  # fmt: skip
    return seal(LAYERS, key, len(entries), payload)


def unpack_layers(key: bytes, value: bytes) -> tuple[LayerEntry, ...]:
    count, payload = unseal(LAYERS, key, value)
    _check_length(LAYERS, key, payload, count * _ENTRY.size)
    base = int.from_bytes(key[-4:], "big") << 14
    return tuple(
        LayerEntry(start, end, _file_name(file), kind, base + first, base + last + 1, *place)
        for start, end, file, kind, first, last, *place in _ENTRY.iter_unpack(payload)
    )


def pack_file(key: bytes, entry: FileEntry) -> bytes:
    return seal(FILES, key, 1, _FILE.pack(*entry))


def unpack_file(key: bytes, value: bytes) -> FileEntry:
    _, payload = unseal(FILES, key, value)
    _check_length(FILES, key, payload, _FILE.size)
    return FileEntry(*_FILE.unpack(payload))


def pack_stripes(key: bytes, stripes: int) -> bytes:
    """Which stripes of a chunk have layers, one bit each."""
    return seal(CHUNKS, key, stripes.bit_count(), _STRIPES.pack(stripes))


def unpack_stripes(key: bytes, value: bytes) -> int:
    count, payload = unseal(CHUNKS, key, value)
    _check_length(CHUNKS, key, payload, _STRIPES.size)
    stripes = int(_STRIPES.unpack(payload)[0])
    if stripes.bit_count() != count:
        raise CorruptionError("index count", f"index, chunks key {key.hex()}",
                              stripes.bit_count(), count)  # fmt: skip
    return stripes


def pack_relation(key: bytes, state: RelationState) -> bytes:
    head = _RELATION.pack(state.lsn, state.n_blocks, state.exists)
    cuts = b"".join(_CUT.pack(*cut) for cut in state.cuts)
    return seal(RELATIONS, key, len(state.cuts), head + cuts)


def unpack_relation(key: bytes, value: bytes) -> RelationState:
    count, payload = unseal(RELATIONS, key, value)
    _check_length(RELATIONS, key, payload, _RELATION.size + count * _CUT.size)
    lsn, n_blocks, exists = _RELATION.unpack_from(payload)
    cuts = tuple(
        Cut(at, blocks, bool(there))
        for at, blocks, there in _CUT.iter_unpack(payload[_RELATION.size :])
    )
    return RelationState(lsn, n_blocks, bool(exists), cuts)


def pack_state(state: IndexState) -> bytes:
    return seal(META, STATE_KEY, 1, _STATE.pack(*state))


def version_of(value: bytes) -> int:
    """The format version of the index whose state this is, a known one or not."""
    _, payload = unseal(META, STATE_KEY, value)
    if len(payload) < 4:
        _check_length(META, STATE_KEY, payload, _STATE.size)
    return int.from_bytes(payload[:4], "little")


def unpack_state(value: bytes) -> IndexState:
    _, payload = unseal(META, STATE_KEY, value)
    _check_length(META, STATE_KEY, payload, _STATE.size)
    state = IndexState(*_STATE.unpack(payload))
    if state.format_version != FORMAT_VERSION:
        raise CorruptionError("index of an unknown format version", "index, meta", FORMAT_VERSION,
                              state.format_version)  # fmt: skip
    return state


def sum_key(database: bytes) -> bytes:
    return b"sum:" + database


def pack_sum(database: bytes, count: int, crc_sum: int) -> bytes:
    return seal(META, sum_key(database), 1, _SUM.pack(count, crc_sum))


def unpack_sum(database: bytes, value: bytes) -> tuple[int, int]:
    """How many entries a database has, and the sum of their CRCs modulo 2^64."""
    key = sum_key(database)
    _, payload = unseal(META, key, value)
    _check_length(META, key, payload, _SUM.size)
    count, crc_sum = _SUM.unpack(payload)
    return count, crc_sum


@lru_cache(4096)
def _file_name(packed: bytes) -> FileName:
    """Many layers are in few files."""
    return FileName.unpack(packed)


def _check_length(database: bytes, key: bytes, payload: bytes, expected: int) -> None:
    if len(payload) != expected:
        where = f"index, {database.decode()} key {key.hex()}"
        raise CorruptionError("index value length", where, expected, len(payload))
