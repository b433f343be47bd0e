"""Uploaders of one directory, killed and started again, on a bucket that fails in every way.

After each step what the bucket says is whole, and never less than what was acknowledged; when it
fails no more, it comes to be the same as the directory.
"""

from pathlib import Path
from random import Random

import pytest

from server.backup.bucket_manifest import FencedError
from server.backup.upload_messages import BackupSettings
from tests.fixtures.memory_bucket import Fault
from tests.fixtures.small_store import SMALL_POLICY
from tests.fixtures.uploading import Uploading, check_bucket, grow, small_store

SEEDS = 8
DEEDS_MAX = 60
SETTINGS = BackupSettings(journal_seconds=3, journal_bytes=8192, parallel=2, grace_seconds=400)
DEEDS = {
    "step": 40, "write": 12, "flush": 5, "compact": 2, "hold": 3, "release": 6, "late": 3,
    "kill": 2, "rest": 4,
}  # fmt: skip


class World:
    def __init__(self, path: Path, seed: int) -> None:
        self.random = Random(seed)
        self.small = small_store(path)
        self.now = Uploading(self.small, settings=SETTINGS)
        self.stopped: list[Uploading] = []  # killed, though a request may be under way
        self.acknowledged = 0
        self.fault_rate = self.random.choice((0.0, 0.05, 0.3))
        self.now.client.choose_fault = self.fault

    def fault(self, call: str, name: str) -> Fault | None:
        if self.random.random() >= self.fault_rate:
            return None
        return self.random.choice((Fault.BEFORE, Fault.AFTER, Fault.LATE, Fault.TWICE))

    def do_step(self) -> None:
        self.now.step(self.random.choice((0.1, 0.5, 2.0)))

    def do_write(self) -> None:
        grow(self.small, self.random.randrange(1000), self.random.randrange(1, 8))

    def do_flush(self) -> None:
        self.small.flush()

    def do_compact(self) -> None:
        self.small.compact(SMALL_POLICY)

    def do_hold(self) -> None:
        self.now.executor.is_held = True

    def do_release(self) -> None:
        self.now.executor.is_held = False
        self.now.executor.release()

    def do_late(self) -> None:
        if self.now.contents.late:
            self.now.contents.deliver_late(self.random.randrange(len(self.now.contents.late)))

    def do_rest(self) -> None:
        self.now.clock.now += self.random.choice((10, 60, 500))

    def do_kill(self) -> None:
        old = self.now
        self.now = Uploading(self.small, old.contents, SETTINGS, old.clock)
        self.now.client.choose_fault = self.fault
        if self.random.random() < 0.3:
            self.stopped.append(old)  # it was only taken for dead

    def check(self) -> None:
        state = check_bucket(self.now)
        assert state.remote_lsn >= self.acknowledged
        status = self.now.uploader.status
        if status.epoch is not None:
            assert status.remote_lsn <= state.remote_lsn
            self.acknowledged = max(self.acknowledged, status.remote_lsn)

    def settle(self) -> None:
        """Without faults all comes to be as it should; who was replaced finds out."""
        self.fault_rate = 0.0
        self.do_release()
        while self.now.contents.late:
            self.now.contents.deliver_late()
        self.now.run(60)
        self.check()
        state, local = self.now.state, self.small.store.manifest.state
        assert state.manifest.files == local.files
        assert state.remote_lsn == self.small.store.journal.flushed_lsn
        assert self.now.shown == "idle"
        for old in self.stopped:
            old.client.choose_fault = lambda call, name: None
            old.executor.is_held = False
            old.executor.release()
            if old.uploader.status.epoch is not None:
                with pytest.raises(FencedError):
                    old.run(30)
        self.check()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_acknowledged_stays_and_all_gets_there(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)
    deeds = world.random.choices([*DEEDS], [*DEEDS.values()], k=DEEDS_MAX)
    for deed in deeds:
        getattr(world, f"do_{deed}")()
        world.check()
    world.settle()
