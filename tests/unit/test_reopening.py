"""Opening a directory again: what shows that something was lost, and names that go on."""

from pathlib import Path

import pytest

from engine import directory_check, index_rebuild
from engine.backup_identity import BackupIdentity
from engine.directory_check import check_directory
from engine.errors import DirectoryRefusedError
from engine.page_store import PageStore
from engine.retention import Bounds
from engine.storage import File, Storage
from formats import manifest as layout
from formats.chunk import relation as relation_key
from formats.errors import CorruptionError
from tests.fixtures.rebuilt_index import check_index
from tests.fixtures.small_store import MEMORY_BYTES, REL, SmallStore, create, heap_page, image
from tests.fixtures.wal_builder import MIB, SYSTEM_IDENTIFIER
from tests.unit.test_compactor import POLICY


@pytest.fixture(autouse=True)
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (index_rebuild, directory_check):
        monkeypatch.setattr(module, "check_in_child", lambda path: True)


def test_a_start_that_the_manifest_lost_shows(tmp_path: Path) -> None:
    """Else its run number would be used again, and with it names."""
    small = SmallStore(tmp_path)
    small.let_go()
    path = small.store.paths.manifest
    before = path.stat().st_size
    small.open()
    run = small.store.manifest.state.run
    small.let_go()
    content = path.read_bytes()
    assert len(content) > before
    path.write_bytes(content[:before])
    state, _ = layout.replay(path.read_bytes(), "")
    assert state.run == run - 1
    with pytest.raises(CorruptionError, match="manifest has lost entries that the index knows"):
        small.open()


def test_a_lost_manifest_costs_no_layers(tmp_path: Path) -> None:
    """Without manifest and index it looks like a base backup that was cut off; it is not."""
    small = SmallStore(tmp_path)
    small.reopen()
    small.put(create(), image(0, 1))
    small.flush()
    small.let_go()
    paths = small.store.paths
    layers = sorted(path.name for path in paths.layers.iterdir())
    paths.manifest.unlink()
    for path in paths.index.iterdir():
        path.unlink()
    with pytest.raises(CorruptionError, match=r"expected present, as there is l0-.*, found no"):
        small.open()
    assert sorted(path.name for path in paths.layers.iterdir()) == layers


