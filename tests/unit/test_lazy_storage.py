"""Bundles that lie in a bucket: what is asked of it, how often, and what its failures become."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.block_cache import BLOCK_BYTES
from engine.bundle_reader import BundleReader
from engine.errors import UnreachableError
from engine.layer_damage import Damage
from engine.lazy_storage import LazyStorage, RemoteFile
from engine.merge_plan import MergeInput
from engine.remote_blocks import AHEAD_BYTES_MIN, QUIET_SECONDS, REQUEST_BYTES_MAX
from engine.storage import File, Storage
from formats.bucket import LayerObject
from formats.errors import CorruptionError
from formats.file_name import FileName
from tests.fixtures.bundles import image, l1, relation_key, write
from tests.fixtures.remote_files import MemoryFiles

EPOCH = 3
NAME = l1(1)


class Lazy:
    """A directory without the bundles that its bucket has."""

    def __init__(self, directory: Path, cache_blocks: int = 64) -> None:
        self.layers = directory / "layers"
        self.layers.mkdir()
        self.files = MemoryFiles()
        self.storage = LazyStorage(directory, self.files, cache_blocks * BLOCK_BYTES)
        self.now = 0.0
        self.storage.blocks._clock = lambda: self.now

    def put(self, data: bytes, name: FileName = NAME) -> Path:
        self.files.objects[LayerObject(EPOCH, name).text] = data
        self.storage.add(name, EPOCH, len(data))
        return self.layers / name.text

    def take_away(self, path: Path) -> Path:
        """A local bundle is only in the bucket from now on."""
        data = path.read_bytes()
        path.unlink()
        return self.put(data, FileName.parse(path.name))


@pytest.fixture
def lazy(tmp_path: Path) -> Lazy:
    return Lazy(tmp_path)


def content(blocks: float) -> bytes:
    size = int(blocks * BLOCK_BYTES)
    return b"".join(i.to_bytes(8, "little") for i in range(size // 8 + 1))[:size]


def test_a_file_that_is_not_here_looks_as_if_it_were(lazy: Lazy) -> None:
    data = content(2.5)
    path = lazy.put(data)
    assert lazy.storage.exists(path)
    assert not lazy.storage.is_here(path)
    assert lazy.storage.file_size(path) == len(data)
    assert lazy.storage.list(lazy.layers) == [NAME.text]
    assert lazy.storage.read_all(path) == data
    lazy.storage.close(lazy.storage.open(path))
    lazy.storage.remove(path)
    assert not lazy.storage.exists(path)
    assert not lazy.storage.list(lazy.layers)
    with pytest.raises(FileNotFoundError):
        lazy.storage.open(path)


def test_a_local_file_comes_first_and_is_read_on_when_it_is_evicted(lazy: Lazy) -> None:
    path = lazy.layers / NAME.text
    path.write_bytes(content(1))
    with pytest.raises(ValueError, match="only here"):
        lazy.storage.evict(path)
    lazy.put(content(1))
    file = lazy.storage.open(path)
    lazy.storage.evict(path)
    assert not path.exists()
    assert lazy.storage.pread(file, 8, 8) == (1).to_bytes(8, "little")
    assert not lazy.files.requests
    assert lazy.storage.read_all(path) == content(1)
    assert lazy.files.requests == 1


def test_only_what_the_bucket_has_is_lazy(lazy: Lazy) -> None:
    with pytest.raises(FileNotFoundError):
        lazy.storage.open(lazy.layers / l1(9).text)
    with pytest.raises(FileNotFoundError):
        lazy.storage.open(lazy.layers.parent / NAME.text)
    lazy.put(content(1))
    with pytest.raises(FileNotFoundError):
        lazy.storage.open(lazy.layers / NAME.text, writable=True)


def test_neighbours_are_one_request_and_come_once(lazy: Lazy) -> None:
    data = content(10)
    file = lazy.storage.open(lazy.put(data))
    assert lazy.storage.pread(file, 3 * BLOCK_BYTES + 5, 10) == data[3 * BLOCK_BYTES + 5 :][:10]
    assert lazy.storage.pread(file, 5, len(data)) == data[5:]
    blocks = [
        (start // BLOCK_BYTES, length // BLOCK_BYTES) for _, start, length in lazy.files.asked
    ]
    assert sorted(blocks) == [(0, 3), (3, 1), (4, 6)]
    assert lazy.files.asked_together == [2], "what lies on both sides of it"
    assert lazy.storage.read_all(file.path) == data
    assert lazy.files.requests == 3
    assert lazy.storage.blocks.requests == 3
    assert lazy.storage.blocks.bytes_fetched == len(data)
    assert lazy.storage.blocks.misses == 10


def test_what_is_brought_is_held_by_the_cache_alone(tmp_path: Path) -> None:
    """Not in memory, be it ever so many blocks; and no more of them than a quarter of the cache,
    as others may do the same."""
    lazy = Lazy(tmp_path, 100)
    file = lazy.storage.open(lazy.put(content(200)))
    places = [(file, block * BLOCK_BYTES, 10) for block in range(0, 200, 2)]
    tracemalloc.start()
    lazy.storage.bring(places)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lazy.files.asked_together == [25]
    assert most < 10 * BLOCK_BYTES
    assert [block in lazy.storage.blocks.cache for block in _numbers(file, 99)] == [
        block < 50 and not block % 2 for block in range(99)
    ]


def test_what_threads_have_brought_and_not_read_yet_is_bounded(tmp_path: Path) -> None:
    """Or they would push out each other's, and fetch it again and again."""
    lazy = Lazy(tmp_path, 64)
    blocks = lazy.storage.blocks
    file = lazy.storage.open(lazy.put(content(200)))
    places = [(file, block * BLOCK_BYTES, 10) for block in range(200)]
    brought = []

    def bring(first: int) -> None:
        before = len(blocks.cache._entries)
        lazy.storage.bring(places[first:])
        brought.append(len(blocks.cache._entries) - before)

    def read_within(first: int, more: int) -> None:
        with lazy.storage.foreseeing(lambda: bring(first)):
            lazy.storage.pread(file, first * BLOCK_BYTES, 10)
            if more:
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(read_within, first + 40, more - 1).result(10)

    read_within(0, 4)
    assert brought == [16, 8, 4, 2, 1]
    assert blocks._brought == 0
    read_within(199, 0)
    assert brought[5:] == [1]


