"""The server's side of backup, with a process in the uploader's place that a test scripts."""

import json
import sys
import time
from pathlib import Path

import pytest

from engine.wal_intake import Limits
from server.backup import uploader_link
from server.backup.upload_messages import UploadConfig
from server.backup.uploader_link import BackupRefusedError, UploaderLink
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.small_store import SmallStore, create, image
from tests.fixtures.uploading import fill
from tests.fixtures.wal_builder import MIB

CONFIG = UploadConfig("/nowhere", "s3://b/p", None, "0badcafe", True, 10.0, 1 << 24, 4, 0, 86_400.0)
SCRIPT = """
import json, sys
config = json.loads(sys.stdin.readline())
assert config["server_id"] == "0badcafe"
def say(state, lsn, epoch=1, refused=False):
    print(json.dumps({"state": state, "epoch": epoch, "remote_lsn": lsn, "pending_bytes": 5,
                      "is_refused": refused, "timeline": 1}), flush=True)
def end(how):
    print(json.dumps({"end": how, "reason": "as it is"}), flush=True)
    sys.exit()
"""


@pytest.fixture
def small(tmp_path: Path) -> SmallStore:
    (tmp_path / "pages").mkdir()
    return SmallStore(tmp_path / "pages", limits=Limits(waits_for_remote=True))


def link_to(small: SmallStore, tmp_path: Path, script: str) -> UploaderLink:
    """A link whose process runs this after what all begin with."""
    path = tmp_path / "uploader.py"
    path.write_text(SCRIPT + script)
    return UploaderLink(small.store, CONFIG, [sys.executable, str(path)])


ECHO = """
for line in sys.stdin:
    told = json.loads(line)
    if "finish" in told:
        end("finished")
    say("idle", told["flushed_lsn"])
"""


def test_it_tells_what_is_fsynced_and_hears_what_the_bucket_has(small, tmp_path):
    link = link_to(small, tmp_path, ECHO)
    link.start()
    end = small.put(create(), image(0, 10))
    wait_until(lambda: small.store.remote.lsn == end)
    assert link.status() == {
        "backup": "idle", "backup_lag_bytes": 0, "backup_pending_bytes": 5, "epoch": 1,
    }  # fmt: skip
    assert small.store.remote.applied(7) == end
    link.finish()
    assert link.state == "-"


