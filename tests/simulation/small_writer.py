"""A small honest model of a data directory, and of the process that backs it up.

One primary, whose WAL is the same for all: a record ends at each multiple of `RECORD`. A file holds
the records of an LSN range, a piece of the journal too; the bytes say which, and who made them. The
directory flushes, compacts and sets points as it likes, and its manifest is a real one.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from crc32c import crc32c

from formats.bucket import (
    JOURNAL,
    LAYERS,
    BucketRecord,
    HistoryAdded,
    JournalAdded,
    JournalRemoved,
    LayerObject,
    ObjectsDeleted,
)
from formats.bucket_state import BucketState
from formats.file_name import FileKind, FileName
from formats.manifest import Manifest
from formats.manifest_difference import difference
from formats.manifest_record import (
    FileAdded,
    FileRemoved,
    FileUploaded,
    Identity,
    Opened,
    PointSet,
    Progress,
    Record,
)
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import BucketManifest, OvertakenError
from server.backup.object_store import ObjectStore, TransientError
from tests.fixtures.memory_bucket import Contents, MemoryBucket
from tests.simulation.cast import Acknowledge
from tests.simulation.timelines import Timelines

RECORD = 10
SEGMENT = 40
IDENTITY = Identity("a" * 32, "b" * 32, 7, 180006, 16 << 20)


def encode(start: int, end: int, maker: str, timeline: int = 0) -> bytes:
    """The records that end in (start, end], or the WAL from start to end, of a timeline."""
    return json.dumps([start, end, maker, timeline]).encode()


def decode(data: bytes) -> tuple[int, int, int]:
    """Start, end, timeline."""
    start, end, _, timeline = json.loads(data)
    return start, end, timeline


class Directory:
    """What a server has on its disk, and outlives the processes."""

    def __init__(self, name: str, timelines: Timelines) -> None:
        self.name = name
        self.timelines = timelines
        self.timeline = 1
        self.manifest = Manifest()
        self.files: dict[FileName, bytes] = {}  # links keep those that were removed
        self.journal_start = 0
        self.received = 0
        self.known: set[tuple[int, int]] = set()  # serials and CRCs of entries, as in D/bucket
        self._sequence = 0

    def change(self, *records: Record) -> None:
        """An entry of the manifest."""
        for record in records:
            self.manifest.apply(record)
        self.manifest.serial += 1

    def create(self) -> None:
        """As after a base backup."""
        self.received = self.journal_start = 3 * SEGMENT
        self.timelines.note(self.received)
        base, added = self._write(FileKind.IMAGE, 0, self.received, run=1)
        self.change(IDENTITY, Opened(1), added, Progress(durable_lsn=self.received))

    def open(self) -> None:
        """The server is started again."""
        self.change(Opened(self.manifest.run + 1))

    def copy(self, name: str) -> "Directory":
        """As a backup tool does: it is a directory of its own, and knows nothing of that."""
        other = Directory(name, self.timelines)
        other.__dict__.update(self.__dict__, name=name, manifest=self.manifest.copy(),
                              files=dict(self.files), known=set(self.known))  # fmt: skip
        return other

    @classmethod
    def restore(
        cls, name: str, timelines: Timelines, state: BucketState, read: Callable[[str], bytes]
    ) -> "Directory":
        """From what the bucket has; KeyError if it has not."""
        directory = cls(name, timelines)
        directory.manifest = state.manifest.copy()
        directory.files = {file: read(state.object_of(file)) for file in state.manifest.files}
        directory.received = end = max(state.remote_lsn, state.manifest.durable_lsn)
        directory.timeline = state.journal[-1].timeline if state.journal else timelines.at(end)
        directory.journal_start = (
            state.journal[0].lsn_start if state.journal else state.manifest.durable_lsn
        )
        for piece in state.journal:
            read(piece.name)
        directory.known.add((state.serial, state.crc))
        directory.open()
        return directory

    @property
    def whole_end(self) -> int:
        """Of the last record."""
        return self.received - self.received % RECORD

    def receive(self, records: int, part: float) -> None:
        while self.timeline < self.timelines.now:
            self.received = self.timelines.ends[self.timeline]
            self.timeline += 1
        self.received = self.whole_end + records * RECORD + int(part * RECORD)
        self.timelines.note(self.whole_end)

    def flush(self) -> None:
        durable, end = self.manifest.durable_lsn, self.whole_end
        if end > durable:
            _, added = self._write(FileKind.L0, durable, end)
            self.change(added, Progress(durable_lsn=end))
            segment = end - end % SEGMENT
            self.journal_start = max(self.journal_start, segment)

    def compact(self, random: Random) -> None:
        """Put some neighbours into one file."""
        ranges = sorted((*decode(self.files[name])[:2], name) for name in self.manifest.files)
        if len(ranges) < 2:
            return
        first = random.randrange(len(ranges) - 1)
        merged = ranges[first : first + random.randint(2, 4)]
        _, added = self._write(FileKind.L1, merged[0][0], merged[-1][1])
        self.change(added, *(FileRemoved(name.text) for _, _, name in merged))

    def set_point(self) -> None:
        self.change(PointSet(f"{self.name} {self.manifest.serial}", self.whole_end))

    def _write(
        self, kind: FileKind, start: int, end: int, run: int | None = None
    ) -> tuple[FileName, FileAdded]:
        self._sequence += 1
        name = FileName(kind, 0, run or self.manifest.run, self._sequence)
        data = encode(start, end, self.name)
        self.files[name] = data
        return name, FileAdded(name.text, len(data), start, end + 1, crc32c(data))

    def descends_from(self, state: BucketState) -> bool:
        """The bucket's last entry is one that was appended from here, or what this came from."""
        return state.manifest.identity is None or (state.serial, state.crc) in self.known


