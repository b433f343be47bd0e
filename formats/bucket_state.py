"""The state of a bucket, and the bytes that say it: a chain of entries, and snapshots of it.

    entry    = header entry-of-a-manifest      its CRC continues from that of the entry before it
    snapshot = header entry-of-a-manifest      the whole state, and the CRC to go on from

docs/bucket-format.md has the bytes; this is their code. Each is an object of its own, named by its
serial (formats/bucket.py). Serials rise by one, and an entry's object is only ever created, never
written over: so none can be lost, repeated or exchanged, and of two writers who append only one
can.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from crc32c import crc32c

from formats.bucket import (
    OWN_RECORDS,
    SNAPSHOT_RECORDS,
    BucketRecord,
    ChainAt,
    EpochTaken,
    HistoryAdded,
    JournalAdded,
    JournalRemoved,
    LayerObject,
    ObjectDead,
    ObjectsDeleted,
    Written,
)
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.manifest import Entry, Manifest, check_layout, entry_at, pack_entry
from formats.manifest_record import RECORDS, FileAdded, FileRemoved, FileUploaded, Record

FORMAT_VERSION = 1
ENTRY_MAGIC = b"pgbchain"
SNAPSHOT_MAGIC = b"pgbstate"

_HEADER = struct.Struct("<8sI")
HEADER_BYTES = _HEADER.size + 4


def _pack_header(magic: bytes) -> bytes:
    head = _HEADER.pack(magic, FORMAT_VERSION)
    return head + crc32c(head).to_bytes(4, "little")


EMPTY_CRC = int.from_bytes(_pack_header(ENTRY_MAGIC)[-4:], "little")
"""From which the first entry continues: the CRC of an entry's header."""


@dataclass
class BucketState:
    """What is true after the entries so far. Its `manifest` mirrors that of the writer's directory;
    `serial` is the chain's own, `local_serial` the directory's."""

    manifest: Manifest = field(default_factory=Manifest)
    serial: int = 0
    crc: int = EMPTY_CRC  # from which the next entry continues
    seconds: int = 0  # of the last entry
    epoch: int = 0
    nonce: str = ""
    server_id: str = ""
    journal: list[JournalAdded] = field(default_factory=list)  # each begins where the last ends
    histories: dict[int, bytes] = field(default_factory=dict)  # by timeline
    dead: dict[str, int] = field(default_factory=dict)  # objects, and when nothing named them
    dying: dict[str, None] = field(default_factory=dict)  # objects that the last entry took away

    @property
    def local_serial(self) -> int:
        return self.manifest.serial

    @property
    def remote_lsn(self) -> int:
        """What a restore from the bucket alone reaches; 0: nothing that could be read.

        The one function that says so (invariant 4). Nothing can be read below the end of a base
        backup.
        """
        lsn = self.manifest.durable_lsn
        if self.journal and self.journal[0].lsn_start <= lsn:
            lsn = max(lsn, self.journal[-1].lsn_end)
        return lsn if lsn >= self.manifest.backup_end_lsn else 0

    def object_of(self, file: FileName) -> str:
        """Where a bundle is; KeyError if it is not in the bucket."""
        return LayerObject(self.manifest.uploaded[file], file).text

    def objects(self) -> list[str]:
        """All bundles and pieces of WAL that the state names."""
        return [*map(self.object_of, self.manifest.files), *(piece.name for piece in self.journal)]

    def copy(self) -> "BucketState":
        return replace(
            self, manifest=self.manifest.copy(), journal=list(self.journal),
            histories=dict(self.histories), dead=dict(self.dead), dying=dict(self.dying),
        )  # fmt: skip

    def after(self, entry: Entry) -> "BucketState":
        """The state after one more entry; ValueError if that cannot follow."""
        if entry.serial != self.serial + 1:
            raise ValueError(f"entry {entry.serial} after entry {self.serial}")
        when = [at for at, record in enumerate(entry.records) if isinstance(record, Written)]
        if when != [0]:
            raise ValueError(f"when it was written is said by the records at {when}, not the first")
        state = self.copy()
        for record in entry.records:
            state._apply(record)
        state._check_objects(record.name for record in entry.records if type(record) is FileAdded)
        state.serial, state.crc = entry.serial, entry.crc
        return state

    def _check_objects(self, names: Iterable[str]) -> None:
        """Bundles that count are in the bucket."""
        for name in map(FileName.parse, names):
            if name in self.manifest.files and name not in self.manifest.uploaded:
                raise ValueError(f"{name.text} counts, and is not in the bucket")

    def _apply(self, record: BucketRecord | ObjectDead) -> None:
        match record:
            case Written():
                self.seconds, self.manifest.serial = record.seconds, record.local_serial
                # That the last entry was there by then is certain. When it came is not: whoever
                # wrote it may have tried for hours.
                self.dead.update(dict.fromkeys(self.dying, record.seconds))
                self.dying.clear()
            case EpochTaken():
                if record.epoch <= self.epoch:
                    raise ValueError(f"epoch {record.epoch} after epoch {self.epoch}")
                self.epoch, self.nonce = record.epoch, record.nonce
                self.server_id = record.server_id
            case JournalAdded() | JournalRemoved():
                self._apply_to_journal(record)
            case HistoryAdded():
                if self.histories.setdefault(record.timeline, record.content) != record.content:
                    raise ValueError(f"another history of timeline {record.timeline}")
            case ObjectsDeleted():
                for name in record.names:
                    if self.dead.pop(name, None) is None:
                        raise ValueError(f"{name} deleted, but not dead")
            case ObjectDead():
                if record.seconds is None:
                    self.dying[record.name] = None
                else:
                    self.dead[record.name] = record.seconds
            case _:
                self._apply_to_manifest(record)

    def _apply_to_journal(self, record: JournalAdded | JournalRemoved) -> None:
        if isinstance(record, JournalAdded):
            last = self.journal[-1].lsn_end if self.journal else record.lsn_start
            if not last == record.lsn_start < record.lsn_end:
                raise ValueError(f"{record.name} behind a journal that ends at {last:016x}")
            self._check_new(record.name, record.epoch)
            self.journal.append(record)
        elif self.journal and self.journal[0].name == record.name:
            self.dying[self.journal.pop(0).name] = None
        elif self.journal and self.journal[-1].name == record.name:
            self.dying[self.journal.pop().name] = None
        else:
            raise ValueError(f"{record.name} removed, and neither the first piece nor the last")

    def _apply_to_manifest(self, record: Record) -> None:
        if isinstance(record, FileRemoved | FileUploaded):
            file = FileName.parse(record.name)
            before = self.manifest.uploaded.get(file)
            if before is not None:
                self.dying[LayerObject(before, file).text] = None
            if isinstance(record, FileUploaded):
                self._check_new(LayerObject(record.epoch, file).text, record.epoch)
        self.manifest.apply(record)

    def _check_new(self, name: str, epoch: int) -> None:
        """No object name is used twice, and an epoch is taken before it is used."""
        if name in self.dead or name in self.dying:
            raise ValueError(f"{name} named again after it was removed")
        if epoch > self.epoch:
            raise ValueError(f"{name} is of an epoch above {self.epoch}")


