"""What went wrong elsewhere between a storage and its bucket, acted out with the real uploader.

Named after the reports: SlateDB's #1622, Neon's #5890, #12043, #9791 and #4326.
"""

import copy
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.storage import Storage
from formats.bucket import entry_name
from formats.bucket_state import BucketState
from formats.chunk import relation as relation_key
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import FencedError
from server.backup.restore import restore
from server.backup.upload_messages import BackupSettings
from tests.fixtures.faulty_storage import CrashError
from tests.fixtures.memory_bucket import Fault, MemoryBucket
from tests.fixtures.small_store import REL, SMALL_POLICY, SmallStore, heap_page, image
from tests.fixtures.uploading import URL, Uploading
from tests.simulation.two_writers import often_snapshots

GRACE_SECONDS = 100.0
SETTINGS = BackupSettings(journal_seconds=2, grace_seconds=GRACE_SECONDS)
BLOCKS = 3


@pytest.fixture
def small(fast_directory: Path) -> Iterator[SmallStore]:
    """A server's store, beside which there is room for others' directories."""
    directory = fast_directory / "pages"
    directory.mkdir()
    pages = [(relation_key(*REL, 0), [heap_page(0)] * BLOCKS)]
    with often_snapshots():
        yield SmallStore(directory, pages)


def uploading(small: SmallStore, before: Uploading | None = None) -> Uploading:
    """A process that backs the store up, into the bucket of another one if there was any."""
    if before is None:
        return Uploading(small, settings=SETTINGS)
    return Uploading(small, before.contents, SETTINGS, before.clock)


def grow(small: SmallStore, mark: int) -> int:
    return small.put(*(image(block, mark) for block in range(BLOCKS)))


def live(backup: Uploading, rounds: int, mark: int = 100) -> None:
    """WAL, flushes, merges, and all of it in the bucket."""
    for number in range(mark, mark + rounds):
        grow(backup.small, number)
        backup.small.flush()
        if number % 3 == 0:
            backup.small.compact(SMALL_POLICY)
        backup.run(GRACE_SECONDS / 8)


def another_server(small: SmallStore, directory: Path) -> SmallStore:
    """Its directory is there; it takes WAL from the same primary."""
    other = copy.copy(small)
    other.directory = directory
    other.open()
    while other.store.ingest_step():
        pass
    other.fed = other.store.journal.flushed_lsn
    return other


def restored(backup: Uploading, name: str) -> SmallStore:
    """What another machine makes of the bucket alone."""
    directory = backup.small.directory.with_name(name)
    client = MemoryBucket(backup.contents)
    assert restore(client, directory, Storage(), URL, sleep=lambda _: None) is not None
    return another_server(backup.small, directory)


def check_restorable(backup: Uploading, told: int, name: str = "check") -> BucketState:
    """All that was told to be in the bucket is read back from it, page by page."""
    state = backup.state
    assert state.remote_lsn >= told
    assert set(state.objects()) <= set(backup.contents.objects)
    again = restored(backup, name)
    assert again.store.ready_lsn >= told
    for block in range(BLOCKS):
        assert again.page(block, told) == backup.small.page(block, told)
    again.let_go()
    shutil.rmtree(again.directory)
    return state


def stopped_at(
    client: MemoryBucket, is_there: Callable[[str], bool], do: Callable[[], None]
) -> None:
    """The next time that the client comes to such a place it stands still, while this is done."""

    def pause(where: str) -> None:
        if is_there(where):
            client.pause = lambda where: None
            do()

    client.pause = pause


# SlateDB #1622 ------------------------------------------------------------------------------------


