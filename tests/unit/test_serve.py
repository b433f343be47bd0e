"""How a server starts and stops: order, exit statuses, the number that names its slot."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import server_id
from engine.errors import DirectoryRefusedError, UnreachableError
from engine.retention import KEEP_ALL, Bounds
from engine.storage import DirectoryInUseError, Storage
from engine.wal_intake import DISK_FULL, JOURNAL_FULL, Hold
from formats.errors import CorruptionError
from server import serve
from server.background import WAITING
from server.config import Settings
from server.exit_code import ExitCode
from server.replication import Stopped
from server.serve import ServeOptions
from server.source_errors import SourceError
from tests.fixtures.fake_store import FakeIdentity, FakeStore


class Part:
    """A part of the server that writes down what is done with it."""

    def __init__(self, name: str, events: list[str]) -> None:
        self._name = name
        self._events = events
        self.state, self.source, self.error = "streaming", "127.0.0.1:5432", ""
        self.workers = [SimpleNamespace(name="ingest", error=None)]
        self.hold: Hold | None = None

    def find_hold(self) -> Hold | None:
        return self.hold

    def start(self, *_: object) -> tuple[str, int]:
        self._events.append(f"{self._name} starts")
        return "127.0.0.1", 64000

    def stop(self) -> None:
        self._events.append(f"{self._name} stops")


class OpenedStore(FakeStore):
    events: list[str]

    def close(self) -> None:
        self.events.append("store closes")


class Harness:
    """Replaces the server's parts; `attach` is what taking the base backup does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.events: list[str] = []
        self.store = OpenedStore()
        self.store.events = self.events
        self.directory = directory
        self.slots: list[str] = []
        self.attach: Any = lambda *_: SimpleNamespace(receiver=Part("receiver", self.events))
        parts = {
            "PageStore": lambda *_: self.store,
            "Background": self._background,
            "PageService": self._page_service,
            "WalReceiver": self._receiver,
            "attach": lambda *arguments: self.attach(*arguments),
        }
        for name, replacement in parts.items():
            monkeypatch.setattr(serve, name, replacement)

    def _background(self, _store: object, _seconds: float, bounds: Bounds, _pace: int) -> Part:
        self.bounds = bounds
        return Part("background", self.events)

    def _page_service(self, _store: object, _settings: object, status: Any) -> Part:
        self.status = status
        return Part("service", self.events)

    def _receiver(self, _store: object, _sources: object, slot: str, system: int) -> Part:
        assert system == FakeIdentity().system_identifier
        self.slots.append(slot)
        return Part("receiver", self.events)

    def run(
        self,
        *sources: str,
        slot: str | None = None,
        stop_after: float = 0.2,
        s3: str | None = None,
    ) -> ExitCode:
        """`pageserver serve`, ended by SIGTERM after a while."""
        options = ServeOptions(
            data_dir=self.directory,
            wal_sources=sources,
            base_source=None,
            chunks=None,
            slot=slot,
            tenant=None,
            timeline=None,
            listen=("127.0.0.1", 0),
            s3=s3,
        )
        timer = threading.Timer(stop_after, os.kill, (os.getpid(), signal.SIGTERM))
        handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        timer.start()
        try:
            return serve.run(options, Settings())
        finally:
            timer.cancel()
            timer.join()
            signal.signal(signal.SIGTERM, handlers[0])
            signal.signal(signal.SIGINT, handlers[1])


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Harness:
    return Harness(monkeypatch, tmp_path / "pages")


def test_without_a_source_nothing_is_forgotten(harness: Harness) -> None:
    """What is served may be all that there is of its past."""
    settings = Settings()
    harness.run("host=a")
    assert harness.bounds == Bounds(settings.retention_seconds, settings.retention_wal_bytes)
    harness.run()
    assert harness.bounds == KEEP_ALL