def test_a_process_that_dies_is_started_again(small, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(uploader_link, "PAUSE_SECONDS_MIN", 0.05)
    (tmp_path / "lives").write_text("")
    script = f"""
path = {str(tmp_path / "lives")!r}
open(path, "a").write("x")
lives = len(open(path).read())
say("idle", 0, epoch=lives)
if lives < 3:
    sys.exit(7)
""" + ECHO.replace('say("idle", told', 'say("idle", epoch=lives, lsn=told')
    link = link_to(small, tmp_path, script)
    link.start()
    wait_until(lambda: link.epoch == 3)
    assert "the uploader ended with status 7" in caplog.text
    end = small.put(create(), image(0, 10))
    wait_until(lambda: small.store.remote.lsn == end)
    link.finish()


@pytest.mark.parametrize("how", ["fenced", "refused"])
def test_who_lost_the_bucket_acknowledges_nothing_more(small, tmp_path, how):
    link = link_to(small, tmp_path, f'say("idle", 1)\nsys.stdin.readline()\nend("{how}")\n')
    link.start()
    wait_until(lambda: small.store.remote.is_fenced)
    assert link.state == ("fenced" if how == "fenced" else "stopped: as it is")
    assert link.reason == "as it is"
    link._thread.join(10)  # it is not started again
    assert not link._thread.is_alive()
    link.finish()


@pytest.mark.parametrize(
    "script", ['end("refused")', 'say("retrying: wrong key", 0, epoch=None, refused=True)']
)
def test_what_is_refused_at_the_start(small, tmp_path, script):
    link = link_to(small, tmp_path, script)
    with pytest.raises(BackupRefusedError, match="as it is|wrong key"):
        link.start()
    assert not small.store.remote.is_fenced
    link.finish()


def test_a_store_that_refuses_later_is_asked_again(small, tmp_path):
    """Keys that were changed do not end a server that runs."""
    script = 'say("idle", 1)\nsay("retrying: wrong key", 1, epoch=None, refused=True)\n' + ECHO
    link = link_to(small, tmp_path, script)
    link.start()
    small.put(create())
    wait_until(lambda: link.state == "idle" and small.store.remote.lsn > 1)
    link.finish()


def test_a_bucket_that_does_not_answer_is_not_waited_for(small, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(uploader_link, "FINISH_SECONDS_MAX", 0.2)
    monkeypatch.setattr(uploader_link, "END_SECONDS_MAX", 0.2)
    script = 'import time\nsay("retrying: timeout", 0, epoch=None)\ntime.sleep(60)\n'
    link = link_to(small, tmp_path, script)
    begin = time.monotonic()
    link.start()
    assert link.status()["backup"] == "retrying: timeout"
    small.put(create(), image(0, 1))
    link.finish()
    assert time.monotonic() - begin < 5
    assert "the bucket lacks" in caplog.text


def test_a_process_that_says_nothing_is_waited_for(small, tmp_path, monkeypatch, caplog):
    """It may be starved, and have to say that the directory is another's by now."""
    monkeypatch.setattr(uploader_link, "QUIET_SECONDS_MAX", 0.2)
    link = link_to(small, tmp_path, 'import time\ntime.sleep(1)\nend("refused")\n')
    with pytest.raises(BackupRefusedError, match="as it is"):
        link.start()
    assert "no word from s3://b/p yet: no WAL is taken before" in caplog.text
    link.finish()


def test_a_stop_does_not_wait_for_a_word(small, tmp_path, monkeypatch):
    monkeypatch.setattr(uploader_link, "FINISH_SECONDS_MAX", 0.1)
    monkeypatch.setattr(uploader_link, "END_SECONDS_MAX", 0.1)
    link = link_to(small, tmp_path, "import time\ntime.sleep(60)\n")
    asked = iter([False, False, True])
    begin = time.monotonic()
    link.start(lambda: next(asked))
    assert link.status()["backup"] == "connecting"
    link.finish()
    assert time.monotonic() - begin < 5


def test_the_journal_stays_until_the_bucket_has_it(small, tmp_path):
    """And goes then, though nothing is flushed any more."""
    (tmp_path / "hold").touch()
    script = f"""
import os
for line in sys.stdin:
    told = json.loads(line)
    if "finish" in told:
        end("finished")
    held = os.path.exists({str(tmp_path / "hold")!r})
    say("idle", 1 if held else told["flushed_lsn"])
"""
    link = link_to(small, tmp_path, script)
    link.start()
    fill(small, 3 * MIB)
    small.flush()
    assert small.store.journal.start_lsn == small.wal.start
    (tmp_path / "hold").unlink()
    small.put(image(0, 9))
    wait_until(lambda: small.store.journal.start_lsn >= small.wal.start + 2 * MIB)
    link.finish()


def test_who_is_refused_after_the_server_has_started_is_fenced(small, tmp_path):
    """The bucket answered late, and has what this directory does not come from."""
    (tmp_path / "hold").touch()
    script = f"""
import os, time
say("retrying: no answer", 0, None)
while os.path.exists({str(tmp_path / "hold")!r}):
    time.sleep(0.02)
end("refused")
"""
    link = link_to(small, tmp_path, script)
    link.start()
    (tmp_path / "hold").unlink()
    wait_until(lambda: small.store.remote.is_fenced)
    assert link.state == "stopped: as it is"
    link.finish()


def test_a_fault_beside_the_uploader_does_not_end_the_backup(small, tmp_path, monkeypatch):
    """As when the disk fails while the journal is trimmed."""
    monkeypatch.setattr(uploader_link, "PAUSE_SECONDS_MIN", 0.05)
    faults = [OSError(5, "input/output error")]
    trim = type(small.store).trim_journal

    def trim_at_last(store):
        if faults:
            raise faults.pop()
        trim(store)

    monkeypatch.setattr(type(small.store), "trim_journal", trim_at_last)
    link = link_to(small, tmp_path, ECHO)
    link.start()
    fill(small, 3 * MIB)
    wait_until(lambda: not faults)
    end = small.put(image(0, 9))
    wait_until(lambda: small.store.remote.lsn == end)
    link.finish()


def test_its_own_messages_are_lines_of_json():
    assert json.loads(CONFIG.line)["url"] == "s3://b/p"
    assert CONFIG.line.endswith(b"\n")