def test_slatedb_1622_who_slept_does_not_take_a_deleted_name_for_a_free_one(
    small: SmallStore,
) -> None:
    """A client was suspended in the middle of a write. Meanwhile another one went on, and garbage
    collection deleted old entries of the manifest, the one of that very number among them. The
    client woke up, its conditional write met no object of that name, and it took that for success:
    what it acknowledged from then on no reader ever saw. Here the name is created anew as well, but
    an answer that took so long is none."""
    first = uploading(small)
    live(first, 1)
    told = first.uploader.status.remote_lsn
    stands_at: list[str] = []
    others: list[Uploading] = []

    def take_over() -> None:
        stands_at.append(entry_name(first.uploader._bucket.state.serial + 1))
        others.append(uploading(restored(first, "other"), first))
        live(others[0], 30)
        assert stands_at[0] not in first.contents.objects

    stopped_at(
        first.client,
        lambda where: where.startswith("put_new manifest/") and not where.endswith("answer"),
        take_over,
    )
    grow(small, 2)
    with pytest.raises(FencedError, match="epoch 2"):
        first.run(20)
    assert stands_at[0] in first.contents.objects, "it was created anew"
    assert first.uploader.status.remote_lsn == told
    state = check_restorable(others[0], others[0].uploader.status.remote_lsn)
    assert (state.epoch, state.nonce) == (2, others[0].uploader._bucket.state.nonce)


def test_slatedb_1622_who_slept_collects_no_garbage(small: SmallStore) -> None:
    """The other half of it: the stale client's garbage collection sees files that it does not know,
    old enough to be nobody's. They are another writer's, which is about to name them."""
    first = uploading(small)
    first.run(3)
    others: list[Uploading] = []

    def take_over() -> None:
        other = uploading(restored(first, "other"), first)
        other.run(5)
        grow(other.small, 7)
        other.small.flush()
        other.executor.is_held = True
        other.step(2)
        other.executor.release()  # in the bucket, and in no entry
        other.clock.now += 2 * GRACE_SECONDS
        others.append(other)

    stopped_at(first.client, lambda where: where == "list layers/", take_over)
    first.run(20)
    (other,) = others
    with pytest.raises(FencedError):
        first.run(20)
    other.executor.is_held = False
    other.run(20)
    check_restorable(other, other.uploader.status.remote_lsn)


# Neon #5890 ---------------------------------------------------------------------------------------


def test_neon_5890_a_deletion_that_arrives_late_hits_nothing(small: SmallStore) -> None:
    """DELETE and PUT of one name were under way at the same time, and came in the other order: a
    layer that the index named was gone. Here no name is put again once it was deleted, whoever is
    restarted meanwhile."""
    first = uploading(small)
    first.client.fail("delete", Fault.LATE, name="layers/", times=3)
    live(first, 24)
    assert len(first.contents.late) == 3
    second = uploading(small, first)
    live(second, 6, 200)
    while first.contents.late:
        first.contents.deliver_late()
    check_restorable(second, second.uploader.status.remote_lsn)
    assert not first.contents.twice


def test_neon_5890_an_upload_that_arrives_after_its_deletion_is_garbage(small: SmallStore) -> None:
    """The other order: the object comes back when all is done with it. Nothing names it, nothing
    ever will, and it goes as what an earlier process has left."""
    first = uploading(small)
    first.run(3)
    first.client.fail("put_stream", Fault.LATE, name="layers/", times=2)
    live(first, 24)
    before = set(first.contents.objects)
    while first.contents.late:
        first.contents.deliver_late()
    back = set(first.contents.objects) - before
    assert back and all(name.startswith("layers/") for name in back)
    second = uploading(small, first)
    live(second, 14, 200)
    assert not back & set(first.contents.objects)
    check_restorable(second, second.uploader.status.remote_lsn)
    assert not first.contents.twice


