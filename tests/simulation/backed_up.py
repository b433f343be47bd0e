"""A simulated world with a bucket: what the one machine has is sent there, and comes back from it.

    world's tasks (receiver, flush, compactor, readers, ...)      on a LazyDisk
    the backup's tasks: link, uploader, senders                   on the same disk, and the bucket
    a former server's tasks, after a takeover                     on a disk of its own

The machine may be lost with its directory: another one goes on with what the bucket has, whole or
lazily. It may be taken for lost, and then two have the bucket. tests/simulation/shared_bucket.py
has what must hold in the bucket; here is what must hold when a directory comes from there.
"""

import math
import shutil
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

from engine.page_store import PageStore
from engine.wal_intake import Limits
from formats import manifest as layout
from formats.manifest import Manifest
from server.backup import lazy_start, restore
from server.backup.object_store import StoreError
from server.backup.upload_messages import BackupSettings
from server.remote_layers import RemoteLayers
from tests.fixtures.faulty_storage import CrashError
from tests.fixtures.uploading import URL, InlineExecutor
from tests.simulation.backup_process import BACKUP, BackupProcess, Link
from tests.simulation.former import FORMER, Former
from tests.simulation.lazy_disk import LazyDisk
from tests.simulation.scheduler import Scheduler, Task
from tests.simulation.shared_bucket import History, SharedBucket
from tests.simulation.template import Template
from tests.simulation.world import DEEDS, World

FILLER_BYTES = 300_000
SETTLE_STEPS_MAX = 300
LOOKS_PER_GRACE = 24  # as server/backup/deletion.py has it


