"""A crash at every step of a flush: what was reported is there, what was not is there or not."""

from pathlib import Path
from random import Random

import pytest

from engine import directory_check, index_rebuild
from engine.bundle_reader import BundleReader
from engine.directory_check import check_directory
from engine.frame_cache import FrameCache
from engine.index_rebuild import bundle_for_index, open_index
from engine.layer_map import LayerMap
from engine.manifest_log import ManifestLog
from engine.storage import Storage
from engine.version_set import VersionSet
from formats.manifest_record import FileAdded, Identity, Opened, Progress
from tests.fixtures import bundles
from tests.fixtures.faulty_storage import CrashError, FaultyStorage

KEY = bundles.relation_key(1)
IDENTITY = Identity(bundles.TENANT, bundles.TIMELINE, 7, 180006, 16 << 20)


def flush(storage: Storage, root: Path, number: int) -> int:
    """One flush, in the order of docs/format.md; returns the LSN that it may report."""
    log = ManifestLog.open(storage, root / "manifest")
    index = open_index(storage, root / "index", log.state, root / "layers")
    try:
        lsn, name = 100 * number, bundles.l0(number)
        versions = [(KEY, 0, lsn, bundles.record(b"%d" % number))]
        info = bundles.write(root / "layers", name, versions, storage=storage)
        log.append(
            FileAdded(name.text, info.bytes_total, lsn, lsn + 1, info.footer_crc),
            Progress(durable_lsn=lsn),
        )
        state = log.state
        reader = BundleReader(storage, root / "layers" / name.text)
        added = [bundle_for_index(reader, info)]
        index.commit(state.serial, state.durable_lsn, added=added)
        if number == 2:
            log.compact()
        return lsn
    finally:
        index.close()
        log.close()


def recover(root: Path) -> tuple[int, list[int]]:
    """Open after a crash: the durable LSN, and the LSNs that a read finds."""
    storage = Storage()
    log = ManifestLog.open(storage, root / "manifest")
    index = open_index(storage, root / "index", log.state, root / "layers")
    log.append(Opened(log.state.run + 1))
    for name in storage.list(root / "layers"):
        if name not in {known.text for known in log.state.files}:
            storage.remove(root / "layers" / name)
    layers = LayerMap(storage, root / "layers", index, FrameCache(0))
    into = VersionSet()
    layers.collect(KEY, 0, 10_000, 0, into)
    index.close()
    log.close()
    return log.state.durable_lsn, [lsn for lsn, _ in bundles.pushed(into)]


def run_until_crash(root: Path, crash_at: int, seed: int) -> tuple[int, int]:
    """Three flushes on a disk that stops; the last LSN reported, and the calls it took."""
    (root / "layers").mkdir(parents=True)
    ManifestLog.create(Storage(), root / "manifest", IDENTITY, Opened(1)).close()
    storage, reported = FaultyStorage(), 0
    storage.crash_at = crash_at
    try:
        for number in (1, 2, 3):
            reported = flush(storage, root, number)
    except CrashError:
        storage.crash(Random(f"{seed} {crash_at}"))
    return reported, storage.calls


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_every_call(
    fast_directory: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (index_rebuild, directory_check):  # a process each time, and LMDB is sound here
        monkeypatch.setattr(module, "check_in_child", lambda path: True)
    _, calls = run_until_crash(fast_directory / "whole", -1, seed)
    assert recover(fast_directory / "whole") == (300, [300, 200, 100])
    assert calls > 20
    for crash_at in range(calls):
        root = fast_directory / str(crash_at)
        reported, _ = run_until_crash(root, crash_at, seed)
        durable, found = recover(root)
        assert durable in (reported, reported + 100), f"call {crash_at}"
        assert found == list(range(durable, 0, -100)), f"call {crash_at}"
        (root / "work").mkdir()
        assert not [f for f in check_directory(Storage(), root, root / "work") if f.is_fault]
        assert flush(Storage(), root, 7) == 700
        assert recover(root) == (700, [700, *found])
