"""The layer map: order of layers, what a commit changes for readers, one bad frame in a batch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.bundle_reader import RUN_FRAMES
from engine.bundle_writer import Version
from engine.frame_cache import FrameCache
from engine.layer_map import LayerMap
from engine.layer_query import LayerQuery
from engine.storage import File
from engine.version_set import VersionSet
from formats.errors import CorruptionError
from formats.file_name import FileName
from tests.fixtures import bundles
from tests.fixtures.stopped_directory import StoppedDirectory

KEY = bundles.relation_key(1)
OTHER = bundles.relation_key(2)
LSN_MAX = 10**6

Flush = Callable[[FileName, list[Version]], None]


@pytest.fixture
def directory(tmp_path: Path) -> StoppedDirectory:
    return StoppedDirectory(tmp_path)


@pytest.fixture
def layers(directory: StoppedDirectory) -> LayerMap:
    return open_layers(directory)


@pytest.fixture
def flush(directory: StoppedDirectory, layers: LayerMap) -> Flush:
    def flush(name: FileName, versions: list[Version]) -> None:
        layers.change([directory.flush(name, versions)], (), places(versions), {})

    return flush


def places(versions: list[Version]) -> set[tuple[bytes, int]]:
    return {(key, block >> 14) for key, block, _, _ in versions}


def open_layers(directory: StoppedDirectory) -> LayerMap:
    return LayerMap(directory.storage, directory.layers, directory.index, FrameCache(1 << 20))


def read(layers: LayerMap, key: bytes, block: int, lsn: int = LSN_MAX, floor: int = 0) -> list[int]:
    """The LSNs of what a read is given, newest first."""
    into = VersionSet()
    layers.collect(key, block, lsn, floor, into)
    return [lsn for lsn, _ in bundles.pushed(into)]


def test_an_image_newer_than_an_older_life_in_l0(layers: LayerMap, flush: Flush) -> None:
    """CREATE DATABASE puts image layers below L0; an L0 bundle may have the same chunk's past."""
    flush(bundles.l0(1), [(KEY, 0, 100, bundles.image(b"past")), (OTHER, 0, 90, b"\x08abcdef")])
    flush(bundles.image_bundle(2), [(KEY, 0, 200, bundles.image(b"copied"))])
    flush(bundles.l0(3), [(KEY, 0, 300, bundles.record(b"new"))])
    assert read(layers, KEY, 0, floor=199) == [300, 200]
    assert read(layers, KEY, 0, lsn=250, floor=199) == [200]
    assert read(layers, KEY, 0, lsn=150) == [100]


def test_readers_see_a_bundle_once_it_is_added(layers: LayerMap, flush: Flush) -> None:
    assert read(layers, KEY, 0) == []
    flush(bundles.image_bundle(1), [(KEY, 0, 10, bundles.image(b"1"))])
    assert read(layers, KEY, 0) == [10], "what was remembered of the stripe is forgotten"
    flush(bundles.l0(2), [(KEY, 0, 20, bundles.record(b"2"))])
    flush(bundles.l0(3), [(KEY, 0, 30, bundles.record(b"3"))])
    assert layers.l0_count == 2
    assert read(layers, KEY, 0) == [30, 20, 10]


def test_a_version_that_a_newer_source_gave_already_is_not_given_again(
    layers: LayerMap, flush: Flush
) -> None:
    """A memtable's versions, and those of the bundle just made of it, may both be seen."""
    flush(bundles.l0(1), [(KEY, 0, lsn, bundles.record(b"x")) for lsn in (10, 20, 30)])
    flush(bundles.l0(2), [(KEY, 0, lsn, bundles.record(b"x")) for lsn in (20, 30, 40)])
    assert read(layers, KEY, 0) == [40, 30, 20, 10]


def test_a_map_opened_anew_gives_the_same(
    directory: StoppedDirectory, layers: LayerMap, flush: Flush
) -> None:
    flush(bundles.image_bundle(1), [(KEY, 0, 10, bundles.image(b"1"))])
    for number in range(2, 8):
        flush(bundles.l0(number), [(KEY, 0, 10 * number, bundles.record(b"x"))])
    again = open_layers(directory)
    assert read(again, KEY, 0) == read(layers, KEY, 0) == [70, 60, 50, 40, 30, 20, 10]