def _numbers(file: File, count: int) -> range:
    assert isinstance(file, RemoteFile)
    return range(file.source.number, file.source.number + count)


def test_a_request_is_bounded(lazy: Lazy) -> None:
    data = content(REQUEST_BYTES_MAX / BLOCK_BYTES + 2)
    assert lazy.storage.read_all(lazy.put(data)) == data
    lengths = sorted(length for _, _, length in lazy.files.asked)
    assert lengths == [2 * BLOCK_BYTES, REQUEST_BYTES_MAX]


def test_who_wants_the_same_block_at_the_same_time_waits_for_one_request(lazy: Lazy) -> None:
    data = content(4)
    file = lazy.storage.open(lazy.put(data))
    lazy.files.gate.clear()
    with ThreadPoolExecutor(6) as threads:
        begun = threading.Barrier(7)

        def read(offset: int) -> bytes:
            begun.wait(10)
            return lazy.storage.pread(file, offset, BLOCK_BYTES)

        found = [threads.submit(read, 8 * i) for i in range(6)]  # blocks 0 and 1, 0 alone
        begun.wait(10)
        while not lazy.files.asked:
            pass
        lazy.files.gate.set()
        assert [one.result(10) for one in found] == [data[8 * i :][:BLOCK_BYTES] for i in range(6)]
    asked = [start // BLOCK_BYTES for _, start, length in lazy.files.asked for start in
             range(start, start + length, BLOCK_BYTES)]  # fmt: skip
    assert sorted(asked) == [0, 1]


