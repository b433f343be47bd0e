"""The manifest: what is true of a data directory. docs/format.md has the bytes; this is their code.

    header | entry × n        entry = u32 length | u32 head CRC | u32 CRC | body | end mark 0xA5

An entry is one step from one true state to the next: its body is msgpack, [serial, record, ...].
Serials rise by one. Each CRC continues from that of the entry before it, the first from the
header's, so entries cannot be lost, repeated or exchanged in the middle. `Manifest` is the state:
what replaying the entries gives.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any, get_args, get_origin

import msgpack
from crc32c import crc32c

from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.manifest_record import (
    BLOCK_BYTES,
    RECORDS,
    STRIPE_BLOCKS,
    BundleSettled,
    EndsAt,
    FileAdded,
    FileRemoved,
    FileUploaded,
    Identity,
    LayersRemoved,
    LeaseDropped,
    LeaseSet,
    Opened,
    PointDropped,
    PointSet,
    Progress,
    Record,
    TimelineSwitch,
)

FORMAT_VERSION = 1
MAGIC = b"pgmanfst"
END_MARK = b"\xa5"
SECTOR_BYTES = 512  # what a disk writes whole or not at all

_HEADER = struct.Struct("<8sI")
HEADER_BYTES = _HEADER.size + 4
_HEAD = struct.Struct("<III")
ENTRY_HEAD_BYTES = _HEAD.size


FileRecord = FileAdded | FileRemoved | LayersRemoved | BundleSettled | FileUploaded


@dataclass
class Manifest:
    """The state after the entries so far."""

    serial: int = 0
    run: int = 0
    identity: Identity | None = None
    files: dict[FileName, FileAdded] = field(default_factory=dict)
    removed: dict[FileName, bytes] = field(default_factory=dict)  # rows of files, as LayersRemoved
    settled: set[FileName] = field(default_factory=set)
    uploaded: dict[FileName, int] = field(default_factory=dict)  # epoch under which
    points: dict[str, PointSet] = field(default_factory=dict)
    leases: dict[str, LeaseSet] = field(default_factory=dict)
    durable_lsn: int = 0
    horizon_lsn: int = 0
    backup_start_lsn: int = 0
    backup_end_lsn: int = 0
    ends_at_lsn: int | None = None
    timelines: list[TimelineSwitch] = field(default_factory=list)

    def apply(self, record: Record) -> None:
        """Take one record; ValueError if it cannot follow what is true so far."""
        if isinstance(record, Identity):
            if self.identity is not None:
                raise ValueError("a second identity")
            self.identity = record
        elif self.identity is None:
            raise ValueError("a record before the identity")
        elif isinstance(record, Opened):
            if record.run <= self.run:
                raise ValueError(f"run {record.run} after run {self.run}")
            self.run = record.run
        elif isinstance(record, FileRecord):
            self._apply_to_files(record)
        elif isinstance(record, Progress):
            for field_name, lsn in asdict(record).items():
                if lsn is not None:
                    setattr(self, field_name, lsn)
        elif isinstance(record, TimelineSwitch):
            self.timelines.append(record)
        elif isinstance(record, EndsAt):
            self.ends_at_lsn = record.lsn
        else:
            self._apply_to_retained(record)

    def _apply_to_files(self, record: FileRecord) -> None:
        name = FileName.parse(record.name)
        if isinstance(record, FileAdded):
            if name in self.files:
                raise ValueError(f"{record.name} added twice")
            self.files[name] = record
        elif name not in self.files:
            raise ValueError(f"{record.name}: {record.tag}, but never added")
        elif isinstance(record, FileRemoved):
            del self.files[name]
            self.removed.pop(name, None)
            self.uploaded.pop(name, None)
            self.settled.discard(name)
        elif isinstance(record, BundleSettled):
            if name.kind != FileKind.L0 or name in self.settled:
                raise ValueError(f"{record.name} is not an L0 bundle that could be settled")
            self.settled.add(name)
        elif isinstance(record, FileUploaded):
            self.uploaded[name] = record.epoch
        elif any(record.rows):  # else it says nothing
            self.removed[name] = _either(self.removed.get(name, b""), record.rows)

    def _apply_to_retained(self, record: PointSet | PointDropped | LeaseSet | LeaseDropped) -> None:
        name = record.name
        if isinstance(record, PointSet):
            if name in self.points:
                raise ValueError(f"point {name} set twice")
            self.points[name] = record
        elif isinstance(record, LeaseSet):
            before = self.leases.get(name, record)
            if before.lsn != record.lsn:
                raise ValueError(f"lease {name} of LSN {before.lsn} set to LSN {record.lsn}")
            self.leases[name] = record
        else:
            word, held = (
                ("point", self.points)
                if isinstance(record, PointDropped)
                else ("lease", self.leases)
            )
            if held.pop(name, None) is None:
                raise ValueError(f"{word} {name} dropped but never set")

    def copy(self) -> "Manifest":
        return replace(
            self, files=dict(self.files), removed=dict(self.removed), settled=set(self.settled),
            uploaded=dict(self.uploaded), points=dict(self.points), leases=dict(self.leases),
            timelines=list(self.timelines),
        )  # fmt: skip

    def records(self) -> list[Record]:
        """Records that lead from nothing to this state, for a compact manifest."""
        records: list[Record] = [] if self.identity is None else [self.identity]
        if self.run:
            records.append(Opened(self.run))
        records.extend(self.files[name] for name in sorted(self.files))
        records.extend(LayersRemoved(n.text, self.removed[n]) for n in sorted(self.removed))
        records.extend(BundleSettled(name.text) for name in sorted(self.settled))
        records.extend(FileUploaded(n.text, self.uploaded[n]) for n in sorted(self.uploaded))
        records.extend(self.timelines)
        records.extend(self.points[name] for name in sorted(self.points))
        records.extend(self.leases[name] for name in sorted(self.leases))
        progress = {name.name: getattr(self, name.name) or None for name in fields(Progress)}
        if any(progress.values()):
            records.append(Progress(**progress))
        if self.ends_at_lsn is not None:
            records.append(EndsAt(self.ends_at_lsn))
        return records


def _either(one: bytes, other: bytes) -> bytes:
    """The bits that are set in either of two bitmaps."""
    bits = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return bits.to_bytes(max(len(one), len(other)), "little")


def pack_header() -> bytes:
    head = _HEADER.pack(MAGIC, FORMAT_VERSION)
    return head + crc32c(head).to_bytes(4, "little")


def check_header(data: bytes, path: str) -> int:
    """The CRC from which the first entry continues."""
    expected = pack_header()
    if data[:HEADER_BYTES] != expected:
        found = data[:HEADER_BYTES]
        version = int.from_bytes(found[8:12], "little")
        if found[:8] == MAGIC and crc32c(found[:12]).to_bytes(4, "little") == found[12:]:
            raise CorruptionError("manifest of an unknown format version", f"{path} offset 8",
                                  FORMAT_VERSION, version)  # fmt: skip
        raise CorruptionError("manifest header", f"{path} offset 0", expected.hex(), found.hex())
    return int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "little")


def pack_entry(serial: int, records: Sequence[Any], previous_crc: int) -> tuple[bytes, int]:
    """The bytes of an entry, and the CRC from which the next one continues.

    Records are dataclasses with a `tag`: those of the manifest, and of another log like it.
    """
    body = msgpack.packb([serial, *({"record": r.tag, **asdict(r)} for r in records)])
    length = len(body).to_bytes(4, "little")
    crc = crc32c(body, crc32c(length, previous_crc))
    return _HEAD.pack(len(body), crc32c(length), crc) + body + END_MARK, crc


@dataclass(frozen=True)
class Entry:
    end: int  # offset behind it
    serial: int
    records: list[Any]
    crc: int
    has_mark: bool  # False: all of it is there but the last byte of the file


def entries(data: bytes, path: str) -> Iterator[Entry]:
    """The whole entries of a manifest file; a torn tail ends them, anything else is an error.

    Torn is what a crash in the middle of an append leaves: a file that ends inside of an entry, or
    one of whose bytes the last, or those of any sector, were never written and read as zeros.
    """
    crc, pos, serial = check_header(data, path), HEADER_BYTES, None
    while pos + ENTRY_HEAD_BYTES <= len(data) and any(memoryview(data)[pos:]):
        entry = entry_at(data, pos, crc, path, RECORDS)
        if entry is None:
            return
        if serial is not None and entry.serial != serial + 1:
            raise CorruptionError("manifest serial", f"{path} offset {pos}", serial + 1,
                                  entry.serial)  # fmt: skip
        yield entry
        serial, crc = entry.serial, entry.crc
        pos = entry.end + (not entry.has_mark)


def entry_at(data: bytes, pos: int, crc: int, path: str, kinds: Mapping[str, type]) -> Entry | None:
    """The entry at an offset, with records of these kinds, that continues `crc`; None: it is torn.

    CorruptionError if it is none. `data` has at least its head.
    """
    length, head_crc, found = _HEAD.unpack_from(data, pos)
    where = f"{path} offset {pos}"
    if crc32c(data[pos : pos + 4]) != head_crc:
        if not any(memoryview(data)[pos + ENTRY_HEAD_BYTES :]) or _lacks_sector(data, pos):
            return None
        raise CorruptionError("manifest entry length", where, "a length that checks", length)
    start = pos + ENTRY_HEAD_BYTES
    end = start + length + 1
    if end > len(data):
        return None
    body = data[start : start + length]
    expected = crc32c(body, crc32c(data[pos : pos + 4], crc))
    mark = data[start + length : end]
    if found != expected:
        if end == len(data) and (mark == b"\0" or _lacks_sector(data, pos)):
            return None
        raise CorruptionError("manifest entry checksum", where, f"{expected:08x}", f"{found:08x}")
    if mark != END_MARK:
        if mark != b"\0" or end != len(data):
            raise CorruptionError("manifest entry end", where, END_MARK.hex(), mark.hex())
        end -= 1
    return Entry(end, *_unpack_body(body, where, kinds), found, mark == END_MARK)


def _lacks_sector(data: bytes, pos: int) -> bool:
    """Whether, from `pos` on, all that lies in one of the disk's sectors is zeros."""
    starts = (pos, *range(pos - pos % SECTOR_BYTES + SECTOR_BYTES, len(data), SECTOR_BYTES))
    return any(
        not any(memoryview(data)[start : start - start % SECTOR_BYTES + SECTOR_BYTES])
        for start in starts
    )


