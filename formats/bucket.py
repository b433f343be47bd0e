"""What backup keeps in a bucket: names of objects, and what the chain of entries says of them.

    manifest/<serial>                        an entry: what one step added and took away
    snapshot/<serial>                        the state after that entry, to begin reading with
    layers/<epoch>/<bundle>                  a bundle, as it is on disk
    journal/<timeline>/<start>-<end>-<epoch> a piece of WAL, compressed
    outlines/<epoch>-<number>                what the index takes of bundles (formats/outline.py)

Here are those names, and the records that entries have besides those of a manifest. `epoch` is that
of the writer who put the object, so no name is ever used twice. No entry names outlines: they are a
help that may be missing. formats/bucket_state.py has the bytes of entries and snapshots, and the
state that they lead to.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, get_args

from formats.file_name import FileName
from formats.manifest_record import Record

ENTRIES, SNAPSHOTS, LAYERS, JOURNAL = "manifest/", "snapshot/", "layers/", "journal/"
OUTLINES = "outlines/"

_LAYER = re.compile(r"layers/([0-9a-f]{8})/(.+)")
_PIECE = re.compile(r"journal/([0-9a-f]{8})/([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{8})")
_OUTLINES = re.compile(r"outlines/([0-9a-f]{8})-([0-9a-f]{8})")
_STEP = re.compile(r"(?:manifest|snapshot)/([0-9a-f]{16})")


# Names --------------------------------------------------------------------------------------------


def entry_name(serial: int) -> str:
    return f"{ENTRIES}{serial:016x}"


def snapshot_name(serial: int) -> str:
    return f"{SNAPSHOTS}{serial:016x}"


def parse_serial(name: str) -> int:
    """Of an entry or a snapshot; ValueError if it is neither."""
    match = _STEP.fullmatch(name)
    if match is None:
        raise ValueError(f"not the name of an entry or a snapshot: {name!r}")
    return int(match[1], 16)


class LayerObject(NamedTuple):
    """A bundle in the bucket; `epoch` is that of the writer who put it."""

    epoch: int
    file: FileName

    @property
    def text(self) -> str:
        return f"{LAYERS}{self.epoch:08x}/{self.file.text}"

    @classmethod
    def parse(cls, text: str) -> "LayerObject":
        """ValueError if it is none."""
        match = _LAYER.fullmatch(text)
        if match is None:
            raise ValueError(f"not the name of a bundle in a bucket: {text!r}")
        return cls(int(match[1], 16), FileName.parse(match[2]))


class JournalObject(NamedTuple):
    """WAL of one timeline, [lsn_start, lsn_end); `epoch` is that of the writer who put it."""

    timeline: int
    lsn_start: int
    lsn_end: int
    epoch: int

    @property
    def text(self) -> str:
        place = f"{self.lsn_start:016x}-{self.lsn_end:016x}-{self.epoch:08x}"
        return f"{JOURNAL}{self.timeline:08x}/{place}"

    @classmethod
    def parse(cls, text: str) -> "JournalObject":
        """ValueError if it is none."""
        match = _PIECE.fullmatch(text)
        if match is None:
            raise ValueError(f"not the name of a piece of the journal: {text!r}")
        return cls(*(int(part, 16) for part in match.groups()))


def outlines_name(epoch: int, number: int) -> str:
    """Of outlines; the newest have the highest name. `number` counts those of that writer."""
    return f"{OUTLINES}{epoch:08x}-{number:08x}"


def is_outlines_name(name: str) -> bool:
    return _OUTLINES.fullmatch(name) is not None


# Records ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """First in each entry: when, and which entry of its own manifest the writer mirrors with it."""

    tag: ClassVar[str] = "written"
    seconds: int  # since 1970, by the store's clock as far as the writer knew it
    local_serial: int


@dataclass(frozen=True)
class EpochTaken:
    """From here on entries are those of this writer alone."""

    tag: ClassVar[str] = "epoch_taken"
    epoch: int
    nonce: str  # no two processes have the same
    server_id: str


@dataclass(frozen=True)
class JournalAdded:
    """A piece of WAL that begins where the one before it ends."""

    tag: ClassVar[str] = "journal_added"
    timeline: int
    lsn_start: int
    lsn_end: int
    epoch: int
    bytes_stored: int  # compressed
    crc: int  # CRC-32C of the object

    @property
    def name(self) -> str:
        return JournalObject(self.timeline, self.lsn_start, self.lsn_end, self.epoch).text


@dataclass(frozen=True)
class JournalRemoved:
    """The first piece or the last one is needed no more."""

    tag: ClassVar[str] = "journal_removed"
    name: str


@dataclass(frozen=True)
class HistoryAdded:
    """PostgreSQL's history file of a timeline."""

    tag: ClassVar[str] = "history_added"
    timeline: int
    content: bytes


@dataclass(frozen=True)
class ObjectsDeleted:
    """They were dead, and are gone."""

    tag: ClassVar[str] = "objects_deleted"
    names: list[str]


@dataclass(frozen=True)
class ChainAt:
    """First in a snapshot: what the next entry's CRC continues from."""

    tag: ClassVar[str] = "chain_at"
    crc: int


@dataclass(frozen=True)
class ObjectDead:
    """In a snapshot: nothing names it since then; None: since its last entry."""

    tag: ClassVar[str] = "object_dead"
    name: str
    seconds: int | None


OwnRecord = Written | EpochTaken | JournalAdded | JournalRemoved | HistoryAdded | ObjectsDeleted
SnapshotRecord = ChainAt | ObjectDead
BucketRecord = Record | OwnRecord
OWN_RECORDS: dict[str, type] = {kind.tag: kind for kind in get_args(OwnRecord)}
SNAPSHOT_RECORDS: dict[str, type] = {kind.tag: kind for kind in get_args(SnapshotRecord)}
