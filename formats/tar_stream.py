"""A tar archive that arrives in pieces, as BASE_BACKUP sends it.

PostgreSQL writes plain ustar headers: names up to 99 bytes, sizes in octal or, from 8 GiB on, in
base 256, no extended headers. The standard library's `tarfile` pulls from a file object; here bytes
are pushed in as they come, and a member's bytes go on without being collected.

    header   512 bytes: name at 0 (100), size at 124 (12), checksum at 148 (8), type at 156 (1)
    content  padded to a multiple of 512
    end      two blocks of 512 zeros, after which only zeros may come
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from formats.errors import CorruptionError

BLOCK_BYTES = 512
_REGULAR = (b"0", b"\0")


class TarMember(NamedTuple):
    name: str
    size: int
    is_file: bool


class MemberSink(Protocol):
    """Takes the content of one member."""

    def write(self, data: memoryview) -> None: ...

    def close(self) -> None: ...


class TarStream:
    """Push the archive's bytes into `feed`; `open_member` says where each member's bytes go."""

    def __init__(
        self,
        archive: str,
        open_member: Callable[[TarMember], MemberSink | None],
        *,
        has_end_mark: bool = True,
    ) -> None:
        """`has_end_mark`: the two blocks of zeros are there (PostgreSQL 14 sends none)."""
        self._archive = archive
        self._open_member = open_member
        self._has_end_mark = has_end_mark
        self._offset = 0
        self._header = b""
        self._sink: MemberSink | None = None
        self._content_left = 0
        self._padding_left = 0
        self._zero_blocks = 0

    def feed(self, data: memoryview) -> None:
        while len(data) > 0:
            if self._content_left:
                taken = self._feed_content(data)
            elif self._padding_left:
                taken = min(len(data), self._padding_left)
                self._padding_left -= taken
            else:
                taken = self._feed_header(data)
            self._offset += taken
            data = data[taken:]

    def finish(self) -> None:
        """The archive is over: complain if it was cut off."""
        is_ended = self._zero_blocks > 0 or not self._has_end_mark
        if self._content_left or self._padding_left or self._header or not is_ended:
            raise CorruptionError(
                "tar archive", self._where(), "its end mark", "the end of the data"
            )

    def _feed_content(self, data: memoryview) -> int:
        taken = min(len(data), self._content_left)
        if self._sink is not None:
            self._sink.write(data[:taken])
        self._content_left -= taken
        if not self._content_left:
            self._close_member()
        return taken

    def _close_member(self) -> None:
        if self._sink is not None:
            self._sink.close()
        self._sink = None

    def _feed_header(self, data: memoryview) -> int:
        taken = min(len(data), BLOCK_BYTES - len(self._header))
        self._header += data[:taken]
        if len(self._header) == BLOCK_BYTES:
            header, self._header = self._header, b""
            self._start_member(header)
        return taken

    def _start_member(self, header: bytes) -> None:
        if not any(header):
            self._zero_blocks += 1
            return
        if self._zero_blocks:
            raise CorruptionError("tar archive", self._where(), "zeros behind its end", "a header")
        member = parse_header(header, self._where())
        self._sink = self._open_member(member)
        self._content_left = member.size
        self._padding_left = -member.size % BLOCK_BYTES
        if not member.size:
            self._close_member()

    def _where(self) -> str:
        return f"{self._archive} offset {self._offset}"


def parse_header(header: bytes, where: str) -> TarMember:
    stored = _octal(header[148:156])
    computed = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if stored != computed:
        raise CorruptionError("tar header checksum", where, computed, stored)
    size_field = header[124:136]
    if size_field[0] & 0x80:
        size: int | None = int.from_bytes(size_field, "big") & ((1 << 88) - 1)
    else:
        size = _octal(size_field)
    if size is None:
        raise CorruptionError("tar header", where, "a size", size_field)
    is_file = header[156:157] in _REGULAR
    name = header[:100].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    return TarMember(name.removeprefix("./"), size if is_file else 0, is_file)


def _octal(field: bytes) -> int | None:
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8)
    except ValueError:
        return None