@dataclass
class SmallWriter:
    """The process that backs a directory up, and tells its server of it."""

    directory: Directory
    store: ObjectStore
    bucket: BucketManifest
    random: Random
    grace_seconds: float
    name: str
    acknowledge: Acknowledge
    attempts: int = 0
    timeline: int = 0  # the bucket has nothing of one that this one left
    sent: dict[FileName, int] = field(default_factory=dict)

    def run(self) -> None:
        """Until it is fenced off or killed. NotDescendedError."""
        self.again(self.attach)
        deeds = (*[self.ship_layers] * 4, *[self.ship_journal] * 4, self.bucket.check_epoch,
                 *[self.bucket.write_snapshot_if_worthwhile] * 2,
                 self.delete_dead, self.delete_chain, self.delete_orphans)  # fmt: skip
        while True:
            self.again(self.random.choice(deeds))
            self.tell()

    def tell(self) -> None:
        """What the bucket has of the WAL that the server has now."""
        if self.timeline == self.directory.timeline:
            self.acknowledge(self.bucket.state, self.bucket.state.remote_lsn)

    def again(self, deed: Callable[[], object]) -> None:
        """Whatever fails is tried again; mostly at once, sometimes something else comes first."""
        while True:
            try:
                deed()
                return
            except TransientError:
                if self.bucket.epoch is not None and self.random.random() < 0.3:
                    return

    def attach(self) -> None:
        while self.bucket.epoch is None:
            if not self.descends():
                raise NotDescendedError(self.name)
            self.attempts += 1
            nonce = f"{self.name} {self.attempts}"
            with contextlib.suppress(OvertakenError):
                self.bucket.take_epoch(nonce, self.name)

    def descends(self) -> bool:
        return self.directory.descends_from(self.bucket.read())

    @property
    def epoch(self) -> int:
        assert self.bucket.epoch is not None
        return self.bucket.epoch

    def ship_layers(self) -> None:
        target = self.directory.manifest.copy()
        for name in target.files:
            if name not in self.bucket.state.manifest.files and name not in self.sent:
                data = self.directory.files[name]
                place = LayerObject(self.epoch, name).text
                self.store.put_stream(place, iter([data]), len(data))
                self.sent[name] = self.epoch
        state = self.bucket.state
        try:
            records: list[BucketRecord] = list(difference(state.manifest, target))
        except ValueError as error:
            raise NotDescendedError(str(error)) from error
        if not records:
            return
        records += (FileUploaded(name.text, self.sent[name]) for name in target.files
                    if name not in state.manifest.files)  # fmt: skip
        segment = target.durable_lsn - target.durable_lsn % SEGMENT
        for piece in state.journal:
            if piece.lsn_end <= segment:
                records.append(JournalRemoved(piece.name))
        self.bucket.append(*records, local_serial=target.serial)

    def ship_journal(self) -> None:
        """The next piece, in the place of what the bucket has above where a timeline was left: the
        part below that may have been acknowledged."""
        state, local = self.bucket.state, self.directory
        timeline, received, timelines = local.timeline, local.received, local.timelines
        kept, void = list(state.journal), []
        while (
            kept
            and kept[-1].timeline < timeline
            and (kept[-1].lsn_end > timelines.end_of(kept[-1].timeline))
        ):
            void.append(kept.pop())
        histories = [
            HistoryAdded(number, timelines.history(number))
            for number in range(2, timeline + 1)
            if number not in state.histories
        ]
        if histories and not void:
            if not self.bucket.append(*histories):
                return
            histories = []
        if not void:
            self.timeline = timeline
        durable = state.manifest.durable_lsn
        start = kept[-1].lsn_end if kept else durable - durable % SEGMENT
        of = timelines.at(start, timeline)
        size = SEGMENT * 9 if void else self.random.randint(1, 5) * RECORD
        end = min(received, start + size, *([timelines.ends[of]] if of < timeline else []))
        if start < local.journal_start or end <= start:
            return
        data = encode(start, end, self.name, of)
        piece = JournalAdded(of, start, end, self.epoch, len(data), crc32c(data))
        self.ship_piece(piece, data, *(JournalRemoved(one.name) for one in void), *histories)

    def ship_piece(self, piece: JournalAdded, data: bytes, *first: BucketRecord) -> None:
        self.store.put_stream(piece.name, iter([data]), len(data))
        self.append_piece(piece, *first)

    def append_piece(self, piece: JournalAdded, *first: BucketRecord) -> None:
        self.bucket.append(*first, piece)

    def delete_dead(self) -> None:
        names = self.bucket.overdue()
        if names:
            self.bucket.check_epoch()
            self.store.delete(names)
            self.bucket.append(ObjectsDeleted([n for n in names if n in self.bucket.state.dead]))

    def delete_chain(self) -> None:
        names = self.bucket.superseded()
        if names:
            self.bucket.check_epoch()
            self.store.delete(names)

    def delete_orphans(self) -> None:
        for prefix in (LAYERS, JOURNAL):
            infos = list(self.store.list(prefix))
            self.bucket.check_epoch()
            now = self.store.now()
            old = [info.name for info in infos if now - info.modified >= self.grace_seconds]
            orphans = [name for name in old if name not in set(self.known())]
            if orphans:
                self.store.delete(orphans)

    def known(self) -> Iterator[str]:
        """Objects that are named, or dead, or will be named."""
        state = self.bucket.state
        yield from (*state.objects(), *state.dead, *state.dying)
        yield from (LayerObject(epoch, name).text for name, epoch in self.sent.items())


