"""D/bucket: what it says, that it is written whole, and which buckets a directory descends from."""

import errno
from pathlib import Path

import pytest

from engine.storage import Storage
from formats.bucket_state import BucketState
from formats.errors import CorruptionError
from formats.manifest import Manifest
from formats.manifest_record import Identity
from server.backup import binding
from server.backup.binding import ENTRIES_MAX, Binding, NotDescendedError
from tests.fixtures.faulty_storage import FaultyStorage

URL = "s3://bucket/prefix"
IDENTITY = Identity("a" * 32, "b" * 32, 7, 180006, 1 << 20)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    storage = Storage()
    assert binding.read(storage, tmp_path, URL) == Binding(URL)
    bound = Binding(URL)
    for serial in range(3 * ENTRIES_MAX):
        bound = bound.expecting(serial, 1000 + serial)
        binding.write(storage, tmp_path, bound)
        assert binding.read(storage, tmp_path, URL) == bound
    last = range(2 * ENTRIES_MAX, 3 * ENTRIES_MAX)
    assert bound.entries == tuple((serial, 1000 + serial) for serial in last)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    binding.write(Storage(), tmp_path, Binding(URL, ((7, 8),)))
    path = tmp_path / binding.FILE_NAME
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(CorruptionError):
            binding.read(Storage(), tmp_path, URL)


@pytest.mark.parametrize("call", ["create", "append", "sync", "rename"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, call: str) -> None:
    storage, before = FaultyStorage(), Binding(URL, ((1, 2),))
    binding.write(storage, tmp_path, before)
    storage.fail(call, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        binding.write(storage, tmp_path, before.expecting(3, 4))
    assert binding.read(storage, tmp_path, URL) == before
    binding.write(storage, tmp_path, before.expecting(3, 4))
    assert binding.read(storage, tmp_path, URL).entries == ((1, 2), (3, 4))


def test_which_buckets_it_descends_from() -> None:
    local = Manifest(serial=20, identity=IDENTITY)
    bound = Binding(URL, ((4, 44), (5, 55)))

    def state(serial: int, crc: int, local_serial: int = 20, **identity: str) -> BucketState:
        mirrored = Manifest(serial=local_serial, identity=Identity(
            identity.get("tenant", "a" * 32), "b" * 32, 7, 180006, 1 << 20
        ))  # fmt: skip
        return BucketState(mirrored, serial=serial, crc=crc, server_id="0badcafe", epoch=3)

    bound.check(BucketState(), local)
    bound.check(state(4, 44), local)
    bound.check(state(5, 55, local_serial=3), local)
    for other in (state(5, 56), state(6, 66), state(3, 33), state(5, 55, local_serial=21)):
        with pytest.raises(NotDescendedError, match="server 0badcafe went on there, with epoch 3"):
            bound.check(other, local)
    with pytest.raises(NotDescendedError, match="another cluster's backup"):
        bound.check(state(5, 55, tenant="c" * 32), local)