def test_the_name_of_a_new_directory_is_durable(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAL that is reported as flushed lies in it."""
    synced: list[Path] = []
    monkeypatch.setattr(Storage, "sync_directory", lambda _, path: synced.append(path))
    assert harness.run("host=a") == ExitCode.OK
    assert harness.directory.parent in synced


STOPPING = ["receiver stops", "background stops", "service stops", "store closes"]


def test_a_directory_that_is_not_empty_goes_on(harness: Harness) -> None:
    assert harness.run("host=a", "host=b", slot="mine") == ExitCode.OK
    starting = ["service starts", "background starts", "receiver starts"]
    assert harness.events == starting + STOPPING
    assert harness.slots == ["mine"]


def test_without_a_source_it_is_read_only(harness: Harness) -> None:
    assert harness.run() == ExitCode.OK
    assert harness.events == ["service starts", "background starts", *STOPPING[1:]]
    assert harness.status()["state"] == "read-only"


def test_a_directory_that_ends_has_no_source(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.store.ends_at_lsn = 0x1000
    assert harness.run("host=a") == ExitCode.REFUSED
    assert "restored as of 0/1000 and ends there: serve it without --wal-source" in caplog.text
    assert "service starts" not in harness.events
    assert harness.run() == ExitCode.OK
    assert harness.status()["state"] == "read-only"


class SilentUploader(Part):
    """One that has no word of the bucket until the server stops."""

    def __init__(self, events: list[str], note: Callable[[], None]) -> None:
        super().__init__("uploader", events)
        self._note = note

    def start(self, is_stopping: Callable[[], bool]) -> tuple[str, int]:
        self._note()
        while not is_stopping():
            time.sleep(0.01)
        return super().start()

    def finish(self) -> None:
        self.stop()

    def status(self) -> dict[str, object]:
        return {"backup": "connecting"}


def test_no_wal_is_taken_before_it_is_known_whose_the_bucket_is(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads are answered meanwhile, and a stop does not wait for it."""
    seen: list[dict[str, object]] = []
    uploader = SilentUploader(harness.events, lambda: seen.append(harness.status()))
    monkeypatch.setattr(serve, "UploaderLink", lambda *_: uploader)
    monkeypatch.setattr(serve, "_with_bucket", lambda storage, *_: storage)
    harness.store.remote = SimpleNamespace(is_fenced=False)
    assert harness.run("host=a", s3="s3://b/p/") == ExitCode.OK
    assert harness.events[:2] == ["service starts", "background starts"]
    assert "receiver starts" not in harness.events
    assert seen[0]["state"] == "connecting"
    assert "before it is known whose the bucket is" in str(seen[0]["error"])


def test_an_empty_directory_is_attached(harness: Harness) -> None:
    harness.store.ids = None
    assert harness.run("host=a") == ExitCode.OK
    assert harness.events == ["service starts", "background starts", *STOPPING]
    status = harness.status()
    assert (status["state"], status["source"]) == ("streaming", "127.0.0.1:5432")
    assert status["error"] is None


def test_a_signal_ends_the_base_backup(harness: Harness) -> None:
    def attach(*arguments: Any) -> None:
        assert harness.status()["state"] == "base backup"
        assert arguments[4].wait(20)
        raise Stopped

    harness.store.ids = None
    harness.attach = attach
    assert harness.run("host=a") == ExitCode.OK
    assert harness.events == ["service starts", "background starts", *STOPPING[1:]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SourceError("nobody there"), ExitCode.CANNOT_CONNECT),
        (SourceError("wal_level is minimal", permanent=True), ExitCode.REFUSED),
        (CorruptionError("page", "there", 1, 2), ExitCode.REFUSED),
        (OSError(28, "no space left"), ExitCode.REFUSED),
    ],
)
def test_a_base_backup_that_fails_ends_the_server(
    harness: Harness, error: Exception, code: ExitCode
) -> None:
    def attach(*_: object) -> None:
        raise error

    harness.store.ids = None
    harness.attach = attach
    assert harness.run("host=a", stop_after=20) == code
    assert harness.events[-1] == "store closes"


