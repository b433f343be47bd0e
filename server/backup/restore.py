"""A backup becomes a data directory again.

    bucket's manifest ──> plan ──> room on the disk ──> bundles, several at a time ─┐
                                                        pieces of the journal       ├─> manifest
                                                        server_id, bucket, outlines ┘

Each bundle is checked while it comes (formats/bundle_stream.py) and has its name only when all of
it is on disk, so a restore that is cut off at any instant, by kill -9 or the power, goes on where
it was when it is called again. The manifest is written last. What is restored is one state of the
bucket; if its objects are deleted meanwhile, as somebody still writes there, the next state is read
and what is here already stays.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from engine import server_id
from engine.bundle_outline import outlined_bundle, outlines_in
from engine.journal import Journal
from engine.manifest_log import ManifestLog
from engine.storage import Storage
from formats.bucket import JournalAdded
from formats.bucket_state import BucketState
from formats.errors import CorruptionError
from formats.file_name import FileName
from formats.layer_directory import LayerDirectory
from formats.manifest_record import FileAdded
from formats.outline import Outline
from server.backup import binding, fetch, restore_plan
from server.backup.binding import Binding
from server.backup.bucket_manifest import BucketManifest
from server.backup.object_store import NotThereError, ObjectStore, StoreError
from server.backup.outline_shipping import newest_outlines
from server.backup.restore_plan import Plan, RestoreRefusedError
from server.backup.restore_target import PART_SUFFIX, Target, Wanted, refuse_others

PARALLELISM = 8
SPARE_BYTES = 64 << 20  # besides bundles and journal: index, manifest, what the server begins with
SPARE_SHARE = 50  # and this part of the bundles, for the index
_MIB = 1 << 20
_log = logging.getLogger("pageserver.backup")
_Result = TypeVar("_Result")


class Progress(Protocol):
    """Is told how far it is; any thread may call."""

    def expect(self, what: str, bytes_total: int) -> None:
        """What comes next, and its size."""

    def advance(self, count: int) -> None:
        """So many bytes more of it came; less, if some are to come once more."""


class Silence:
    """Shows nothing."""

    def expect(self, what: str, bytes_total: int) -> None:
        pass

    def advance(self, count: int) -> None:
        pass


@dataclass
class Restored:
    """What a restore has brought back."""

    plan: Plan
    state: BucketState
    files: int = 0  # that came; those that were here already apart
    files_kept: int = 0
    bytes: int = 0  # of files that came, as they are on disk, and of WAL
    seconds: float = 0.0

    @property
    def is_part(self) -> bool:
        """Whether the directory has less than the bucket: it ends earlier, or lacks chunks."""
        restored = self.plan.manifest
        return restored.ends_at_lsn is not None or restored.identity != self.state.manifest.identity


def boottime() -> float:
    """Seconds, while the machine sleeps as well."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def restore(
    store: ObjectStore,
    directory: Path,
    storage: Storage,
    url: str,
    *,
    lsn: int | None = None,
    lazy: bool = False,
    chunks: str | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
    bucket: BucketManifest | None = None,
) -> Restored | None:
    """Make `directory` what the bucket at `url` has; None if an earlier call had done all of it.
    `bucket`: the bucket's manifest, if somebody has read it a moment ago.

    RestoreRefusedError, DirectoryInUseError: nothing was done. StoreError, OSError, CorruptionError
    (which names the object): what came stays, and the same call goes on.
    """
    if lazy and chunks is not None and lsn is None:
        raise RestoreRefusedError(
            "--lazy goes with --chunks only as of an LSN: a lazy directory that goes on reads from "
            "the bucket to which it writes, and one of a part of it must never write there. Name "
            "an --lsn, and it is only read"
        )
    with ThreadPoolExecutor(PARALLELISM, "restore") as pool:
        bucket = bucket or BucketManifest(store, boottime, in_parallel=pool.map)
        work = _Restore(store, bucket, storage, pool, progress or Silence(), sleep)
        return work.run(directory, Wanted(url, lsn, chunks, lazy))


