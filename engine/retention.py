"""What must stay readable: everything from the horizon on, and the LSNs of points and leases.

    LSN ────────┬────────────┬──────────────┬═════════════════════════> ready
                point        lease          horizon: from here on, all

A *point* is a named LSN that is kept until somebody drops it, a *lease* one that is kept until a
time, if nobody renews it. What stands here is in the manifest, each change on disk before it
counts, and nothing else says what a collector may delete. The horizon only advances. It follows
the ready LSN at a distance in time and in WAL bytes, whichever reaches further back, and never
passes the durable LSN, so that a restart finds it readable. L0 does not hold it: merges drop no
version, and an image at the horizon is made of what a reader finds in L0 and below.

There is no clock here: who calls says what time it is, in seconds since 1970.
"""

import logging
import math
import re
import threading
from array import array
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import ArgumentError, RequestError, below_horizon
from engine.layer_store import LayerStore
from engine.store_state import StoreState
from formats.errors import CorruptionError
from formats.lsn import show as show_lsn
from formats.manifest import Manifest
from formats.manifest_record import LeaseDropped, LeaseSet, PointDropped, PointSet, Progress, Record

HELD_MAX = 10_000  # points, and as many leases
LEASE_SECONDS_MAX = 366 * 86_400
POSTGRES_EPOCH_SECONDS = 946_684_800  # 2000-01-01, since 1970
_log = logging.getLogger("pageserver.retention")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")

LsnAt = Callable[[int], int | None]
"""The LSN of the state as of a time in microseconds since 2000; None: not known."""


class Bounds(NamedTuple):
    """How far behind the ready LSN the horizon stays; 0 sets no bound."""

    seconds: float
    wal_bytes: int


KEEP_ALL = Bounds(0, 1 << 62)
"""The horizon stays where it is."""


class Retained(NamedTuple):
    """What a read may ask for: these LSNs, rising, and all from the horizon on."""

    lsns: list[int]
    horizon_lsn: int


