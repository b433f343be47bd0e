"""One directory, two processes: whoever comes second is refused, until the first is dead."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import kill_points
from engine.storage import Storage
from formats.lsn import parse as parse_lsn
from server.client import PageClient
from server.exit_code import ExitCode
from tests.fixtures.crash_workload import OLD, Life, Story, content_of
from tests.fixtures.serving import Serving, run
from tools.loopback_ports import free_port

STORY = Story()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pages"
    path.mkdir()
    Life(path, STORY).run(Storage())
    yield path
    Life(path, STORY).check(Storage(), {"durable": STORY.parts[-1]})


@pytest.fixture
def first(directory: Path) -> Iterator[Serving]:
    serving = Serving(directory)
    serving.wait()
    yield serving
    serving.process.kill()
    serving.process.communicate()


def test_the_second_is_refused_until_the_first_is_dead(directory: Path, first: Serving) -> None:
    bundle = next((directory / "layers").iterdir())
    attempts = [
        ("server.cli", "serve", "--data-dir", directory, "--listen", f"127.0.0.1:{free_port()}"),
        ("server.cli", "detach", "--data-dir", directory, "--wal-source", "host=127.0.0.1 port=1"),
        ("tools.layertool", "verify", directory),
        ("tools.layertool", "reindex", directory),
        ("tools.layertool", "dump", bundle),
    ]
    for attempt in attempts:
        status, error = run(*attempt)
        assert status == ExitCode.REFUSED, attempt
        assert f"{directory} is in use by another process; stop it first" in error, attempt
        assert ("pageserver: " if attempt[0] == "server.cli" else "layertool: ") in error
    with PageClient(first.address) as client:  # none of them has disturbed it
        lsn = parse_lsn(str(client.status()["ready_lsn"]))
        page = client.get_page(*OLD, 0, 2, lsn)
    assert content_of(page[:]) == STORY.sights[STORY.ends[-1]].content[OLD, 2]
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert run("tools.layertool", "reindex", directory)[0] == ExitCode.OK
    second = Serving(directory)
    second.wait()
    assert second.end(signal.SIGTERM)[0] == ExitCode.OK


def test_a_server_kills_itself_where_it_is_told_to(directory: Path) -> None:
    serving = Serving(directory, PAGESERVER_KILL_AT="manifest.append.middle:1")
    status, error = serving.ended()
    assert status == -signal.SIGKILL
    assert "PAGESERVER_KILL_AT=manifest.append.middle:1" in error
    counting = Serving(directory, PAGESERVER_KILL_AT=kill_points.COUNT)
    counting.wait()
    status, error = counting.end(signal.SIGTERM)
    assert status == ExitCode.OK
    counts = {point: int(times) for times, point in map(str.split, error.splitlines()[-20:])}
    assert counts["manifest.append.middle"] == 1  # that this run has opened it
    assert counts["manifest.sync.after"] == 2  # that, and the torn entry that was cut off


def test_a_kill_point_that_is_none_is_refused(directory: Path) -> None:
    status, error = Serving(directory, PAGESERVER_KILL_AT="manifest.append.halfway:1").ended()
    assert status == ExitCode.USAGE
    assert "expected PLACE.OPERATION.PHASE:K" in error
