"""Writers that stand still for long: names that were another's are deleted, and free once more."""

from collections.abc import Callable

import pytest

from formats.bucket import entry_name
from formats.errors import CorruptionError
from formats.manifest_record import FileRemoved, PointSet
from server.backup.bucket_manifest import BucketManifest, FencedError, OvertakenError
from server.backup.object_store import TransientError
from tests.fixtures.bucket_writers import (
    GRACE_SECONDS,
    Writers,
    file_added,
    piece,
    read,
    started,
)
from tests.fixtures.memory_bucket import Fault, MemoryBucket


def forget_entries(writers: Writers, bucket: BucketManifest, store: MemoryBucket) -> None:
    """Append until entries up to some snapshot are old enough to be deleted, and delete them."""
    for _ in range(60):
        bucket.append()
        bucket.write_snapshot_if_worthwhile()
        writers.seconds += GRACE_SECONDS / 8
    assert len(bucket.superseded()) > 20
    store.delete(bucket.superseded())


def sleep_long(writers: Writers) -> None:
    """Another writer goes on for long, and deletes what nobody needs to read."""
    forget_entries(writers, *writers.writer())
    assert entry_name(3) not in writers.contents.objects


def stopped_at(
    writers: Writers, store: MemoryBucket, place: str, sleep: Callable[[Writers], None]
) -> None:
    """The client stands still at a place, once, and wakes up after the sleep."""

    def pause(where: str) -> None:
        if where == place:
            store.pause = lambda where: None
            sleep(writers)

    store.pause = pause


@pytest.mark.parametrize(
    "place",
    ["before", f"put_new {entry_name(3)}", f"put_new {entry_name(3)}: answer"],
)
def test_a_writer_that_slept_creates_no_name_anew(place: str) -> None:
    """SlateDB #1622: who is stale finds the name free, as what had it is deleted. That is no
    success."""
    writers = Writers()
    old, store = started(writers)
    if place == "before":
        sleep_long(writers)
    else:
        stopped_at(writers, store, place, sleep_long)
    with pytest.raises(FencedError):
        old.append(piece(0, 500))
    was_done = place.endswith("answer")
    assert (entry_name(3) in writers.contents.objects) == (place != "before" and not was_done)
    state = read(writers)
    assert state.epoch == 2
    assert len(state.journal) == was_done
    with pytest.raises(FencedError):
        old.append(piece(0, 500))


def test_who_takes_an_epoch_and_sleeps_creates_no_name_anew() -> None:
    writers = Writers()
    started(writers)
    late, store = writers.reader()
    late.read()
    stopped_at(writers, store, f"put_new {entry_name(3)}", sleep_long)
    with pytest.raises(OvertakenError, match="server 2"):
        late.take_epoch("n", "s")
    assert entry_name(3) in writers.contents.objects
    assert late.epoch is None
    assert late.take_epoch("n2", "s") == 3


def test_who_hears_that_a_name_is_taken_and_sleeps() -> None:
    writers = Writers()
    old, store = started(writers)
    store.fail("put_new", Fault.AFTER)
    with pytest.raises(TransientError):
        old.append(piece(0, 500))
    stopped_at(writers, store, f"put_new {entry_name(3)}: answer", sleep_long)
    with pytest.raises(FencedError):
        old.append(piece(0, 500))


def test_who_sleeps_while_it_looks_for_the_next_entry_reads_anew() -> None:
    """There is no next entry any more: it is deleted, not: it never was."""
    writers = Writers()
    started(writers)
    for place in (f"get {entry_name(3)}", f"get {entry_name(3)}: answer"):
        writers = Writers()
        old, store = started(writers)
        stopped_at(writers, store, place, sleep_long)
        known = old.state
        with pytest.raises(FencedError):
            old.refresh()
        assert old.state is known
        with pytest.raises(FencedError):
            old.check_epoch()


def test_an_entry_that_comes_late_under_a_deleted_name_is_not_read() -> None:
    writers = Writers()
    old, store = started(writers)
    store.fail("put_new", Fault.LATE)
    with pytest.raises(TransientError):
        old.append(piece(0, 500))
    sleep_long(writers)
    before = read(writers)
    writers.contents.deliver_late()
    assert entry_name(3) in writers.contents.objects
    assert read(writers) == before
    newest = max(name for name in writers.contents.objects if name.startswith("snapshot/"))
    stored = writers.contents.objects[newest]
    writers.contents.objects[newest] = stored._replace(data=b"")
    assert read(writers) == before, "from the snapshot before"
    for name in [name for name in writers.contents.objects if name.startswith("snapshot/")]:
        writers.contents.objects[name] = stored._replace(data=b"")
    with pytest.raises(CorruptionError, match="expected an entry, found none, and header"):
        read(writers)


def test_half_of_the_grace_time() -> None:
    """Within it what is known counts; after it all is read anew, which lasts again."""
    writers = Writers()
    bucket, store = started(writers)
    store.requests.clear()
    writers.seconds += GRACE_SECONDS / 2 - 1
    bucket.append()
    assert dict(store.requests) == {"put_new": 1}
    writers.seconds += GRACE_SECONDS / 2
    bucket.append()
    assert dict(store.requests) == {"put_new": 2, "list": 2, "get": 3}
    writers.seconds += GRACE_SECONDS / 2 - 1
    bucket.refresh()
    assert dict(store.requests) == {"put_new": 2, "list": 2, "get": 4}


def test_an_answer_after_half_of_the_grace_time_is_asked_for_again() -> None:
    writers = Writers()
    bucket, store = started(writers)

    def sleep(writers: Writers) -> None:
        writers.seconds += GRACE_SECONDS

    stopped_at(writers, store, f"put_new {entry_name(3)}: answer", sleep)
    assert bucket.append(piece(0, 500))
    assert store.requests["list"] == 4, "all was read anew"
    assert read(writers) == bucket.state


def test_the_time_of_an_entry_is_never_before_what_was_heard() -> None:
    """A machine that stood still between an answer and its own clock knows less, not more."""
    writers = Writers()
    bucket, store = started(writers)
    stopped_at(
        writers, store, f"get {entry_name(4)}: answer",
        lambda writers: setattr(writers, "seconds", writers.seconds + 30),
    )  # fmt: skip
    bucket.append(FileRemoved(file_added(1).name))
    bucket.refresh()
    writers.seconds += 1
    now = writers.contents.clock()
    bucket.append(PointSet("p", 150))
    assert bucket.state.seconds >= now
    assert list(bucket.state.dead.values()) == [bucket.state.seconds]
