"""Real directories and the real uploader, as the cast of a bucket's world.

A directory has a real manifest, bundles and journal, in memory; the server that would flush and
merge is a model: a bundle has two versions, the first and the last of an LSN range. What is
restored is restored by the command's own code. The WAL is the same for all who are on one timeline.
"""

import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import zstandard

from engine.journal import Journal
from engine.manifest_log import ManifestLog
from engine.remote_wal import RemoteWal
from engine.storage import Storage
from formats.bucket_state import BucketState
from formats.bundle_stream import BundleSums
from formats.file_name import FileKind, FileName
from formats.manifest import Manifest
from formats.manifest_record import FileAdded, FileRemoved, Identity, Opened, PointSet, Progress
from server.backup.bucket_manifest import BucketManifest
from server.backup.local_state import Position
from server.backup.restore import restore
from server.backup.upload_messages import BackupSettings
from server.backup.uploader import Uploader
from tests.fixtures import bundles
from tests.fixtures.journals import SEGMENT, START
from tests.fixtures.memory_bucket import Contents, MemoryBucket
from tests.fixtures.small_wal import SmallWal
from tests.fixtures.uploading import URL, InlineExecutor
from tests.simulation.cast import Acknowledge
from tests.simulation.timelines import Timelines

RECORDS_BYTES = 50_000  # of WAL that comes at once
WAL_BYTES = 16 << 20
IDENTITY = Identity("a" * 32, "b" * 32, 7, 180006, SEGMENT)
KEY = bundles.relation_key(1)


@cache
def wal(timeline: int) -> tuple[bytes, list[int]]:
    """From START on, and where records end: on all timelines at the same places."""
    grown = SmallWal(START, SEGMENT, timeline, seed=timeline)
    lengths = Random(1)
    while len(grown.data) < WAL_BYTES:
        grown.add(lengths.randrange(24, 3000))
    return bytes(grown.data), grown.ends


class RealTimelines(Timelines):
    """With the WAL that each has."""

    def read(self, timeline: int, start: int, end: int) -> bytes:
        """As who is on this timeline has it, which begins with those that it came through."""
        found = b""
        while start < end:
            of = self.at(start, timeline)
            until = end if of == timeline else min(end, self.ends[of])
            found += wal(of)[0][start - START : until - START]
            start = until
        return found


def whole_end(position: int) -> int:
    """Of the last record below a position."""
    ends = wal(1)[1]
    return ends[bisect_right(ends, position) - 1]


class RealDirectory:
    """One on disk; it outlives the processes."""

    def __init__(
        self, name: str, path: Path, timelines: RealTimelines, log: ManifestLog, journal: Journal
    ) -> None:
        self.name = name
        self.remote = RemoteWal(is_waited_for=False)
        self._timelines = timelines
        self.path = path
        self._log = log
        self._journal = journal
        self._sequence = 0

    @classmethod
    def create(cls, name: str, path: Path, timelines: RealTimelines) -> "RealDirectory":
        """As after a base backup."""
        path.mkdir()
        (path / "layers").mkdir()
        storage = Storage()
        journal = Journal(storage, path / "journal", SEGMENT)
        journal.begin(START, 1)
        log = ManifestLog.create(storage, path / "manifest", IDENTITY, Opened(1))
        directory = cls(name, path, timelines, log, journal)
        timelines.note(START)
        log.append(directory._write(FileKind.IMAGE, 0, START), Progress(durable_lsn=START))
        return directory

    @classmethod
    def open_at(cls, name: str, path: Path, timelines: RealTimelines) -> "RealDirectory":
        """As a server does that is started on it."""
        storage = Storage()
        log = ManifestLog.open(storage, path / "manifest")
        journal = Journal(storage, path / "journal", SEGMENT)
        if journal.is_empty:
            durable = log.state.durable_lsn
            journal.begin(durable - durable % SEGMENT, timelines.at(durable))
        directory = cls(name, path, timelines, log, journal)
        directory.open()
        return directory

    @property
    def manifest(self) -> Manifest:
        return self._log.state

    @property
    def position(self) -> Position:
        return Position(self.manifest.serial, self._journal.flushed_lsn, self.timeline)

    @property
    def timeline(self) -> int:
        return self._journal.timeline

    def open(self) -> None:
        self.remote = RemoteWal(is_waited_for=False)
        self._log.append(Opened(self.manifest.run + 1))

    def copy(self, name: str, path: Path) -> "RealDirectory":
        shutil.copytree(self.path, path)
        return self.open_at(name, path, self._timelines)

    def close(self) -> None:
        self._log.close()
        self._journal.close()
        shutil.rmtree(self.path)

    def receive(self, records: int, part: float) -> None:
        """`part` is nothing to it: what it receives mostly ends in a record."""
        while self.timeline < self._timelines.now:
            self._follow(int(self._timelines.end_of(self.timeline)))
        self._append(self._journal.received_lsn + records * RECORDS_BYTES)
        self._journal.sync()
        self._timelines.note(whole_end(self._journal.received_lsn))

    def _append(self, end: int) -> None:
        at = self._journal.received_lsn
        if at < end:
            self._journal.append(at, self._timelines.read(self.timeline, at, end))

    def _follow(self, switch: int) -> None:
        """As server/wal_stream.py does."""
        self._append(switch)
        following = self.timeline + 1
        self.remote.leave(switch, following)
        self._journal.follow(following, switch, self._timelines.history(following))

    def flush(self) -> None:
        durable, flushed = self.manifest.durable_lsn, whole_end(self._journal.flushed_lsn)
        if flushed > durable:
            self._log.append(self._write(FileKind.L0, durable, flushed),
                             Progress(durable_lsn=flushed))  # fmt: skip
            self._journal.trim(flushed)

    def compact(self, random: Random) -> None:
        """Put some neighbours into one bundle; theirs are unlinked."""
        files = sorted(self.manifest.files.values(), key=lambda file: file.lsn_start)
        if len(files) < 2:
            return
        first = random.randrange(len(files) - 1)
        merged = files[first : first + random.randint(2, 4)]
        added = self._write(FileKind.L1, merged[0].lsn_start - 1, merged[-1].lsn_end - 1)
        self._log.append(added, *(FileRemoved(file.name) for file in merged))
        for file in merged:
            (self.path / "layers" / file.name).unlink()

    def set_point(self) -> None:
        name = f"{self.name} {self.manifest.serial}"
        self._log.append(PointSet(name, self.manifest.durable_lsn))

    def _write(self, kind: FileKind, start: int, end: int) -> FileAdded:
        self._sequence += 1
        name = FileName(kind, 0, self.manifest.run, self._sequence)
        content = bundles.image(self.name.encode())
        info = bundles.write(
            self.path / "layers", name, [(KEY, 0, start + 1, content), (KEY, 0, end, content)]
        )
        return FileAdded(name.text, info.bytes_total, start + 1, end + 1, info.footer_crc)


