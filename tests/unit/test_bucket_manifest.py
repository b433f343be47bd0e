"""Appending to a bucket's chain: lost answers, late ones, other writers, and long sleeps."""

import pytest

from formats.bucket import EpochTaken, Written
from formats.bucket_state import BucketState, pack_chain_entry
from formats.manifest_record import FileRemoved
from server.backup.bucket_manifest import BucketManifest, FencedError, OvertakenError
from server.backup.object_store import TakenError, TransientError
from tests.fixtures.bucket_writers import (
    FIRST,
    GRACE_SECONDS,
    Writers,
    file_added,
    in_bucket,
    piece,
    read,
    started,
)
from tests.fixtures.memory_bucket import Fault, MemoryBucket

LOST = [Fault.BEFORE, Fault.AFTER, Fault.LATE]


def test_what_is_appended_is_read() -> None:
    writers = Writers()
    bucket, _ = started(writers)
    bucket.append(piece(0, 500))
    state = read(writers)
    assert state == bucket.state
    assert (state.serial, state.epoch, state.server_id) == (3, 1, "server 1")
    assert (state.local_serial, state.remote_lsn) == (7, 500)
    assert state.seconds == int(writers.contents.clock())


def test_an_empty_bucket() -> None:
    assert read(Writers()) == BucketState()


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("times", [1, 2, 5])
def test_an_entry_whose_answer_is_lost_is_tried_until_it_is_known(fault: Fault, times: int) -> None:
    writers = Writers()
    bucket, store = started(writers)
    store.fail("put_new", fault, times=times)
    before = bucket.state
    for attempt in range(times):
        with pytest.raises(TransientError):
            bucket.append(*in_bucket(2), local_serial=8 + attempt)
        assert bucket.state is before
    assert not bucket.append(*in_bucket(3)), "what was pending, and not this"
    assert bucket.state.local_serial == 8
    for _ in range(len(writers.contents.late)):
        writers.contents.deliver_late()
    assert bucket.append(*in_bucket(3))
    assert read(writers) == bucket.state
    assert not writers.contents.twice


def test_an_answer_that_comes_twice() -> None:
    """The client library did the PUT again by itself, and it is told that the name is taken."""
    writers = Writers()
    bucket, store = started(writers)
    put_new = store.put_new

    def put_twice(name: str, data: bytes) -> None:
        put_new(name, data)
        put_new(name, data)

    store.put_new = put_twice  # type: ignore[method-assign]
    assert bucket.append(*in_bucket(2))
    assert read(writers) == bucket.state
    assert bucket.state.serial == 3


def test_a_store_that_contradicts_itself_is_not_asked_on_and_on() -> None:
    """A name is taken, it says, and nothing is there: a proxy's answer, or one of another node."""
    writers = Writers()
    bucket, store = started(writers)
    put_new, before = store.put_new, store.requests.total()

    def refuse(name: str, data: bytes) -> None:
        store.requests["put_new"] += 1
        assert store.requests.total() < before + 10
        raise TakenError(f"PUT {name}: 412")

    store.put_new = refuse  # type: ignore[method-assign]
    with pytest.raises(TransientError, match="412, and it is not there"):
        bucket.append(*in_bucket(2))
    store.put_new = put_new  # type: ignore[method-assign]
    assert bucket.settle()
    assert read(writers) == bucket.state


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("call", ["get", "list"])
def test_reading_that_fails_changes_nothing(call: str, fault: Fault) -> None:
    writers = Writers()
    started(writers)
    bucket, store = writers.reader()
    store.fail(call, fault)
    with pytest.raises(TransientError):
        bucket.read()
    assert bucket.state == BucketState()
    assert bucket.read().serial == 2


def test_records_that_cannot_follow_leave_nothing_behind() -> None:
    writers = Writers()
    bucket, store = started(writers)
    before, requests = bucket.state, store.requests.total()
    with pytest.raises(ValueError, match="added twice"):
        bucket.append(*in_bucket(1))
    assert bucket.state is before
    assert store.requests.total() == requests
    assert bucket.append(*in_bucket(2))


# Two writers --------------------------------------------------------------------------------------


def test_a_writer_is_fenced_off_by_the_next() -> None:
    writers = Writers()
    old, store = started(writers)
    new, _ = writers.writer()
    assert (old.epoch, new.epoch) == (1, 2)
    for deed in (lambda: old.append(*in_bucket(2)), lambda: old.append(*in_bucket(2)),
                 old.check_epoch):  # fmt: skip
        with pytest.raises(FencedError, match="server 2 with epoch 2"):
            deed()
    assert old.state.epoch == 1, "what it tells is what it knew while the bucket was its own"
    assert new.append(*in_bucket(3, 2))
    new.check_epoch()
    assert read(writers) == new.state


def test_check_epoch_sees_another_writer() -> None:
    writers = Writers()
    old, store = started(writers)
    old.check_epoch()
    assert store.requests["get"] == 1, "one request while nothing follows"
    writers.writer()
    with pytest.raises(FencedError):
        old.check_epoch()


