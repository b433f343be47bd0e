"""The uploader over a bucket in memory: what the bucket has, step by step, and through faults."""

import crc32c
import pytest
import zstandard

from formats.bucket_state import BucketState
from formats.chunk import relation as relation_key
from server.backup.bucket_manifest import FencedError
from server.backup.upload_messages import BackupSettings
from tests.fixtures.memory_bucket import Contents, Fault
from tests.fixtures.small_store import (
    OTHER,
    REL,
    SMALL_POLICY,
    SmallStore,
    create,
    heap_page,
    image,
)
from tests.fixtures.uploading import Uploading
from tests.fixtures.wal_builder import MIB, Record, Reference


def small_store(tmp_path) -> SmallStore:
    pages = [(relation_key(*REL, 0), [heap_page(1), heap_page(2)])]
    (tmp_path / "pages").mkdir()
    return SmallStore(tmp_path / "pages", pages)


def check_bucket(uploading: Uploading) -> BucketState:
    """All that the bucket names is there, and is what the directory has or had."""
    state, objects, small = uploading.state, uploading.contents.objects, uploading.small
    for name in state.manifest.files:
        stored = objects[state.object_of(name)].data
        path = small.directory / "layers" / name.text
        if path.exists():
            assert stored == path.read_bytes()
        assert len(stored) == state.manifest.files[name].bytes_total
    start = state.manifest.durable_lsn // MIB * MIB
    for piece in state.journal:
        assert piece.lsn_start == start
        stored = objects[piece.name].data
        assert (len(stored), crc32c.crc32c(stored)) == (piece.bytes_stored, piece.crc)
        data = zstandard.decompress(stored)
        at = piece.lsn_start - small.wal.start
        assert data == bytes(small.wal.data[at : at + len(data)])
        assert len(data) == piece.lsn_end - start
        start = piece.lsn_end
    return state


def grow(small: SmallStore, mark: int, blocks: int = 4) -> int:
    """WAL of some pages; where it ends."""
    return small.put(*(image(block, mark) for block in range(blocks)))


