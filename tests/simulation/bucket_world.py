"""One seed, one small world: a bucket, and the directories that are backed up into it.

Before and after each call to the store a writer stops and others go on; calls fail, answers are
lost, requests arrive late or twice, processes die, machines stand still for longer than the grace
time, directories are copied, lost and restored from the bucket. After every step must hold:

- what was acknowledged can be restored from the bucket alone, by whoever reads it now;
- no state of the bucket names an object that is not there, for half of the grace time;
- no object name ever has two contents. An entry's name may, once the chain has gone on from a
  snapshot and the first one was deleted: a writer that slept may create it, and must not believe
  it, nor may anyone read it;
- a writer that was fenced off acknowledges nothing;
- nor does anyone acknowledge WAL of a timeline that the source has left below it.
"""

import math
from collections import Counter
from itertools import pairwise
from random import Random

from formats.bucket import ENTRIES, parse_serial
from formats.bucket_state import BucketState
from formats.errors import CorruptionError
from server.backup.binding import NotDescendedError
from server.backup.bucket_manifest import BucketManifest, FencedError
from tests.fixtures.faulty_storage import CrashError
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket
from tests.simulation.cast import Cast, Machine, Writer
from tests.simulation.scheduler import Scheduler, Task
from tests.simulation.timelines import TIMELINES_MAX

GRACE_SECONDS = 1000.0
BEGIN_SECONDS = 1_800_000_000.0
APPENDING, ANSWER = "put_new manifest/", ": answer"
RESUMES_TO_APPEND = 40
PAUSES = 0.35  # the part of all places where a writer may stop at which it does
DIRECTORIES_MAX = 3
DEEDS = {
    "resume": 100, "wake": 12, "local": 22, "time": 16, "arrive": 2, "sleep": 2, "kill": 0.3,
    "start": 3, "restore": 0.3, "takeover": 1, "promote": 0.3, "copy": 0.2, "lose": 0.3,
    "trouble": 0.6, "look": 3,
}  # fmt: skip


class Process:
    """One life of a writer: its client, its task, and until when its machine stands still."""

    def __init__(self, directory: Machine, writer: Writer, task: Task) -> None:
        self.directory = directory
        self.writer = writer
        self.task = task
        self.sleeps_until = 0.0
        self.is_killed = False


