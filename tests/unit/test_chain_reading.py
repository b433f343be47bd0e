"""Reading a bucket's chain: damage and loss are errors, or the snapshot before is taken."""

from collections.abc import Callable

import pytest

from formats.bucket import entry_name, snapshot_name
from formats.errors import CorruptionError
from server.backup.bucket_manifest import READ_ATTEMPTS, BucketManifest
from server.backup.object_store import TransientError
from tests.fixtures.bucket_writers import FIRST, GRACE_SECONDS, Writers, in_bucket, piece
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket, Stored

SNAPSHOTS = (17, 33)
ENTRIES = 40


def filled(page: int = 1000) -> tuple[Writers, BucketManifest, MemoryBucket]:
    """A bucket of 40 entries, with snapshots after the 17th and the 33rd."""
    writers = Writers(page)
    bucket, store = writers.writer()
    bucket.append(*FIRST, *in_bucket(1))
    bucket.append(piece(0, 300))
    while bucket.state.serial < ENTRIES:
        end = bucket.state.journal[-1].lsn_end
        bucket.append(piece(end, end + 10))
        if bucket.state.serial in SNAPSHOTS:
            bucket._entries_since, bucket._bytes_since = 16, 1 << 20
            assert bucket.write_snapshot_if_worthwhile()
    assert len(writers.contents.objects) == ENTRIES + len(SNAPSHOTS)
    return writers, bucket, store