# Neon #12043 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["put_stream layers/", "put_stream journal/", "put_new manifest/"])
@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.LATE])
def test_neon_12043_an_upload_that_failed_moves_no_lsn(
    small: SmallStore, call: str, fault: Fault
) -> None:
    """An upload failed, and the LSN that stands for it moved on all the same: the safekeepers cut
    their WAL off, and it was nowhere. Here what is told is one function of what the chain has."""
    backup = uploading(small)
    live(backup, 2)
    is_bad = True
    backup.client.choose_fault = lambda kind, name: (
        fault if is_bad and f"{kind} {name}".startswith(call) else None
    )
    before = backup.uploader.status.remote_lsn
    for number in range(3):
        end = grow(small, number)
        small.flush()
        for _ in range(10):
            backup.step()
            told = backup.uploader.status.remote_lsn
            assert told <= backup.state.remote_lsn
    if call == "put_new manifest/" and fault is not Fault.AFTER:
        assert told == before
    check_restorable(backup, told)
    is_bad = False
    backup.run(60)
    assert backup.uploader.status.remote_lsn == end
    check_restorable(backup, end)


# Neon #9791 ---------------------------------------------------------------------------------------


def test_neon_9791_a_stale_process_removes_nothing_that_is_retained(small: SmallStore) -> None:
    """An object in memory, from before a branch was made, went on to say what is retained: garbage
    collection removed what the branch needed. Here a directory from before the point does not get
    as far as to say anything: its entry would drop the point, and it is not the bucket's last
    writer's."""
    first = uploading(small)
    end = grow(small, 7)
    small.flush()
    first.run(10)
    small.let_go()
    old = small.directory.with_name("old")
    shutil.copytree(small.directory, old)
    small.open()
    while small.store.ingest_step():
        pass
    small.store.retention.create_point("branch", end)
    second = uploading(small, first)
    second.run(10)
    assert "branch" in second.state.manifest.points
    stale = another_server(small, old)
    for number in range(8):  # its manifest is further than the other's, all the same
        grow(stale, number)
        stale.flush()
    assert stale.store.manifest.state.serial > second.state.local_serial
    third = uploading(stale, first)
    with pytest.raises(NotDescendedError, match="does not come from"):
        third.run(10)
    with pytest.raises(FencedError):
        first.run(30)
    assert "branch" in second.state.manifest.points
    check_restorable(second, end)


# Neon #4326 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["delete layers/", "delete layers/…: answer", "put_new manifest/"]
)
def test_neon_4326_a_deletion_is_not_lost_by_a_crash(small: SmallStore, place: str) -> None:
    """What was to be deleted was in a queue in memory; a crash, and nobody knew of it any more, for
    ever. Here an object is dead until an entry says that it is gone."""
    first = uploading(small)
    live(first, 9)
    dead: list[str] = []

    def pause(where: str) -> None:
        start, _, end = place.partition("…")
        if where.startswith("delete layers/"):
            dead[:] = where.removeprefix("delete ").removesuffix(": answer").split(",")
        if dead and where.startswith(start) and where.endswith(end or where):
            raise CrashError

    first.client.pause = pause
    with pytest.raises(CrashError):
        live(first, 20, 200)
    assert dead and set(dead) <= set(first.state.dead)
    second = uploading(small, first)
    second.run(10)
    live(second, 12, 300)
    assert not set(dead) & set(first.contents.objects)
    assert not set(dead) & {*second.state.dead, *second.state.dying}
    check_restorable(second, second.uploader.status.remote_lsn)


# Found by the simulation --------------------------------------------------------------------------


def test_what_was_just_sent_is_no_orphan_however_long_the_machine_slept(small: SmallStore) -> None:
    """A bundle was sent; before the next look at what the threads had done the machine slept for
    longer than the grace time, and woke up in the search for orphans: old, and in no entry."""
    backup = uploading(small)
    backup.run(3)
    backup.clock.now += 5
    backup.step(2)  # with the next one it looks for orphans
    end = grow(small, 1)
    small.flush()
    unnamed: list[str] = []

    def sleep() -> None:
        unnamed.extend(set(backup.contents.objects) - set(backup.state.objects()))
        backup.clock.now += 2 * GRACE_SECONDS

    stopped_at(backup.client, lambda where: where == "list layers/", sleep)
    backup.run(20)
    assert any(name.startswith("layers/") for name in unnamed)
    backup.run(20)
    check_restorable(backup, end)
