"""What the server hears of files that are in the bucket: those that a durable entry names."""

import json
import sys
import threading
from pathlib import Path
from typing import ClassVar
from unittest.mock import MagicMock

import pytest

from engine.wal_intake import Limits
from formats.file_name import FileName
from server.backup import upload_process
from server.backup.local_state import Position
from server.backup.upload_messages import UploadConfig, UploadStatus
from server.backup.upload_process import (
    NAMES_AT_ONCE,
    PENDING_SECONDS,
    Said,
    Told,
    _say_uploaded,
)
from server.backup.uploader_link import UploaderLink
from tests.fixtures.bundles import l1
from tests.fixtures.fake_ingest import wait_until
from tests.fixtures.small_store import SmallStore

CONFIG = UploadConfig("/nowhere", "s3://b/p", None, "0badcafe", True, 10.0, 1 << 24, 4, 0, 86_400.0)
SCRIPT = """
import json, sys
json.loads(sys.stdin.readline())
print(json.dumps({"uploaded": {"%s": 3}}), flush=True)
print(json.dumps({"state": "idle", "epoch": 3, "remote_lsn": 0, "pending_bytes": 0,
                  "is_refused": False, "timeline": 1}), flush=True)
for line in sys.stdin:
    if "finish" in json.loads(line):
        print(json.dumps({"end": "finished", "reason": "all is there"}), flush=True)
        sys.exit()
"""


def test_the_server_is_told(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    small = SmallStore(tmp_path / "pages", limits=Limits(waits_for_remote=True))
    path = tmp_path / "uploader.py"
    path.write_text(SCRIPT % l1(7).text)
    heard: dict[FileName, int] = {}
    link = UploaderLink(small.store, CONFIG, [sys.executable, str(path)])
    heard[l1(1)] = 2
    link.on_begin = heard.clear  # another uploader said so, of a bucket that may be another one
    link.on_uploaded = heard.update
    link.start()
    wait_until(lambda: heard == {l1(7): 3})
    link.finish()
    small.let_go()


def test_it_takes_no_step_before_it_knows_whether_there_is_a_base_backup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server's first word came later than the bucket's first answer: a directory with a backup
    in the bucket seemed to be an empty one, and its server was refused."""
    told, steps = Told(), []

    class Stepping:
        uploaded: ClassVar[dict[FileName, int]] = {}
        status, is_done = None, True

        def __init__(self, *_: object, **__: object) -> None:
            pass

        def tell(self, position: Position) -> None:
            steps.append(position)

        def step(self) -> float:
            return 0.0

        def hasten(self) -> None:
            pass

    monkeypatch.setattr(upload_process, "S3Store", MagicMock())
    monkeypatch.setattr(upload_process, "Uploader", Stepping)
    thread = threading.Thread(target=upload_process._run, args=(CONFIG, told))
    thread.start()
    thread.join(0.2)
    assert not steps
    told.position, told.is_finishing = Position(7, 8, 1), True
    told.something_is_new.set()
    thread.join(10)
    assert steps == [told.position]


def test_bytes_that_are_pending_are_said_now_and_then_and_all_else_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each word wakes a thread of the server, between two pages that it serves."""
    now = 100.0
    monkeypatch.setattr(upload_process, "time", MagicMock(monotonic=lambda: now))
    said, status = Said(), UploadStatus("uploading", 3, 1000, 5, False, 1)

    def words(*later: UploadStatus) -> list[tuple[int, int]]:
        for each in later:
            said.say(each)
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        return [(line["remote_lsn"], line["pending_bytes"]) for line in lines]

    assert words(status, status) == [(1000, 5)]
    assert words(status._replace(pending_bytes=6)) == []
    assert words(status._replace(pending_bytes=7, remote_lsn=1001)) == [(1001, 7)]
    now += PENDING_SECONDS / 2
    assert words(status._replace(pending_bytes=8, remote_lsn=1001)) == []
    now += PENDING_SECONDS / 2
    assert words(status._replace(pending_bytes=8, remote_lsn=1001)) == [(1001, 8)]


def test_each_is_said_once_and_not_too_many_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    before = {l1(number): 1 for number in range(3)}
    now = before | {l1(number): 2 for number in range(3, 10 + NAMES_AT_ONCE)}
    _say_uploaded(before, now)
    lines = [json.loads(line)["uploaded"] for line in capsys.readouterr().out.splitlines()]
    assert [len(line) for line in lines] == [NAMES_AT_ONCE, 7]
    assert {name: epoch for line in lines for name, epoch in line.items()} == {
        l1(number).text: 2 for number in range(3, 10 + NAMES_AT_ONCE)
    }
    _say_uploaded(now, now)
    assert not capsys.readouterr().out
