"""The bucket of a simulated world, for all machines that ever wrote there: its troubles, and what
must hold in it after every step.

- What it names is there, and stays for half of the grace time for whoever has read that.
- Its manifest is that of the directory at the serial that it says, as the server had made it true.
- What was acknowledged as the remote LSN it has, and no writer acknowledges more than what its own
  epoch has come to.
- No object name ever has two contents.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random

from formats.bucket import ENTRIES, JOURNAL, LAYERS
from formats.bucket_state import BucketState
from formats.manifest import Manifest
from server.backup.bucket_manifest import BucketManifest
from tests.fixtures.memory_bucket import Contents, Fault, MemoryBucket
from tests.simulation.scheduler import Scheduler

FAULTS = (Fault.BEFORE, Fault.AFTER, Fault.LATE, Fault.TWICE)
History = dict[int, Manifest]
"""What a directory's manifest said, by its serial."""


class _Watcher(BucketManifest):
    """Reads the bucket and has no trouble; tells of each state."""

    on_state: Callable[[BucketState], None] = staticmethod(lambda state: None)

    def _become(self, state: BucketState) -> None:
        before = self.state
        super()._become(state)
        if before.serial != state.serial:
            self.on_state(state)


class SharedBucket:
    def __init__(
        self,
        random: Random,
        scheduler: Scheduler,
        clock: Callable[[], float],
        grace_seconds: float,
        totals: Counter[str],
    ) -> None:
        self.contents = Contents(clock)
        self.grace_seconds = grace_seconds
        self.fault_rate = 0.0
        self.is_calm = True  # and nobody still has an error of before in hand
        self.acknowledged = 0  # the remote LSN that a server was told
        self.histories: dict[str, History] = {}  # of the directories, by their writers' nonces
        self.promised: dict[str, int] = {}  # LSNs of points and leases, by the last entry
        self._reached: dict[int, int] = {}  # the remote LSN that each epoch came to
        self._told: dict[int, int] = {}  # and what its server was told last
        self._random = random
        self._scheduler = scheduler
        self._clock = clock
        self._totals = totals
        self._watcher = self._reader()
        self._watcher.on_state = self._check_state
        self._mirrored = self._watcher.state.manifest
        self._looked: list[tuple[float, BucketState]] = []
        self._seen = -1

    # Who uses it

    def client(self) -> MemoryBucket:
        """One that meets all troubles, and pauses."""
        client = MemoryBucket(self.contents, self._random.choice((2, 1000)))
        client.pause = self._scheduler.pause
        client.choose_fault = self._choose_fault
        return client

    def _reader(self) -> _Watcher:
        store = MemoryBucket(self.contents)
        return _Watcher(store, self._clock, grace_seconds=self.grace_seconds)

    def _choose_fault(self, call: str, name: str) -> Fault | None:
        if self._random.random() >= self.fault_rate:
            return None
        fault = self._random.choice(FAULTS)
        self._totals[f"faults of the bucket: {fault.name.lower()}"] += 1
        return fault

    def trouble(self) -> None:
        """The network becomes bad, or well again."""
        self.fault_rate = self._random.choice((0, 0, 0.05, 0.3))
        self.is_calm = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Nothing fails in it: a server that does not come up is started again."""
        before, self.fault_rate = self.fault_rate, 0.0
        yield
        self.fault_rate = before

    def deliver_late(self) -> None:
        if self.contents.late:
            self.contents.deliver_late(self._random.randrange(len(self.contents.late)))
            self._totals["requests that came late"] += 1

    # What must hold

    @property
    def state(self) -> BucketState:
        """As it is now."""
        self._watcher.refresh()
        return self._watcher.state

    @property
    def has_backup(self) -> bool:
        return self.state.manifest.identity is not None

    def look(self) -> None:
        """Somebody reads the state, and needs what it names for a while."""
        self._looked.append((self._clock(), self.state))

    def check(self) -> None:
        """After each step."""
        if self._seen == self.contents.changes:
            return
        state = self.state
        self._check_there(state)
        for name in self.contents.twice:
            assert name.startswith(ENTRIES), f"two contents of {name}"
        while self._looked and self._clock() - self._looked[0][0] >= self.grace_seconds / 2:
            self._looked.pop(0)
        for _, earlier in self._looked:
            self._check_there(earlier)
        if self._random.random() < 0.05:
            assert self._reader().read() == state, "whoever reads it anew"
        self._seen = self.contents.changes

    def _check_there(self, state: BucketState) -> None:
        lost = [name for name in state.objects() if name not in self.contents.objects]
        assert not lost, f"named, and not there: {lost}"

    def _check_state(self, state: BucketState) -> None:
        """Of each entry, as it comes."""
        self._totals["entries in the bucket"] += 1
        expected = self._mirrored  # and an entry need not say anything of it
        if state.local_serial != expected.serial:
            expected = self.histories[state.nonce].get(state.local_serial)
        if state.manifest.identity is not None:
            assert expected is not None, f"no directory ever had serial {state.local_serial}"
            assert mirrored(state.manifest) == mirrored(expected), "it mirrors no true state"
            self._mirrored = state.manifest
        assert state.remote_lsn >= self.acknowledged, "acknowledged, and lost"
        self._reached[state.epoch] = state.remote_lsn
        held = (*state.manifest.points.items(), *state.manifest.leases.items())
        self.promised = {name: one.lsn for name, one in held}

    def check_told(self, epoch: int, lsn: int) -> None:
        """A server was told that the bucket has its WAL up to `lsn`."""
        state, reached = self.state, self._reached.get(epoch, 0)
        before = max((told for e, told in self._told.items() if e <= epoch), default=0)
        assert lsn >= before, f"the remote LSN goes back from {before:X} to {lsn:X}"
        assert lsn <= state.remote_lsn, f"{lsn:X} is not in the bucket: {state.remote_lsn:X} is"
        assert lsn <= reached, f"epoch {epoch} came to {reached:X} and acknowledges {lsn:X}"
        self._told[epoch] = lsn
        if lsn > self.acknowledged:
            self.acknowledged = lsn
            self._totals["acknowledgements"] += 1

    def check_mirror(self, true: Manifest) -> None:
        """All of it is there."""
        found, expected = mirrored(self.state.manifest), mirrored(true)
        assert found == expected, "the bucket's manifest is not the directory's"

    def garbage(self) -> set[str]:
        """What is there and nobody needs."""
        found = {name for name in self.contents.objects if name.startswith((LAYERS, JOURNAL))}
        return found.difference(self.state.objects())


def mirrored(manifest: Manifest) -> Manifest:
    """What a bucket's manifest takes from a directory's: not that the directory has noted what is
    uploaded, and has a higher serial for it."""
    return replace(manifest, uploaded={}, serial=0)