def test_an_empty_directory_needs_a_source(harness: Harness) -> None:
    harness.store.ids = None
    assert harness.run(stop_after=20) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DirectoryInUseError("pages is in use"), ExitCode.REFUSED),
        (DirectoryRefusedError("its bundles are only in the bucket"), ExitCode.REFUSED),
        (UnreachableError(5, "the bucket does not answer"), ExitCode.CANNOT_CONNECT),
    ],
)
def test_a_directory_that_cannot_be_opened(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, error: Exception, code: ExitCode
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(serve, "PageStore", refuse)
    assert harness.run("host=a", stop_after=20) == code
    assert harness.events == []


def test_an_address_in_use(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The directory is none the worse: that would be another status."""

    def refuse(*_: object) -> tuple[str, int]:
        raise OSError(98, "Address already in use")

    part = Part("service", harness.events)
    monkeypatch.setattr(part, "start", refuse)
    monkeypatch.setattr(serve, "PageService", lambda *_: part)
    assert harness.run("host=a", stop_after=20) == ExitCode.WRONG
    assert "cannot listen on 127.0.0.1:0: [Errno 98] Address already in use" in caplog.text
    assert harness.events == STOPPING[1:]


def test_a_step_of_ours_that_failed_is_shown(harness: Harness) -> None:
    part = Part("background", harness.events)
    part.workers.append(SimpleNamespace(name="flush", error=OSError(5, "Input/output error")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "Background", lambda *_: part)
        harness.run("host=a")
    assert harness.status()["state"] == "failed"
    assert "Input/output error" in str(harness.status()["error"])
    assert "start the page server again" in str(harness.status()["error"])


def test_compaction_that_stopped_says_why(harness: Harness) -> None:
    part = Part("background", harness.events)
    worker = SimpleNamespace(name="compaction", error=None, waits_for=OSError(28, "No space"))
    part.workers.append(worker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "Background", lambda *_: part)
        harness.run("host=a")
    assert harness.status()["compaction"] == "merging L0: waits for room on the disk"
    worker.waits_for = UnreachableError(5, "GET layers/x: timeout")
    assert harness.status()["compaction"] == "merging L0: waits for the bucket"
    worker.error = OSError(5, "Input/output error")
    assert harness.status()["compaction"] == "stopped: [Errno 5] Input/output error"


def test_what_holds_us_up_is_shown_the_gravest_first(harness: Harness) -> None:
    background, receiver = Part("background", []), Part("receiver", [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "Background", lambda *_: background)
        patch.setattr(serve, "WalReceiver", lambda *_: receiver)
        harness.run("host=a")
    assert harness.status()["state"] == "streaming"
    background.hold = Hold(WAITING, "24 L0 bundles wait")
    assert harness.status()["state"] == "waiting for compaction"
    assert harness.status()["error"] == "24 L0 bundles wait"
    receiver.hold = Hold(JOURNAL_FULL, "much WAL")
    assert harness.status()["state"] == "journal full: source keeps WAL"
    background.hold = Hold(DISK_FULL, "no room")
    assert (harness.status()["state"], harness.status()["error"]) == ("disk full", "no room")
    receiver.state, receiver.error = "failed", "the journal cannot be written"
    assert harness.status()["state"] == "failed"


def test_the_server_id_is_drawn_once(tmp_path: Path) -> None:
    (tmp_path / "server_id.new").write_text("half")  # an earlier start that was cut off
    first = server_id.read_or_draw(Storage(), tmp_path)
    assert server_id.read_or_draw(Storage(), tmp_path) == first
    assert (tmp_path / "server_id").read_text() == server_id.pack(first).decode()
    assert [path.name for path in tmp_path.iterdir()] == ["server_id"]


@pytest.mark.parametrize("text", ["", "123", "0123456g\n", "01234567", "01234567\n\n"])
def test_a_server_id_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "server_id").write_text(text)
    with pytest.raises(CorruptionError):
        server_id.read_or_draw(Storage(), tmp_path)


def test_detach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dropped: list[str] = []

    def drop(_: object, slot: str) -> bool:
        dropped.append(slot)
        return True

    monkeypatch.setattr(serve, "drop_slot", drop)
    assert serve.detach(tmp_path, ["host=a"], None) == ExitCode.REFUSED
    number = server_id.read_or_draw(Storage(), tmp_path)
    assert serve.detach(tmp_path, ["host=a"], None) == ExitCode.OK
    assert serve.detach(tmp_path, ["host=a"], "mine") == ExitCode.OK
    mine, other = "mine", f"pageserver_{number:08x}"
    assert dropped == [other, f"{other}_bucket", mine, f"{mine}_bucket"]
    assert serve.detach(tmp_path, ["host=a"], "Not A Slot") == ExitCode.REFUSED
    held = Storage().lock(tmp_path / "lock")
    assert serve.detach(tmp_path, ["host=a"], None) == ExitCode.REFUSED
    Storage().close(held)
    assert serve.detach(tmp_path / "nowhere", ["host=a"], None) == ExitCode.REFUSED
