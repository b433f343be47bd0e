"""What garbage.py lets go is never visited by a read that may come, and what it keeps is.

The oracle is the read rule itself, asked at every LSN that may be asked for, one after the other.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from engine import garbage
from formats.index_value import Cut

LSN_MAX = 10
LSNS = st.integers(1, LSN_MAX)
RETAINED = st.lists(LSNS, max_size=4)


class Stripe(NamedTuple):
    """`images`: (LSN, fuzzy); `deltas`: the LSNs of each one's versions; `cuts`: of all blocks."""

    images: list[tuple[int, bool]]
    deltas: list[list[int]]
    cuts: list[int]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(min(lsns), max(lsns) + 1) for lsns in self.deltas]

    def visited(self, lsn: int) -> tuple[set[int], set[int]]:
        """The places of the image layers and of the delta layers that a read at `lsn` needs.

        It is for all blocks of the stripe: there is nothing in a delta that it can do without.
        """
        floor = max((cut for cut in self.cuts if cut <= lsn), default=0)
        base = max((at for at, _ in self.images if floor < at <= lsn), default=floor)
        images = {i for i, (at, _) in enumerate(self.images) if at == base > floor}
        fuzzy = any(self.images[i][1] for i in images)
        deltas = {
            i
            for i, lsns in enumerate(self.deltas)
            if any(base < at <= lsn or fuzzy and at == base for at in lsns)
        }
        return images, deltas


def asked(retained: Iterable[int], horizon: int) -> set[int]:
    """Every LSN at which a read may come."""
    return {*retained, *range(horizon, LSN_MAX + 2)}


def visited(stripe: Stripe, lsns: Iterable[int]) -> tuple[set[int], set[int]]:
    images, deltas = set[int](), set[int]()
    for lsn in lsns:
        found = stripe.visited(lsn)
        images |= found[0]
        deltas |= found[1]
    return images, deltas


def places(flags: Sequence[bool]) -> set[int]:
    return {i for i, flag in enumerate(flags) if flag}


IMAGES = st.lists(st.tuples(LSNS, st.booleans()), max_size=5)
CUTS = st.lists(LSNS, max_size=2)
DELTAS = st.lists(st.lists(LSNS, min_size=1, max_size=5), max_size=8)
DENSE = st.lists(
    st.tuples(LSNS, st.integers(1, 5)).map(lambda run: list(range(run[0], sum(run)))), max_size=8
)


@settings(max_examples=500)
@given(st.builds(Stripe, IMAGES, DELTAS, CUTS), RETAINED, LSNS)
def test_no_read_visits_what_goes(stripe: Stripe, retained: list[int], horizon: int) -> None:
    kept = garbage.needed(stripe.images, stripe.ranges, retained, horizon, stripe.cuts)
    images, deltas = visited(stripe, asked(retained, horizon))
    assert images <= places(kept.images)
    assert deltas <= places(kept.deltas)


@settings(max_examples=500)
@given(st.builds(Stripe, IMAGES, DENSE, CUTS), RETAINED, LSNS)
def test_what_stays_is_visited(stripe: Stripe, retained: list[int], horizon: int) -> None:
    """Of layers with a version at each LSN of their range, which is all that the rule knows.

    What is above the horizon stays at any rate.
    """
    kept = garbage.needed(stripe.images, stripe.ranges, retained, horizon, stripe.cuts)
    images, deltas = visited(stripe, asked(retained, horizon))
    images |= {i for i, (lsn, _) in enumerate(stripe.images) if lsn > horizon}
    deltas |= {i for i, lsns in enumerate(stripe.deltas) if max(lsns) > horizon}
    assert images == places(kept.images)
    assert deltas == places(kept.deltas)


@settings(max_examples=500)
@given(st.builds(Stripe, IMAGES, DELTAS, CUTS), RETAINED, st.lists(LSNS, min_size=2, max_size=4))
def test_a_collector_that_comes_back_loses_nothing(
    stripe: Stripe, retained: list[int], horizons: list[int]
) -> None:
    """The horizon advances, points are dropped: what stays is each time what is looked at next."""
    for horizon in sorted(horizons):
        lsns = asked(retained, horizon)
        before = [stripe.visited(lsn) for lsn in sorted(lsns)]
        kept = garbage.needed(stripe.images, stripe.ranges, retained, horizon, stripe.cuts)
        old = stripe
        stripe = stripe._replace(
            images=[stripe.images[i] for i in sorted(places(kept.images))],
            deltas=[stripe.deltas[i] for i in sorted(places(kept.deltas))],
        )
        for lsn, (images, deltas) in zip(sorted(lsns), before, strict=True):
            now_images, now_deltas = stripe.visited(lsn)
            assert [old.images[i] for i in sorted(images)] == [
                stripe.images[i] for i in sorted(now_images)
            ]
            assert [old.deltas[i] for i in sorted(deltas)] == [
                stripe.deltas[i] for i in sorted(now_deltas)
            ]
        retained = retained[1:]


class History(NamedTuple):
    """A relation's changes: `lsn_first`, and the cuts."""

    lsn_first: int
    cuts: tuple[Cut, ...]

    def exists(self, lsn: int) -> bool:
        """From its first change on, until a cut says that it does not."""
        before = [cut for cut in self.cuts if cut.lsn <= lsn]
        return before[-1].exists if before else lsn >= self.lsn_first


@st.composite
def histories(draw: st.DrawFn) -> History:
    lsns = sorted(draw(st.sets(LSNS, min_size=1, max_size=8)))
    cuts = []
    for lsn in lsns[draw(st.integers(0, 1)) :]:
        exists = draw(st.booleans())
        cuts.append(Cut(lsn, draw(st.integers(0, 3)) if exists else 0, exists))
    return History(lsns[0], tuple(cuts))


@settings(max_examples=500)
@given(histories(), RETAINED, LSNS)
def test_a_relation_is_forgotten_when_no_read_finds_it(
    history: History, retained: list[int], horizon: int
) -> None:
    found = any(history.exists(lsn) for lsn in asked(retained, horizon))
    forgotten = garbage.is_forgotten(history.cuts, history.lsn_first, retained, horizon)
    assert forgotten is (not found and history.cuts[-1].lsn <= horizon)


CUTS_OF = st.lists(st.tuples(LSNS, st.integers(0, 4)), max_size=8, unique_by=lambda cut: cut[0])


@settings(max_examples=1000)
@given(CUTS_OF.map(sorted), RETAINED, LSNS)
def test_cuts_that_a_read_may_ask_for(
    cuts: list[tuple[int, int]], retained: list[int], horizon: int
) -> None:
    """The oracle: the cut that each reader of each block finds, at each LSN that it may ask for."""
    wanted = set()
    for lsn in asked(retained, horizon):
        for block in range(6):
            below = [cut for cut in cuts if cut[0] <= lsn and cut[1] <= block]
            wanted.update(below[-1:])
    needed = garbage.needed_cuts(cuts, retained, horizon)
    above = {cut for cut in cuts if cut[0] > horizon}
    assert {cut for cut, stays in zip(cuts, needed, strict=True) if stays} == wanted | above
