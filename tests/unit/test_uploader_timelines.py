"""What the bucket has of a timeline that was left says nothing of the WAL in its place."""

import sys
from pathlib import Path

from formats.lsn import show as show_lsn
from server.backup.uploader_link import UploaderLink
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.memory_bucket import Fault
from tests.fixtures.small_store import SmallStore, image
from tests.fixtures.uploading import Uploading, grow, small_store
from tests.unit.test_uploader_link import CONFIG, SCRIPT

TORN_BYTES = 60


def left(tmp_path: Path, *, sent_at_once: bool) -> tuple[Uploading, int]:
    """The bucket has the beginning of a record that never came to its end, in one piece with what
    was before, or in one of its own; and the journal goes on from there on timeline 2."""
    small = small_store(tmp_path)
    uploading = Uploading(small)
    uploading.run(12)
    switch = grow(small, 1)
    if not sent_at_once:
        uploading.run(12)
    small.add(image(0, 2))
    journal, begin = small.store.journal, small.wal.start
    journal.append(switch, bytes(small.wal.data[switch - begin :])[:TORN_BYTES])
    journal.sync()
    uploading.run(12)
    assert uploading.uploader.status.remote_lsn == switch + TORN_BYTES
    history = f"1\t{show_lsn(switch)}\tno recovery target specified\n".encode()
    journal.follow(2, switch, history)
    return uploading, switch


def test_what_was_acknowledged_below_the_switch_stays_until_it_is_there_anew(tmp_path):
    """It went with the piece that was void at its end, and came again seconds later: a machine that
    was lost meanwhile took with it what had been acknowledged."""
    uploading, switch = left(tmp_path, sent_at_once=True)
    uploading.client.fail("put_stream", Fault.BEFORE, name="journal/", times=4)
    for _ in range(60):
        uploading.step()
        assert uploading.state.remote_lsn >= switch
    uploading.run(60)
    state = uploading.state
    assert (state.journal[-1].timeline, state.journal[-1].lsn_end) == (1, switch)
    assert state.remote_lsn == switch


def test_the_remote_lsn_is_of_a_timeline(tmp_path):
    """Until an entry says that the void piece is gone, what is said is said of the old one."""
    uploading, switch = left(tmp_path, sent_at_once=False)
    uploading.client.fail("put_new", Fault.BEFORE, name="manifest/", times=3)
    uploading.step()
    status = uploading.uploader.status
    assert (status.remote_lsn, status.timeline) == (switch + TORN_BYTES, 1)
    assert not uploading.uploader.is_done
    uploading.run(30)
    status = uploading.uploader.status
    assert (status.remote_lsn, status.timeline) == (switch, 2)


def test_the_server_does_not_take_one_timeline_for_another(tmp_path):
    """A remote LSN of the timeline that was left came after it was left, and counted: WAL of the
    new one was reported as in the bucket, which had a torn record in its place."""
    (tmp_path / "pages").mkdir()
    small = SmallStore(tmp_path / "pages")
    script = tmp_path / "uploader.py"
    script.write_text(SCRIPT + 'say("idle", 500)\nsys.stdin.readline()\nsay("uploading", 700)\n'
                      'for line in sys.stdin:\n    pass\n')  # fmt: skip
    link = UploaderLink(small.store, CONFIG, [sys.executable, str(script)])
    remote = small.store.remote
    remote.leave(600, 2)
    link.start()
    wait_until(lambda: link.state == "uploading")
    assert remote.lsn == 0
    remote.move(650, 2)
    remote.leave(640, 3)
    assert remote.lsn == 640
    remote.move(650, 2)
    assert remote.lsn == 640
    remote.move(700, 3)
    assert remote.lsn == 700
    link._stopping.set()
    link._thread.join(10)
