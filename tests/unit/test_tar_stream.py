"""The tar parser against the standard library's archives, cut into pieces of every size."""

import io
import random
import tarfile

import pytest

from formats.errors import CorruptionError
from formats.tar_stream import TarMember, TarStream, parse_header


class Collected:
    def __init__(self) -> None:
        self.content = b""
        self.is_closed = False

    def write(self, data: memoryview) -> None:
        assert not self.is_closed
        self.content += data

    def close(self) -> None:
        self.is_closed = True


class Extracted:
    """Collects the members of an archive, all but those named `skip`."""

    def __init__(self) -> None:
        self.members: list[TarMember] = []
        self.files: dict[str, Collected] = {}

    def open(self, member: TarMember) -> Collected | None:
        self.members.append(member)
        if not member.is_file or member.name == "skip":
            return None
        return self.files.setdefault(member.name, Collected())


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("./base")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("pg_tblspc/16384")
        link.type, link.linkname = tarfile.SYMTYPE, "/elsewhere"
        tar.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


FILES = {"empty": b"", "skip": b"s" * 5000, "a/b": b"ab" * 256, "c": bytes(range(256)) * 77}


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 32768, 1 << 20])
def test_any_chunking(piece: int) -> None:
    data = archive(FILES)
    found = Extracted()
    stream = TarStream("base.tar", found.open)
    for at in range(0, len(data), piece):
        stream.feed(memoryview(data)[at : at + piece])
    stream.finish()
    assert {name: one.content for name, one in found.files.items()} == {
        name: content for name, content in FILES.items() if name != "skip"
    }
    assert all(one.is_closed for one in found.files.values())
    assert [member.name for member in found.members] == ["base/", "pg_tblspc/16384", *FILES]
    assert [member.is_file for member in found.members] == [False, False, True, True, True, True]


def test_cut_off_anywhere() -> None:
    data = archive({"a": b"x" * 700})
    end = len(data) - data[::-1].index(b"x") + 324  # behind the padding of the last member
    for length in range(end):
        stream = TarStream("base.tar", Extracted().open)
        stream.feed(memoryview(data)[:length])
        with pytest.raises(CorruptionError, match="tar archive at base.tar offset"):
            stream.finish()


def test_damaged_headers() -> None:
    data = archive({"a": b"x" * 700})
    rng = random.Random(4)
    for at in (0, 100, 130, 150, 156, *(rng.randrange(512) for _ in range(50))):
        damaged = bytearray(data)
        damaged[at] ^= 0x01
        stream = TarStream("base.tar", Extracted().open)
        with pytest.raises(CorruptionError, match="tar header checksum"):
            stream.feed(memoryview(damaged))


def test_header_behind_the_end() -> None:
    data = archive({"a": b"x"})
    stream = TarStream("base.tar", Extracted().open)
    with pytest.raises(CorruptionError, match="zeros behind its end"):
        stream.feed(memoryview(data + data))


def test_sizes_beyond_octal() -> None:
    info = tarfile.TarInfo("base/5/16384.9")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    assert parse_header(header, "x") == TarMember("base/5/16384.9", 9 << 30, True)
