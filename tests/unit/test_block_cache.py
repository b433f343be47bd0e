"""The cache of blocks: bounded, least recently used, and believed only as far as it checks."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

from engine.block_cache import BLOCK_BYTES, BlockCache
from engine.storage import Bytes, File, Storage


def block(number: int, length: int = BLOCK_BYTES) -> bytes:
    return number.to_bytes(4, "little") * (length // 4)


def test_what_was_put_is_found_and_the_least_recently_used_goes(tmp_path: Path) -> None:
    cache = BlockCache(Storage(), tmp_path / "cache", 3 * BLOCK_BYTES)
    for number in range(3):
        cache.put(number, block(number, BLOCK_BYTES - 4 * number))
    assert cache.get(0) == block(0)
    cache.put(3, block(3))
    assert [cache.get(number) is not None for number in range(4)] == [True, False, True, True]
    assert cache.get(2) == block(2, BLOCK_BYTES - 8)
    assert 3 in cache
    assert cache.bytes_used == 3 * BLOCK_BYTES


def test_its_file_has_no_name_and_never_grows(tmp_path: Path) -> None:
    """Of 2.9 blocks two are used."""
    cache = BlockCache(Storage(), tmp_path / "cache", 2 * BLOCK_BYTES + BLOCK_BYTES * 9 // 10)
    for number in range(20):
        cache.put(number, block(number))
    status = os.fstat(cache._file.descriptor)
    assert status.st_size == 2 * BLOCK_BYTES
    assert status.st_blocks * 512 <= 2 * BLOCK_BYTES
    assert not list(tmp_path.iterdir())


def test_a_block_that_the_disk_spoils_is_not_here(tmp_path: Path) -> None:
    cache = BlockCache(Storage(), tmp_path / "cache", 2 * BLOCK_BYTES)
    cache.put(7, block(7))
    os.pwrite(cache._file.descriptor, b"\xff", 5)
    assert cache.get(7) is None
    assert cache.damaged == 1
    cache.put(7, block(7))
    assert cache.get(7) == block(7)


def test_a_disk_that_does_not_write_costs_only_the_use_of_the_cache(tmp_path: Path) -> None:
    class Full(Storage):
        is_full = True

        def write_at(self, file: File, offset: int, data: Bytes) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, "full", str(file.path))
            super().write_at(file, offset, data)

    storage = Full()
    cache = BlockCache(storage, tmp_path / "cache", BLOCK_BYTES)
    for number in range(3):
        cache.put(number, block(number))
        assert cache.get(number) is None
    storage.is_full = False
    cache.put(3, block(3))
    assert cache.get(3) == block(3)


def test_what_is_dropped_makes_room(tmp_path: Path) -> None:
    cache = BlockCache(Storage(), tmp_path / "cache", 2 * BLOCK_BYTES)
    cache.put(0, block(0))
    cache.put(1, block(1))
    assert cache.drop(0)
    assert not cache.drop(0)
    cache.put(2, block(2))
    assert cache.get(1) == block(1)
    assert cache.get(2) == block(2)


def test_many_threads_never_see_another_block(tmp_path: Path) -> None:
    """Slots change hands all the time: eight threads, three slots."""
    cache = BlockCache(Storage(), tmp_path / "cache", 3 * BLOCK_BYTES)
    wrong: list[int] = []

    def run(seed: int) -> None:
        random = Random(seed)
        for _ in range(300):
            number = random.randrange(9)
            found = cache.get(number)
            if found is None:
                cache.put(number, block(number))
            elif found != block(number):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.bytes_used <= 3 * BLOCK_BYTES
    assert not cache.damaged, "a slot that is given away is no damage"


def test_a_slot_that_is_given_away_while_it_is_read_is_no_damage(tmp_path: Path) -> None:
    class Busy(Storage):
        meanwhile: Callable[[], None] | None = None

        def pread(self, file: File, offset: int, length: int) -> bytes:
            if self.meanwhile is not None:
                do, self.meanwhile = self.meanwhile, None
                do()
            return super().pread(file, offset, length)

    storage = Busy()
    cache = BlockCache(storage, tmp_path / "cache", BLOCK_BYTES)
    cache.put(1, block(1))
    storage.meanwhile = lambda: cache.put(2, block(2))
    assert cache.get(1) is None
    assert not cache.damaged
    assert cache.get(2) == block(2)
