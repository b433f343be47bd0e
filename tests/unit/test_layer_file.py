"""A bundle file as a whole: what it says, every flipped byte and every cut of it, failing I/O."""

import errno
import random
import struct
from pathlib import Path

import pytest
import zstandard
from crc32c import crc32c

from engine.bundle_check import problems
from engine.bundle_reader import BundleReader
from engine.bundle_writer import run_of
from engine.frame_cache import FrameCache
from engine.layer_query import LayerQuery
from engine.storage import Storage
from engine.version_set import VersionSet
from formats import layer_file, version
from formats.chunk import BLOCK_BYTES, ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_file import Footer, FrameKind, LayerKind
from tests.fixtures import bundles
from tests.fixtures.bundles import Model
from tests.fixtures.faulty_storage import FaultyStorage

KEYS = [bundles.relation_key(i) for i in range(3)]
VERSIONS = [
    (KEYS[i % 3], block, 100 * i + block, bundles.record(b"%d/%d " % (i, block) * 4))
    for i in range(1, 6)
    for block in (0, 3, 20000)
] + [(KEYS[0], 3, 50, bundles.image(b"base " * 9))]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    info = bundles.write(tmp_path, bundles.l0(7), VERSIONS)
    return tmp_path / info.name.text


def read_everything(path: Path) -> dict[tuple[bytes, int], list[tuple[int, bytes]] | None]:
    """What a reader gets for each block; None where it gets an error."""
    found: dict[tuple[bytes, int], list[tuple[int, bytes]] | None] = {}
    reader, cache = BundleReader(Storage(), path), FrameCache(0)
    for key in KEYS:
        for block in (0, 3, 4, 20000):
            into, query = VersionSet(), LayerQuery(1)
            query.begin(into)
            query.add(key, block, 0, 100000, 0)
            if hits := reader.locate(query, b""):
                reader.collect_hits(query, hits, cache)
            found[key, block] = None if query.errors else bundles.pushed(into)
    return found


def expected() -> dict[tuple[bytes, int], list[tuple[int, bytes]]]:
    model = Model(VERSIONS)
    places = [(key, block) for key in KEYS for block in (0, 3, 4, 20000)]
    return {place: model.read(*place, 100000, 0)[0] for place in places}


def test_what_the_footer_says(bundle: Path) -> None:
    footer = BundleReader(Storage(), bundle).footer
    assert (footer.kind, footer.tenant, footer.timeline) == ("l0", bundles.TENANT, bundles.TIMELINE)
    assert (footer.lsn_start, footer.lsn_end, footer.layers) == (50, 20501, 6)
    assert footer.versions == len(VERSIONS)
    assert footer.frames == 3
    assert footer.postgres_version == bundles.POSTGRES_VERSION


def test_every_flipped_byte_is_found_and_never_read_as_something_else(bundle: Path) -> None:
    whole, answers = bundle.read_bytes(), expected()
    assert read_everything(bundle) == answers
    for pos in range(len(whole)):
        broken = bytearray(whole)
        broken[pos] ^= 1 << pos % 8
        bundle.write_bytes(broken)
        assert list(problems(BundleReader(Storage(), bundle))), f"byte {pos}"
        for place, found in read_everything(bundle).items():
            assert found in (None, answers[place]), f"byte {pos}"


def test_every_cut_is_found(bundle: Path) -> None:
    whole = bundle.read_bytes()
    for length in range(len(whole)):
        bundle.write_bytes(whole[:length])
        reader = BundleReader(Storage(), bundle)
        with pytest.raises(CorruptionError, match="bundle"):
            reader.directory  # noqa: B018
        assert list(problems(reader))
    bundle.write_bytes(whole + b"\0")
    assert list(problems(BundleReader(Storage(), bundle)))


def test_a_frame_of_another_place_or_file_is_refused(bundle: Path) -> None:
    """The disk may give good bytes of the wrong place: misdirected reads and writes happen."""
    reader = BundleReader(Storage(), bundle)
    table, codec = reader.table, zstandard.ZstdDecompressor()
    data = bundle.read_bytes()
    frames = [data[table.offset(i) :][: table.stored_length(i)] for i in range(table.count)]
    other = layer_file.identity_of(bundles.l0(8))
    layer_file.unseal(frames[1], FrameKind.VERSIONS, 1, reader.identity, codec, "")
    with pytest.raises(CorruptionError, match="frame header"):
        layer_file.unseal(frames[1], FrameKind.VERSIONS, 2, reader.identity, codec, "")
    with pytest.raises(CorruptionError, match="frame header"):
        layer_file.unseal(frames[1], FrameKind.TABLE, 1, reader.identity, codec, "")
    with pytest.raises(CorruptionError, match="frame checksum"):
        layer_file.unseal(frames[1], FrameKind.VERSIONS, 1, other, codec, "")