def fill(small: SmallStore, size: int) -> int:
    """So many bytes of WAL, in large records; where it ends."""
    data = bytes(50_000)
    records = [
        Record(10, 0x60, 7, data, [Reference(0, REL, block)]) for block in range(size // 50_000)
    ]
    return small.put(*records)


def test_the_bucket_follows_the_directory(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(3)
    state = check_bucket(uploading)
    assert state.manifest.files == small.store.manifest.state.files
    assert (state.epoch, uploading.shown) == (1, "idle")
    end = small.put(create(), image(0, 10))
    for round_number in range(1, 12):
        end = grow(small, round_number)
        if round_number % 3 == 0:
            small.flush()
        if round_number == 8:
            small.compact(SMALL_POLICY)
        uploading.run(12)
        state = check_bucket(uploading)
        assert state.remote_lsn == end == small.store.journal.flushed_lsn
        local = small.store.manifest.state
        assert state.manifest.files == local.files
        assert state.manifest.durable_lsn == local.durable_lsn
    assert uploading.uploader.status.pending_bytes == 0
    assert not [*(small.directory / "upload").iterdir()]


def test_wal_goes_by_its_age_and_by_its_size(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small, settings=BackupSettings(journal_seconds=10, journal_bytes=100_000))
    uploading.run(12)
    end = grow(small, 1)
    uploading.run(9)
    assert uploading.state.remote_lsn < end
    uploading.run(2)
    assert uploading.state.remote_lsn == end
    many = fill(small, 250_000)
    uploading.run(3)
    assert uploading.state.remote_lsn == many
    sizes = [piece.lsn_end - piece.lsn_start for piece in uploading.state.journal]
    assert max(sizes) == 100_000
    check_bucket(uploading)


def test_wal_goes_while_a_long_upload_of_layers_is_under_way(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(3)
    grow(small, 1)
    small.flush()
    uploading.executor.is_held = True
    uploading.run(2)
    layer = uploading.executor.take_held()
    assert uploading.shown == "uploading"
    uploading.executor.is_held = False
    before = uploading.state.manifest.durable_lsn
    end = grow(small, 2)
    uploading.run(20)
    state = check_bucket(uploading)
    assert (state.remote_lsn, state.manifest.durable_lsn) == (end, before)
    for do in layer:
        do()
    uploading.run(3)
    assert check_bucket(uploading).manifest.durable_lsn == small.store.durable_lsn


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("call", ["put_new", "put_stream", "get", "list", "put"])
def test_faults_are_tried_again(tmp_path, fault, call):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.client.fail(call, fault, times=3)
    uploading.run(60)
    for number in range(3):
        uploading.client.fail(call, fault, times=2)
        end = grow(small, number)
        small.flush()
        uploading.run(60)
        assert check_bucket(uploading).remote_lsn == end
    assert uploading.shown == "idle"
    assert uploading.state.manifest.files == small.store.manifest.state.files


def test_a_bucket_that_is_away_is_waited_for_and_it_is_said(tmp_path, caplog):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(20)
    uploading.client.choose_fault = lambda call, name: Fault.BEFORE
    for number in range(6):
        end = grow(small, number)
        small.flush()
        uploading.run(100)
    assert uploading.shown.startswith("retrying: ")
    assert uploading.uploader.status.pending_bytes > 0
    assert len([r for r in caplog.records if "tries again" in r.message]) == 1
    uploading.client.choose_fault = lambda call, name: None
    uploading.run(60)
    assert uploading.shown == "idle"
    assert len([r for r in caplog.records if r.message == "the backup goes on"]) <= 1
    assert check_bucket(uploading).remote_lsn == end


def test_wal_that_went_meanwhile_is_begun_anew_where_layers_end(tmp_path):
    """The bucket was away until the journal here was trimmed beyond its pieces."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    grow(small, 1)
    uploading.run(20)
    before = uploading.state.remote_lsn
    fill(small, 5 * MIB // 2)
    small.flush()
    assert small.store.journal.start_lsn > before
    end = grow(small, 3)
    uploading.executor.is_held = True  # layers are on their way while WAL comes
    uploading.run(20)
    assert uploading.state.remote_lsn == before
    uploading.executor.release()
    uploading.executor.is_held = False
    uploading.run(20)
    state = check_bucket(uploading)
    assert state.remote_lsn == end
    assert state.manifest.durable_lsn == small.store.durable_lsn


def test_the_one_that_another_took_over_from_is_fenced(tmp_path):
    small = small_store(tmp_path)
    first = Uploading(small)
    first.run(20)
    second = Uploading(small, first.contents, clock=first.clock)
    second.run(3)
    assert second.state.epoch == 2
    end = grow(small, 1)
    with pytest.raises(FencedError, match="epoch 2"):
        first.run(20)
    second.run(20)
    assert check_bucket(second).remote_lsn == end


def test_a_damaged_file_is_not_sent_and_wal_goes_on(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(20)
    before = uploading.state.manifest.files
    grow(small, 1)
    small.flush()
    new = set(small.store.manifest.state.files) - set(before)
    (name,) = (file.text for file in new)
    path = small.directory / "layers" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    end = grow(small, 2)
    uploading.run(20)
    assert uploading.shown.startswith(f"stopped: layers/{name} is damaged")
    state = check_bucket(uploading)
    assert state.manifest.files == before
    assert state.remote_lsn == end
    assert not [key for key in uploading.contents.objects if name in key]


def test_leases_and_points_are_mirrored(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    end = small.put(create(OTHER), image(0, 10))
    uploading.run(20)
    small.store.retention.create_point("before", end)
    uploading.run(20)
    assert uploading.state.manifest.points["before"].lsn == end


def test_what_an_entry_was_to_name_is_deleted_as_an_orphan(tmp_path):
    small = small_store(tmp_path)
    contents = Contents()
    uploading = Uploading(small, settings=BackupSettings(grace_seconds=100))
    contents = uploading.contents
    uploading.run(5)
    grow(small, 1)
    small.flush()
    uploading.executor.is_held = True
    uploading.step(2)
    uploading.executor.release()  # it is in the bucket, and its process dies
    sent = {name for name in contents.objects if name.startswith("layers/")}
    second = Uploading(small, contents, uploading.settings, uploading.clock)
    second.run(250)
    state = check_bucket(second)
    named = set(state.objects())
    assert {name for name in contents.objects if name.startswith("layers/")} <= named
    assert sent - named and not sent <= set(contents.objects)


def test_what_is_dead_is_deleted_after_the_grace_time(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small, settings=BackupSettings(grace_seconds=200, journal_seconds=2))
    uploading.run(5)
    for number in range(5):
        grow(small, number)
        small.flush()
        uploading.run(5)
    small.compact(SMALL_POLICY)
    uploading.run(5)
    grow(small, 9)  # the entry behind the one that took them away says when they died
    uploading.run(5)
    dead = [name for name in uploading.state.dead if name.startswith("layers/")]
    assert dead and set(dead) <= set(uploading.contents.objects)
    uploading.run(150)
    assert set(dead) <= set(uploading.contents.objects)
    uploading.run(100)
    assert not set(dead) & set(uploading.contents.objects)
    assert not set(dead) & set(uploading.state.dead)
    check_bucket(uploading)