class _Restore:
    """One restore into one directory."""

    def __init__(
        self,
        store: ObjectStore,
        bucket: BucketManifest,
        storage: Storage,
        pool: ThreadPoolExecutor,
        progress: Progress,
        sleep: Callable[[float], None],
    ) -> None:
        self._store = store
        self._storage = storage
        self._pool = pool
        self._progress = progress
        self._sleep = sleep
        self._bucket = bucket

    def run(self, directory: Path, wanted: Wanted) -> Restored | None:
        began = time.monotonic()
        refuse_others(self._storage, directory, wanted)
        done = self._plan(wanted)  # first: what cannot be had leaves no trace
        with closing(Target(self._storage, directory)) as target:
            if not target.begin(wanted):
                return None
            while True:
                try:
                    self._bring(target, done, wanted)
                    break
                except NotThereError as error:  # somebody writes there, and has no use for it now
                    before = done.state.serial
                    done = replace(self._plan(wanted), files=done.files, bytes=done.bytes)
                    if done.state.serial == before:
                        raise CorruptionError("object", str(error), "what the bucket's manifest "
                                              "names", "no such object") from error  # fmt: skip
            self._finish(target, done, wanted)
        done.seconds = time.monotonic() - began
        return done

    def _plan(self, wanted: Wanted) -> Restored:
        self._patiently(self._bucket.refresh if self._bucket.state.serial else self._bucket.read)
        state = self._bucket.state
        whole = restore_plan.plan(state, wanted.lsn, always_ends=wanted.lazy)
        if wanted.chunks is None:
            return Restored(whole, state)
        self._progress.expect("reading what bundles have", len(whole.files))
        known = outlines_in(self._outlines, "the bucket's outlines")
        found = fetch.ahead(
            self._pool, lambda file: self._directory(whole, file, known), whole.files,
            2 * PARALLELISM,
        )  # fmt: skip
        directories = dict(zip((file.name for file in whole.files), found, strict=True))
        part = restore_plan.of_chunks(whole, wanted.chunks, lambda file: directories[file.name])
        return Restored(part, state)

    def _directory(
        self, planned: Plan, file: FileAdded, outlines: Mapping[FileName, Outline]
    ) -> LayerDirectory:
        self._progress.advance(1)
        known = outlined_bundle(outlines, file, planned.manifest)
        if known is not None:
            return known.directory
        name = planned.objects[file.name]
        return self._patiently(lambda: fetch.layer_directory(self._store, name, file))

    @cached_property
    def _outlines(self) -> bytes:
        """The newest; without them bundles are asked for what they say."""
        try:
            found = self._patiently(lambda: newest_outlines(self._store))
        except StoreError as error:
            _log.warning("restoring without outlines of bundles: %s", error)
            return b""
        return b"" if found is None else found[1]

    def _patiently(self, call: Callable[[], _Result]) -> _Result:
        return fetch.patiently(call, self._sleep)

    # Bringing it --------------------------------------------------------------------------------

    def _bring(self, target: Target, done: Restored, wanted: Wanted) -> None:
        """All but the manifest."""
        outlines = self._pool.submit(lambda: self._outlines)
        files = [] if wanted.lazy else done.plan.files
        kept = target.keep_bundles({file.name: file.bytes_total for file in files})
        missing = [file for file in files if file.name not in kept]
        missing.sort(key=lambda file: -file.bytes_total)  # a large one last would be alone
        done.files_kept = len(kept) - done.files
        _require_room(target, sum(file.bytes_total for file in missing), done.plan.journal_bytes)
        self._progress.expect(
            "restoring",
            sum(file.bytes_total for file in files) + sum(p.bytes_stored for p in done.plan.pieces),
        )
        self._progress.advance(sum(file.bytes_total for file in files if file.name in kept))
        bundles = [
            self._pool.submit(self._bring_bundle, target, done.plan.objects[file.name], file)
            for file in missing
        ]
        try:
            for bundle in as_completed(bundles):
                done.bytes += bundle.result()
                done.files += 1
        finally:
            for bundle in bundles:
                bundle.cancel()
            wait(bundles)  # those that are under way write files of their own
        self._storage.sync_directory(target.layers)
        done.bytes += self._bring_journal(target, done)
        if outlines.result():
            target.write_outlines(outlines.result())

    def _bring_bundle(self, target: Target, name: str, file: FileAdded) -> int:
        """Under its own name only when all of it is on disk; its bytes."""
        path = target.layers / file.name
        part = path.with_name(file.name + PART_SUFFIX)
        self._patiently(lambda: self._write_part(part, name, file))
        self._storage.rename(part, path)
        return file.bytes_total

    def _write_part(self, path: Path, name: str, file: FileAdded) -> None:
        if self._storage.exists(path):
            self._storage.remove(path)
        part = self._storage.create(path)
        try:
            for piece in fetch.bundle_pieces(self._store, name, file):
                self._storage.append(part, [piece])
                self._progress.advance(len(piece))
            self._storage.sync(part)
        except BaseException:
            self._progress.advance(-part.size)
            raise
        finally:
            self._storage.close(part)

    def _bring_journal(self, target: Target, done: Restored) -> int:
        """WAL as segment files with their sums, by the code that writes what is received; bytes."""
        for name in self._storage.list(target.journal):
            self._storage.remove(target.journal / name)
        plan, histories, identity = done.plan, done.state.histories, done.plan.manifest.identity
        if not plan.pieces or identity is None:
            return 0
        first = plan.pieces[0]
        journal = Journal(self._storage, target.journal, identity.wal_segment_bytes)
        journal.begin(first.lsn_start, first.timeline)
        for timeline in sorted(histories):
            if timeline <= first.timeline:
                journal.keep_history(timeline, histories[timeline])
        data = fetch.ahead(self._pool, self._wal_of, plan.pieces, PARALLELISM)
        for piece, wal in zip(plan.pieces, data, strict=True):
            if piece.timeline != journal.timeline:
                if piece.timeline not in histories:
                    raise CorruptionError("history of a timeline", piece.name, "in the bucket's "
                                          "manifest", "none")  # fmt: skip
                journal.follow(piece.timeline, piece.lsn_start, histories[piece.timeline])
            journal.append(piece.lsn_start, memoryview(wal)[: plan.end_lsn - piece.lsn_start])
        journal.close()
        return plan.journal_bytes

    def _wal_of(self, piece: JournalAdded) -> bytes:
        wal = self._patiently(lambda: fetch.wal_of(self._store, piece))
        self._progress.advance(piece.bytes_stored)
        return wal

    def _finish(self, target: Target, done: Restored, wanted: Wanted) -> None:
        """From here on it is a data directory."""
        storage, state, manifest = self._storage, done.state, done.plan.manifest
        if not done.is_part:  # else it is nobody's successor: it never writes to the bucket
            server_id.write(storage, target.directory, int(state.server_id, 16))
            restored = Binding(wanted.url, ((state.serial, state.crc),), is_restored=True)
            binding.write(storage, target.directory, restored)
        elif wanted.lazy:  # nor can it be told for one: it has no entry
            binding.write(storage, target.directory, Binding(wanted.url))
        if not wanted.lazy:  # all of it is here, whatever becomes of the bucket
            manifest = replace(manifest, uploaded={})
        serial = state.local_serial + 1  # what the bucket mirrors is never ahead of it
        ManifestLog.create(storage, target.manifest, *manifest.records(), serial=serial).close()
        target.finish()


def _require_room(target: Target, bundle_bytes: int, journal_bytes: int) -> None:
    """RestoreRefusedError unless the disk has room for all of it."""
    needed = bundle_bytes + bundle_bytes // SPARE_SHARE + journal_bytes + SPARE_BYTES
    free = target.storage.space(target.directory).free
    if free < needed:
        raise RestoreRefusedError(
            f"{target.directory} has {free / _MIB:.0f} MiB free, and {needed / _MIB:.0f} MiB are "
            f"needed: {bundle_bytes / _MIB:.0f} MiB of bundles, {journal_bytes / _MIB:.0f} MiB of "
            "WAL, the rest for the index and to begin with. Make room, or restore with --lazy"
        )