def damage(contents: Contents, name: str) -> None:
    data = bytearray(contents.objects[name].data)
    data[len(data) // 2] ^= 1
    contents.objects[name] = Stored(bytes(data), 0.0)


@pytest.mark.parametrize("page", [1, 7, 1000])
def test_a_listing_in_pages(page: int) -> None:
    writers, bucket, _ = filled(page)
    reader, store = writers.reader()
    assert reader.read() == bucket.state
    assert store.requests["get"] == 1 + ENTRIES - SNAPSHOTS[-1]


def test_a_damaged_snapshot_is_not_needed() -> None:
    """The one before does, or the entries from the first on."""
    writers, bucket, _ = filled()
    for serial in reversed(SNAPSHOTS):
        damage(writers.contents, snapshot_name(serial))
        assert writers.reader()[0].read() == bucket.state


def test_a_snapshot_that_is_cut_short_on_the_way() -> None:
    writers, bucket, _ = filled()
    reader, store = writers.reader()
    store.fail("get", Fault.SHORT)
    assert reader.read() == bucket.state


@pytest.mark.parametrize("serial", range(SNAPSHOTS[-1] + 1, ENTRIES + 1))
def test_a_damaged_entry(serial: int) -> None:
    writers, _, _ = filled()
    damage(writers.contents, entry_name(serial))
    with pytest.raises(CorruptionError, match=entry_name(serial)):
        writers.reader()[0].read()


@pytest.mark.parametrize("serial", range(SNAPSHOTS[-1] + 1, ENTRIES))
def test_an_entry_that_is_missing_in_the_middle(serial: int) -> None:
    writers, _, _ = filled()
    del writers.contents.objects[entry_name(serial)]
    with pytest.raises(CorruptionError, match=f"{entry_name(serial)}: expected an entry, found"):
        writers.reader()[0].read()


def test_entries_below_the_snapshot_are_not_asked_for() -> None:
    writers, bucket, _ = filled()
    for serial in range(1, SNAPSHOTS[-1] + 1):
        del writers.contents.objects[entry_name(serial)]
    assert writers.reader()[0].read() == bucket.state


def test_what_a_damaged_snapshot_would_have_had() -> None:
    """Entries below it are gone: an error that names both, and not the state before."""
    writers, _, _ = filled()
    damage(writers.contents, snapshot_name(33))
    for serial in range(18, ENTRIES + 1):
        del writers.contents.objects[entry_name(serial)]
    with pytest.raises(CorruptionError) as failure:
        writers.reader()[0].read()
    assert entry_name(18) in str(failure.value)
    assert f"checksum at {snapshot_name(33)}" in str(failure.value)


def test_entries_that_are_exchanged() -> None:
    writers, _, _ = filled()
    objects = writers.contents.objects
    one, other = entry_name(36), entry_name(37)
    objects[one], objects[other] = objects[other], objects[one]
    with pytest.raises(CorruptionError, match=f"checksum at {one}"):
        writers.reader()[0].read()


def test_a_foreign_object() -> None:
    writers, _, _ = filled()
    writers.contents.put("manifest/notes.txt", b"", only_new=True)
    with pytest.raises(CorruptionError, match=r"notes\.txt"):
        writers.reader()[0].read()


def test_what_was_there_stays_there() -> None:
    writers, bucket, store = filled()
    for name in list(writers.contents.objects):
        if name.startswith("snapshot/") or name > entry_name(30):
            del writers.contents.objects[name]
    writers.seconds += GRACE_SECONDS
    with pytest.raises(CorruptionError, match=entry_name(ENTRIES)):
        bucket.check_epoch()


def deleting(writers: Writers, store: MemoryBucket, when: Callable[[str], bool]) -> list[str]:
    """Once, at such a call: all but the newest snapshot goes, which the writer has just written."""
    bucket, _ = writers.reader()
    bucket.read()
    bucket._entries_since = 1000
    done: list[str] = []

    def pause(where: str) -> None:
        if when(where) and not done:
            done.append(where)
            bucket.write_snapshot_if_worthwhile()
            for name in list(writers.contents.objects):
                if name != snapshot_name(ENTRIES):
                    del writers.contents.objects[name]
            writers.seconds += GRACE_SECONDS  # nothing is deleted sooner

    store.pause = pause
    return done


@pytest.mark.parametrize(
    "place",
    ["list snapshot/: answer", f"get {snapshot_name(33)}", "list manifest/",
     "list manifest/: answer", f"get {entry_name(37)}"],
)  # fmt: skip
def test_what_is_deleted_while_it_is_read(place: str) -> None:
    writers, bucket, _ = filled()
    reader, store = writers.reader()
    done = deleting(writers, store, lambda where: where == place)
    assert reader.read() == bucket.state
    assert done == [place]


def test_a_gap_that_a_newer_snapshot_explains() -> None:
    """Between two listings the entries behind the snapshot went, as there is a newer one, behind
    which there is another entry already."""
    writers, bucket, _ = filled()
    reader, store = writers.reader()

    def go_on(where: str) -> None:
        if where == "list manifest/":
            store.pause = lambda where: None
            bucket._entries_since = 1000
            bucket.write_snapshot_if_worthwhile()
            for serial in range(1, ENTRIES + 1):
                del writers.contents.objects[entry_name(serial)]
            bucket.append()

    store.pause = go_on
    assert reader.read() == bucket.state
    assert reader.state.serial == ENTRIES + 1


def test_a_bucket_that_changes_all_the_time() -> None:
    writers, bucket, _ = filled()
    reader, store = writers.reader()

    def pause(where: str) -> None:
        if where.startswith(f"get {snapshot_name(33)[:-2]}") and not where.endswith("answer"):
            writers.contents.objects.pop(where.removeprefix("get "))
            bucket._entries_since = 1000
            bucket.append()
            bucket.write_snapshot_if_worthwhile()

    store.pause = pause
    with pytest.raises(TransientError, match=f"each of {READ_ATTEMPTS} attempts"):
        reader.read()
    store.pause = lambda where: None
    assert reader.read() == bucket.state


def test_a_reading_that_took_too_long_is_begun_anew() -> None:
    """What it says may be gone: it would be read for half of the grace time only."""
    writers, bucket, _ = filled()
    reader, store = writers.reader()
    slept: list[str] = []

    def pause(where: str) -> None:
        if where == f"get {entry_name(ENTRIES)}" and not slept:
            slept.append(where)
            writers.seconds += GRACE_SECONDS

    store.pause = pause
    assert reader.read() == bucket.state
    assert store.requests["list"] == 4


def test_what_is_superseded() -> None:
    writers, bucket, store = filled()
    assert bucket.superseded() == []
    writers.seconds += GRACE_SECONDS
    bucket.check_epoch()
    expected = [entry_name(serial) for serial in range(1, SNAPSHOTS[0] + 1)]
    assert bucket.superseded() == expected
    writers.contents.objects[snapshot_name(33)] = Stored(
        writers.contents.objects[snapshot_name(33)].data, writers.contents.clock()
    )
    assert bucket.superseded() == [], "one of the two is not old enough"
    bucket._entries_since = 1000
    bucket.write_snapshot_if_worthwhile()
    writers.seconds += GRACE_SECONDS
    bucket.check_epoch()
    names = [snapshot_name(17), *(entry_name(serial) for serial in range(1, 34))]
    assert bucket.superseded() == names
    store.delete(names)
    assert writers.reader()[0].read() == bucket.state
    damage(writers.contents, snapshot_name(ENTRIES))
    assert writers.reader()[0].read() == bucket.state