class BackedUp(World):
    deeds = DEEDS | {
        "upload": 45, "talk": 20, "arrive": 2, "trouble": 1.5, "look": 2, "end_uploader": 1.5,
        "former": 40, "tick": 8,
    }  # fmt: skip

    def __init__(
        self, seed: int, directory: Path, template: Template, scheduler: Scheduler
    ) -> None:
        """Begins below `directory`, which must not exist."""
        self.own_random = random = Random(f"bucket of {seed}")
        self._root = directory
        self._machines = 1
        self._processes = 0
        self.limits = Limits(waits_for_remote=random.random() < 0.5)
        self._cache_bytes = random.choice((1 << 16, 1 << 20))
        self._filler_share = random.choice((0.0, 0.05, 0.3))
        self._bytes_max = random.choice((0, 1, 1, 5_000, 30_000))
        self._settings = BackupSettings(
            random.choice((1.0, 5.0)), random.choice((50_000, 1 << 20)), random.randint(1, 3),
            random.choice((30.0, 100.0)),
        )  # fmt: skip
        self.former: Former | None = None
        self._may_be_overtaken = False
        self.link: Link | None = None
        self.history: History = {}
        super().__init__(seed, directory / "1", template, scheduler)
        self.totals["worlds with a bucket"] = 1

    def clock(self) -> float:
        return self.now

    @property
    def is_all_here(self) -> bool:  # type: ignore[override]
        here = {name.text for name in self.disk.bundles_here()}
        return here >= {name.text for name in self.store.manifest.state.files}

    # Lives

    def new_disk(self) -> LazyDisk:
        if self._machines == 1:
            self.bucket = SharedBucket(
                self.own_random, self.scheduler, self.clock, self._settings.grace_seconds,
                self.totals,
            )  # fmt: skip
        return LazyDisk(
            self.scheduler, self.directory, self.bucket.client(), self._cache_bytes, self.clock
        )

    def open(self) -> None:
        self.disk: LazyDisk
        with self.bucket.answering():
            self.disk.begin_process()
            super().open()
        self.reads.is_away = lambda: not self.bucket.is_calm
        store = self.store
        self._keep_history(store)
        self.remote_layers = RemoteLayers(self.disk, store, self._bytes_max)
        self.link = Link(store, self.directory, self.bucket, self.totals)
        self.link.on_uploaded(self.remote_layers.note_uploaded)
        self.start_process()

    def _keep_history(self, store: PageStore) -> None:
        log, history = store.manifest, self.history
        history[log.state.serial] = log.state
        append = log.append

        def append_and_note(*records: object) -> None:
            append(*records)  # type: ignore[arg-type]
            history[log.state.serial] = log.state

        log.append = append_and_note  # type: ignore[method-assign]

    def start_process(self) -> None:
        """The uploader's."""
        self._processes += 1
        nonce = f"{self._machines}.{self._processes}"
        self.bucket.histories[nonce] = self.history
        self.process = BackupProcess(
            self.scheduler, self.directory, self.disk, self.bucket.client(), self._settings,
            self.clock, self.own_random, nonce,
        )  # fmt: skip
        self.totals["lives of uploaders"] += 1

    def kill_tasks(self) -> None:
        self.scheduler.kill(lambda task: not task.name.startswith(FORMER))

    def close(self) -> None:
        if self.own_random.random() < 0.5:
            self.process.is_finishing = True
            self.start(f"{BACKUP} upload", lambda: self.process.run(3))
        super().close()

    # Deeds

    def step(self) -> None:
        super().step()
        self.bucket.check()
        self._check_journal()
        if self.link is not None and self.link.is_over:
            self._start_over()

    def do_records(self) -> None:
        if self.own_random.random() < self._filler_share:
            self.source.add_nothing(FILLER_BYTES)
        super().do_records()

    def _receive(self) -> None:
        if not self.store.remote.is_fenced:
            super()._receive()

    def compact_step(self) -> bool:
        return self.remote_layers.evict() or super().compact_step()

    def do_upload(self) -> None:
        self.now += self.own_random.choice((0, 0, 0, 1))
        process = self.process
        self.start(f"{BACKUP} upload", lambda: process.run(4))

    def do_talk(self) -> None:
        process, link = self.process, self.link
        assert link is not None
        self.start(f"{BACKUP} talk", lambda: link.talk(process))

    def do_arrive(self) -> None:
        self.bucket.deliver_late()

    def do_trouble(self) -> None:
        self.bucket.trouble()

    def do_look(self) -> None:
        self.bucket.look()

    def do_end_uploader(self) -> None:
        """Its process is killed, and the server starts another one."""
        self.scheduler.note("the uploader is killed")
        self.scheduler.kill(lambda task: task.name.startswith(BACKUP))
        self.start_process()

    def do_former(self) -> None:
        if self.former is not None:
            self.start(*self.former.deed(self.own_random))

    def do_damage(self) -> bool:
        """What is damaged here is not the bucket's matter."""
        return False

    # Machines

    def lose(self, lazy: bool) -> None:
        """The machine is gone with its directory; another one goes on from the bucket."""
        self.scheduler.note("the machine is lost")
        self.end_process()
        self._end_former()
        shutil.rmtree(self.directory)
        self.totals["machines lost"] += 1
        self._may_be_overtaken = not lazy and bool(self.bucket.contents.late)  # by its last entry
        self._go_on_from_bucket(lazy)

    def take_over(self, lazy: bool) -> None:
        """The machine does not answer, and lives on."""
        self._end_former()
        self.drain(but=BACKUP)
        assert self.link is not None
        for task in self.scheduler.tasks:
            task.name = FORMER + task.name.removeprefix(BACKUP)
        self.process.executor.name = FORMER
        self.scheduler.note("another machine takes over")
        self.former = Former(
            self.store, self.disk, self.remote_layers, self.process, self.link, self.source,
            self.model, self.totals,
        )  # fmt: skip
        self.totals["takeovers"] += 1
        self._may_be_overtaken = True
        self._go_on_from_bucket(lazy)

    def _start_over(self) -> None:
        """It was fenced off, or refused: the bucket has what it does not come from."""
        assert self.link is not None
        assert self._may_be_overtaken, f"nobody else has written there: {self.link.reason}"
        self.totals["machines that start over"] += 1
        self.lose(lazy=True)

    def _end_former(self) -> None:
        if self.former is not None:
            self.scheduler.kill(lambda task: task.name.startswith(FORMER))
            self.former.end()
            self.former = None

    def _go_on_from_bucket(self, lazy: bool) -> None:
        self._machines += 1
        self.directory = self._root / str(self._machines)
        self.disk = self.new_disk()
        self.history, self.link = {}, None
        bucket = self.bucket
        told, promised = bucket.acknowledged, bucket.promised
        self._restore(lazy)
        if lazy:  # whoever wrote there before was fenced off first
            told, promised = bucket.acknowledged, bucket.promised
        content = self.disk.read_all(self.directory / "manifest")
        true = layout.replay(content, "manifest")[0]
        self._check_promises(true, promised)
        self.held.go_back(true)
        self.open()
        self._check_restored(told)
        self.totals["restored lazily" if lazy else "restored whole"] += 1

    def _restore(self, lazy: bool) -> None:
        """A task; the machine, or the process, may die in it, and then it is done once more."""
        nonces = SimpleNamespace(token_hex=lambda _: f"{self._machines}.lazy")
        with (
            patch.object(lazy_start, "secrets", nonces),
            patch.object(lazy_start, "boottime", self.clock),
            patch.object(lazy_start, "ThreadPoolExecutor", lambda *_: InlineExecutor()),
            patch.object(restore, "boottime", self.clock),
            patch.object(restore, "ThreadPoolExecutor", lambda *_: InlineExecutor()),
        ):
            self._restore_in_turns(lazy)

    def _restore_in_turns(self, lazy: bool) -> None:
        while True:
            dies_at = self.own_random.randrange(150)
            if dies_at < 60:
                self.disk.crash_at = self.disk.calls + dies_at
            try:
                self._until_done(self.scheduler.start("restore", lambda: self._fetch(lazy)))
                self.disk.crash_at = -1
                return
            except CrashError:
                self.totals["restores cut off"] += 1
                self.disk.close_all()
                if self.own_random.random() < 0.7:
                    self.disk.crash(self.own_random)
                self.disk.is_dead, self.disk.crash_at = False, -1
            except StoreError:
                self.totals["restores that the bucket failed"] += 1
                self.bucket.fault_rate = 0.0
            self.disk.crash_at = -1

    def _until_done(self, task: Task) -> None:
        while not task.is_done:
            others = [t for t in self.scheduler.tasks if t is not task]
            if self.former is not None and self.own_random.random() < 0.4:
                self.do_former()
            elif others and self.own_random.random() < 0.5:
                self._resume(self.own_random.choice(others))
            else:
                self.scheduler.resume(task)
            self.bucket.check()

    def _fetch(self, lazy: bool) -> None:
        if self.disk.exists(self.directory / "manifest"):
            return  # an earlier attempt has come as far as that
        client = self.bucket.client()
        arguments = client, self.directory, self.disk, URL
        if lazy:
            lazy_start.begin_from_bucket(*arguments, sleep=lambda _: None)
        else:
            restore.restore(*arguments, sleep=lambda _: None)

    # What must hold

    def _check_promises(self, true: Manifest, promised: dict[str, int]) -> None:
        """Points and leases of which the bucket knew are there, if nobody has let them go."""
        found = {name: one.lsn for name, one in (*true.points.items(), *true.leases.items())}
        for name, lsn in promised.items():
            if name in self.held.promised:
                assert found.get(name) == lsn, f"{name} at {lsn:X} is {found.get(name)}"
                self.totals["promises kept by the bucket"] += 1

    def _check_restored(self, told: int) -> None:
        """Without the source: all that was acknowledged, every page at every retained LSN."""
        self.start("ingest", self._ingest)
        self.drain(but=FORMER)
        reached = self.model.lsns[bisect_right(self.model.lsns, told) - 1]
        if told:
            assert self.store.ready_lsn >= reached, f"{told:X} was told: {self.store.ready_lsn:X}"
        self.check_all(self.own_random.choice((3, 1000)))

    def _check_journal(self) -> None:
        """WAL that is waited for stays until the bucket has it."""
        journal = self.store.journal
        if self.limits.waits_for_remote and not journal.is_empty:
            needed = max(self.bucket.state.remote_lsn, self.source.wal.start)
            assert journal.start_lsn <= needed, "the bucket lacks WAL that is gone here"

    def settle(self) -> None:
        """Nothing is in the bucket at the end but what the directory is."""
        self._end_former()
        self.bucket.fault_rate = 0.0
        while self.bucket.contents.late:
            self.bucket.deliver_late()
        self.now += 2  # for that long nobody asks a bucket that did not answer
        super().settle()
        self.bucket.is_calm = True
        if self.is_faulty:  # the uploader may have ended for good
            return
        link = self.link
        assert link is not None
        for _ in range(2):  # what one has sent and never named, the next one finds
            self.do_end_uploader()
            self._step_until(1, lambda: link.is_over or self.process.is_idle, "no end of uploading")
            if link.is_over:
                self._start_over()
                self.settle()
                return
        self.bucket.check_mirror(self.store.manifest.state)
        seconds = math.ceil(self._settings.grace_seconds / LOOKS_PER_GRACE)
        self._step_until(seconds, lambda: not self.bucket.garbage(), "garbage stays")

    def _step_until(self, seconds: int, is_done: Callable[[], bool], what: str) -> None:
        for _ in range(SETTLE_STEPS_MAX):
            self.do_talk()
            self.do_upload()
            self.drain()
            self.bucket.check()
            if is_done():
                return
            self.now += seconds
        raise AssertionError(f"{what}: {self.process.status}, {sorted(self.bucket.garbage())[:5]}")
