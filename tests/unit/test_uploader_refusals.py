"""Uploaders of which only one may write, what is void, damaged or dead, and goes."""

import shutil

import pytest
import zstandard

from engine.storage import Storage
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import FencedError
from server.backup.upload_messages import BackupSettings
from tests.fixtures.memory_bucket import Contents, Fault
from tests.fixtures.small_store import (
    SMALL_POLICY,
    SmallStore,
    image,
)
from tests.fixtures.uploading import Uploading, check_bucket, fill, grow, small_store
from tests.fixtures.wal_builder import MIB


def test_a_timeline_that_was_left_below_what_was_sent(tmp_path):
    """The void piece goes before anything else is said, and the remote LSN goes back with it."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    switch = grow(small, 1)
    uploading.run(12)
    small.add(image(0, 2))
    journal, begin = small.store.journal, small.wal.start
    torn = bytes(small.wal.data[switch - begin :])[:60]
    journal.append(switch, torn)
    journal.sync()
    uploading.run(12)
    assert uploading.state.remote_lsn == switch + 60
    history = f"1\t{show_lsn(switch)}\tno recovery target specified\n".encode()
    journal.follow(2, switch, history)
    assert journal.flushed_lsn == switch
    uploading.run(3)
    state = uploading.state
    assert state.histories == {2: history}
    assert state.remote_lsn < switch + 60
    uploading.run(12)
    assert uploading.state.remote_lsn == switch
    journal.append(switch, b"of the second timeline")
    journal.sync()
    uploading.run(12)
    state, objects = uploading.state, uploading.contents.objects
    last = state.journal[-1]
    assert (last.timeline, last.lsn_start) == (2, switch)
    assert zstandard.decompress(objects[last.name].data) == b"of the second timeline"
    assert all(piece.lsn_end <= switch for piece in state.journal[:-1])


def test_a_journal_that_was_cut_where_a_record_is_torn_catches_up(tmp_path):
    """A restart drops the start of a record, which the bucket has: it will come again."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    whole = grow(small, 1)
    end = small.add(image(0, 2))
    at = whole - small.wal.start
    small.store.journal.append(whole, bytes(small.wal.data[at : at + 60]))
    small.store.journal.sync()
    uploading.run(12)
    held = uploading.position()
    uploading.position = lambda: held._replace(flushed_lsn=whole)
    uploading.run(12)
    assert uploading.state.remote_lsn == whole + 60
    small.store.journal.append(whole + 60, bytes(small.wal.data[at + 60 :]))
    small.store.journal.sync()
    uploading.position = lambda: held._replace(flushed_lsn=end)
    uploading.run(12)
    assert check_bucket(uploading).remote_lsn == end


