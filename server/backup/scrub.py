"""Reads a backup back: whether every object that its manifest names is there, and whole.

    chain        every snapshot and entry, against the others
    bundles      every CRC in them, their size and footer against the manifest's
    pieces       their size, and the CRC of the WAL in them
    outlines     every CRC in them; they can be made anew, and no restore needs them
    the rest     what nothing names: dead objects, which wait to be deleted, and orphans

What was verified the longest ago is read first. Results stay in the bucket, beside the backup
(formats/scrub_result.py): a scrubber is not its writer, and touches nothing of the chain.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from formats import scrub_result
from formats.bucket import (
    ENTRIES,
    JOURNAL,
    LAYERS,
    OUTLINES,
    SNAPSHOTS,
    JournalAdded,
    is_outlines_name,
    parse_serial,
)
from formats.bucket_state import BucketState, pack_snapshot, unpack_chain_entry, unpack_snapshot
from formats.errors import CorruptionError
from formats.manifest_record import FileAdded
from formats.outline import split_outlines
from formats.scrub_result import SCRUBS, ScrubResult
from server.backup import fetch
from server.backup.bucket_manifest import BucketManifest
from server.backup.object_store import (
    NotThereError,
    ObjectInfo,
    ObjectStore,
    StoreError,
)
from server.backup.restore import Progress, boottime

PARALLELISM = 4
RESULTS_KEPT = 8
Record = FileAdded | JournalAdded
_log = logging.getLogger("pageserver.scrub")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    object: str
    what: str
    expected: str
    found: str

    @classmethod
    def of(cls, name: str, error: CorruptionError) -> "Problem":
        at = error.where.removeprefix(name).lstrip(", ")
        what = f"{error.what} at {at}" if at else error.what
        return cls(name, what, str(error.expected), str(error.found))

    @classmethod
    def unread(cls, name: str, error: StoreError) -> "Problem":
        return cls(name, "object", "one that can be read", str(error))


@dataclass
class ScrubReport:
    """What a scrub found. Bytes are those of objects; times in seconds since 1970."""

    state: BucketState
    problems: list[Problem] = field(default_factory=list)
    objects: int = 0  # that the manifest names, or are its chain, and were read
    bytes: int = 0
    orphans: list[ObjectInfo] = field(default_factory=list)
    dead: list[ObjectInfo] = field(default_factory=list)
    verified: dict[str, int] = field(default_factory=dict)  # named objects: when, this time or ever
    seconds: float = 0.0

    @property
    def never_verified(self) -> list[str]:
        """Named objects that no scrub has found whole."""
        return [name for name in self.state.objects() if name not in self.verified]


def scrub(
    store: ObjectStore, progress: Progress, sleep: Callable[[float], None] = time.sleep
) -> ScrubReport:
    """Read everything back, at the pace that `store` has. StoreError: it cannot be read at all."""
    with ThreadPoolExecutor(PARALLELISM, "scrub") as pool:
        return _Scrub(store, pool, progress, sleep).run()


class _Scrub:
    def __init__(
        self,
        store: ObjectStore,
        pool: ThreadPoolExecutor,
        progress: Progress,
        sleep: Callable[[float], None],
    ) -> None:
        self._store = store
        self._pool = pool
        self._progress = progress
        self._sleep = sleep
        self._bucket = BucketManifest(store, boottime, in_parallel=pool.map)
        self._report = ScrubReport(BucketState())

    def run(self) -> ScrubReport:
        began, report = time.monotonic(), self._report
        # Before the chain: what is named by then was there when it was listed.
        present = {info.name: info for kind in (LAYERS, JOURNAL) for info in self._store.list(kind)}
        began_at = int(self._store.now())
        self._check_chain()
        try:
            report.state = fetch.patiently(self._bucket.read, self._sleep)
        except CorruptionError as error:
            name = error.where.split()[0]
            if name not in {problem.object for problem in report.problems}:
                report.problems.append(Problem.of(name, error))
        self._sort_out(present)
        report.verified = self._verified_before()
        is_complete = False
        try:
            self._check_objects(present)
            self._check_outlines()
            is_complete = True
        finally:  # who interrupts it keeps what it has seen
            self._keep_result(began_at, is_complete=is_complete)
        report.seconds = time.monotonic() - began
        return report

    # The chain ------------------------------------------------------------------------------------

    def _check_chain(self) -> None:
        """Every entry continues from the one before, and every snapshot says what they say."""
        snapshots = {parse_serial(info.name): info.name for info in self._store.list(SNAPSHOTS)}
        states: dict[int, BucketState] = {}
        contents: dict[int, bytes] = {}
        for serial, name in snapshots.items():
            try:
                contents[serial] = self._get(name)
                states[serial] = unpack_snapshot(contents[serial], serial, name)
            except NotThereError:
                continue  # superseded meanwhile; so may entries be
            except CorruptionError as error:
                self._report.problems.append(Problem.of(name, error))
        names = [info.name for info in self._store.list(ENTRIES)]
        if not names:
            return
        state = BucketState() if parse_serial(names[0]) == 1 else None
        for name in names:
            serial = parse_serial(name)
            if state is None or state.serial != serial - 1:
                state = states.get(serial - 1)
            if state is None:
                continue  # the snapshot before it is gone, or damage; one behind it is enough
            try:
                state = unpack_chain_entry(self._get(name), state, name)
            except NotThereError:
                state = None
                continue
            except CorruptionError as error:
                self._report.problems.append(Problem.of(name, error))
                state = None
                continue
            if contents.get(serial, b"") not in (b"", pack_snapshot(state)):
                self._report.problems.append(
                    Problem(snapshots[serial], "snapshot", f"what {name} leads to", "another state")
                )

    def _get(self, name: str) -> bytes:
        data = fetch.patiently(lambda: self._store.get(name), self._sleep)
        self._report.objects += 1
        self._report.bytes += len(data)
        return data

    # Objects --------------------------------------------------------------------------------------

    def _sort_out(self, present: dict[str, ObjectInfo]) -> None:
        """Which objects are there that nothing names."""
        state = self._report.state
        if not state.serial:
            return  # the chain is damaged: what it names is not known
        named, gone = set(state.objects()), state.dead.keys() | state.dying.keys()
        for name, info in present.items():
            if name in gone:
                self._report.dead.append(info)
            elif name not in named:
                self._report.orphans.append(info)

    def _check_objects(self, present: dict[str, ObjectInfo]) -> None:
        """All that the state names, what was verified the longest ago first."""
        report, state = self._report, self._report.state
        records: dict[str, Record] = {piece.name: piece for piece in state.journal}
        for file in state.manifest.files:
            records[state.object_of(file)] = state.manifest.files[file]
        order = sorted(records, key=lambda name: (report.verified.get(name, 0), name))
        self._progress.expect("scrubbing", sum(map(_size_of, records.values())))

        def check(name: str) -> tuple[str, int, Problem | None]:
            return name, int(self._store.now()), self._check(name, records[name], present.get(name))

        for name, seconds, problem in fetch.ahead(self._pool, check, order, 2 * PARALLELISM):
            if problem is None:
                report.verified[name] = seconds
                report.objects += 1
                report.bytes += _size_of(records[name])
            elif self._is_still_named(name):
                report.problems.append(problem)
                report.verified.pop(name, None)

    def _check_outlines(self) -> None:
        for info in list(self._store.list(OUTLINES)):
            if not is_outlines_name(info.name):
                continue
            try:
                split_outlines(self._get(info.name), info.name)
            except NotThereError:
                continue  # newer ones have come
            except StoreError as error:
                self._report.problems.append(Problem.unread(info.name, error))
            except CorruptionError as error:
                self._report.problems.append(Problem.of(info.name, error))

    def _check(self, name: str, record: Record, info: ObjectInfo | None) -> Problem | None:
        """What is wrong with an object, None: nothing. Whether it is all of the bucket that cannot
        be read is found out by whoever asks next whether the object is still named."""
        if info is None:
            return Problem(name, "object", "one, as the manifest names it", "none")
        if info.size != _size_of(record):
            return Problem(name, "size", f"{_size_of(record)} bytes", f"{info.size} bytes")
        try:
            fetch.patiently(lambda: self._read(name, record), self._sleep)
        except CorruptionError as error:
            return Problem.of(name, error)
        except NotThereError:
            return Problem(name, "object", "one, as the manifest names it", "none")
        except StoreError as error:
            return Problem.unread(name, error)
        return None

    def _read(self, name: str, record: Record) -> None:
        if isinstance(record, JournalAdded):
            fetch.wal_of(self._store, record)
            self._progress.advance(record.bytes_stored)
        else:
            for piece in fetch.bundle_pieces(self._store, name, record):
                self._progress.advance(len(piece))

    def _is_still_named(self, name: str) -> bool:
        """Whether what is wrong counts: a writer may have had no more use for it."""
        fetch.patiently(self._bucket.refresh, self._sleep)
        return name in self._bucket.state.objects()

    # Results --------------------------------------------------------------------------------------

    def _results(self) -> Iterator[ScrubResult]:
        for info in list(self._store.list(SCRUBS)):
            if not scrub_result.is_result_name(info.name):
                continue
            try:
                yield scrub_result.unpack(self._store.get(info.name), info.name)
            except CorruptionError as error:
                self._report.problems.append(Problem.of(info.name, error))
            except NotThereError:
                continue  # another scrubber had no more use for it

    def _verified_before(self) -> dict[str, int]:
        """By earlier scrubs, of what is still named."""
        named, found = set(self._report.state.objects()), dict[str, int]()
        for result in self._results():
            for name, seconds in result.verified.items():
                if name in named:
                    found[name] = max(seconds, found.get(name, 0))
        return found

    def _keep_result(self, began: int, *, is_complete: bool) -> None:
        report = self._report
        if not report.state.serial:
            return
        ended = int(self._store.now())
        result = ScrubResult(began, ended, report.state.serial, is_complete,
                             len(report.problems), report.verified)  # fmt: skip
        name = scrub_result.result_name(ended, secrets.token_hex(4))
        try:
            fetch.patiently(lambda: self._store.put(name, scrub_result.pack(result)), self._sleep)
            names = [info.name for info in self._store.list(SCRUBS)]
            old = [name for name in names if scrub_result.is_result_name(name)][:-RESULTS_KEPT]
            if old:
                self._store.delete(old)
        except StoreError as error:  # who may only read the bucket may look all the same
            _log.warning("when this was verified cannot be kept in the bucket: %s", error)


def _size_of(record: Record) -> int:
    return record.bytes_stored if isinstance(record, JournalAdded) else record.bytes_total
