"""The uploader over a bucket in memory: what the bucket has, step by step, and through faults."""

import pytest

from server.backup.local_state import Position
from server.backup.upload_messages import BackupSettings
from tests.fixtures.memory_bucket import Fault
from tests.fixtures.small_store import (
    OTHER,
    SMALL_POLICY,
    create,
    image,
)
from tests.fixtures.uploading import Uploading, check_bucket, fill, grow, small_store
from tests.fixtures.wal_builder import MIB


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


@pytest.mark.parametrize("pieces_before", [0, 1])
def test_a_bucket_that_goes_away_with_an_answer(tmp_path, pieces_before):
    """An entry came through unheard; it is the heartbeat that hears of it, when the bucket is back.
    What it names is not named once more."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    for number in range(pieces_before):
        grow(small, number)
        uploading.run(12)
    grow(small, 2)
    is_away_until = 0.0

    def choose_fault(call, name):
        nonlocal is_away_until
        if not is_away_until and name.startswith("manifest/") and call == "put_new":
            is_away_until = uploading.clock.now + 20
            return Fault.AFTER
        return Fault.BEFORE if uploading.clock.now < is_away_until else None

    uploading.client.choose_fault = choose_fault
    uploading.run(60)
    end = grow(small, 3)
    uploading.run(20)
    assert is_away_until
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


def test_a_file_that_compaction_takes_away_while_it_is_sent(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    for number in range(4):
        grow(small, number)
        small.flush()
    uploading.executor.is_held = True
    uploading.run(2)
    held = uploading.uploader._layers.target
    small.compact(SMALL_POLICY)
    assert held.files.keys() - small.store.manifest.state.files.keys()
    uploading.executor.is_held = False
    uploading.executor.release()
    uploading.step()
    assert uploading.state.manifest.files == held.files
    uploading.run(12)
    assert check_bucket(uploading).manifest.files == small.store.manifest.state.files


def test_before_a_base_backup_there_is_nothing_to_wait_for(tmp_path):
    uploading = Uploading(small_store(tmp_path))
    uploading.position = Position
    uploading.run(3)
    assert uploading.shown == "waiting for the base backup"
    assert uploading.uploader.is_done
    assert not [name for name in uploading.contents.objects if name.startswith("manifest/")]


def test_the_last_wal_is_sent_at_once_when_the_end_is_near(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    end = grow(small, 1)
    uploading.run(2)
    assert not uploading.uploader.is_done
    uploading.uploader.hasten()
    uploading.run(2)
    assert uploading.uploader.is_done
    assert uploading.state.remote_lsn == end


def test_leases_and_points_are_mirrored(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    end = small.put(create(OTHER), image(0, 10))
    uploading.run(20)
    small.store.retention.create_point("before", end)
    uploading.run(20)
    assert uploading.state.manifest.points["before"].lsn == end