def test_a_directory_that_the_bucket_does_not_come_from_is_refused(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    grow(small, 1)
    uploading.run(12)
    older = tmp_path / "older"
    small.let_go()
    shutil.copytree(small.directory, older)
    small.open()
    again = Uploading(small, uploading.contents, clock=uploading.clock)
    again.run(12)
    assert again.state.epoch == 2
    small.let_go()
    small.directory, kept = older, small.directory
    small.open()
    for _ in range(9):  # its serial is above the one that the bucket mirrors
        small.store.retention.create_point(f"p{_}", small.store.durable_lsn)
    copy = Uploading(small, uploading.contents, clock=uploading.clock)
    with pytest.raises(NotDescendedError, match="does not come from: server 0badcafe"):
        copy.run(12)
    small.let_go()
    small.directory = kept
    small.open()
    Uploading(small, uploading.contents, clock=uploading.clock).run(12)
    assert uploading.state.epoch == 3
    (small.directory / "bucket").unlink()
    with pytest.raises(NotDescendedError):
        Uploading(small, uploading.contents, clock=uploading.clock).run(12)


def test_a_lost_answer_to_the_first_entry_is_no_other_writer(tmp_path):
    """The process dies with it; the next one finds its own entry."""
    small = small_store(tmp_path)
    first = Uploading(small)
    first.run(12)
    second = Uploading(small, first.contents, clock=first.clock)
    second.client.fail("put_new", Fault.AFTER, name="manifest/", times=1)
    second.step()
    assert second.shown.startswith("retrying")
    third = Uploading(small, first.contents, clock=first.clock)
    third.run(12)
    assert third.state.epoch == 3
    assert third.shown == "idle"


def test_another_clusters_bucket_is_refused(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    (tmp_path / "other").mkdir()
    other = SmallStore(tmp_path / "other", [], chunks="hash:0/2")
    with pytest.raises(NotDescendedError, match="another cluster's backup"):
        Uploading(other, uploading.contents, clock=uploading.clock).run(12)


def test_a_bucket_that_somebody_emptied_is_noticed_and_filled_anew(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    for number in range(3):
        end = grow(small, number)
        small.flush()
        uploading.run(20)
    uploading.contents.objects.clear()
    with pytest.raises(CorruptionError, match="the last entry, as it was there"):
        uploading.run(400)
    again = Uploading(small, uploading.contents, clock=uploading.clock)
    again.run(30)
    state = check_bucket(again)
    assert (state.remote_lsn, state.manifest.files) == (end, small.store.manifest.state.files)


def test_a_bucket_without_the_layers_that_only_it_had_is_not_written_to(tmp_path):
    """It was emptied, or is one of the same name at another endpoint."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(20)
    uploaded = uploading.uploader.uploaded
    small.store.layers.note_uploaded(uploaded)
    uploading.run(20)
    paths = [small.directory / "layers" / name.text for name in uploaded]
    kept = [path.rename(tmp_path / path.name) for path in paths]
    Uploading(small, uploading.contents, clock=uploading.clock).run(20)
    other = Uploading(small)
    with pytest.raises(CorruptionError, match="layers that are in the bucket"):
        other.run(20)
    assert not other.uploader.uploaded
    assert not other.contents.objects
    for here, path in zip(kept, paths, strict=True):  # as `restore chunks` brings them
        here.rename(path)
    again = Uploading(small, other.contents, clock=other.clock)
    again.run(20)
    assert check_bucket(again).manifest.files == small.store.manifest.state.files


def test_leftovers_of_a_killed_uploader_go(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.executor.is_held = True
    uploading.run(3)
    folder = small.directory / "upload"
    assert [path for path in folder.iterdir() if path.suffix == ".bundle"]
    again = Uploading(small, uploading.contents, clock=uploading.clock)
    assert not [*folder.iterdir()]
    again.run(12)
    assert check_bucket(again).manifest.files == small.store.manifest.state.files


def test_wal_that_is_damaged_here_is_not_sent(tmp_path, caplog):
    """Layers made of it are, and WAL behind them goes on."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    before = fill(small, MIB // 2)
    uploading.run(12)
    fill(small, 200_000)
    (path,) = [p for p in (small.directory / "journal").iterdir() if p.suffix != ".sums"]
    content = bytearray(path.read_bytes())
    content[before % MIB + 70_000] ^= 1
    path.write_bytes(content)
    uploading.run(30)
    assert uploading.state.remote_lsn < small.store.journal.flushed_lsn
    assert "only layers made of it" in caplog.text
    fill(small, 2 * MIB)
    small.flush()
    end = grow(small, 1)
    uploading.run(30)
    state = uploading.state
    assert state.remote_lsn == end
    for piece in state.journal:
        at = piece.lsn_start - small.wal.start
        sent = zstandard.decompress(uploading.contents.objects[piece.name].data)
        assert sent == bytes(small.wal.data[at : at + len(sent)])


def test_a_file_that_is_lost_is_named_and_wal_goes_on(tmp_path):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    before = set(small.store.manifest.state.files)
    grow(small, 1)
    small.flush()
    (new,) = set(small.store.manifest.state.files) - before
    (small.directory / "layers" / new.text).unlink()
    end = grow(small, 2)
    uploading.run(20)
    assert uploading.shown.startswith(f"stopped: layers/{new.text}")
    assert uploading.state.remote_lsn == end


def test_a_file_that_cannot_be_read_for_a_moment_is_sent_later(tmp_path, monkeypatch):
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    grow(small, 1)
    small.flush()
    pread, faults = Storage.pread, [OSError(24, "too many open files")] * 3

    def pread_at_last(storage, file, offset, length):
        if faults and file.path.parent.name == "upload":
            raise faults.pop()
        return pread(storage, file, offset, length)

    monkeypatch.setattr(Storage, "pread", pread_at_last)
    uploading.step()
    uploading.step()
    assert uploading.shown == "retrying: [Errno 24] too many open files"
    uploading.run(20)
    assert not faults
    assert check_bucket(uploading).manifest.files == small.store.manifest.state.files


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


@pytest.mark.parametrize("ahead", [100_000.0, -100_000.0])
def test_a_store_whose_clock_is_wrong_for_a_moment_loses_nothing(tmp_path, ahead):
    """One machine of it, perhaps, has another time than the others."""
    small = small_store(tmp_path)
    uploading = Uploading(small, settings=BackupSettings(grace_seconds=2000, journal_seconds=2))
    contents = uploading.contents
    right = contents.clock

    def go_on(number: int) -> set[str]:
        grow(small, number)
        small.flush()
        small.compact(SMALL_POLICY)
        uploading.run(20)
        return {name for name in uploading.state.dead if name.startswith("layers/")}

    uploading.run(100)
    dead: set[str] = set()
    for number in range(12):
        if number % 4 == 3:
            contents.clock = lambda: right() + ahead
        dead |= go_on(number)
        contents.clock = right
        uploading.run(30)
    assert dead <= set(contents.objects), "what was restored a moment ago may need it"
    uploading.run(4000)
    assert not dead & set(contents.objects)
    check_bucket(uploading)
