"""Reads of a simulated world: what may be asked, and whether an answer can be true.

An answer is right or there is none: a page, size, status or file that is returned is the model's at
that LSN, retained or not. No answer is right only if the LSN is not retained when the read ends.
While something of the disk is damaged, an error is an answer, too.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from engine.errors import RequestError, UnreachableError
from engine.page_store import PageStore
from engine.retention import POSTGRES_EPOCH_SECONDS
from formats import pagestream
from formats.errors import CorruptionError
from formats.pagestream import PageBatch
from tests.fixtures.crash_workload import Content, Relation, content_of
from tests.fixtures.wal_builder import PAGE
from tests.simulation.model import UNREADABLE, Model
from tests.simulation.source import MAP, RELATIONS, XIDS, XIDS_PER_SEGMENT

BATCH = 32
BELOW = "below the horizon"
AWAY = "which does not answer"


@dataclass(frozen=True)
class Asked:
    relation: Relation
    block: int
    lsn: int

    def __str__(self) -> str:
        return f"block {self.block} of {self.relation} at {self.lsn:X}"


class Reads:
    """Asks a store, whichever is open, and compares with the model."""

    def __init__(self, model: Model, totals: Counter[str]) -> None:
        self.model = model
        self.totals = totals
        self.promised: dict[str, int] = {}  # LSNs of points and leases that hold
        self.is_damaged = False
        self.is_away: Callable[[], bool] = lambda: False  # what is in a bucket, and only there

    def is_excused(self, error: Exception) -> bool:
        """Whether an error may be an answer."""
        return self.is_damaged or (isinstance(error, UnreachableError) and self.is_away())

    def retained(self, store: PageStore, lsn: int) -> bool:
        """Whether an answer is due: by what is on disk, and by what was promised."""
        true = store.manifest.state
        held = [*true.points.values(), *true.leases.values()]
        return (
            lsn >= store.horizon_lsn
            or lsn in self.promised.values()
            or any(one.lsn == lsn for one in held)
        )

    def held(self, store: PageStore) -> list[int]:
        """LSNs of points and leases that are ready: after a crash not all are at once."""
        return sorted(lsn for lsn in self.promised.values() if lsn <= store.ready_lsn)

    # Pages

    def pages(self, store: PageStore, asked: list[Asked]) -> None:
        """Up to BATCH pages in one call."""
        before = {one.lsn: self.retained(store, one.lsn) for one in asked}
        out = memoryview(bytearray(BATCH * pagestream.PAGE_REPLY_BYTES))
        batch = PageBatch(BATCH, out, out)
        for i, one in enumerate(asked):
            batch.spc[i], batch.db[i], batch.rel[i] = one.relation
            batch.fork[i], batch.block[i], batch.lsn[i] = 0, one.block, one.lsn
            batch.out_pos[i], batch.status[i] = i * PAGE, 0
        store.get_pages(batch, len(asked), out)
        self.totals["pages read"] += len(asked)
        for i, one in enumerate(asked):
            if batch.status[i]:
                self._refused(store, one, batch.errors[i])
            else:
                self._page(one, bytes(out[i * PAGE : (i + 1) * PAGE]))
                self.totals["true answers below the horizon"] += not before[one.lsn]

    def _page(self, one: Asked, page: bytes) -> None:
        sight = self.model.at(one.lsn)
        size = sight.sizes.get(one.relation)
        assert size is not None, f"{one} was answered: there is no such relation"
        assert one.block < size, f"{one} was answered: there are {size} blocks"
        want = sight.pages.get((one.relation, one.block))
        found = content_of(page)
        assert found == _seen(want), f"{one}: expected {want}, found {found}"

    def _refused(self, store: PageStore, one: Asked, error: str) -> None:
        if BELOW in error:
            self.totals["reads refused"] += 1
            assert not self.retained(store, one.lsn), f"{one} is retained, but: {error}"
            return
        if AWAY in error:
            assert self.is_away(), f"{one}: {error}"
            self.totals["reads of a bucket that did not answer"] += 1
            return
        sight = self.model.at(one.lsn)
        size = sight.sizes.get(one.relation)
        if size is None:
            assert "no main fork" in error or self.is_damaged, f"{one}: {error}"
        elif one.block >= size:
            assert f"it has {size} blocks" in error or self.is_damaged, f"{one}: {error}"
        elif sight.pages.get((one.relation, one.block)) == UNREADABLE:
            assert "custom200" in error or self.is_damaged, f"{one}: {error}"
            self.totals["unreadable pages"] += 1
        else:
            assert self.is_damaged, f"{one}: {error}"
            self.totals["damage found by reads"] += 1

    # What else there is

    def others(self, store: PageStore, lsn: int) -> None:
        """Sizes, transactions and files at an LSN."""
        sight = self.model.at(lsn)
        answered = 0
        try:
            for relation in RELATIONS:
                size = sight.sizes.get(relation)
                assert store.exists(*relation, 0, lsn) == (size is not None), relation
                if size is not None:
                    assert store.nblocks(*relation, 0, lsn) == size, f"{relation} at {lsn:X}"
            listed = {(one[0], one[1], one[2]): one[4] for one in store.relations(lsn)}
            assert listed == sight.sizes, f"relations at {lsn:X}"
            self._statuses(store, lsn, sight.status)
            want = sight.files.get(MAP)
            assert (MAP in store.files(lsn)) == (want is not None), f"files at {lsn:X}"
            if want is not None:
                assert store.file(MAP, lsn) == want, f"{MAP} at {lsn:X}"
            answered = 1
        except RequestError as error:
            self._no_answer(store, lsn, str(error))
        except (CorruptionError, OSError) as error:
            if not self.is_excused(error):
                raise
        self.totals["sizes read"] += answered

    def _no_answer(self, store: PageStore, lsn: int, error: str) -> None:
        due = self.retained(store, lsn) and not self.is_damaged
        assert not due, f"{lsn:X} is retained, but: {error}"
        assert BELOW in error or self.is_damaged, error

    def _statuses(self, store: PageStore, lsn: int, status: dict[int, dict[int, int]]) -> None:
        listed = [segment for kind, segment, _ in store.slru_segments(lsn) if kind == 0]
        assert listed == sorted(status), f"segments of pg_xact at {lsn:X}"
        for segment in listed:
            data = store.slru_segment(0, segment, lsn)
            for xid in XIDS:
                if xid // XIDS_PER_SEGMENT == segment:
                    at, place = divmod(xid % XIDS_PER_SEGMENT, 4)
                    found = data[at] >> 2 * place & 3 if at < len(data) else 0
                    want = status[segment].get(xid, 0)
                    assert found == want, f"transaction {xid} at {lsn:X}"

    def time(self, store: PageStore, seconds: float, checkpoint_seconds: float) -> None:
        """The LSN of the state as of a time that no transaction ended at."""
        time = round((seconds - POSTGRES_EPOCH_SECONDS) * 1_000_000)
        horizon, ready = store.horizon_lsn, store.ready_lsn
        try:
            found = store.commit_times.lsn_at(time)
        except (CorruptionError, OSError) as error:
            if not self.is_excused(error):
                raise
            return
        if (horizon, ready) != (store.horizon_lsn, store.ready_lsn):
            return  # both answers may be right
        later = self.model.first_above(time)
        if later is None or later.end > ready:
            assert found in (ready, None), f"LSN at {time}: {found}"
        elif later.end <= horizon:
            assert found is None, f"LSN at {time}: {found}, below the horizon"
        elif seconds > checkpoint_seconds + 1:
            assert found == max(later.start, horizon), f"LSN at {time}: {found}"
        self.totals["times read"] += 1

    def some(self, random: Random, store: PageStore, blocks: tuple[int, ...]) -> None:
        """A read of a few pages, and perhaps of the rest, at LSNs that anybody may ask for."""
        lsns = [self.some_lsn(random, store) for _ in range(random.randint(1, 3))]
        asked = [
            Asked(random.choice(RELATIONS), random.choice((*blocks, blocks[-1] + 1)),
                  random.choice(lsns))
            for _ in range(random.randint(1, 10))
        ]  # fmt: skip
        self.pages(store, asked)
        if random.random() < 0.3:
            self.others(store, random.choice(lsns))

    def some_lsn(self, random: Random, store: PageStore) -> int:
        """One that anybody may ask for: mostly where a record ends, or just below."""
        where = random.random()
        if where < 0.25:
            return store.ready_lsn
        if where < 0.4:
            return store.horizon_lsn
        if where < 0.6 and (held := self.held(store)):
            return random.choice(held)
        lowest = self.model.lsns[0] if where > 0.9 else store.horizon_lsn
        lsn = random.randint(lowest, max(lowest, store.ready_lsn))
        edge = self.model.lsns[bisect_right(self.model.lsns, lsn) - 1]
        return max(lowest, random.choice((lsn, edge - 1, edge, edge)))


def _seen(content: Content | None) -> Content | None:
    """What `content_of` says of a page: tuples lie over the mark."""
    return Content(0, content.tuples) if content is not None and content.tuples else content
