"""Outlines of bundles: their bytes, every damage of these, and the index that is made by them."""

import random
import shutil
from pathlib import Path

import pytest

from engine.bundle_outline import outline_of, read_outlines
from engine.bundle_reader import BundleReader
from engine.index import Index
from engine.index_rebuild import catch_up, open_index
from engine.storage import Storage
from formats.bucket import OUTLINES
from formats.chunk import ChunkKey
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.manifest import Manifest
from formats.manifest_record import FileAdded
from formats.outline import (
    FILE_NAME,
    HEADER_BYTES,
    Outline,
    pack_outline,
    pack_outlines,
    size_of,
    split_outlines,
    unpack_outlines,
)
from server.backup import outline_shipping
from server.backup.outline_shipping import KEPT, SECONDS_MIN, SENT_PER_BYTE, OutlineShipping
from tests.fixtures import bundles
from tests.fixtures.memory_bucket import Contents, MemoryBucket
from tests.fixtures.small_store import (
    OTHER,
    REL,
    SMALL_POLICY,
    SmallStore,
    create,
    drop,
    image,
    truncate,
)
from tests.fixtures.stopped_directory import STRIPE, StoppedDirectory, fill, flushes
from tests.fixtures.uploading import Clock, Uploading, grow, small_store


def outlines_of(layers: Path) -> dict[FileName, Outline]:
    readers = (BundleReader(Storage(), path) for path in sorted(layers.iterdir()))
    return {reader.name: outline_of(reader) for reader in readers}


def file_of(outlines: dict[FileName, Outline]) -> bytes:
    return b"".join(pack_outlines({name: pack_outline(one) for name, one in outlines.items()}))


class Unreadable(Storage):
    """Bundles are in a bucket that does not answer."""

    def open(self, path: Path, writable: bool = False):
        assert path.suffix != ".bundle", f"{path.name} is asked"
        return super().open(path, writable)


def made_of(
    root: Path,
    manifest: Manifest,
    layers: Path,
    outlines: dict[FileName, Outline],
    storage: Storage,
) -> dict[str, dict[bytes, bytes]]:
    root.mkdir()
    index = Index(root, storage)
    try:
        catch_up(index, storage, manifest, layers, outlines)
        return index.dump()
    finally:
        index.close()
        shutil.rmtree(root)


@pytest.fixture
def directory(tmp_path: Path) -> StoppedDirectory:
    directory = StoppedDirectory(tmp_path / "pages")
    fill(directory)
    return directory


def test_what_was_packed_is_unpacked(directory: StoppedDirectory) -> None:
    outlines = outlines_of(directory.layers)
    data = file_of(outlines)
    assert len(outlines) == 3
    assert unpack_outlines(data, "x") == outlines
    packed = split_outlines(data, "x")
    assert b"".join(pack_outlines(packed)) == data
    assert size_of(packed.values()) == len(data)
    assert unpack_outlines(b"".join(pack_outlines({})), "x") == {}


def test_every_flipped_bit_and_every_cut_is_noticed(directory: StoppedDirectory) -> None:
    data = file_of(outlines_of(directory.layers))
    for at in range(8 * len(data)):
        broken = bytearray(data)
        broken[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptionError, match="x"):
            unpack_outlines(bytes(broken), "x")
    for end in range(len(data)):
        with pytest.raises(CorruptionError, match="x"):
            unpack_outlines(data[:end], "x")
    with pytest.raises(CorruptionError, match="an end at offset"):
        unpack_outlines(data + b"\0", "x")


def test_outlines_of_a_later_version(directory: StoppedDirectory) -> None:
    header = bytearray(file_of({})[:HEADER_BYTES])
    header[8] += 1
    with pytest.raises(CorruptionError, match="checksum"):
        unpack_outlines(bytes(header), "x")


