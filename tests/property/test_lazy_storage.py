"""Whatever is read of a file in a bucket, in whatever order, is what the file has there.

Reads of any kind, on a cache of any size, while the bucket fails, answers in part or with flipped
bytes, which the reader notices and reads again, and while the disk below the cache spoils blocks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.block_cache import BLOCK_BYTES
from engine.errors import UnreachableError
from engine.lazy_storage import LazyStorage
from engine.remote_blocks import QUIET_SECONDS
from engine.storage import File
from formats.bucket import LayerObject
from formats.errors import CorruptionError
from tests.fixtures.bundles import l1
from tests.fixtures.remote_files import MemoryFiles

FILES = 3
BLOCKS_MAX = 12
PIECES = os.urandom(1 << 16)
KINDS = ("read", "read", "read", "once", "once", "all", "doubt", "expect", "bring")
FAULTS = (None, None, None, None, "down", "short", "flip", "spoilt slot")

sizes = st.integers(1, BLOCKS_MAX * BLOCK_BYTES)
read = st.tuples(
    st.sampled_from(KINDS),
    st.integers(0, FILES - 1),
    st.floats(0, 1),
    st.integers(0, 3 * BLOCK_BYTES),
    st.sampled_from(FAULTS),
)


@contextmanager
def lazily(cache_blocks: int) -> Iterator[tuple[LazyStorage, MemoryFiles]]:
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "layers").mkdir()
        files = MemoryFiles()
        yield LazyStorage(directory, files, cache_blocks * BLOCK_BYTES), files


def spoil(storage: LazyStorage, files: MemoryFiles, fault: str | None) -> None:
    """Let the next answer be bad, or what the cache has."""
    files.is_down = fault == "down"
    left = [1]

    def answer(name: str, start: int, data: bytes) -> bytes:
        if not left[0] or fault not in ("short", "flip"):
            return data
        left[0] = 0
        return data[:-1] if fault == "short" else bytes([data[0] ^ 1]) + data[1:]

    files.spoil = answer
    if fault == "spoilt slot":
        cache = storage.blocks.cache
        for slot in range(cache.slot_count):
            os.pwrite(cache._file.descriptor, b"spoilt", slot * BLOCK_BYTES + 11)


@given(
    st.lists(sizes, min_size=FILES, max_size=FILES),
    st.integers(1, 20),
    st.lists(read, min_size=1, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_any_reads_give_what_the_file_has(
    lengths: list[int], cache_blocks: int, reads: list[tuple[str, int, float, int, str | None]]
) -> None:
    with lazily(cache_blocks) as (storage, files):
        contents, opened = [], []
        now = 0.0
        storage.blocks._clock = lambda: now
        for n, length in enumerate(lengths):
            data = (PIECES[n:] * (length // len(PIECES[n:]) + 1))[:length]
            files.objects[LayerObject(1, l1(n)).text] = data
            storage.add(l1(n), 1, length)
            contents.append(data)
            opened.append(storage.open(storage._layers / l1(n).text))
        for kind, n, where, length, fault in reads:
            now += QUIET_SECONDS
            spoil(storage, files, fault)
            try:
                place = int(where * lengths[n]), length
                check(storage, files, kind, opened[n], contents[n], *place)
            except UnreachableError:
                assert fault == "down"


def check(
    storage: LazyStorage,
    files: MemoryFiles,
    kind: str,
    file: File,
    data: bytes,
    offset: int,
    length: int,
) -> None:
    """Read, as one who knows what the bytes must sum up to. Two bad answers in a row would be
    damage: the second one is good."""
    if kind == "expect":
        try:
            storage.expect([file.path])
        except CorruptionError as error:
            raise AssertionError("nobody looks at these bytes yet") from error
        return
    if kind == "bring":
        storage.bring([(file, offset, length), (file, offset // 2, length)])
        return
    if kind == "doubt":
        assert storage.doubt(file, offset, length)
        return
    if kind == "all":
        offset, length = 0, len(data)
    pread = storage.pread_once if kind == "once" else storage.pread
    expected = crc32c(data[offset : offset + length])
    found = pread(file, offset, length)
    if crc32c(found) != expected:
        assert storage.doubt(file, offset, length)
        spoil(storage, files, None)
        found = pread(file, offset, length)
    assert found == data[offset : offset + length]
