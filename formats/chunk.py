"""Chunk keys: which PostgreSQL file segment, SLRU segment or small file a version belongs to.

A key is its kind (u8) and five big-endian fields of full width, 18 bytes: byte order is the order
of (kind, tablespace, database, relation, fork, segment), and nothing is cut off a 32-bit OID.

    kind  spc       db        rel     fork  seg              a name that people read
    1     OID       OID       number  0-3   1 GiB segment    rel:1663/5/1259/main/0
    2     0         0         SLRU    0     32-page segment  slru:xact/0000
    3     OID or 0  OID or 0  file    0     0, or XID        file:1663/5/PG_VERSION
    4     0         0         0       0     0                times:commits
    kind | 0x80: its history (of a relation fork, seg 0)     history:rel:1663/5/1259/main
"""

import re
import struct
from enum import IntEnum
from typing import NamedTuple

BLOCK_BYTES = 8192
STRIPE_SHIFT = 14
STRIPE_BLOCKS = 1 << STRIPE_SHIFT
SEGMENT_BLOCKS = 131072
SLRU_SEGMENT_BLOCKS = 32
KEY_BYTES = 18

HISTORY = 0x80
_KEY = struct.Struct(">BIIIBI")


class ChunkKind(IntEnum):
    REL = 1
    SLRU = 2
    FILE = 3
    TIME = 4


class Fork(IntEnum):
    MAIN = 0
    FSM = 1
    VM = 2
    INIT = 3


class Slru(IntEnum):
    XACT = 0
    MULTIXACT_MEMBERS = 1
    MULTIXACT_OFFSETS = 2
    COMMIT_TS = 3


class SmallFile(IntEnum):
    PG_CONTROL = 1
    BACKUP_LABEL = 2
    TABLESPACE_MAP = 3
    PG_VERSION = 4
    PG_FILENODE_MAP = 5
    PG_TWOPHASE = 6
    REPLORIGIN_CHECKPOINT = 7


FORK_NAMES = {fork: fork.name.lower() for fork in Fork}
SLRU_NAMES = {slru: slru.name.lower() for slru in Slru}
FILE_NAMES = {
    SmallFile.PG_CONTROL: "pg_control",
    SmallFile.BACKUP_LABEL: "backup_label",
    SmallFile.TABLESPACE_MAP: "tablespace_map",
    SmallFile.PG_VERSION: "PG_VERSION",
    SmallFile.PG_FILENODE_MAP: "pg_filenode.map",
    SmallFile.PG_TWOPHASE: "pg_twophase",
    SmallFile.REPLORIGIN_CHECKPOINT: "replorigin_checkpoint",
}
_FORKS = {name: fork for fork, name in FORK_NAMES.items()}
_SLRUS = {name: slru for slru, name in SLRU_NAMES.items()}
_FILES = {name: file for file, name in FILE_NAMES.items()}

_TIMES_NAME = "times:commits"
_REL_NAME = re.compile(r"rel:(\d+)/(\d+)/(\d+)/([a-z]+)(?:/(\d+))?")
_SLRU_NAME = re.compile(r"slru:([a-z_]+)/([0-9A-F]{4,8})")
_FILE_NAME = re.compile(r"file:(?:(\d+)/(\d+)/)?([A-Za-z_.]+)(?:/(\d+))?")


