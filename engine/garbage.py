"""Which layers and relations nobody needs any more: sets of LSNs only, no files.

Reads come at the *retained* LSNs (points, leases) and at any LSN from the horizon on. Each starts
from a *base*, the newest image layer of the stripe at or below it, and takes what delta layers
have above that:

    LSN   ──────────┬───────────────┬────────────────┬──────────────>
    image           X1              X2               X3
    deltas     [aaaaa)[bbbbb)[ccccccc)[dddddd)[eeeeeeeeeee)[ffff...
    asked                     r          H, and all above it
    needed          X1, b, c            X2, d, e, f and X3

A cut that took all of the stripe's blocks away (a truncation, a drop) ends a read as an image does,
and there is nothing under it to keep. Cuts themselves go as well when no read wants them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from formats.index_value import Cut

Askers = tuple[int, int] | None
"""The lowest and the highest LSN asked for that need a layer."""


class Needed(NamedTuple):
    """Of each layer, in the order in which they were given, whether it must stay."""

    images: list[bool]
    deltas: list[bool]


class AskedFor(NamedTuple):
    """Of each layer, in the order in which they were given, who needs it; None: it may go."""

    images: list[Askers]
    deltas: list[Askers]


def needed(
    images: Sequence[tuple[int, bool]],
    deltas: Sequence[tuple[int, int]],
    retained: Sequence[int],
    horizon: int,
    cuts: Sequence[int] = (),
) -> Needed:
    """Which layers of one stripe a read at a retained LSN or from the horizon on may visit.

    `images`: (LSN, whether it is fuzzy); over a fuzzy one, deltas at exactly its LSN count.
    `deltas`: (lsn_start, lsn_end), half-open. `cuts`: LSNs at which no block of the stripe was
    left. Image layers above the horizon always stay. Nothing needs to be sorted.
    """
    found = asked_for(images, deltas, retained, horizon, cuts)
    return Needed(
        [askers is not None for askers in found.images],
        [askers is not None for askers in found.deltas],
    )


def asked_for(
    images: Sequence[tuple[int, bool]],
    deltas: Sequence[tuple[int, int]],
    retained: Sequence[int],
    horizon: int,
    cuts: Sequence[int] = (),
) -> AskedFor:
    """The same, with the retained LSNs that need each layer; the horizon stands for itself and all
    above it."""
    lows: dict[int, int] = {}  # base -> the lowest LSN of a version that counts above it
    for lsn, is_fuzzy in images:
        lows[lsn] = min(lows.get(lsn, lsn + 1), lsn if is_fuzzy else lsn + 1)
    lows.update((lsn, lsn + 1) for lsn in cuts)
    asked = _asked(retained, horizon)
    bases = _at_or_below(sorted(lows), asked)
    asks_of = _first_and_last(bases, asked)
    for lsn in cuts:
        asks_of.pop(lsn, None)
    pairs = zip((0 if base is None else lows[base] for base in bases), asked, strict=True)
    # Who asks for the very LSN of its base takes nothing of deltas, even of one on both its sides.
    takers = [(low, lsn) for low, lsn in pairs if low <= lsn or lsn == horizon]
    low_of, asked = [low for low, _ in takers], [lsn for _, lsn in takers]
    last = len(asked) - 1
    found: list[Askers] = []
    for start, end in deltas:
        # Bases rise with the LSN asked for: those that are too high for this layer come last.
        first = min(bisect_left(asked, start), last)
        past = bisect_left(low_of, end)
        found.append((asked[first], asked[past - 1]) if first < past else None)
    above = horizon, horizon
    return AskedFor([above if lsn > horizon else asks_of.get(lsn) for lsn, _ in images], found)


def is_forgotten(
    cuts: Sequence[Cut], lsn_first: int, retained: Sequence[int], horizon: int
) -> bool:
    """Whether a relation, SLRU segment or file exists at no LSN that can be asked for.

    All its layers and all its history may go then, for without any it does not exist either.
    `cuts`: oldest first; `lsn_first`: the lowest LSN in its history, before which it did not exist.
    """
    if not cuts:
        return False
    for lsn in _asked(retained, horizon):
        at = bisect_right(cuts, lsn, key=_lsn) - 1
        if cuts[at].exists if at >= 0 else lsn >= lsn_first:
            return False
    return cuts[-1].lsn <= horizon


def needed_cuts(
    cuts: Sequence[tuple[int, int]], retained: Sequence[int], horizon: int
) -> list[bool]:
    """Of each cut (LSN, blocks), oldest first, whether a read that can be asked for may want it.

    It wants the last cut at or below its LSN with no more blocks than the number of the one it
    reads. So a cut is of no use where a later one, that leaves no more, comes before the first LSN
    that is asked for. What is left below each of these has more blocks from cut to cut.
    """
    asked = _asked(retained, horizon)
    found, later = [False] * len(cuts), list[tuple[int, int]]()  # with fewer blocks, the older
    for place in range(len(cuts) - 1, -1, -1):
        lsn, n_blocks = cuts[place]
        while later and later[-1][1] > n_blocks:
            later.pop()
        reader = asked[bisect_left(asked, lsn)] if lsn <= horizon else lsn
        found[place] = not later or reader < later[-1][0]
        later.append(cuts[place])
    return found


def _asked(retained: Sequence[int], horizon: int) -> list[int]:
    """The retained LSNs below the horizon, rising, and it; the last stands for all above it."""
    return sorted({lsn for lsn in retained if lsn < horizon} | {horizon})


def _at_or_below(rising: Sequence[int], asked: Sequence[int]) -> list[int | None]:
    """Of each LSN asked for, the highest of some LSNs that is no higher, if there is one."""
    places = (bisect_right(rising, lsn) for lsn in asked)
    return [rising[place - 1] if place else None for place in places]


def _first_and_last(
    bases: Sequence[int | None], asked: Sequence[int]
) -> dict[int | None, tuple[int, int]]:
    """Of each base the first and the last LSN that is read from it."""
    found: dict[int | None, tuple[int, int]] = {}
    for base, lsn in zip(bases, asked, strict=True):
        first, _ = found.get(base, (lsn, lsn))
        found[base] = first, lsn
    return found


def _lsn(cut: Cut) -> int:
    return cut.lsn