def test_a_bundle_under_another_name_is_refused(bundle: Path) -> None:
    renamed = bundle.with_name(bundles.l0(8).text)
    bundle.rename(renamed)
    with pytest.raises(CorruptionError, match="bundle header"):
        BundleReader(Storage(), renamed).directory  # noqa: B018


def test_an_unknown_format_version_is_refused_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(layer_file, "FORMAT_VERSION", 2)
        info = bundles.write(tmp_path, bundles.l0(1), VERSIONS)
    with pytest.raises(CorruptionError, match="format version.*expected 1, found 2"):
        BundleReader(Storage(), tmp_path / info.name.text).directory  # noqa: B018


def test_what_does_not_compress_is_stored_plain(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(1000)
    info = bundles.write(tmp_path, bundles.l0(1), [(KEYS[0], 1, 5, bundles.record(noise))])
    reader = BundleReader(Storage(), tmp_path / info.name.text)
    assert reader.table.stored_length(0) == reader.table.raw_length(0) + 20
    assert noise in reader.read_frame(0)


def test_layers_of_a_base_backup_are_fuzzy_and_may_come_in_any_order(tmp_path: Path) -> None:
    pages = {key: bytes([number + 1]) * BLOCK_BYTES * 3 for number, key in enumerate(KEYS)}
    writer = bundles.writer_for(tmp_path, bundles.image_bundle(1), 1 << 15)
    for key in reversed(KEYS):
        writer.add_pages(key, 16382, 77, version.IMAGE_FUZZY, pages[key])
    history = ChunkKey.unpack(KEYS[1]).history().pack()
    writer.add_run(run_of([(history, 0, 77, bundles.history(True, 16385))]))
    info = writer.finish()
    reader = BundleReader(Storage(), tmp_path / info.name.text)
    assert list(problems(reader)) == []
    directory = reader.directory
    rows = range(directory.count)
    assert [directory.key(row) for row in rows] == [k for k in KEYS for _ in (0, 1)] + [history]
    assert [directory.stripe(row) for row in rows] == [0, 1, 0, 1, 0, 1, 0]
    kinds = [LayerKind.FUZZY_IMAGE] * 6 + [LayerKind.IMAGE]
    assert [directory.kind(row) for row in rows] == kinds
    for key in KEYS:
        for block in (16382, 16383, 16384):
            into, query = VersionSet(), LayerQuery(1)
            query.begin(into)
            query.add(key, block, 0, 77, 0)
            reader.collect_hits(query, reader.locate(query, b""), FrameCache(0))
            assert bundles.pushed(into) == [(77, bytes([3, 0, 0, 0, 0, 0]) + pages[key][:8192])]


def test_a_stripe_that_comes_in_two_parts_is_refused(tmp_path: Path) -> None:
    writer = bundles.writer_for(tmp_path, bundles.image_bundle(1))
    for key, block in ((KEYS[0], 0), (KEYS[1], 0), (KEYS[0], 1)):
        writer.add_pages(key, block, 77, version.IMAGE_FUZZY, bytes(BLOCK_BYTES))
    with pytest.raises(ValueError, match="two parts"):
        writer.finish()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_half_a_page_is_refused(tmp_path: Path) -> None:
    writer = bundles.writer_for(tmp_path, bundles.image_bundle(1))
    with pytest.raises(ValueError, match="not a multiple"):
        writer.add_pages(KEYS[0], 0, 77, version.IMAGE_FUZZY, bytes(BLOCK_BYTES + 1))
    writer.abort()


@pytest.mark.parametrize("call", ["append", "sync"])
def test_a_disk_that_fails_leaves_no_bundle(tmp_path: Path, call: str) -> None:
    storage = FaultyStorage()
    writer = bundles.writer_for(tmp_path, bundles.l0(1), storage=storage)
    writer.add_run(run_of(VERSIONS))
    storage.fail(call, errno.EIO)
    with pytest.raises(OSError, match=bundles.l0(1).text):
        writer.finish()
    with pytest.raises(OSError, match="opened anew"):
        writer.finish()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_never_used_twice(bundle: Path) -> None:
    with pytest.raises(FileExistsError):
        bundles.writer_for(bundle.parent, FileName.parse(bundle.name))


def test_the_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = FrameCache(3000)
    for number in range(10):
        cache.put(1, number, bytes(800))
        assert cache.get_many(1, [0]) != [None]
        assert cache.bytes_used <= 3000
    kept = [number for number, raw in enumerate(cache.get_many(1, list(range(10)))) if raw]
    assert kept == [0, 9]
    cache.put(2, 0, bytes(5000))
    assert cache.get_many(2, [0]) == [None]
    assert len(cache) == 2


def test_frames_that_are_read_once_push_nothing_out_of_the_cache() -> None:
    cache = FrameCache(8 << 20)
    frame = bytes(32 << 10)
    cache.put(1, 0, frame)
    assert cache.get_many(1, [0]) == [frame]  # asked for again while it is new: kept
    for number in range(1, 1000):
        cache.put(1, number, frame)
        assert cache.bytes_used <= 2 << 20
    assert cache.get_many(1, [0, 999, 1]) == [frame, frame, None]
    for number in (900, 901):  # asked for again soon after
        assert cache.get_many(1, [number]) == [None]
        cache.put(1, number, frame)
    for number in range(1000, 2000):
        cache.put(1, number, frame)
    assert cache.get_many(1, [0, 900, 901, 902]) == [frame, frame, frame, None]
    for number in [*range(2000, 2400), *range(2000, 2400)]:
        cache.put(1, number, frame)
        cache.get_many(1, [number])
        assert cache.bytes_used <= 8 << 20
    assert len(cache) * len(frame) > 7 << 20  # what is kept may take all of the room


def test_a_frame_that_claims_another_size_is_refused_before_room_is_made_for_it() -> None:
    name = bundles.l0(7)
    identity = layer_file.identity_of(name)
    head = struct.pack("<BBHIII", FrameKind.VERSIONS, layer_file.Codec.ZSTD, 0, 0, 100, 17)
    frame = bytes.fromhex("28b52ffde0") + (1 << 62).to_bytes(8, "little") + b"\1\0\0" + b"\0"
    data = head + crc32c(frame, crc32c(head, identity)).to_bytes(4, "little") + frame
    with pytest.raises(CorruptionError, match="raw length"):
        layer_file.unseal(data, FrameKind.VERSIONS, 0, identity, zstandard.ZstdDecompressor(), "")


@pytest.mark.parametrize(("field", "value"), [("layers", "3"), ("table_offset", -1), ("kind", 1)])
def test_a_footer_with_a_value_of_another_type_is_refused(field: str, value: object) -> None:
    name = bundles.l0(7)
    identity = layer_file.identity_of(name)
    footer = Footer("l0", "1" * 32, "2" * 32, 180006, 1, 2, 3, 4, 50, 32, 9, 41, 7)
    data = layer_file.pack_footer(footer._replace(**{field: value}), identity)
    body, trailer = data[: -layer_file.TRAILER_BYTES], data[-layer_file.TRAILER_BYTES :]
    _, crc = layer_file.unpack_trailer(trailer, "")
    with pytest.raises(CorruptionError, match="footer fields"):
        layer_file.unpack_footer(body, crc, identity, name, "")


def test_a_version_that_ends_far_behind_its_frame_is_refused_before_room_is_made_for_it() -> None:
    into = VersionSet(64, 4)
    for pos, length in ((0, 1 << 40), (5, 4), (-1, 2), (3, -1)):
        with pytest.raises(IndexError):
            into.push(memoryview(b"\x10 frame!"), pos, length, 7)
    assert into.push(memoryview(b"\x10 frame!"), 0, 8, 7) == 0
    assert len(into.data) == 64


def test_a_run_goes_on_with_a_stripe_that_pages_began(tmp_path: Path) -> None:
    """And pages with one that a run began; runs that share their keys number them once."""
    key, page = KEYS[0], bytes(BLOCK_BYTES)
    writer = bundles.writer_for(tmp_path, bundles.image_bundle(1), 1 << 14)
    unreadable = bytes([version.UNREADABLE, version.TORN, 0, 0])
    for block in (0, 4, 8):
        writer.add_pages(key, block, 77, version.IMAGE_EXACT, page * 3)
        writer.add_run(run_of([(key, block + 3, 77, unreadable)]))
    run = run_of([(KEYS[1], block, 77, unreadable) for block in range(4)])
    for number in range(4):
        writer.add_run(run._replace(order=run.order[number : number + 1]))
    reader = BundleReader(Storage(), tmp_path / writer.finish().name.text)
    assert list(problems(reader)) == []
    directory = reader.directory
    assert [directory.key(row) for row in range(directory.count)] == KEYS[:2]
    assert [directory.versions(row) for row in (0, 1)] == [12, 4]
