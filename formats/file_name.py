"""Names of bundle files: kind-epoch-run-sequence, never by content, so no name is ever used twice.

    l0-00000000-00000003-0000002a.bundle

`epoch` is that of the bucket's writer (0 without one), `run` rises at each open of the directory,
`sequence` at each file of a run; all three as eight hexadecimal digits, so that files of one kind
list in order of writing.
"""

import re
import struct
from enum import IntEnum
from typing import NamedTuple

SUFFIX = ".bundle"
_PACKED = struct.Struct(">BIII")
PACKED_BYTES = _PACKED.size
_NAME = re.compile(r"(l0|l1|image)-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})\.bundle")


class FileKind(IntEnum):
    L0 = 1
    L1 = 2
    IMAGE = 3


class FileName(NamedTuple):
    kind: FileKind
    epoch: int
    run: int
    sequence: int

    @property
    def kind_text(self) -> str:
        return self.kind.name.lower()

    @property
    def text(self) -> str:
        return f"{self.kind_text}-{self.epoch:08x}-{self.run:08x}-{self.sequence:08x}{SUFFIX}"

    @classmethod
    def parse(cls, text: str) -> "FileName":
        """The name that `text` is; ValueError if it is none."""
        match = _NAME.fullmatch(text)
        if match is None:
            raise ValueError(f"not the name of a bundle: {text!r}")
        epoch, run, sequence = (int(match[i], 16) for i in (2, 3, 4))
        return cls(FileKind[match[1].upper()], epoch, run, sequence)

    def pack(self) -> bytes:
        """13 bytes that sort by (kind, epoch, run, sequence)."""
        return _PACKED.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> "FileName":
        kind, epoch, run, sequence = _PACKED.unpack(data)
        return cls(FileKind(kind), epoch, run, sequence)
