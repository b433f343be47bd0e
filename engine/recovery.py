"""Opening a data directory: from what is on disk to a store that goes on where it was.

    lock -> manifest (torn tail cut) -> index, checked and caught up -> run number -> leftovers
         removed -> relations into the chunk table -> journal; ingest replays it from the
            durable LSN

A directory without a manifest has nothing worth keeping: its base backup was never completed.
"""

import contextlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from engine.chunk_table import ChunkTable
from engine.errors import DirectoryRefusedError, RequestError
from engine.frame_cache import FrameCache
from engine.index import Index
from engine.index_rebuild import open_index
from engine.index_rebuild import remove_unfinished as remove_unfinished_index
from engine.ingest import Ingest
from engine.layer_map import LayerMap
from engine.layer_store import LayerStore
from engine.lazy_storage import LazyStorage
from engine.manifest_log import ManifestLog
from engine.storage import Storage
from engine.version_store import VersionStore
from formats.chunk import SmallFile, small_file
from formats.errors import CorruptionError
from formats.file_name import FileKind, FileName
from formats.manifest import Manifest

_log = logging.getLogger("pageserver.recovery")


@dataclass(frozen=True)
class Paths:
    """Where things lie in a data directory; docs/format.md has the picture."""

    directory: Path

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def manifest(self) -> Path:
        return self.directory / "manifest"

    @property
    def layers(self) -> Path:
        return self.directory / "layers"

    @property
    def index(self) -> Path:
        return self.directory / "index"

    @property
    def journal(self) -> Path:
        return self.directory / "journal"


def is_complete(storage: Storage, paths: Paths) -> bool:
    """Whether the directory has a base backup."""
    return storage.exists(paths.manifest)


def remove_unfinished(storage: Storage, paths: Paths) -> int:
    """Empty a directory whose base backup was cut off; returns the highest sequence number of its
    bundles, behind which the next attempt goes on.

    The index is made only after the manifest, and so are bundles of a later run or below L0: where
    there is one, the manifest was there and is lost, and with it the meaning of the layers;
    CorruptionError then, and nothing is removed. Nor is anything where there are other files:
    DirectoryRefusedError.
    """
    names = storage.list(paths.layers)
    strange = [name for name in names if not _is_bundle(name)]
    if strange:
        raise DirectoryRefusedError(f"{paths.layers / strange[0]} is no bundle of a page server")
    bundles = sorted(map(FileName.parse, names), key=lambda name: name.sequence)
    later = [name for name in bundles if name.kind == FileKind.L1 or name.run > 1]
    if storage.list(paths.index) or later:
        proof = later[0].text if later else "an index"
        raise CorruptionError(
            "manifest", str(paths.manifest), f"present, as there is {proof}", "no such file"
        )
    for bundle in bundles:  # the highest goes last, whatever ends this
        storage.remove(paths.layers / bundle.text)
    if storage.exists(paths.journal):
        for name in storage.list(paths.journal):
            storage.remove(paths.journal / name)
    return bundles[-1].sequence if bundles else 0


def undo_base_backup(storage: Storage, paths: Paths) -> None:
    """Remove what a base backup that is not complete has left, but the WAL beside it.

    In an order in which a directory with a manifest has all that it names but the index.
    """
    for name in storage.list(paths.index):
        storage.remove(paths.index / name)
    if storage.exists(paths.manifest):
        storage.remove(paths.manifest)
        storage.sync_directory(paths.directory)
    for name in storage.list(paths.layers):
        storage.remove(paths.layers / name)


def remove_leftovers(storage: Storage, paths: Paths, manifest: Manifest) -> list[str]:
    """Remove bundles that the manifest does not name, and indexes that a reindex did not finish:
    what a crash left; returns the bundles' names. What is no bundle is somebody else's and stays.
    """
    remove_unfinished_index(storage, paths.directory)
    named = {name.text for name in manifest.files}
    present = storage.list(paths.layers)
    for name in sorted(named.difference(present)):
        _log.error("%s is missing: what needs it cannot be read", paths.layers / name)
    leftovers = [name for name in present if name not in named]
    for name in [name for name in leftovers if not _is_bundle(name)]:
        _log.warning("%s is not ours: it is left alone", paths.layers / name)
        leftovers.remove(name)
    for name in leftovers:
        _log.info("removing %s, a leftover that the manifest does not name", paths.layers / name)
        storage.remove(paths.layers / name)
    if leftovers:
        storage.sync_directory(paths.layers)
    return leftovers


def _is_bundle(name: str) -> bool:
    try:
        FileName.parse(name)
    except ValueError:
        return False
    return True


def open_layers(
    storage: Storage,
    paths: Paths,
    manifest: ManifestLog,
    frames: FrameCache,
    committing: threading.Lock,
) -> LayerStore:
    """The layers, whose commits hold `committing`.

    CorruptionError says what is damaged and what to do, DirectoryRefusedError that bundles are only
    in a bucket, which `storage` does not know.
    """
    _learn(storage, paths, manifest.state)
    index = open_index(storage, paths.index, manifest.state, paths.layers)
    try:
        layers = LayerMap(storage, paths.layers, index, frames, manifest.state.removed)
    except BaseException:
        index.close()
        raise
    return LayerStore(storage, paths.layers, manifest, index, layers, committing)


def _learn(storage: Storage, paths: Paths, manifest: Manifest) -> None:
    """Which bundles are in a bucket, and that all are there or here."""
    if isinstance(storage, LazyStorage):
        storage.learn(manifest)
    present = set(storage.list(paths.layers))
    away = [name.text for name in sorted(manifest.uploaded) if name.text not in present]
    if away:
        raise DirectoryRefusedError(
            f"{paths.directory}: {len(away)} of {len(manifest.files)} bundles are only in the "
            f"bucket, as {away[0]}: serve it with --s3, or restore it whole"
        )


def cluster_files(versions: VersionStore, lsn: int) -> dict[int, bytes]:
    """The files of the cluster that records refer to, as far as they exist at `lsn`."""
    files = {}
    for code in (
        SmallFile.PG_CONTROL,
        SmallFile.REPLORIGIN_CHECKPOINT,
        SmallFile.TABLESPACE_MAP,
    ):
        with contextlib.suppress(RequestError):
            files[int(code)] = versions.read_file(small_file(code), lsn)
    return files


def resume_commit_times(versions: VersionStore) -> None:
    """Let ingest know the last time that it stored below the durable LSN."""
    stored = versions.commit_times.time_at(versions.durable_lsn)
    versions.ingest.transactions.stored_time = stored or 0


def end_replay(versions: VersionStore, lsn: int, ends_at: int | None) -> bool:
    """Of a directory that ends, when the journal has nothing behind `lsn`: whether that is its end,
    and it becomes ready only now. It may lie inside of a record, which then never was."""
    if ends_at is None or lsn < ends_at or versions.ready_lsn >= ends_at:
        return False
    with versions.lock:
        versions.advance_ready(ends_at)
    return True


def load_relations(index: Index, table: ChunkTable, ingest: Ingest) -> None:
    """Present sizes and cuts of all relations, SLRU segments and files, as of the durable LSN."""
    for key, state in index.relations():
        root = table.intern(*key)
        table.exists[root] = state.exists
        table.blocks[root] = state.n_blocks
        table.change_lsn[root] = state.lsn
        if state.cuts:
            ingest.target.cuts[root] = [(cut.lsn, cut.n_blocks) for cut in state.cuts]
            table.cut_lsn[root] = state.cuts[-1].lsn
            table.cut_blocks[root] = state.cuts[-1].n_blocks
