"""What backup's manifest costs: bytes and requests, which a long history does not make more."""

from collections import Counter

import pytest

from formats.bucket import BucketRecord, JournalRemoved, ObjectsDeleted
from formats.file_name import FileKind, FileName
from formats.manifest import Manifest
from formats.manifest_difference import difference
from formats.manifest_record import FileAdded, FileRemoved, FileUploaded, LayersRemoved, Progress
from server.backup.bucket_manifest import SNAPSHOT_ENTRIES_MAX, BucketManifest
from tests.fixtures.bucket_writers import FIRST, Writers, piece
from tests.fixtures.memory_bucket import MemoryBucket

LAYERS = 1_000_000
LAYERS_PER_FILE = 200
FILES = LAYERS // LAYERS_PER_FILE
ROWS = bytes(range(LAYERS_PER_FILE // 8))  # some of a file's layers count no longer
APPENDS = 100


def added(kind: FileKind, number: int) -> FileAdded:
    name = FileName(kind, 0, 1 << 20, 1 << 20 | number)
    return FileAdded(name.text, 64 << 20, 1 << 40, 2 << 40, 1 << 31 | number)


def history(files: int) -> tuple[BucketManifest, MemoryBucket, Manifest]:
    """A bucket that was read anew by its writer, and the local manifest that it mirrors."""
    writers = Writers()
    first, _ = writers.writer()
    records: list[BucketRecord] = [*FIRST, Progress(durable_lsn=2 << 40)]
    for number in range(files):
        record = added(FileKind.L1, number)
        records += [record, FileUploaded(record.name, 1), LayersRemoved(record.name, ROWS)]
    assert first.append(*records, piece(2 << 40, (2 << 40) + 10), local_serial=1 << 20)
    first._entries_since = SNAPSHOT_ENTRIES_MAX
    assert first.write_snapshot_if_worthwhile()
    bucket, store = writers.writer()
    store.requests.clear()
    store.bytes_sent = store.bytes_received = 0
    return bucket, store, bucket.state.manifest.copy()


def live(bucket: BucketManifest, local: Manifest, count: int) -> None:
    """So many steps of a directory: a flush, a merge of what was there, a piece of the journal."""
    for number in range(local.serial, local.serial + count):
        new = added(FileKind.L0, number)
        local.apply(new)
        before = added(FileKind.L0, number - 1)
        if FileName.parse(before.name) in local.files:
            local.apply(FileRemoved(before.name))
        local.apply(Progress(durable_lsn=local.durable_lsn + 100))
        local.serial += 1
        last = bucket.state.journal[-1]
        records: list[BucketRecord] = [
            *difference(bucket.state.manifest, local),
            FileUploaded(new.name, 2),
            piece(last.lsn_end, last.lsn_end + 100, 2),
            JournalRemoved(last.name),
            ObjectsDeleted(list(bucket.state.dead)),
        ]
        assert bucket.append(*records, local_serial=local.serial)


@pytest.fixture(scope="module")
def costs() -> dict[int, tuple[Counter[str], int, int]]:
    """By the number of files: requests, bytes sent and received by a hundred appends."""
    found = {}
    for files in (10, FILES):
        bucket, store, local = history(files)
        live(bucket, local, APPENDS)
        found[files] = Counter(store.requests), store.bytes_sent, store.bytes_received
    return found


def test_an_append_costs_the_same_however_long_history_is(
    costs: dict[int, tuple[Counter[str], int, int]],
) -> None:
    assert costs[FILES] == costs[10]
    requests, sent, received = costs[FILES]
    assert requests == {"put_new": APPENDS}
    assert received == 0
    assert sent / APPENDS < 1000


def test_looking_for_other_writers_costs_one_request() -> None:
    bucket, store, _ = history(FILES)
    bucket.check_epoch()
    assert (store.requests, store.bytes_received) == ({"get": 1}, 0)


def test_snapshots_cost_no_more_than_the_entries_that_they_save() -> None:
    """Or one comes in 512 entries, so that reading needs no more of them."""
    bucket, store, local = history(10)
    for _ in range(600):
        live(bucket, local, 1)
        bucket.write_snapshot_if_worthwhile()
    sizes = Counter[str]()
    for name, stored in store.objects.items():
        sizes[name.partition("/")[0]] += len(stored.data)
    assert sizes["snapshot"] < sizes["manifest"]
    large, _, _ = history(FILES)
    written = [large.append() and large.write_snapshot_if_worthwhile() for _ in range(600)]
    assert sum(written) == 1


def test_reading_costs_one_snapshot_and_what_came_since() -> None:
    bucket, store, local = history(FILES)
    live(bucket, local, 20)
    reader = MemoryBucket(store.contents)
    again = BucketManifest(reader, lambda: 0.0)
    assert again.read() == bucket.state
    assert reader.requests == {"list": 2, "get": 22}
    assert len(again.state.manifest.files) == FILES + 1
