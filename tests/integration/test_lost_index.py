"""An index that is gone, cut, damaged, or of another time: what a start says, and the way out."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.index import Index
from engine.page_store import PageStore
from engine.storage import Storage
from formats import manifest as layout
from formats.errors import CorruptionError
from formats.index_value import STATE_KEY
from formats.manifest_record import FileAdded
from server.exit_code import ExitCode
from tests.fixtures.crash_workload import MEMORY_BYTES, Life, Story
from tests.fixtures.fork_server import ForkServer
from tests.fixtures.serving import Serving, run

STORY = Story()


@pytest.fixture
def directory(fast_directory: Path) -> Iterator[Path]:
    """A whole one; afterwards it must be as good as before."""
    Life(fast_directory, STORY).run(Storage())
    before = dump(fast_directory)
    yield fast_directory
    Life(fast_directory, STORY).check(Storage(), {"durable": STORY.parts[-1]})
    after = dump(fast_directory)
    del before["meta"][STATE_KEY], after["meta"][STATE_KEY]  # each opening has an entry
    assert after == before


def dump(directory: Path) -> dict[str, dict[bytes, bytes]]:
    index = Index(directory / "index")
    try:
        return index.dump()
    finally:
        index.close()


def test_an_index_that_kills_its_reader(directory: Path) -> None:
    """A file that is cut short: LMDB reads behind its end, and the process is gone."""
    data = directory / "index" / "data.mdb"
    with ForkServer("tests.fixtures.index_flips") as server:
        size = data.stat().st_size
        while (status := server.call("check", data.parent).status) >= 0:
            size -= 4096
            os.truncate(data, size)
    assert status == -signal.SIGBUS
    status, error = Serving(directory).ended()
    assert status == ExitCode.REFUSED
    assert "run `layertool reindex` on the data directory" in error
    assert run("tools.layertool", "verify", directory)[0] == ExitCode.WRONG
    assert run("tools.layertool", "reindex", directory)[0] == ExitCode.OK
    serving = Serving(directory)
    serving.wait()
    assert serving.end(signal.SIGTERM)[0] == ExitCode.OK


@pytest.mark.parametrize("lost", ["directory", "files", "data"])
def test_an_index_that_is_gone_is_made_anew(directory: Path, lost: str) -> None:
    index = directory / "index"
    if lost == "directory":
        shutil.rmtree(index)
    else:
        (index / "data.mdb").unlink()
        if lost == "files":
            (index / "lock.mdb").unlink()


def test_an_index_that_is_ahead_of_the_manifest(directory: Path) -> None:
    """The manifest has lost a flush: refused, and nothing is changed."""
    manifest, whole = directory / "manifest", (directory / "manifest").read_bytes()
    entries = list(layout.entries(whole, str(manifest)))
    last = max(i for i, entry in enumerate(entries) if isinstance(entry.records[0], FileAdded))
    manifest.write_bytes(whole[: entries[last - 1].end])
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    for _ in range(2):
        with pytest.raises(CorruptionError, match="the manifest has lost entries"):
            PageStore(directory, MEMORY_BYTES)
    for path, content in before.items():
        assert path.name == "lock.mdb" or path.read_bytes() == content, path
    manifest.write_bytes(whole)


@pytest.mark.parametrize("entries", [1, 3])
def test_an_index_of_an_earlier_time_catches_up(directory: Path, entries: int) -> None:
    """As a backup of the directory may have it, whose files are not all of one instant."""
    index = directory / "index" / "data.mdb"
    old = index.read_bytes()
    for _ in range(entries):
        store = PageStore(directory, MEMORY_BYTES)
        store.close()
    index.write_bytes(old)