def test_waiting_for_a_request_that_fails_is_an_error(lazy: Lazy) -> None:
    file = lazy.storage.open(lazy.put(content(1)))
    lazy.files.gate.clear()
    lazy.files.is_down = True
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(lazy.storage.pread, file, 0, 8) for _ in range(3)]
        lazy.files.gate.set()
        for one in found:
            assert isinstance(one.exception(10), UnreachableError)
    lazy.files.is_down = False
    lazy.now += QUIET_SECONDS
    assert lazy.storage.pread(file, 0, 8) == bytes(8)


def test_a_bucket_that_is_gone_is_asked_once_in_a_while(lazy: Lazy) -> None:
    file = lazy.storage.open(lazy.put(content(3)))
    lazy.storage.pread(file, 0, 8)
    lazy.files.is_down = True
    for _ in range(5):
        with pytest.raises(UnreachableError, match="connection refused"):
            lazy.storage.pread(file, 2 * BLOCK_BYTES, 8)
    assert lazy.files.requests == 2
    assert lazy.storage.pread(file, 0, 8) == bytes(8), "what is here goes on"
    lazy.files.is_down = False
    lazy.now += QUIET_SECONDS
    assert len(lazy.storage.pread(file, 2 * BLOCK_BYTES, 8)) == 8


def test_an_object_that_is_gone_or_shorter_is_damage(lazy: Lazy) -> None:
    data = content(2)
    path = lazy.put(data)
    lazy.files.objects[LayerObject(EPOCH, NAME).text] = data[:-1]
    with pytest.raises(CorruptionError, match="object cut off"):
        lazy.storage.read_all(path)
    lazy.files.objects.clear()
    with pytest.raises(FileNotFoundError, match="404"):
        lazy.storage.read_all(path)


def test_an_answer_that_was_cut_off_is_asked_for_again(lazy: Lazy) -> None:
    data = content(2)
    path = lazy.put(data)
    answers = iter([data[:100], data])
    lazy.files.spoil = lambda name, start, found: next(answers)
    assert lazy.storage.read_all(path) == data


def test_who_reads_once_reads_ahead_and_keeps_nothing(lazy: Lazy) -> None:
    """Frames of 10,000 bytes one after the other: requests get longer, the cache stays as it is."""
    kept = lazy.storage.open(lazy.put(content(2), l1(2)))
    lazy.storage.pread(kept, 0, 8)
    data = content(200)
    file = lazy.storage.open(lazy.put(data))
    before = lazy.storage.blocks.cache.bytes_used
    found = b"".join(
        lazy.storage.pread_once(file, at, 10_000) for at in range(0, len(data), 10_000)
    )
    assert found == data
    lengths = [length for name, _, length in lazy.files.asked[1:]]
    assert lengths[0] == AHEAD_BYTES_MIN
    assert lengths[1] >= 2 * AHEAD_BYTES_MIN
    assert sum(lengths) == len(data)
    assert len(lengths) < 8
    assert lazy.storage.blocks.cache.bytes_used == before


def test_who_reads_once_takes_what_is_here(lazy: Lazy) -> None:
    data = content(4)
    file = lazy.storage.open(lazy.put(data))
    lazy.storage.read_all(file.path)
    assert lazy.storage.pread_once(file, 100, BLOCK_BYTES) == data[100:][:BLOCK_BYTES]
    assert lazy.files.requests == 1


def test_reading_many_at_once_ahead_is_bounded(tmp_path: Path) -> None:
    lazy = Lazy(tmp_path)
    data = content(80)
    files = [lazy.storage.open(lazy.put(data, l1(n))) for n in range(40)]
    for at in range(0, 10 * 100_000, 100_000):
        for file in files:
            assert lazy.storage.pread_once(file, at, 100_000) == data[at : at + 100_000]
    held = sum(len(one.data) for one in lazy.storage.blocks._streams().values())
    assert held <= 16 << 20