class ChunkKey(NamedTuple):
    """Which chunk. As a tuple it sorts like its packed bytes."""

    kind: int
    spc: int
    db: int
    rel: int
    fork: int
    seg: int

    def pack(self) -> bytes:
        return _KEY.pack(*self)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> "ChunkKey":
        return cls(*_KEY.unpack(data))

    @property
    def is_history(self) -> bool:
        return bool(self.kind & HISTORY)

    def history(self) -> "ChunkKey":
        """The key under which the history of this chunk's relation, segment or file is kept."""
        seg = 0 if self.kind & ~HISTORY == ChunkKind.REL else self.seg
        return self._replace(kind=self.kind | HISTORY, seg=seg)

    def subject(self) -> "ChunkKey":
        """The relation, SLRU segment or small file that this key is about: for a relation its seg
        0, for a history that of which it is the history."""
        kind = self.kind & ~HISTORY
        return self._replace(kind=kind, seg=0 if kind == ChunkKind.REL else self.seg)

    @property
    def name(self) -> str:
        """The name that people read; `parse` takes it back."""
        if self.is_history:
            subject = self._replace(kind=self.kind & ~HISTORY).name
            if subject.startswith("rel:") and self.seg == 0:
                subject = subject.removesuffix("/0")
            return "history:" + subject
        if self.kind == ChunkKind.REL and self.fork in FORK_NAMES:
            fork = FORK_NAMES[Fork(self.fork)]
            return f"rel:{self.spc}/{self.db}/{self.rel}/{fork}/{self.seg}"
        rest = (self.spc, self.db, self.fork)
        if self.kind == ChunkKind.SLRU and self.rel in SLRU_NAMES and rest == (0, 0, 0):
            return f"slru:{SLRU_NAMES[Slru(self.rel)]}/{self.seg:04X}"
        if self.kind == ChunkKind.FILE and self.rel in FILE_NAMES and self.fork == 0:
            place = "" if (self.spc, self.db) == (0, 0) else f"{self.spc}/{self.db}/"
            number = "" if self.seg == 0 else f"/{self.seg}"
            return f"file:{place}{FILE_NAMES[SmallFile(self.rel)]}{number}"
        if self == COMMIT_TIMES:
            return _TIMES_NAME
        return "unknown:" + self.pack().hex()

    @classmethod
    def parse(cls, name: str) -> "ChunkKey":
        """The key of a name; ValueError if it is none."""
        key = _parse(name)
        if key is None:
            raise ValueError(f"not the name of a chunk: {name!r}")
        for field in key[1:]:
            if field >= 1 << 32:
                raise ValueError(f"number beyond 32 bits in the name of a chunk: {name!r}")
        return key


COMMIT_TIMES = ChunkKey(ChunkKind.TIME, 0, 0, 0, 0, 0)
"""When transactions ended: one chunk of the whole cluster; its one block, 0, is no page."""


def _parse(name: str) -> ChunkKey | None:
    if name == _TIMES_NAME:
        return COMMIT_TIMES
    if name.startswith("history:"):
        subject = _parse(name.removeprefix("history:"))
        if subject is None or subject.is_history:
            return None
        return subject._replace(kind=subject.kind | HISTORY)
    if (match := _REL_NAME.fullmatch(name)) and match[4] in _FORKS:
        spc, db, rel = int(match[1]), int(match[2]), int(match[3])
        return ChunkKey(ChunkKind.REL, spc, db, rel, _FORKS[match[4]], int(match[5] or 0))
    if (match := _SLRU_NAME.fullmatch(name)) and match[1] in _SLRUS:
        return ChunkKey(ChunkKind.SLRU, 0, 0, _SLRUS[match[1]], 0, int(match[2], 16))
    if (match := _FILE_NAME.fullmatch(name)) and match[3] in _FILES:
        spc, db = int(match[1] or 0), int(match[2] or 0)
        return ChunkKey(ChunkKind.FILE, spc, db, _FILES[match[3]], 0, int(match[4] or 0))
    if name.startswith("unknown:"):
        try:
            return ChunkKey.unpack(bytes.fromhex(name.removeprefix("unknown:")))
        except (ValueError, struct.error):
            return None
    return None


def relation(spc: int, db: int, rel: int, fork: int, seg: int = 0) -> ChunkKey:
    return ChunkKey(ChunkKind.REL, spc, db, rel, fork, seg)


def slru(kind: int, seg: int) -> ChunkKey:
    return ChunkKey(ChunkKind.SLRU, 0, 0, kind, 0, seg)


def small_file(file: int, spc: int = 0, db: int = 0, seg: int = 0) -> ChunkKey:
    return ChunkKey(ChunkKind.FILE, spc, db, file, 0, seg)
