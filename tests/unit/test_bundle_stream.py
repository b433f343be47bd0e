"""A bundle checked as it goes by: each flipped byte, each cut, any chunking, what it cannot be."""

import random
from pathlib import Path

import pytest

from engine.bundle_writer import BundleInfo
from formats import layer_file
from formats.bundle_stream import BundleSums
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_file import FrameKind
from tests.fixtures import bundles

KEYS = [bundles.relation_key(i) for i in range(3)]
VERSIONS = [
    (KEYS[i % 3], block, 100 * i + block, bundles.record(b"%d/%d " % (i, block) * 4))
    for i in range(1, 6)
    for block in (0, 3, 20000)
]


@pytest.fixture
def info(tmp_path: Path) -> BundleInfo:
    return bundles.write(tmp_path, bundles.l0(7), VERSIONS)


@pytest.fixture
def whole(info: BundleInfo, tmp_path: Path) -> bytes:
    return (tmp_path / info.name.text).read_bytes()


def sums_of(info: BundleInfo) -> BundleSums:
    return BundleSums(info.name, info.bytes_total, info.footer_crc)


def problem_of(info: BundleInfo, data: bytes, sizes: list[int] | None = None) -> str | None:
    """What is wrong with these bytes, fed in pieces of these sizes over and over; None: nothing."""
    sums, at = sums_of(info), 0
    try:
        while at < len(data):
            for size in sizes or [len(data)]:
                sums.feed(data[at : at + size])
                at += size
        sums.finish()
    except CorruptionError as error:
        return str(error)
    return None


def test_any_chunking_of_a_whole_bundle_passes(info: BundleInfo, whole: bytes) -> None:
    generator = random.Random(1)
    assert problem_of(info, whole) is None
    for size in range(1, 80):
        assert problem_of(info, whole, [size]) is None
    for _ in range(50):
        assert problem_of(info, whole, [generator.randrange(200) for _ in range(20)] + [1]) is None


def test_every_flipped_byte_is_found(info: BundleInfo, whole: bytes) -> None:
    for at in range(len(whole)):
        broken = bytearray(whole)
        broken[at] ^= 1 << at % 8
        assert problem_of(info, bytes(broken)), f"byte {at}"
        assert problem_of(info, bytes(broken), [7]), f"byte {at}, in pieces"


def test_every_cut_is_found_and_what_follows_the_end_too(info: BundleInfo, whole: bytes) -> None:
    for length in range(len(whole)):
        assert problem_of(info, whole[:length]) == (
            f"bundle cut off at {info.name.text}: expected {len(whole)} bytes, found {length}"
        )
    assert "length of the bundle" in (problem_of(info, whole + b"\0") or "")
    assert "1 bytes more" in (problem_of(info, whole + b"\0", [1]) or "")


def test_another_whole_bundle_under_this_name_is_found(info: BundleInfo, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = bundles.write(tmp_path / "other", info.name, VERSIONS[:-1])
    data = (tmp_path / "other" / other.name.text).read_bytes()
    assert problem_of(other, data) is None
    assert problem_of(info, data)
    renamed = other._replace(name=FileName.parse(bundles.l0(8).text))
    assert "bundle header" in (problem_of(renamed, data) or "")


def sections(info: BundleInfo, whole: bytes) -> tuple[bytes, list[bytes], bytes]:
    """The bytes before the first frame of versions, those frames, and all that follows."""
    ends = [layer_file.HEADER_BYTES]
    while whole[ends[-1]] == FrameKind.VERSIONS:
        stored = int.from_bytes(whole[ends[-1] + 12 : ends[-1] + 16], "little")
        ends.append(ends[-1] + layer_file.FRAME_HEADER_BYTES + stored)
    frames = [whole[ends[i] : ends[i + 1]] for i in range(len(ends) - 1)]
    return whole[: ends[0]], frames, whole[ends[-1] :]


def test_whole_frames_in_the_wrong_place_are_found(info: BundleInfo, whole: bytes) -> None:
    head, frames, tail = sections(info, whole)
    assert len(frames) > 2
    assert b"".join([head, *frames, tail]) == whole
    for changed in (frames[1:], frames[:-1], [frames[1], frames[0], *frames[2:]],
                    [frames[0], *frames], []):  # fmt: skip
        data = b"".join([head, *changed, tail])
        assert problem_of(info, data)
        assert problem_of(info._replace(bytes_total=len(data)), data)


def test_a_length_beyond_the_file_is_refused_at_once(info: BundleInfo, whole: bytes) -> None:
    broken = bytearray(whole)
    at = layer_file.HEADER_BYTES + 12
    broken[at : at + 4] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(CorruptionError, match=r"length\) at .* offset 28: .*at most"):
        sums_of(info).feed(bytes(broken[: at + 8]))