def bundle(lazy: Lazy) -> BundleReader:
    versions = [(relation_key(1), block, 100 + block, image(bytes([block]) * 3000))
                for block in range(100)]  # fmt: skip
    write(lazy.layers, NAME, versions, 4000, storage=Storage())
    return BundleReader(lazy.storage, lazy.take_away(lazy.layers / NAME.text))


def test_a_bundle_is_read_as_if_it_were_here(lazy: Lazy) -> None:
    reader = bundle(lazy)
    whole = reader.footer.frames
    assert whole > 20
    for number in range(whole):
        assert reader.read_frame(number)


@pytest.mark.parametrize("place", ["frame", "directory", "table", "footer", "trailer"])
@pytest.mark.parametrize("times", [1, 1000])
def test_flipped_bytes_are_asked_for_again_and_then_damage(
    lazy: Lazy, place: str, times: int
) -> None:
    reader = bundle(lazy)
    sound = BundleReader(lazy.storage, reader.path)
    size, footer = sound.bytes_total, sound.footer
    offset = {
        "frame": sound.table.offset(3) + 30,
        "directory": footer.directory_offset + 25,
        "table": footer.table_offset + 25,
        "footer": footer.table_offset + footer.table_length + 3,
        "trailer": size - 1,
    }[place]
    lazy.storage.blocks.doubt(lazy.storage.source_of(reader.path), 0, size)
    left = [times]

    def spoil(name: str, start: int, data: bytes) -> bytes:
        if start <= offset < start + len(data) and left[0]:
            left[0] -= 1
            flipped = bytearray(data)
            flipped[offset - start] ^= 4
            return bytes(flipped)
        return data

    lazy.files.spoil = spoil
    if times == 1:
        assert reader.read_frame(3) == sound.read_frame(3)
        assert reader.directory.count == 1
    else:
        with pytest.raises(CorruptionError):
            (reader.read_frame(3), reader.directory)


def test_the_ends_of_all_bundles_come_together(lazy: Lazy) -> None:
    """Then they open without another request, be their directories ever so long."""
    paths = []
    for n in range(3):
        count = (1, 200, 9000)[n]
        versions = [(relation_key(i), 0, 100, image(i.to_bytes(4, "little"))) for i in range(count)]
        write(lazy.layers, l1(n), versions, 30, storage=Storage())
        paths.append(lazy.take_away(lazy.layers / l1(n).text))
    lazy.storage.expect(paths)
    asked = lazy.files.requests
    assert 3 <= asked <= 4
    for path in paths:
        reader = BundleReader(lazy.storage, path)
        assert reader.table.count
        assert reader.directory.count
    assert lazy.files.requests == asked
    lazy.storage.expect(paths)
    assert lazy.files.requests == asked


def test_a_block_that_came_between_a_look_and_the_next_is_not_fetched(lazy: Lazy) -> None:
    file = lazy.storage.open(lazy.put(content(1)))
    lazy.storage.pread(file, 0, 8)
    source = lazy.storage.source_of(file.path)
    assert source is not None
    assert lazy.storage.blocks._get_missing(source, [0]) == {0: content(1)}
    assert lazy.files.requests == 1


def test_what_nobody_can_tell_now_is_neither_nothing_nor_damage(lazy: Lazy) -> None:
    """Of a bundle that cannot be reached, be it for compaction."""
    reader = bundle(lazy)
    rows = list(range(reader.directory.count))
    lazy.files.is_down = True
    source = lazy.storage.source_of(reader.path)
    assert source is not None
    lazy.storage.blocks.doubt(source, 0, source.size)
    with pytest.raises(UnreachableError):
        reader.stored_bytes_if_readable()
    damage = Damage()
    inputs = [MergeInput(reader, rows)]
    with pytest.raises(UnreachableError):
        damage.is_sound(inputs)
    asked = lazy.files.requests
    lazy.now += QUIET_SECONDS
    assert not damage.explains(UnreachableError(5, "GET"), inputs)
    assert lazy.files.requests == asked
    assert not damage.stripes
    assert not damage.layers
