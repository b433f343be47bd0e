"""Reading the data of a record field by field, never past its end."""

import struct
from typing import Any


class MalformedData(ValueError):
    """A record's data is not what its opcode has; the text says where it stops being so."""


class Cursor:
    """Reads little-endian fields one after the other; `name` is for the errors."""

    def __init__(self, data: bytes, name: str = "main data") -> None:
        self.data = data
        self.name = name
        self.pos = 0

    def fields(self, layout: str) -> tuple[Any, ...]:
        """The next fields, by the letters of module struct; nothing is aligned but by its x.

        Raises MalformedData where the data ends before they do.
        """
        layout = "<" + layout
        length = struct.calcsize(layout)
        if self.pos + length > len(self.data):
            raise MalformedData(
                f"{self.name} of {len(self.data)} bytes ends inside of the {length} at {self.pos}"
            )
        values = struct.unpack_from(layout, self.data, self.pos)
        self.pos += length
        return values

    def array(self, letter: str, count: int) -> tuple[int, ...]:
        """The next `count` numbers of one type, none if `count` is negative."""
        length = max(0, count) * struct.calcsize("<" + letter)
        if self.pos + length > len(self.data):
            raise MalformedData(
                f"{self.name} of {len(self.data)} bytes has no {count} items at {self.pos}"
            )
        return self.fields(f"{max(0, count)}{letter}")

    def piece(self, length: int) -> bytes:
        """The next `length` bytes."""
        if length > self.left:
            raise MalformedData(
                f"{self.name} of {len(self.data)} bytes ends inside of the {length} at {self.pos}"
            )
        self.pos += length
        return self.data[self.pos - length : self.pos]

    def string(self) -> str:
        """The text up to the next zero byte, which is passed over."""
        end = self.data.find(b"\0", self.pos)
        if end < 0:
            raise MalformedData(f"{self.name}: the text at {self.pos} has no end")
        text = self.data[self.pos : end].decode("utf-8", "backslashreplace")
        self.pos = end + 1
        return text

    def align(self) -> None:
        """Go on at a multiple of 8."""
        self.pos = -(-self.pos // 8) * 8

    @property
    def left(self) -> int:
        return len(self.data) - self.pos
