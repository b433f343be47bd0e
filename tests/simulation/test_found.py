"""What the simulation found in the engine: the worlds, and each story told plainly.

A seed is only as good as the simulation that it was found with; the stories stay what they are.
"""

import errno
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.compaction_policy import Policy
from engine.storage import PoisonedFileError
from formats import pagestream
from formats.pagestream import PageBatch
from tests.fixtures.crash_story import MAP_BYTES, MAP_NAME
from tests.fixtures.faulty_storage import FaultyStorage
from tests.fixtures.small_store import REL, SmallStore, create, image, insert, truncate
from tests.fixtures.wal_builder import PAGE, Record
from tests.simulation.run import Simulation, simulation
from tests.simulation.small_sizes import small_sizes

OTHER = (1663, 5, 16385)
EAGER = Policy(
    l0_bundles_merged_min=2, layers_max=1, debt_bytes_min=1, debt_per_image_byte=0.1,
    image_bytes_per_block=1, debt_versions_per_block=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def worlds() -> Iterator[Simulation]:
    with simulation(bucket_share=0) as found:  # in which a seed leads where it led then
        yield found


@pytest.mark.parametrize(
    "seed",
    [
        33,
        40,
        98,  # a merge in part hid what was newer
        284,  # the horizon passed while a reason was put into words
        472,  # an image had versions in it that an L0 bundle still had
        491,  # an image file was removed that the manifest named
        560,
        1260,
        156300,  # a flush that was tried again added a bundle that had been merged and removed
        48891,  # layers of a dropped relation stayed for a point at which it does not exist
        92,  # an index older than the files that went
        93,  # a file was removed that a manifest with a failed fsync named
        7,  # one request below the horizon failed all of its batch
    ],
)
def test_seeds_that_failed(worlds: Simulation, seed: int) -> None:
    worlds.run(seed)


@pytest.fixture
def small(fast_directory: Path) -> Iterator[SmallStore]:
    with small_sizes():
        directory = fast_directory / "data"
        directory.mkdir()
        store = SmallStore(directory, memory_bytes=1 << 20)
        yield store
        store.let_go()


def test_no_image_takes_what_an_l0_bundle_still_has(small: SmallStore) -> None:
    """An image at the horizon had versions in it that were not merged yet, which reads took from
    the L0 bundle again, on top of it: "its versions do not fit together"."""
    small.put(image(0, 1), insert(0, 1, b"one"))
    small.flush()
    small.compact(replace(EAGER, debt_bytes_min=1 << 40, debt_versions_per_block=1000))
    lsn = small.put(insert(0, 2, b"two"))
    small.flush()
    assert small.store.layers.map.l0_count == 1  # too few to be merged
    before = small.page(0, lsn)
    for _ in range(2):  # the second time what lies below such an image goes
        small.advance_horizon(lsn)
        small.compact(replace(EAGER, l0_bundles_merged_min=5))
        lsn = small.put(image(0, 1, OTHER))
        small.flush()
    small.reopen()
    assert small.page(0, lsn) == before


def test_a_file_reads_as_it_was_until_the_record_that_replaces_it_ends(small: SmallStore) -> None:
    """Its old content is cut one below that LSN: held there, it went with the layers under the cut,
    and the file was empty."""

    def replaced(mark: int) -> Record:
        content = struct.pack("<I", mark) * (MAP_BYTES // 4)
        return Record(7, 0x00, main=struct.pack("<IIi", 5, 1663, MAP_BYTES) + content)

    policy = replace(EAGER, layers_max=6)
    for record in (replaced(1), image(0, 1)):
        small.put(record)
        small.flush()
    small.compact(policy)  # a layer of its own
    lsn = small.put(replaced(2)) - 1
    small.flush()
    small.store.retention.create_point("before", lsn)
    small.advance_horizon(small.put(image(0, 2)))
    small.flush()
    small.compact(policy)
    assert small.store.file(MAP_NAME, lsn)[:4] == struct.pack("<I", 1)


def test_an_image_stays_when_its_commit_fails(small: SmallStore) -> None:
    """The manifest named the image bundle, LMDB had no room, and the file was removed as if it had
    not been finished: the directory could not be opened any more."""
    storage = FaultyStorage()
    small.reopen(storage)
    small.store.compactor.policy = EAGER
    for number in range(1, 3):
        lsn = small.put(image(0, number), insert(0, 1, b"one"))
        small.flush()
    while not any(stripe for stripe in small.store.compactor.wanting):
        assert small.store.compact_step()
    storage.fail("commit", errno.ENOSPC)
    before = small.page(0, lsn)
    with pytest.raises(OSError, match="No space left"):
        small.compact(EAGER)
    assert small.page(0, lsn) == before
    small.reopen(storage)
    assert small.page(0, lsn) == before
    small.compact(EAGER)
    assert small.page(0, lsn) == before


def test_what_a_broken_manifest_may_name_stays(small: SmallStore) -> None:
    """An fsync of the manifest failed, so that nobody knew whether it names a merge's output; the
    next commit removed that file as if it did not, and the directory could not be opened."""
    storage = FaultyStorage()
    small.reopen(storage)
    for number in range(1, 3):
        lsn = small.put(image(0, number), insert(0, 1, b"one"))
        small.flush()
    storage.fail("sync", errno.EIO, name="manifest")
    before = small.page(0, lsn)
    with pytest.raises(OSError, match="manifest"):
        small.compact(EAGER)
    small.put(image(1, 5))
    with pytest.raises(PoisonedFileError, match="start again"):
        small.flush()
    assert small.page(0, lsn) == before
    small.reopen(storage)
    assert small.page(0, lsn) == before
    small.compact(EAGER)
    assert small.page(0, lsn) == before


def test_one_request_below_the_horizon_fails_alone(small: SmallStore) -> None:
    """Where the horizon passed a request that asks for a relation's history, all requests that came
    with it failed, and so did the connection."""
    old = small.put(create(), insert(0, 1, b"one", init=True), insert(1, 1, b"one", init=True))
    small.put(truncate(1))
    new = small.put(insert(0, 2, b"two"))
    small.flush()
    small.advance_horizon(new)
    out = memoryview(bytearray(3 * pagestream.PAGE_REPLY_BYTES))
    batch = PageBatch(3, out, out)
    for i, lsn in enumerate((new, old, new)):
        batch.spc[i], batch.db[i], batch.rel[i] = REL
        batch.fork[i], batch.block[i], batch.lsn[i] = 0, 0, lsn
        batch.out_pos[i], batch.status[i] = i * PAGE, 0
    small.store.get_pages(batch, 3, out)
    assert [batch.status[i] for i in range(3)][::2] == [0, 0]
    assert "below the horizon" in batch.errors[1]
    assert bytes(out[:PAGE]) == bytes(out[2 * PAGE : 3 * PAGE]) == small.page(0, new)