class World:
    """What one seed leads to, with this cast."""

    def __init__(self, seed: int, scheduler: Scheduler, cast: Cast) -> None:
        self.random = Random(seed)
        self.seconds = 0.0
        self.totals: Counter[str] = Counter()
        self.scheduler = scheduler
        scheduler.begin(self.random, PAUSES)
        self.contents = Contents(lambda: BEGIN_SECONDS + self.seconds)
        self.fault_rate = 0.0
        self.cast = cast
        self.timelines = cast.begin()
        self.directories: list[Machine] = []
        self.processes: list[Process] = []
        self.acknowledged = 0
        self.chain: dict[int, int] = {}  # CRCs of entries, by serial, that anybody was told of
        self.points: set[str] = set()  # acknowledged, and never dropped
        self.reader = self.fresh()
        self.seen: tuple[int, BucketState] = (0, self.reader.state)
        self.looked: list[tuple[float, BucketState]] = []
        self.count = 0
        self.create()

    def fresh(self) -> BucketManifest:
        """Who reads the bucket and has no trouble."""
        store = MemoryBucket(self.contents, 5)
        return BucketManifest(store, lambda: self.seconds, grace_seconds=GRACE_SECONDS)

    def create(self) -> None:
        self.count += 1
        self.directories.append(self.cast.create(f"d{self.count}"))

    # What happens ---------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        names, weights = list(DEEDS), list(DEEDS.values())
        for deed in self.random.choices(names, weights, k=steps):
            getattr(self, f"do_{deed}")()
            self.check()

    def do_resume(self) -> None:
        awake = self.awake()
        if awake:
            self.resume(self.random.choice(awake))
        elif not self.processes:
            self.do_start()

    def awake(self) -> list[Process]:
        return [p for p in self.processes if p.sleeps_until <= self.seconds]

    def resume(self, process: Process) -> None:
        try:
            self.scheduler.resume(process.task)
        except FencedError as error:
            self.totals["writers fenced off"] += 1
            self.scheduler.note(f"{process.task.name}: {error}")
        except NotDescendedError:
            self.totals["directories refused"] += 1
            self.directories.remove(process.directory)
            self.cast.forget(process.directory)
        except CorruptionError:
            self.totals["writers that read half of an object"] += 1
            assert self.totals["faults: short"], "nothing is damaged but on its way"
        except CrashError:
            self.totals["writers killed"] += 1
        if process.task.is_done:
            self.processes.remove(process)

    def do_local(self) -> None:
        if not self.directories:
            self.do_restore()
        if not self.directories:
            self.create()
        directory = self.random.choice(self.directories)
        deed = self.random.choice(("receive", "receive", "receive", "flush", "compact", "point"))
        if deed == "receive":
            directory.receive(self.random.randint(1, 4), self.random.choice((0, 0, 0.4, 0.9)))
        elif deed == "flush":
            directory.flush()
        elif deed == "compact":
            directory.compact(self.random)
        elif self.random.random() < 0.2:
            directory.set_point()
        self.scheduler.note(f"{directory.name}: {deed}, serial {directory.manifest.serial}")

    def do_time(self) -> None:
        self.seconds += self.random.expovariate(1) * GRACE_SECONDS / 20
        if self.random.random() < 0.2:
            self.seconds += self.random.random() * 2 * GRACE_SECONDS

    def do_arrive(self) -> None:
        late = self.contents.late
        if late:
            self.totals["requests that came late"] += 1
            self.contents.deliver_late(self.random.randrange(len(late)))
            self.scheduler.note("a late request arrives")

    def do_sleep(self, process: Process | None = None) -> None:
        if self.processes:
            process = process or self.random.choice(self.processes)
            graces = self.random.choice((1, 3, 10)) * self.random.random()
            process.sleeps_until = self.seconds + graces * GRACE_SECONDS
            self.scheduler.note(f"{process.task.name} sleeps at {process.task.where}")

    def do_wake(self) -> None:
        """At the worst moment: the entry that a writer is about to create was there and is gone."""
        for process in self.processes:
            call, _, rest = process.task.where.partition(" ")
            name = rest.removesuffix(ANSWER)
            if process.sleeps_until > self.seconds and f"{call} {name}".startswith(APPENDING):
                gone = (
                    parse_serial(name) <= self.state().serial and name not in self.contents.objects
                )
                if gone:
                    process.sleeps_until = self.seconds
                    self.totals["writers woken late"] += 1

    def do_kill(self) -> None:
        if self.processes:
            process = self.random.choice(self.processes)
            process.is_killed = True
            self.resume(process)

    def do_start(self) -> None:
        idle = [d for d in self.directories if all(p.directory is not d for p in self.processes)]
        if idle:
            self.start(self.random.choice(idle))

    def start(self, directory: Machine) -> None:
        self.count += 1
        if self.random.random() < 0.5:
            directory.open()
        client = MemoryBucket(self.contents, self.random.choice((2, 1000)))
        client.choose_fault = self.choose_fault
        name = f"{directory.name}.{self.count}"
        writer = self.cast.writer(directory, client, name, lambda: self.seconds, GRACE_SECONDS,
                                  Random(self.random.random()),
                                  lambda *told: self.acknowledge(process, *told))  # fmt: skip
        process = Process(directory, writer, self.scheduler.start(name, writer.run))
        self.processes.append(process)

        def pause(where: str) -> None:
            if process.is_killed:
                raise CrashError
            self.scheduler.pause(where)
            if process.is_killed:
                raise CrashError

        client.pause = pause

    def choose_fault(self, call: str, name: str) -> Fault | None:
        if self.random.random() >= self.fault_rate:
            return None
        fault = self.random.choice(list(Fault))
        self.totals[f"faults: {fault.name.lower()}"] += 1
        return fault

    def do_trouble(self) -> None:
        """The network becomes bad, or well again."""
        self.fault_rate = self.random.choice((0, 0, 0.05, 0.2))

    def do_restore(self) -> None:
        """Another machine goes on with what the bucket has."""
        state = self.state()
        if len(self.directories) < DIRECTORIES_MAX and state.manifest.identity is not None:
            self.totals["directories restored"] += 1
            self.count += 1
            directory = self.cast.restore(f"d{self.count}", self.contents, state)
            self.directories.append(directory)

    def do_takeover(self) -> None:
        """A machine does not answer, mostly in the middle of an append; another one goes on."""
        asleep = None
        for _ in range(self.random.choice((0, *[RESUMES_TO_APPEND] * 3))):
            awake = self.awake()
            if not awake or asleep is not None:
                break
            process = self.random.choice(awake)
            self.resume(process)
            where = process.task.where
            if where.startswith(APPENDING) and not where.endswith(ANSWER):
                asleep = process
        self.do_sleep(asleep)
        others = [d for d in self.directories if asleep is None or d is not asleep.directory]
        if len(self.directories) == DIRECTORIES_MAX:
            self.lose(self.random.choice(others))
        known = len(self.directories)
        self.do_restore()
        if len(self.directories) > known:
            self.start(self.directories[-1])

    def do_copy(self) -> None:
        if 0 < len(self.directories) < DIRECTORIES_MAX:
            self.totals["directories copied"] += 1
            self.count += 1
            directory = self.random.choice(self.directories)
            self.directories.append(self.cast.copy(f"d{self.count}", directory))

    def do_lose(self) -> None:
        if len(self.directories) > 1:
            self.lose(self.random.choice(self.directories))

    def lose(self, directory: Machine) -> None:
        """A machine is gone, with its directory."""
        self.directories.remove(directory)
        for process in [p for p in self.processes if p.directory is directory]:
            process.is_killed = True
            self.resume(process)
        self.cast.forget(directory)

    def do_promote(self) -> None:
        """The source is gone, and another server goes on with a timeline of its own."""
        if self.timelines.now < TIMELINES_MAX:
            switch = self.timelines.promote()
            self.acknowledged = min(self.acknowledged, switch)
            self.totals["timelines left"] += 1
            self.scheduler.note(f"timeline {self.timelines.now} begins at {switch}")

    def do_look(self) -> None:
        """Somebody reads the state, and needs what it names for a while."""
        self.looked.append((self.seconds, self.state()))

    def count_all(self) -> None:
        """At the end."""
        self.totals["worlds"] = 1
        self.totals["pauses"] = self.scheduler.pauses
        self.totals["entries"] = self.state().serial
        self.totals["entry names created anew"] = len(self.contents.twice)
        for name in self.contents.first.keys() - self.contents.objects.keys():
            self.totals["entries deleted" if name.startswith(ENTRIES) else "objects deleted"] += 1

    # What must hold -------------------------------------------------------------------------------

    def acknowledge(self, process: Process, state: BucketState, lsn: int) -> None:
        """A writer tells what the bucket has; its server, that its WAL is there up to `lsn`."""
        bucket = process.writer.bucket
        assert bucket.epoch == state.epoch, "it was fenced off, and knows it"
        self.check_chain(state)
        timeline = process.directory.timeline
        lsn = int(min(lsn, self.timelines.end_of(timeline)))  # what is above that, nobody has
        if timeline > 1 and any(piece.timeline < timeline for piece in state.journal):
            self.totals["acknowledged across timelines"] += 1
        if lsn > self.acknowledged:
            self.acknowledged = lsn
            self.totals["acknowledgements"] += 1
        new = state.manifest.points.keys() - self.points
        if new:
            self.points |= new
            self.totals["points acknowledged"] += len(new)
        self.check()

    def state(self) -> BucketState:
        """What is true in the bucket now."""
        self.reader.refresh()
        return self.reader.state

    def check(self) -> None:
        if self.seen[0] == self.contents.changes and self.seen[1].remote_lsn >= self.acknowledged:
            return
        state = self.state()
        self.check_chain(state)
        self.check_names()
        self.check_restorable(state)
        if self.random.random() < 0.1:
            assert self.fresh().read() == state, "whoever reads it anew"
        while self.looked and self.seconds - self.looked[0][0] >= GRACE_SECONDS / 2:
            self.looked.pop(0)
        for _, earlier in self.looked:
            self.check_there(earlier)
        self.seen = self.contents.changes, state

    def check_chain(self, state: BucketState) -> None:
        known = self.chain.setdefault(state.serial, state.crc)
        assert known == state.crc, f"two entries {state.serial}, one of which nobody can read"

    def check_there(self, state: BucketState) -> None:
        lost = [name for name in state.objects() if name not in self.contents.objects]
        assert not lost, f"named, and not there: {lost}"

    def check_restorable(self, state: BucketState) -> None:
        self.check_there(state)
        reached = 0
        for start, end in sorted(self.cast.ranges(self.contents, state)):
            if start <= reached:
                reached = max(reached, end)
        ends = (self.timelines.end_of(piece.timeline) for piece in state.journal)
        expected = min(state.remote_lsn, *ends, math.inf)
        assert reached >= expected, f"only up to {reached}, not {expected}"
        assert reached >= self.acknowledged, f"{self.acknowledged} acknowledged, {reached} is there"
        for before, piece in pairwise(state.journal):
            is_known = piece.timeline in (before.timeline, *state.histories)
            assert is_known, f"{piece.name}: of a timeline whose history is not there"
        assert state.remote_lsn >= self.acknowledged, "acknowledged, and lost"
        lost = self.points - state.manifest.points.keys()
        assert not lost, f"points that were acknowledged are lost: {lost}"

    def check_names(self) -> None:
        for name in self.contents.twice:
            assert name.startswith(ENTRIES), f"two contents of {name}"