class Retention:
    """Points, leases and the horizon of one data directory. Any thread may call.

    RequestError, whose text is for the client: what is asked for cannot be.
    """

    def __init__(
        self, state: StoreState, committing: threading.Lock, manifest: Callable[[], LayerStore]
    ) -> None:
        """`committing` is held while the manifest grows; `manifest()` raises LookupError while
        there is none. `state` is where readers look."""
        self._state = state
        self._committing = committing
        self._manifest = manifest
        self.held_by: str | None = None  # what keeps the horizon where it is, after a step

    def publish(self) -> None:
        """Let readers see what the manifest says; called with the store's lock."""
        true = self._manifest().state
        self._state.horizon_lsn = true.horizon_lsn
        self._state.retained = memoryview(array("Q", _retained_lsns(true)))

    def retained(self) -> Retained:
        """What is persisted, and what readers know: whatever it leaves out may be deleted.

        Nothing that it leaves out can be asked for later.
        """
        with self._committing:
            true = self._true()
        return Retained(_retained_lsns(true), true.horizon_lsn)

    # Leases and points ----------------------------------------------------------------------------

    def create_lease(
        self, lsn: int, seconds: float, now: float, name: str | None = None
    ) -> LeaseSet:
        """A lease of its own name, which is made up if none is given."""
        with self._committing:
            true = self._true()
            name = _made_up(true) if name is None else _checked_name(name)
            if name in true.leases:
                raise RequestError(f"there is a lease {name} already: renew it, or drop it first")
            self._check(lsn, "lease", len(true.leases))
            lease = LeaseSet(name, lsn, _until(now, seconds))
            self._append(lease)
        return lease

    def renew_lease(self, name: str, seconds: float, now: float) -> LeaseSet:
        """From now on, for so long, be it more or less than was left."""
        with self._committing:
            held = self._true().leases.get(name)
            if held is None:
                raise RequestError(f"there is no lease {name}: it was dropped, or is over")
            lease = LeaseSet(name, held.lsn, _until(now, seconds))
            self._append(lease)
        return lease

    def drop_lease(self, name: str) -> LeaseSet:
        with self._committing:
            held = self._true().leases.get(name)
            if held is None:
                raise RequestError(f"there is no lease {name}: it was dropped, or is over")
            self._append(LeaseDropped(name))
        return held

    def create_point(self, name: str, lsn: int) -> PointSet:
        with self._committing:
            true = self._true()
            if _checked_name(name) in true.points:
                held = show_lsn(true.points[name].lsn)
                raise RequestError(f"there is a point {name} already, at {held}")
            self._check(lsn, "point", len(true.points))
            point = PointSet(name, lsn)
            self._append(point)
        _log.info("point %s keeps %s from now on", name, show_lsn(lsn))
        return point

    def drop_point(self, name: str) -> PointSet:
        with self._committing:
            held = self._true().points.get(name)
            if held is None:
                raise RequestError(f"there is no point {name}")
            self._append(PointDropped(name))
        _log.info("point %s, which kept %s, was dropped", name, show_lsn(held.lsn))
        return held

    def leases(self) -> list[LeaseSet]:
        """By LSN."""
        return sorted(self._true().leases.values(), key=lambda lease: (lease.lsn, lease.name))

    def points(self) -> list[PointSet]:
        """By LSN."""
        return sorted(self._true().points.values(), key=lambda point: (point.lsn, point.name))

    # The horizon ----------------------------------------------------------------------------------

    def step(self, now: float, bounds: Bounds, lsn_at: LsnAt) -> bool:
        """Drop the leases that are over and advance the horizon; whether anything changed.

        A directory that ends (EndsAt) forgets nothing.
        """
        try:
            durable = self._manifest().state.durable_lsn
        except LookupError:
            return False
        if self._manifest().state.ends_at_lsn is not None:
            return False
        target = self._target(now, bounds, lsn_at, durable)
        with self._committing:
            true = self._true()
            over = [name for name, lease in true.leases.items() if lease.until_seconds <= now]
            records: list[Record] = [LeaseDropped(name) for name in sorted(over)]
            if target > true.horizon_lsn:
                records.append(Progress(horizon_lsn=target))
            if records:
                self._append(*records)
        return bool(records)

    def _target(self, now: float, bounds: Bounds, lsn_at: LsnAt, durable_lsn: int) -> int:
        """Where the horizon may be, 0 if that is not known; sets `held_by`.

        Without the lock: times are looked up in layers.
        """
        ready = self._state.ready_lsn
        limits = [(ready - bounds.wal_bytes, "retention_wal_bytes"), (durable_lsn, "flush")]
        if bounds.seconds:
            time = round((now - bounds.seconds - POSTGRES_EPOCH_SECONDS) * 1_000_000)
            try:
                limits.append((lsn_at(time) or 0, "retention_seconds"))
            except CorruptionError as error:
                limits.append((0, f"retention_seconds: {error}"))
        target, self.held_by = min(limits)
        return target

    def status(self) -> dict[str, object]:
        """Its part of `pageserver status`."""
        try:
            true = self._true()
        except RequestError:
            true = Manifest()
        below = [lsn for lsn in _retained_lsns(true) if lsn < true.horizon_lsn]
        return {
            "horizon_held_by": self.held_by,
            "retained_lsn": show_lsn(below[0]) if below else None,
            "point_count": len(true.points),
            "lease_count": len(true.leases),
        }

    # Inner ----------------------------------------------------------------------------------------

    def _true(self) -> Manifest:
        try:
            return self._manifest().state
        except LookupError:
            raise RequestError("base backup not complete") from None

    def _append(self, *records: Record) -> None:
        """Make records true, then let readers see it: before a collector can."""
        try:
            self._manifest().append(*records)
        finally:  # even where the index found no room for it: what is true is in the manifest
            with self._state.lock:
                self.publish()

    def _check(self, lsn: int, word: str, count: int) -> None:
        """That a new point or lease may have this LSN, beside `count` others."""
        ready, horizon = self._state.ready_lsn, self._state.horizon_lsn
        if count >= HELD_MAX:
            raise RequestError(f"there are {count} {word}s already; more are not held")
        if lsn > ready:
            raise RequestError(f"{show_lsn(lsn)} is not ready yet: ready is {show_lsn(ready)}")
        if lsn < horizon and not self._state.is_retained(lsn):
            raise RequestError(below_horizon(lsn, horizon))


def _retained_lsns(true: Manifest) -> list[int]:
    """Of all points and leases, rising, each once."""
    lsns = {point.lsn for point in true.points.values()}
    return sorted(lsns.union(lease.lsn for lease in true.leases.values()))


def _made_up(true: Manifest) -> str:
    """A name that no lease has had that was given one here."""
    serial = true.serial + 1
    while f"lease-{serial}" in true.leases:
        serial += 1
    return f"lease-{serial}"


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ArgumentError(f"name {name[:100]!r}: expected 1 to 63 letters, digits, _ . or -")
    return name


def _until(now: float, seconds: float) -> int:
    if not 0 < seconds <= LEASE_SECONDS_MAX:
        raise ArgumentError(
            f"a lease of {seconds} s: expected more than 0 and no more than "
            f"{LEASE_SECONDS_MAX} s, {LEASE_SECONDS_MAX // 86_400} days; a point has no end"
        )
    return math.ceil(now + seconds)