@dataclass
class SmallCast:
    """Small directories and small writers, or broken ones of these types."""

    bucket_type: type[BucketManifest] = BucketManifest
    writer_type: type[SmallWriter] = SmallWriter
    timelines: Timelines = field(default_factory=Timelines)

    def begin(self) -> Timelines:
        self.timelines = Timelines()
        return self.timelines

    def create(self, name: str) -> Directory:
        directory = Directory(name, self.timelines)
        directory.create()
        return directory

    def restore(self, name: str, contents: Contents, state: BucketState) -> Directory:
        return Directory.restore(
            name, self.timelines, state, lambda place: contents.objects[place].data
        )

    def writer(
        self,
        directory: Directory,
        client: MemoryBucket,
        name: str,
        clock: Callable[[], float],
        grace_seconds: float,
        random: Random,
        acknowledge: Acknowledge,
    ) -> SmallWriter:
        bucket = self.bucket_type(
            client, clock, grace_seconds=grace_seconds,
            before_append=lambda *entry: directory.known.add(entry),
        )  # fmt: skip
        return self.writer_type(directory, client, bucket, random, grace_seconds, name,
                                acknowledge)  # fmt: skip

    def ranges(self, contents: Contents, state: BucketState) -> Iterator[tuple[int, int]]:
        for name in map(state.object_of, state.manifest.files):
            yield decode(contents.objects[name].data)[:2]
        for piece in state.journal:
            start, end, timeline = decode(contents.objects[piece.name].data)
            assert timeline == piece.timeline
            yield start, int(min(end, self.timelines.end_of(timeline)))

    def copy(self, name: str, directory: Directory) -> Directory:
        return directory.copy(name)

    def forget(self, directory: Directory) -> None:
        pass

    def end(self) -> None:
        pass
