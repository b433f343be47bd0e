"""`pageserver restore` and `scrub` as commands: what they print, and how they end."""

import json
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from engine import index_rebuild
from engine.storage import Storage
from formats.lsn import show
from server.backup import fetch, s3_store
from server.backup.location import Location
from server.backup.restore_target import Target, Wanted
from server.backup.s3_client import Traffic
from server.backup.transfer_progress import TransferProgress
from server.cli import app
from server.exit_code import ExitCode
from tests.fixtures.bucket_shipping import flip, shipped
from tests.fixtures.memory_bucket import Fault, MemoryBucket
from tests.fixtures.small_store import SmallStore, create, image
from tests.fixtures.store_history import RELATIONS

URL = "s3://bucket/prefix"
Run = Callable[..., tuple[int, str, str]]


class Store(MemoryBucket):
    location = Location.parse(URL)

    def traffic(self) -> Traffic:
        return Traffic(Counter(self.requests), 0, self.bytes_received)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A bucket with a small backup, in the place of S3."""
    monkeypatch.setattr(index_rebuild, "check_in_child", lambda path: True)
    monkeypatch.setattr(fetch, "FIRST_PAUSE_SECONDS", 0.0)
    (tmp_path / "from").mkdir()
    small = SmallStore(tmp_path / "from")
    small.put(create(RELATIONS[0]), image(0, 1, RELATIONS[0]))
    small.flush()
    small.put(image(0, 2, RELATIONS[0]))
    store = Store(shipped(small.store).contents)
    store.lsns = (small.store.horizon_lsn, small.store.durable_lsn, small.store.ready_lsn)
    small.let_go()

    def opened(url: str, endpoint: str | None = None, **_: object) -> Store:
        assert (url, endpoint) == (URL, "http://127.0.0.1:1")
        return store

    monkeypatch.setattr(s3_store, "S3Store", opened)
    return store


@pytest.fixture
def run(store: Store) -> Run:
    def run(command: str, *options: object) -> tuple[int, str, str]:
        at = ("--from", URL, "--s3-endpoint", "http://127.0.0.1:1")
        done = CliRunner().invoke(app, [command, *at, *map(str, options)])
        return done.exit_code, done.stdout, done.stderr

    return run


def test_restore_says_what_it_brought(run: Run, store: Store, tmp_path: Path) -> None:
    code, said, _ = run("restore", "--data-dir", tmp_path / "new", "--json")
    assert code == ExitCode.OK
    values = json.loads(said)
    horizon, _, ready = store.lsns
    assert (values["horizon_lsn"], values["end_lsn"]) == (show(horizon), show(ready))
    assert (values["files"], values["files_kept"], values["goes_on"]) == (2, 0, True)
    assert (values["from"], values["data_dir"]) == (URL, str(tmp_path / "new"))
    assert values["requests"] >= 4
    assert values["bytes"] > values["files"]
    code, said, _ = run("restore", "--data-dir", tmp_path / "ended", "--lsn", show(store.lsns[1]))
    assert code == ExitCode.OK
    rows = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert rows["end_lsn"].strip() == show(store.lsns[1])
    assert rows["goes_on"].strip() == "False"
    as_of = ("--data-dir", tmp_path / "lazy", "--lsn", show(ready), "--lazy", "--json")
    values = json.loads(run("restore", *as_of)[1])
    assert (values["files"], values["goes_on"]) == (0, False)


def test_how_restore_ends(run: Run, store: Store, tmp_path: Path) -> None:
    new = ("--data-dir", tmp_path / "new")
    assert run("restore", *new, "--lsn", "nonsense")[0] == ExitCode.USAGE
    assert run("restore", *new, "--chunks", "nonsense")[0] == ExitCode.USAGE
    code, _, error = run("restore", *new, "--lsn", "F/0")
    assert code == ExitCode.REFUSED
    assert "above the remote LSN" in error
    code, _, error = run("restore", "--data-dir", tmp_path)
    assert code == ExitCode.REFUSED
    assert "is not empty" in error
    store.choose_fault = lambda call, name: Fault.BEFORE if call == "get" else None
    code, _, error = run("restore", *new)
    assert code == ExitCode.CANNOT_CONNECT
    assert "connection reset" in error
    store.choose_fault = lambda call, name: None
    name = next(name for name in store.objects if name.startswith("layers/"))
    whole = store.objects[name]
    flip(store, name, 100)
    code, _, error = run("restore", *new)
    assert code == ExitCode.WRONG
    assert name in error and "docs/restore.md" in error
    store.objects[name] = whole
    assert run("restore", *new)[0] == ExitCode.OK


def test_a_restore_that_was_done_but_for_its_mark(run: Run, tmp_path: Path) -> None:
    new = tmp_path / "new"
    assert run("restore", "--data-dir", new)[0] == ExitCode.OK
    target = Target(Storage(), tmp_path / "x")
    assert target.begin(Wanted(Location.parse(URL).url))
    target.close()
    mark = (tmp_path / "x" / "restore").read_bytes()
    (new / "restore").write_bytes(mark)
    code, said, _ = run("restore", "--data-dir", new)
    assert code == ExitCode.OK
    assert "was restored already" in said
    assert not (new / "restore").exists()


def test_scrub_says_what_is_there_and_what_is_wrong(run: Run, store: Store) -> None:
    code, said, _ = run("scrub", "--json")
    assert code == ExitCode.OK
    values = json.loads(said)
    assert (values["problems"], values["wrong"], values["never_verified"]) == ([], 0, 0)
    assert values["remote_lsn"] == show(store.lsns[2])
    assert values["oldest_verification"] == values["newest_verification"] != None  # noqa: E711
    named = [name for name in store.objects if name.startswith(("journal/", "layers/"))]
    assert sorted(values["verified"]) == sorted(named)
    assert set(values["verified"].values()) >= {values["oldest_verification"]}
    name = next(name for name in store.objects if name.startswith("journal/"))
    flip(store, name, 5)
    code, said, _ = run("scrub")
    assert code == ExitCode.WRONG
    assert f"wrong: {name}: piece of the journal (bytes, CRC): expected (" in said
    code, said, _ = run("scrub", "--json")
    (problem,) = json.loads(said)["problems"]
    assert problem["object"] == name
    assert set(problem) == {"object", "what", "expected", "found"}


def test_the_bar_shows_bytes_where_somebody_watches() -> None:
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=100)
    with TransferProgress(console) as progress:
        progress.expect("restoring", 2_000_000)
        progress.advance(1_500_000)
        progress.advance(-500_000)
        progress.advance(1_000_000)
    assert "restoring" in shown.getvalue()
    assert "2.0/2.0 MB" in shown.getvalue()