def test_files_of_others_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy that somebody left there is no reason not to start, and not ours to remove."""
    small = SmallStore(directory_in(tmp_path))
    small.put(create())
    small.flush()
    small.let_go()
    layers = small.store.paths.layers
    kept = next(path for path in layers.iterdir() if path.name.startswith("l0"))
    stranger = layers / f"{kept.name}.bak"
    leftover = layers / kept.name.replace("l0-", "l1-")
    for path in (stranger, leftover):
        path.write_bytes(kept.read_bytes())
    (tmp_path / "work").mkdir()
    said = [str(f) for f in check_directory(Storage(), small.directory, tmp_path / "work")]
    assert sorted(said) == [
        f"leftover that the manifest does not name, removed at the next start at {leftover}",
        f"no file of a page server, left alone at {stranger}",
    ]
    small.open()
    assert stranger.exists() and not leftover.exists()
    assert f"{stranger} is not ours" in caplog.text
    small.let_go()


def test_a_missing_bundle_is_said_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = SmallStore(directory_in(tmp_path))
    lost = small.put(create(), image(0, 1))
    small.flush()
    small.let_go()
    gone = max(path for path in small.store.paths.layers.iterdir() if path.name.startswith("l0"))
    content = gone.read_bytes()
    gone.unlink()
    small.open()
    assert f"{gone} is missing: what needs it cannot be read" in caplog.messages
    with pytest.raises(LookupError, match=gone.name):
        small.page(0, lost)
    small.let_go()
    gone.write_bytes(content)  # from a copy
    small.open()
    assert small.mark(0, lost) == 1
    small.let_go()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "layers").mkdir()
    theirs = tmp_path / "layers" / "photograph.jpeg"
    theirs.touch()
    with pytest.raises(DirectoryRefusedError, match="photograph.jpeg is no bundle"):
        PageStore(tmp_path, MEMORY_BYTES)
    assert theirs.exists()


def directory_in(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


class NamesKept(Storage):
    """Remembers which bundles were created."""

    def __init__(self) -> None:
        self.created: list[str] = []

    def create(self, path: Path) -> File:
        if path.parent.name == "layers":
            self.created.append(path.name)
        return super().create(path)


def begin(store: PageStore, start: int) -> None:
    """A base backup that has some pages."""
    store.begin_base_backup(BackupIdentity(SYSTEM_IDENTIFIER, 1, start, 180006, MIB, True))
    store.add_pages(relation_key(*REL, 0), 0, heap_page(1) * 3)


def test_a_base_backup_that_begins_anew_has_new_names(tmp_path: Path) -> None:
    storage, start = NamesKept(), 16 * MIB
    for _ in range(3):
        store = PageStore(tmp_path, MEMORY_BYTES, storage)
        begin(store, start)
        begin(store, start)
        storage.close(store._lock)  # the process dies
    assert len(storage.created) == 6
    assert len(set(storage.created)) == 6


def test_an_index_from_before_a_file_went_is_made_anew(tmp_path: Path) -> None:
    """It names a file that nobody can look into any more."""
    small = SmallStore(directory_in(tmp_path))
    small.put(create())
    lsns = []
    for number in (1, 2, 3):
        lsns.append(small.put(image(0, number)))
        small.flush()
    index = small.store.paths.index / "data.mdb"
    old = index.read_bytes()
    assert small.store.compactor is not None
    small.store.compactor.policy = POLICY
    before = set(small.store.manifest.state.files)
    while small.store.compact_step():
        pass
    gone = before - small.store.manifest.state.files.keys()
    assert gone
    assert not any((small.store.paths.layers / name.text).exists() for name in gone)
    small.let_go()
    index.write_bytes(old)
    small.open()
    assert [small.mark(0, lsn) for lsn in lsns] == [1, 2, 3]
    (tmp_path / "work").mkdir()
    check_index(small.store, tmp_path / "work")
    small.let_go()


def test_verify_of_a_directory_whose_index_has_only_its_lock(tmp_path: Path) -> None:
    """As a death before the index's first commit leaves it."""
    small = SmallStore(directory_in(tmp_path))
    small.let_go()
    (small.store.paths.index / "data.mdb").unlink()
    assert small.store.paths.index.exists()
    (tmp_path / "work").mkdir()
    (finding,) = check_directory(Storage(), small.directory, tmp_path / "work")
    assert not finding.is_fault
    assert "no index" in str(finding)


@pytest.mark.parametrize("word", ["point", "lease", "renewed", "dropped", "over"])
def test_a_point_or_lease_that_the_manifest_lost_shows(tmp_path: Path, word: str) -> None:
    """Else what it keeps is deleted, or what was given up is held, and nobody knows."""
    small = SmallStore(tmp_path)
    lsn = small.put(create(), image(0, 1))
    small.flush()
    retention, path = small.store.retention, small.store.paths.manifest
    if word in ("renewed", "dropped", "over"):
        retention.create_lease(lsn, 60, 0.0, "mine")
    before = path.stat().st_size
    if word == "point":
        retention.create_point("mine", lsn)
    elif word == "lease":
        retention.create_lease(lsn, 60, 0.0, "mine")
    elif word == "renewed":
        retention.renew_lease("mine", 120, 0.0)
    elif word == "dropped":
        retention.drop_lease("mine")
    else:
        assert retention.step(61.0, Bounds(0, 1 << 40), lambda time: None)
    small.let_go()
    whole = path.read_bytes()
    path.write_bytes(whole[:before])
    with pytest.raises(CorruptionError, match="manifest has lost entries that the index knows"):
        small.open()
    path.write_bytes(whole)
    small.open()
    small.let_go()