def replay(data: bytes, path: str) -> tuple[Manifest, Entry]:
    """The state that a manifest file says, and its last whole entry."""
    state, last = Manifest(), None
    for entry in entries(data, path):
        try:
            for record in entry.records:
                state.apply(record)
        except ValueError as error:
            where = f"{path} before offset {entry.end}"
            raise CorruptionError("manifest records", where, "what can follow", error) from error
        state.serial, last = entry.serial, entry
    if state.identity is None or last is None:
        raise CorruptionError("manifest", path, "an identity", "none")
    check_layout(state.identity, path)
    return state, last


def check_layout(identity: Identity, path: str) -> None:
    """CorruptionError if the data is laid out in another way than this program knows."""
    for name, ours in (("block_bytes", BLOCK_BYTES), ("stripe_blocks", STRIPE_BLOCKS)):
        if getattr(identity, name) != ours:
            raise CorruptionError(f"layout parameter {name}", path, ours, getattr(identity, name))


def _unpack_body(body: bytes, where: str, kinds: Mapping[str, type]) -> tuple[int, list[Any]]:
    try:
        serial, *items = msgpack.unpackb(body)
        return _checked("serial", serial, int), [_record(item, kinds) for item in items]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise CorruptionError("manifest records", where, sorted(kinds), error) from error


def _record(item: dict[str, Any], kinds: Mapping[str, type]) -> Any:
    """TypeError, KeyError or ValueError if it is none."""
    kind = kinds[_checked("record", item, dict).pop("record")]
    record = kind(**item)
    for name, kind_of_value, kind_of_items in _types(kind):
        value = _checked(name, getattr(record, name), kind_of_value)
        for item_of_it in value if kind_of_items else ():
            _checked(name, item_of_it, kind_of_items)
    return record


@cache
def _types(kind: type) -> list[tuple[str, Any, Any]]:
    """Of each field: its name, its type, and if that is a list the type of what is in it."""
    found = []
    for known in fields(kind):
        inner = get_args(known.type)[0] if get_origin(known.type) is list else None
        found.append((known.name, list if inner else known.type, inner))
    return found


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value, which is of this type; a number is one that 64 bits hold."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r}")
    if isinstance(value, int) and not 0 <= value < 1 << 64:
        raise ValueError(f"{name} is {value}")
    return value
