"""What a bucket needs no more goes, whatever else comes, and without a start."""

from pathlib import Path

from server.backup.upload_messages import BackupSettings
from tests.fixtures.memory_bucket import Fault
from tests.fixtures.small_store import SMALL_POLICY
from tests.fixtures.uploading import Uploading, check_bucket, fill, grow, small_store
from tests.fixtures.wal_builder import MIB

GRACE_SECONDS = 240.0


def garbage(uploading: Uploading) -> set[str]:
    named = set(uploading.state.objects())
    there = uploading.contents.objects
    return {name for name in there if name.startswith(("layers/", "journal/"))} - named


def test_what_the_last_entry_took_away_goes(tmp_path: Path) -> None:
    """Since when an object is dead the next entry says, and for a database at rest none came."""
    small = small_store(tmp_path)
    uploading = Uploading(small, settings=BackupSettings(grace_seconds=GRACE_SECONDS))
    for mark in range(1, 4):
        grow(small, mark)
        small.flush()
        uploading.run(12)
    small.compact(SMALL_POLICY)
    uploading.run(12)
    assert garbage(uploading)
    serial = uploading.state.serial
    uploading.run(1.5 * GRACE_SECONDS)
    assert not garbage(uploading)
    assert uploading.state.serial <= serial + 2
    check_bucket(uploading)


def test_a_piece_that_was_never_named_goes_once_layers_have_its_wal(tmp_path: Path) -> None:
    """Its answer was lost, and with what came meanwhile it was sent as another one: the first was
    nobody's until the server was started again."""
    small = small_store(tmp_path)
    uploading = Uploading(small, settings=BackupSettings(grace_seconds=GRACE_SECONDS))
    uploading.run(12)
    uploading.client.fail("put_stream", Fault.AFTER, name="journal/")
    grow(small, 1)
    while not garbage(uploading):
        uploading.step()
    grow(small, 2)
    uploading.run(1.5 * GRACE_SECONDS)
    (piece,) = garbage(uploading)
    assert piece.startswith("journal/")
    fill(small, 2 * MIB)
    small.ingest()
    small.flush()
    uploading.run(1.5 * GRACE_SECONDS)
    assert not garbage(uploading)
    check_bucket(uploading)