def pack_chain_entry(state: BucketState, records: Sequence[BucketRecord]) -> tuple[bytes, Entry]:
    """The object of the entry that follows `state`, and what it says."""
    serial = state.serial + 1
    data, crc = pack_entry(serial, records, state.crc)
    data = _pack_header(ENTRY_MAGIC) + data
    return data, Entry(len(data), serial, list(records), crc, has_mark=True)


def unpack_chain_entry(data: bytes, state: BucketState, path: str) -> BucketState:
    """The state after the entry of an object, which must be the one that follows `state`."""
    kinds = {**RECORDS, **OWN_RECORDS}
    entry = _unpack(data, ENTRY_MAGIC, state.crc, state.serial + 1, path, kinds)
    try:
        after = state.after(entry)
    except ValueError as error:
        raise CorruptionError("bucket records", path, "what can follow", error) from error
    if after.manifest.identity is not None:
        check_layout(after.manifest.identity, path)
    return after


def pack_snapshot(state: BucketState) -> bytes:
    records: list[Any] = [ChainAt(state.crc), Written(state.seconds, state.local_serial)]
    if state.epoch:
        records.append(EpochTaken(state.epoch, state.nonce, state.server_id))
    records += state.manifest.records()
    records += state.journal
    records += (HistoryAdded(number, state.histories[number]) for number in sorted(state.histories))
    records += (ObjectDead(name, state.dead[name]) for name in sorted(state.dead))
    records += (ObjectDead(name, None) for name in sorted(state.dying))
    header = _pack_header(SNAPSHOT_MAGIC)
    return header + pack_entry(state.serial, records, crc32c(header[:-4]))[0]


def unpack_snapshot(data: bytes, serial: int, path: str) -> BucketState:
    """The state after entry `serial`."""
    kinds = {**RECORDS, **OWN_RECORDS, **SNAPSHOT_RECORDS}
    crc = crc32c(_pack_header(SNAPSHOT_MAGIC)[:-4])
    entry = _unpack(data, SNAPSHOT_MAGIC, crc, serial, path, kinds)
    try:
        chain, *records = entry.records
        if not isinstance(chain, ChainAt):
            raise ValueError("no CRC to go on from")
        state = BucketState(serial=serial, crc=chain.crc)
        for record in records:
            state._apply(record)
        state._check_objects(name.text for name in state.manifest.files)
    except ValueError as error:
        raise CorruptionError("bucket records", path, "what a state is", error) from error
    if state.manifest.identity is not None:
        check_layout(state.manifest.identity, path)
    return state


def _unpack(
    data: bytes, magic: bytes, crc: int, serial: int, path: str, kinds: dict[str, type]
) -> Entry:
    """The entry that an object has, with this serial, and nothing else."""
    expected, found = _pack_header(magic), data[:HEADER_BYTES]
    if found != expected:
        version = int.from_bytes(found[8:12], "little")
        if found[:8] == magic and crc32c(found[:12]).to_bytes(4, "little") == found[12:]:
            raise CorruptionError("bucket object of an unknown format version", f"{path} offset 8",
                                  FORMAT_VERSION, version)  # fmt: skip
        raise CorruptionError("header", f"{path} offset 0", expected.hex(), found.hex())
    try:
        entry = entry_at(data, HEADER_BYTES, crc, path, kinds)
    except struct.error:
        entry = None
    if entry is None or entry.end != len(data):
        raise CorruptionError("bucket object", path, "one whole entry", f"{len(data)} bytes")
    if entry.serial != serial:
        raise CorruptionError("serial", path, serial, entry.serial)
    return entry