def test_an_index_that_is_made_by_outlines_asks_no_bundle(
    directory: StoppedDirectory, tmp_path: Path
) -> None:
    state, layers = directory.manifest.state, directory.layers
    outlines = outlines_of(layers)
    (layers.parent / FILE_NAME).write_bytes(file_of(outlines))
    index = open_index(Unreadable(), tmp_path / "by-outlines", state, layers)
    assert index.dump() == directory.index.dump()
    index.close()
    assert not (layers.parent / FILE_NAME).exists()


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_same_as_by_bundles(tmp_path: Path, seed: int) -> None:
    """Random histories, removed layers, settled bundles; some outlines are missing, or are those of
    another bundle of that name."""
    rng = random.Random(seed)
    directory = StoppedDirectory(tmp_path / "pages")
    for number in range(12):
        name = bundles.image_bundle(number) if rng.random() < 0.4 else bundles.l0(number)
        versions = []
        for _ in range(rng.randrange(1, 40)):
            key = ChunkKey(1, 1663, 5, rng.randrange(16384, 16389), rng.randrange(3), 0)
            lsn = 100 * rng.randrange(1, 20) + number
            state = bundles.history(rng.random() < 0.8, rng.randrange(100))
            versions.append((key.history().pack(), rng.randrange(2), lsn, state))
            block = rng.randrange(8) * STRIPE + rng.randrange(3)
            versions.append((key.pack(), block, lsn, bundles.record(rng.randbytes(9))))
        directory.flush(name, versions)
    layers, state = directory.layers, directory.manifest.state.copy()
    for name in rng.sample(sorted(state.files), 6):
        count = BundleReader(Storage(), layers / name.text).directory.count
        bits = bytearray(-(-count // 8))
        for row in rng.sample(range(count), rng.randrange(count)):
            bits[row // 8] |= 1 << row % 8
        state.removed[name] = bytes(bits)
    state.settled.update(
        rng.sample([name for name in sorted(state.files) if name.kind == FileKind.L0], 2)
    )
    outlines = outlines_of(layers)
    by_bundles = made_of(tmp_path / "i", state, layers, {}, Storage())
    assert made_of(tmp_path / "i", state, layers, outlines, Unreadable()) == by_bundles
    one, two, three = rng.sample(sorted(outlines), 3)
    outlines[one] = outlines[one]._replace(bytes_total=outlines[one].bytes_total + 1)
    outlines[two] = outlines[two]._replace(footer=outlines[two].footer._replace(versions=7))
    del outlines[three]
    assert made_of(tmp_path / "i", state, layers, outlines, Storage()) == by_bundles
    ends = [info.lsn_start + 7 for info in state.files.values()]
    for end in rng.sample(ends, 5):
        state.ends_at_lsn = end
        by_bundles = made_of(tmp_path / "i", state, layers, {}, Storage())
        assert made_of(tmp_path / "i", state, layers, outlines_of(layers), Storage()) == by_bundles


def test_it_is_the_same_of_a_store_that_was_compacted(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    small = SmallStore(tmp_path / "pages")
    rng = random.Random(3)
    small.put(create(REL), create(OTHER))
    for mark in range(40):
        small.put(image(rng.randrange(6), mark, rng.choice((REL, OTHER))))
        if mark % 9 == 8:
            small.put(truncate(rng.randrange(6), rng.choice((REL, OTHER))))
        if mark % 4 == 3:
            small.flush()
            small.compact(SMALL_POLICY)
    small.put(drop(OTHER))
    small.flush()
    state, layers = small.store.manifest.state, small.store.paths.layers
    assert state.removed or any(name.kind == FileKind.L1 for name in state.files), (
        "nothing was merged"
    )
    outlines = outlines_of(layers)
    by_bundles = made_of(tmp_path / "i", state, layers, {}, Storage())
    assert made_of(tmp_path / "i", state, layers, outlines, Unreadable()) == by_bundles


def test_outlines_that_are_damaged_are_left_alone(
    directory: StoppedDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = directory.layers.parent / FILE_NAME
    data = bytearray(file_of(outlines_of(directory.layers)))
    data[-1] ^= 1
    path.write_bytes(data)
    assert read_outlines(Storage(), directory.layers.parent) == {}
    assert "the bundles are read" in caplog.text
    index = open_index(Storage(), tmp_path / "i", directory.manifest.state, directory.layers)
    assert index.dump() == directory.index.dump()
    index.close()


def test_a_bundle_whose_frame_table_is_damaged_is_not_outlined(
    directory: StoppedDirectory,
) -> None:
    """Its outline would be taken for true for ever, and its layers for empty."""
    versions = [(ChunkKey(1, 1663, 5, 16384, 0, 0).pack(), 0, 300, bundles.record(b"x"))]
    info = bundles.write(directory.layers, bundles.l0(9), versions)  # no history, which asks it
    path = directory.layers / info.name.text
    data = bytearray(path.read_bytes())
    data[BundleReader(Storage(), path).footer.table_offset + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="table"):
        outline_of(BundleReader(Storage(), path))


# In the bucket ------------------------------------------------------------------------------------


def names_of(uploading: Uploading) -> list[str]:
    return sorted(name for name in uploading.contents.objects if name.startswith(OUTLINES))


def outlined(uploading: Uploading) -> set[FileName]:
    """What the newest object has."""
    name = names_of(uploading)[-1]
    return set(split_outlines(uploading.contents.objects[name].data, name))


def grown(tmp_path: Path, rounds: int) -> Uploading:
    """A bucket, after some flushes and a merge."""
    uploading = Uploading(small_store(tmp_path))
    for number in range(rounds):
        grow(uploading.small, number)
        uploading.small.flush()
        if number % 3 == 2:
            uploading.small.compact(SMALL_POLICY)
        uploading.run(12)
    return uploading


def test_the_bucket_has_outlines_of_all_its_bundles(tmp_path: Path) -> None:
    uploading = grown(tmp_path, 7)
    assert outlined(uploading) == set(uploading.state.manifest.files)
    assert 1 <= len(names_of(uploading)) <= KEPT
    assert uploading.uploader.status.state == "idle"
    before = names_of(uploading)
    uploading.run(60)
    assert names_of(uploading) == before  # nothing is new


@pytest.mark.parametrize("change", ["nothing", "damaged", "lost"])
def test_the_next_writer_goes_on_with_them(tmp_path: Path, change: str) -> None:
    uploading = grown(tmp_path, 5)
    objects = uploading.contents.objects
    for name in names_of(uploading):
        stored = objects[name]
        if change == "lost":
            del objects[name]
        elif change == "damaged":
            objects[name] = stored._replace(data=stored.data[:-1])
    next_one = Uploading(uploading.small, uploading.contents, clock=uploading.clock)
    next_one.run(30)
    assert outlined(next_one) == set(next_one.state.manifest.files)
    if change != "nothing":
        assert names_of(next_one)[-1].startswith(f"{OUTLINES}00000002-"), "they were made anew"
    grow(next_one.small, 9)
    next_one.small.flush()
    next_one.run(30)
    assert outlined(next_one) == set(next_one.state.manifest.files)
    assert len(names_of(next_one)) <= KEPT


def test_a_writer_without_the_files_keeps_what_the_bucket_has(tmp_path: Path) -> None:
    """Whose layers are in the bucket alone."""
    uploading = grown(tmp_path, 4)
    files = set(uploading.state.manifest.files)
    for path in uploading.small.store.paths.layers.iterdir():
        path.unlink()
    next_one = Uploading(uploading.small, uploading.contents, clock=uploading.clock)
    next_one.run(30)
    assert outlined(next_one) == files


def test_they_are_put_again_only_when_enough_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what they cost stays a small part of all, however many bundles there are."""
    monkeypatch.setattr(outline_shipping, "SENT_BYTES_MIN", 0)
    layers = tmp_path / "layers"
    layers.mkdir()
    clock = Clock()
    bucket = MemoryBucket(Contents(clock))
    shipping = OutlineShipping(bucket, Storage(), layers, clock)
    records: dict[FileName, FileAdded] = {}
    sent = put = count = 0
    while job := shipping.next_job({}, 1):
        job()
    for number in range(1, 150):
        info = bundles.write(layers, bundles.l0(number), flushes()[number % 2])
        size = info.bytes_total * 100  # of one with as many layers, and more in them
        lsns = info.footer.lsn_start, info.footer.lsn_end
        records[info.name] = FileAdded(info.name.text, size, *lsns, info.footer_crc)
        shipping.outline(layers / info.name.text)
        sent += size
        clock.now += SECONDS_MIN / 2
        if (job := shipping.next_job(records, 1)) is not None:
            job()
            put += len(bucket.objects[max(bucket.objects)].data)
            count += 1
            assert shipping.next_job(records, 1) is None
            assert put * SENT_PER_BYTE <= sent
    assert 3 < count < 75, "at most at every other look, as the time between them wants it"
