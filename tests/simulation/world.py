"""One seed, one small world: a data directory that lives and dies several times.

Receiver, ingest, flush, compactor, retention and readers are tasks that stop in the middle of what
they do, wherever they touch the disk or the index, and others go on; the machine dies at any call.
The clock stands still until somebody moves it.
"""

import contextlib
import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb

from engine.disk_room import will_pass
from engine.errors import IngestStopped, RequestError
from engine.journal import JournalFailedError
from engine.page_store import PageStore
from engine.retention import POSTGRES_EPOCH_SECONDS, Bounds
from engine.wal_intake import Limits
from formats.errors import CorruptionError
from tests.fixtures.faulty_storage import CrashError
from tests.simulation.disk import Disk
from tests.simulation.held import Held
from tests.simulation.model import Model
from tests.simulation.observer import Observer
from tests.simulation.reads import Asked, Reads
from tests.simulation.scheduler import LOCK, Scheduler, Task
from tests.simulation.small_policy import small_policy
from tests.simulation.source import RELATIONS, Source
from tests.simulation.template import MEMORY_BYTES, START_SECONDS, Template

READER, READERS_MAX = "reader", 3
ABOUT_TO_OPEN = ("open ", "after stripe")
COMPACTION_STEPS_MAX = 500  # until there must be nothing to do
DEEDS = {
    "records": 20, "ingest": 12, "flush": 12, "compact": 22, "retention": 10, "held": 7,
    "tick": 4, "read": 18, "time": 2,
}  # fmt: skip
MUST_GO_ON = ("receiver", "ingest", "flush", "client", "retention")  # whatever is damaged
DISK_ERRORS = (OSError, lmdb.Error, JournalFailedError, IngestStopped)