def test_who_has_no_epoch_appends_nothing() -> None:
    writers = Writers()
    started(writers)
    bucket, _ = writers.reader()
    bucket.read()
    for deed in (lambda: bucket.append(*in_bucket(2)), bucket.check_epoch):
        with pytest.raises(FencedError, match="no epoch was taken"):
            deed()


@pytest.mark.parametrize("fault", LOST)
def test_what_was_pending_when_another_took_over_is_not_in_the_chain(fault: Fault) -> None:
    """Or it is: then it is below the other one, who has read it."""
    writers = Writers()
    old, store = started(writers)
    store.fail("put_new", fault)
    with pytest.raises(TransientError):
        old.append(*in_bucket(2))
    new, _ = writers.writer()
    for _ in range(len(writers.contents.late)):
        writers.contents.deliver_late()
    assert new.append(piece(0, 500, 2))
    state = read(writers)
    assert len(state.manifest.files) == (2 if fault is Fault.AFTER else 1)
    if fault is Fault.AFTER:  # it came through, and the next finds that it is over
        assert not old.append(*in_bucket(3))
    with pytest.raises(FencedError):
        old.append(*in_bucket(3))
    assert read(writers) == state == new.state


def test_of_two_who_take_the_epoch_one_has_it() -> None:
    writers = Writers()
    started(writers)
    one, store = writers.reader()
    other, _ = writers.reader()
    one.read()
    other.read()
    store.pause = lambda where: (
        other.take_epoch("other", "o") if where.startswith("put_new") and other.epoch is None else 0
    )
    with pytest.raises(OvertakenError, match="server o with epoch 2"):
        one.take_epoch("one", "s")
    assert one.epoch is None
    assert (other.epoch, read(writers).nonce) == (2, "other")
    assert one.take_epoch("one again", "s") == 3, "on what it has seen now"
    with pytest.raises(FencedError):
        other.append(*in_bucket(2, 2))


def test_an_epoch_is_taken_on_what_was_read() -> None:
    """Whether a directory descends from the bucket is seen on the state that was read."""
    writers = Writers()
    old, _ = started(writers)
    new, _ = writers.reader()
    new.read()
    old.append(*in_bucket(2))
    with pytest.raises(OvertakenError, match="entry 3"):
        new.take_epoch("n", "s")
    assert new.state == old.state
    late, _ = writers.reader()
    late.read()
    old.append(*in_bucket(3))
    writers.seconds += GRACE_SECONDS
    with pytest.raises(OvertakenError, match="entry 4"):
        late.take_epoch("n", "s")
    assert late.take_epoch("n2", "s") == 2


@pytest.mark.parametrize("fault", LOST)
def test_an_epoch_whose_answer_is_lost(fault: Fault) -> None:
    writers = Writers()
    started(writers)
    bucket, store = writers.reader()
    bucket.read()
    store.fail("put_new", fault)
    with pytest.raises(TransientError):
        bucket.take_epoch("first", "s")
    assert bucket.take_epoch("second", "s") == 2
    assert bucket.state.nonce == "first", "which is the one that was tried before"
    assert read(writers) == bucket.state


def test_another_process_with_our_epoch() -> None:
    """A machine that was cloned while it ran: both have the nonce, one appends."""
    writers = Writers()
    one, _ = started(writers)
    other, _ = writers.reader()
    other.read()
    other.epoch = one.epoch
    assert other.append(*in_bucket(3))
    with pytest.raises(FencedError, match="another process appends with our epoch 1"):
        one.append(*in_bucket(2))


def test_overdue() -> None:
    writers = Writers()
    bucket, _ = started(writers)
    name = bucket.state.objects()[0]
    bucket.append(FileRemoved(file_added(1).name))
    writers.seconds += 5 * GRACE_SECONDS
    bucket.check_epoch()
    assert bucket.overdue() == [], "nobody has said yet when that was"
    bucket.append()
    assert bucket.overdue() == []
    writers.seconds += GRACE_SECONDS - 2
    bucket.check_epoch()
    assert bucket.overdue() == []
    writers.seconds += 2
    bucket.check_epoch()
    assert bucket.overdue() == [name]


def test_an_entry_is_told_of_before_it_is_sent() -> None:
    """Who writes it down knows after a crash that the bucket's last entry was its own."""
    writers = Writers()
    store = MemoryBucket(writers.contents)
    told: list[tuple[int, int, int]] = []
    bucket = BucketManifest(
        store, lambda: writers.seconds, grace_seconds=GRACE_SECONDS,
        before_append=lambda *entry: told.append((*entry, store.requests["put_new"])),
    )  # fmt: skip
    bucket.read()
    bucket.take_epoch("n", "s")
    store.fail("put_new", Fault.AFTER)
    with pytest.raises(TransientError):
        bucket.append(*FIRST)
    state = read(writers)
    assert told[-1] == (state.serial, state.crc, 1)
    bucket.settle()
    assert [serial for serial, _, _ in told] == [1, 2]


def test_an_entry_says_whose_it_is() -> None:
    """No two processes ever create the same bytes, but for the very same attempt."""
    state = BucketState()
    one, other = (
        pack_chain_entry(state, [Written(1, 0), EpochTaken(1, nonce, "s")])[0] for nonce in "ab"
    )
    assert one != other
