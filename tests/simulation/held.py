"""Points and leases of a simulated world, and what a crash may have made of those under way."""

import math
from collections import Counter
from collections.abc import Callable
from random import Random

from engine.errors import RequestError
from engine.page_store import PageStore
from formats.manifest import Manifest

LEASES, POINTS = "lease", "point"


class Held:
    def __init__(self, promised: dict[str, int], totals: Counter[str]) -> None:
        """`promised`: the LSNs of those that hold, kept up here; names of leases and points
        differ."""
        self.promised = promised
        self.totals = totals
        self._until: dict[str, float] = {}
        self._doubtful: dict[str, int] = {}  # about to be set, dropped or over
        self._count = 0
        self._now = 0.0

    def deed(self, random: Random, store: PageStore, lsn: int, now: float) -> Callable[[], None]:
        """One of a client's wishes, as a task."""
        self.end_leases(now)
        names = sorted(self.promised)
        leases = [name for name in names if name.startswith(LEASES)]
        kind = random.choice((POINTS, LEASES, LEASES, "drop", "renew"))
        if kind == "drop" and names:
            name = random.choice(names)
            return lambda: self._drop(store, name)
        if kind == "renew" and leases:
            name = random.choice(leases)
            return lambda: self._renew(store, name, random.choice((3, 30)), now)
        self._count += 1
        name = f"{POINTS if kind == POINTS else LEASES}-{self._count}-of-test"
        seconds = random.choice((2, 10, 50))
        return lambda: self._create(store, name, lsn, seconds, now)

    def end_leases(self, now: float) -> None:
        """What is over holds no more, whether or not that has been noticed."""
        self._now = now
        for name, until in list(self._until.items()):
            if until <= now:
                self._doubtful[name] = self.promised.pop(name)
                del self._until[name]

    def _create(self, store: PageStore, name: str, lsn: int, seconds: float, now: float) -> None:
        self._doubtful[name] = lsn
        try:
            if name.startswith(POINTS):
                store.retention.create_point(name, lsn)
            else:
                lease = store.retention.create_lease(lsn, seconds, now, name)
                if lease.until_seconds <= self._now:
                    return  # over before the client heard of it
                self._until[name] = lease.until_seconds
        except RequestError:
            assert lsn < store.horizon_lsn, f"{lsn:X} is retained, and cannot be held"
            del self._doubtful[name]
            return
        self.promised[name] = self._doubtful.pop(name)
        self.totals[f"{name.split('-')[0]}s"] += 1

    def _drop(self, store: PageStore, name: str) -> None:
        if name not in self.promised:
            return  # over, in the meantime
        self._doubtful[name] = self.promised.pop(name)
        until = self._until.pop(name, math.inf)
        drop = store.retention.drop_point if name.startswith(POINTS) else store.retention.drop_lease
        try:
            drop(name)
        except RequestError:
            assert until <= self._now, f"{name} should be there"
        del self._doubtful[name]
        self.totals["drops"] += 1

    def _renew(self, store: PageStore, name: str, seconds: float, now: float) -> None:
        before = self._until.pop(name, None)
        if before is None:
            return
        lsn = self._doubtful[name] = self.promised.pop(name)
        try:
            lease = store.retention.renew_lease(name, seconds, now)
        except RequestError:
            return  # it was found to be over
        if lease.until_seconds <= self._now:
            return
        self.promised[name], self._until[name] = lsn, lease.until_seconds
        del self._doubtful[name]
        self.totals["renewals"] += 1

    def go_back(self, true: Manifest) -> None:
        """Of the machine only the bucket is left, which has this: what came later never was, and
        what went later has come back."""
        found = {name: lease.lsn for name, lease in true.leases.items()}
        found |= {name: point.lsn for name, point in true.points.items()}
        for name in self.promised.keys() - found.keys():
            del self.promised[name]
            self._until.pop(name, None)
            self.totals["promises lost with a machine"] += 1
        self._doubtful = {n: lsn for n, lsn in found.items() if n not in self.promised}
        self._until = {name: true.leases[name].until_seconds for name in self._until}

    def compare(self, true: Manifest) -> None:
        """After a start: all that was promised is there, and nothing else but what is doubtful."""
        found = {name: lease.lsn for name, lease in true.leases.items()}
        found |= {name: point.lsn for name, point in true.points.items()}
        for name, lsn in self.promised.items():
            assert found.get(name) == lsn, f"{name} at {lsn:X} is {found.get(name)}"
        for name, lsn in found.items():
            assert self.promised.get(name, self._doubtful.get(name)) == lsn, f"{name} came back"