def damage(directory: StoppedDirectory, name: FileName, offset: int) -> None:
    path = directory.layers / name.text
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", [bundles.l0(1), bundles.image_bundle(1)])
def test_a_bad_frame_spoils_only_the_requests_that_need_it(
    directory: StoppedDirectory,
    layers: LayerMap,
    flush: Flush,
    name: FileName,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pages = [(KEY, block, 10, bundles.image(b"%d" % block * 300)) for block in range(4)]
    flush(name, [*pages, (OTHER, 0, 10, bundles.image(b"other"))])
    damage(directory, name, 60)  # in the first frame
    query, versions = LayerQuery(5), VersionSet()
    query.begin(versions)
    for block in range(4):
        query.add(KEY, block, 0, LSN_MAX, 0)
    query.add(OTHER, 0, 0, LSN_MAX, 0)
    layers.collect_batch(query)
    assert list(query.errors) == [0]
    assert "frame checksum" in str(query.errors[0])
    assert [query.oldest_of(i) > 0 for i in range(5)] == [False, True, True, True, True]
    with pytest.raises(CorruptionError, match="frame checksum"):
        read(layers, KEY, 0)
    assert read(layers, KEY, 1) == [10]
    (said,) = caplog.messages  # once, however often it is met
    assert said.startswith("a read met damage: frame checksum at ") and name.text in said


def test_neighbours_are_read_at_once(
    directory: StoppedDirectory, layers: LayerMap, flush: Flush, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, damaged, skipped = 2 * RUN_FRAMES + 3, 5, 9
    pages = [(KEY, block, 10, bundles.image(b"%03d" % block * 100)) for block in range(count)]
    flush(bundles.image_bundle(1), pages)
    reader = layers.reader(bundles.image_bundle(1))
    assert reader.table.count == count
    damage(directory, reader.name, reader.table.offset(damaged) + 20)
    reads: list[int] = []
    pread = directory.storage.pread

    def counted(file: File, offset: int, length: int) -> bytes:
        reads.append(length)
        return pread(file, offset, length)

    monkeypatch.setattr(directory.storage, "pread", counted)
    query, versions = LayerQuery(count), VersionSet()
    query.begin(versions)
    for block in range(count):
        if block != skipped:
            query.add(KEY, block, 0, LSN_MAX, 0)
    layers.collect_batch(query)
    assert len(reads) == 3, "up to what is skipped, RUN_FRAMES, and what is left"
    assert list(query.errors) == [damaged]
    assert [i for i in range(count - 1) if not query.oldest_of(i)] == [damaged]


@pytest.mark.parametrize("name", [bundles.l0(2), bundles.image_bundle(2)])
def test_a_missing_file_is_an_error_and_never_an_older_page(
    directory: StoppedDirectory, layers: LayerMap, flush: Flush, name: FileName
) -> None:
    flush(bundles.image_bundle(1), [(KEY, 0, 10, bundles.image(b"1"))])
    flush(name, [(KEY, 0, 20, bundles.record(b"2"))])
    (directory.layers / name.text).unlink()
    with pytest.raises(OSError, match=name.text):
        read(open_layers(directory), KEY, 0)
    assert read(layers, OTHER, 0) == []


def test_frame_tables_of_files_not_used_for_long_are_let_go(
    directory: StoppedDirectory, flush: Flush
) -> None:
    for number in range(1, 6):
        key = bundles.relation_key(number)
        flush(bundles.image_bundle(number), [(key, 0, number, bundles.image(b"x"))])
    layers = LayerMap(
        directory.storage, directory.layers, directory.index, FrameCache(0), table_bytes_max=80
    )
    for _ in range(2):
        for number in range(1, 6):
            assert read(layers, bundles.relation_key(number), 0) == [number]
    assert len(layers._readers) == 2