class RealWriter:
    """A process: the uploader, and what tells it how far the server is."""

    def __init__(
        self,
        directory: RealDirectory,
        uploader: Uploader,
        send: Callable[[], None],
        rest: Callable[[], None],
        acknowledge: Acknowledge,
    ) -> None:
        self._directory = directory
        self._uploader = uploader
        self._send = send
        self._rest = rest
        self._acknowledge = acknowledge

    @property
    def bucket(self) -> BucketManifest:
        return self._uploader._bucket

    def run(self) -> None:
        while True:
            self._uploader.tell(self._directory.position)
            self._uploader.step()
            status = self._uploader.status
            self._send()
            self._rest()  # and the server hears of it later
            if status.epoch is not None and status.timeline:
                self._directory.remote.move(status.remote_lsn, status.timeline)
                self._acknowledge(self.bucket.state, self._directory.remote.lsn)


class RealCast:
    """Directories below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = count()
        self._timelines = RealTimelines()
        self._opened: list[RealDirectory] = []
        self._checked: dict[str, tuple[int, int]] = {}

    def _path(self) -> Path:
        return self._root / str(next(self._numbers))

    def _keep(self, directory: RealDirectory) -> RealDirectory:
        self._opened.append(directory)
        return directory

    def begin(self) -> Timelines:
        self._timelines = RealTimelines()
        return self._timelines

    def create(self, name: str) -> RealDirectory:
        return self._keep(RealDirectory.create(name, self._path(), self._timelines))

    def restore(self, name: str, contents: Contents, state: BucketState) -> RealDirectory:
        path = self._path()
        found = restore(MemoryBucket(contents), path, Storage(), URL, sleep=lambda _: None)
        assert found is not None
        assert (found.state.serial, found.state.crc) == (state.serial, state.crc)
        directory = self._keep(RealDirectory.open_at(name, path, self._timelines))
        assert directory.manifest.durable_lsn == state.manifest.durable_lsn
        return directory

    def copy(self, name: str, directory: Any) -> RealDirectory:
        return self._keep(directory.copy(name, self._path()))

    def forget(self, directory: Any) -> None:
        self._opened.remove(directory)
        directory.close()

    def end(self) -> None:
        for directory in self._opened[:]:
            self.forget(directory)
        self._checked.clear()

    def writer(
        self,
        directory: Any,
        client: MemoryBucket,
        name: str,
        clock: Callable[[], float],
        grace_seconds: float,
        random: Random,
        acknowledge: Acknowledge,
    ) -> RealWriter:
        settings = BackupSettings(random.choice((1.0, 20.0)), 4 * RECORDS_BYTES,
                                  random.randint(1, 3), grace_seconds)  # fmt: skip
        executor = InlineExecutor()
        executor.is_held = random.random() < 0.5  # what is to be sent is sent between two steps
        uploader = Uploader(
            directory.path, client, URL, f"{random.getrandbits(32):08x}", settings, executor,
            clock=clock, random=random, nonce=name,
        )  # fmt: skip

        def send() -> None:
            if random.random() < 0.5:
                executor.release()

        return RealWriter(directory, uploader, send, lambda: client.pause("rests"), acknowledge)

    def ranges(self, contents: Contents, state: BucketState) -> Iterator[tuple[int, int]]:
        """What WAL each object has, that the state names; each is checked, once."""
        for file, added in state.manifest.files.items():
            name = state.object_of(file)
            if name not in self._checked:
                sums = BundleSums(file, added.bytes_total, added.footer_crc)
                sums.feed(contents.objects[name].data)
                sums.finish()
                self._checked[name] = added.lsn_start - 1, added.lsn_end - 1
            yield self._checked[name]
        for piece in state.journal:
            if piece.name not in self._checked:
                data = zstandard.decompress(contents.objects[piece.name].data)
                start, end = piece.lsn_start, piece.lsn_end
                assert data == self._timelines.read(piece.timeline, start, end), piece.name
                self._checked[piece.name] = start, end
            start, end = self._checked[piece.name]
            yield start, int(min(end, self._timelines.end_of(piece.timeline)))