class World:
    deeds = DEEDS
    limits = Limits()
    is_all_here = True  # every layer file is in the directory

    def __init__(
        self, seed: int, directory: Path, template: Template, scheduler: Scheduler
    ) -> None:
        """Begins in `directory`, which must not exist."""
        self.random = random = Random(seed)
        self.directory = directory
        self.scheduler = scheduler
        self.totals: Counter[str] = Counter(worlds=1)
        self.now = START_SECONDS + 100.0
        self.model = Model(template.lsn, template.sight)
        self.source = Source(template.wal, self.model, random)
        self.reads = Reads(self.model, self.totals)
        self.held = Held(self.reads.promised, self.totals)
        self.policy = small_policy(random)
        self.bounds = Bounds(random.choice((0, 10, 60)), random.choice((100, 300, 1500, 6000)))
        self.caches = random.choice((0, 0, 1))
        self.stripes_max = random.choice((2, 100))  # whose layers are remembered
        self.horizon_max = template.lsn
        self.is_faulty = False  # something of the disk was to fail in this life
        self._ended: set[str] = set()  # tasks that an error has ended for good, as in the server
        scheduler.begin(random, random.choice((0.02, 0.1, 0.3, 0.6)))
        template.copy_to(directory)
        self.disk = self.new_disk()
        self.open()
        if random.random() < 0.8:  # else compaction may come before the end of the base backup
            self._receive()
            self._ingest()

    def new_disk(self) -> Disk:
        return Disk(self.scheduler)

    # Lives

    def open(self) -> None:
        """Another process."""
        disk = self.disk
        store = self.store = PageStore(self.directory, MEMORY_BYTES, disk, limits=self.limits)
        store.frames.bytes_max *= self.caches
        store.layers.map._stripes_max = self.stripes_max
        store.compactor.policy = self.policy
        versions = store.versions
        replace = versions.replace_memtable

        def replace_memtable() -> None:
            self.scheduler.wait_until(lambda: versions.memtables.has_one, "a full memtable")
            replace()

        versions.replace_memtable = replace_memtable
        self.observer = Observer(self.scheduler, store, self.totals)
        self.totals["lives"] += 1
        self._ended.clear()
        self.held.compare(store.manifest.state)

    def die(self, index: str = "") -> None:
        """The process is gone; with `index`, the whole machine is, and see FaultyStorage.crash."""
        self.scheduler.note(f"dies {index}")
        durable = self.store.durable_lsn
        self.end_process()
        if index:
            self.disk.crash(self.random, index)
        self.is_faulty = False
        self.totals["power failures" if index else "kills"] += 1
        self.open()
        assert self.store.durable_lsn >= durable, "what was durable is gone"

    def end_process(self) -> None:
        self.disk.is_dead = True
        self.kill_tasks()
        self.disk.is_dead = False
        self.disk.crash_at = -1
        self.disk.forget_faults()
        with contextlib.suppress(LookupError):
            self.store.layers.index.close()
        self.disk.close_all()

    def kill_tasks(self) -> None:
        self.scheduler.kill()

    def close(self) -> None:
        """A clean stop."""
        self.drain()
        self.store.close()
        self.disk.close_all()
        self.totals["stops"] += 1

    # Tasks

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        random = self.random
        tasks = [task for task in self.scheduler.tasks if self._is_awake(task)]
        if tasks and random.random() < 0.6:
            self._resume(random.choice(tasks))
        else:
            deed = random.choices(list(self.deeds), self.deeds.values())[0]
            getattr(self, f"do_{deed}")()
        self._check_horizon()

    def _is_awake(self, task: Task) -> bool:
        """Readers are slow, so that much happens to them: mostly to those that know of a file and
        have not opened it."""
        if not task.name.startswith(READER):
            return True
        return self.random.random() < (0.03 if task.where.startswith(ABOUT_TO_OPEN) else 0.15)

    def _resume(self, task: Task) -> None:
        self.scheduler.note(f"{task.name} goes on")
        try:
            self.scheduler.resume(task)
        except CrashError:
            self.die(self.random.choice(("last", "last", "earlier", "lost")))
        except DISK_ERRORS as error:
            is_told = not isinstance(error, OSError) or error.errno in (errno.EIO, errno.ENOSPC)
            if not (is_told and (self.is_faulty or self.reads.is_excused(error))):
                raise
            self._end(task, error)
        except CorruptionError as error:
            if not self.reads.is_damaged or task.name in MUST_GO_ON:
                raise
            self._end(task, error)

    def _end(self, task: Task, error: Exception) -> None:
        self.scheduler.note(f"{task.name} has ended: {error!r}")
        if not will_pass(error):  # else it is tried again
            self._ended.add(task.name)
        self.totals["errors of the disk"] += 1

    def start(self, name: str, function: Callable[[], object]) -> None:
        """Begin a task, of which there is one at a time, or go on with it."""
        for task in self.scheduler.tasks:
            if task.name == name:
                self._resume(task)
                return
        if name not in self._ended:
            self._resume(self.scheduler.start(name, function))

    def drain(self, but: str = "nobody") -> None:
        """Let all tasks come to their end; those whose names begin with `but` stand still, if they
        do not hold a lock."""
        while tasks := [task for task in self.scheduler.tasks if not task.name.startswith(but)]:
            is_locked = any(task.where == LOCK for task in tasks)
            self._resume(self.random.choice(self.scheduler.tasks if is_locked else tasks))
            if any(task.name == "ingest" for task in self.scheduler.tasks):
                self.start("flush", self._flush)  # it may wait for that

    # Deeds

    def do_records(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            self.source.add_record(self.now)
        self.start("receiver", self._receive)

    def _receive(self) -> None:
        journal = self.store.journal
        if journal.is_empty:
            durable = self.store.durable_lsn
            journal.begin(durable - durable % journal.segment_bytes, 1)
        data = self.source.bytes_from(journal.received_lsn)
        journal.append(journal.received_lsn, data)
        journal.sync()

    def do_ingest(self) -> None:
        self.start("ingest", self._ingest)

    def _ingest(self) -> None:
        while self.store.ingest_step():
            pass

    def do_flush(self) -> None:
        self.start("flush", self._flush)

    def _flush(self) -> None:
        self.store.freeze()
        while self.store.flush_step():
            pass

    def do_compact(self) -> None:
        steps = self.random.choice((1, 3, 10))
        self.start("compactor", lambda: self._compact(steps))

    def _compact(self, steps: int) -> None:
        for _ in range(steps):
            if not self.compact_step():
                return

    def compact_step(self) -> bool:
        """Of the thread that compacts."""
        return self.store.compact_step()

    def do_tick(self) -> None:
        self.now += self.random.choice((1.0, 1.0, 5.0, 20.0))

    def do_retention(self) -> None:
        self.start("retention", self._advance_horizon)

    def _advance_horizon(self) -> None:
        store, now = self.store, self.now
        self.held.end_leases(now)
        lsn_at = store.versions.commit_times.lsn_at
        store.retention.step(now, self.bounds, lsn_at)
        for lease in store.retention.leases():
            assert lease.until_seconds > now, f"{lease} should be over"

    @property
    def _is_readable(self) -> bool:
        """Not before the end of the base backup is reached."""
        return self.store.ready_lsn >= self.store.horizon_lsn

    def do_held(self) -> None:
        if not self._is_readable:
            return
        lsn = self.reads.some_lsn(self.random, self.store)
        deed = self.held.deed(self.random, self.store, lsn, self.now)
        self.start("client", deed)

    def do_read(self) -> None:
        if not self._is_readable:
            return
        name = f"{READER} {self.random.randrange(READERS_MAX)}"
        self.start(name, lambda: self.observer.watch_read(self._read))

    def _read(self) -> None:
        self.reads.some(self.random, self.store, self.source.blocks)

    def do_time(self) -> None:
        if not self._is_readable:
            return
        seconds = START_SECONDS + self.random.randrange(int(self.now) - START_SECONDS + 5) + 0.5
        self.start("clock reader", lambda: self.reads.time(self.store, seconds, START_SECONDS))

    # Trouble

    def do_crash_soon(self) -> None:
        """The machine dies at one of the next calls."""
        self.disk.crash_at = self.disk.calls + self.random.randrange(40)

    def do_fault(self) -> None:
        """A call fails soon: the disk is full, or broken."""
        kind = self.random.choice(("append", "append", "create", "sync", "commit", "commit", ""))
        error = self.random.choice((errno.ENOSPC, errno.EIO))
        self.disk.fail(kind, error, call=self.random.randint(1, 6))
        self.is_faulty = True

    def do_damage(self) -> bool:
        """Change one byte of a layer file; from now on an error is an answer. The machine goes on:
        it might not start any more."""
        self.disk.crash_at = -1
        names = sorted(name.text for name in self.store.manifest.state.files)
        if not names:
            return False
        path = self.directory / "layers" / self.random.choice(names)
        content = bytearray(path.read_bytes())
        at = self.random.randrange(len(content))
        content[at] ^= 1 << self.random.randrange(8)
        path.write_bytes(content)
        self.scheduler.note(f"byte {at} of {path.name} is damaged")
        self.reads.is_damaged = True
        self.totals["bytes damaged"] += 1
        return True

    # What must hold

    def _check_horizon(self) -> None:
        """It is no further than retention in time and bytes allows."""
        store = self.store
        durable_lsn = store.manifest.state.durable_lsn  # a commit may have come no further
        limits = [store.ready_lsn - self.bounds.wal_bytes, durable_lsn]
        if self.bounds.seconds:
            since = self.now - self.bounds.seconds - POSTGRES_EPOCH_SECONDS
            later = self.model.first_above(round(since * 1_000_000))
            limits.append(store.ready_lsn if later is None else later.start)
        self.horizon_max = max(self.horizon_max, min(limits))
        assert store.horizon_lsn <= self.horizon_max, "the horizon has gone too far"

    def settle(self) -> None:
        """Everything that is to be done is done: what can be while readers stand still where they
        are, and the rest when they have come to their end."""
        self.drain(but=READER)
        for name, function in (
            ("receiver", self._receive), ("ingest", self._ingest), ("flush", self._flush),
            ("retention", self._advance_horizon), ("compactor", self._compact_all),
        ):  # fmt: skip
            self.start(name, function)
            self.drain(but=READER)
        if self.scheduler.tasks:
            self.drain()
            self.start("compactor", self._compact_all)
            self.drain()

    def _compact_all(self) -> None:
        compactor = self.store.compactor
        assert compactor is not None
        for _ in range(COMPACTION_STEPS_MAX):
            if not self.compact_step():
                assert self.reads.is_damaged or not compactor.damaged, compactor.damaged
                return
        raise AssertionError("compaction comes to no end")

    def check_all(self, lsn_count: int) -> None:
        """Every page and the rest at the LSNs that are held, and at some of the others; others go
        on meanwhile."""
        if not self._is_readable:
            return
        self.start("checker", lambda: self._check_all(lsn_count))
        while any(task.name == "checker" for task in self.scheduler.tasks):
            self._resume(self.random.choice(self.scheduler.tasks))

    def _check_all(self, lsn_count: int) -> None:
        store, random = self.store, self.random
        known = [lsn for lsn in self.model.lsns if store.horizon_lsn <= lsn <= store.ready_lsn]
        lsns = {store.horizon_lsn, store.ready_lsn, *self.reads.held(store)}
        lsns.update(random.sample(known, min(lsn_count, len(known))))
        asked = [
            Asked(relation, block, lsn)
            for lsn in sorted(lsns)
            for relation in RELATIONS
            for block in self.source.blocks
        ]
        for start in range(0, len(asked), 32):
            self.reads.pages(store, asked[start : start + 32])
        for lsn in random.sample(sorted(lsns), min(3, len(lsns))):
            with contextlib.suppress(RequestError):
                self.reads.others(store, lsn)
